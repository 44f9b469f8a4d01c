"""What must be gone when a server is gone, and a small process that sees to it when the launcher cannot.

The guard is this file run by itself: it waits on a pipe from the launcher. If the pipe closes without a word, the
launcher was killed, and the guard kills the server's process group, its shared memory and its run directory.
PR_SET_PDEATHSIG would end only Triton, not its stubs, and fires when the *thread* that started it ends.

Only the standard library, so that the guard stays small.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

SHM = Path("/dev/shm")


def living_members(group: int) -> list[int]:
    """The processes of process group `group` that have not ended."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in pids if lives_in(group, pid)]


def lives_in(group: int, pid: int) -> bool:
    """Whether process `pid` runs and belongs to process group `group`. A zombie has ended."""
    state, of_group = _state_and_group(pid)
    return of_group == group and state not in "ZX"


def has_ended(pid: int) -> bool:
    """Whether there is no process `pid`, or only a zombie of it."""
    return _state_and_group(pid)[0] in "ZX"


def _state_and_group(pid: int) -> tuple[str, int]:
    """The letter of a process's state, X if it is gone, and its process group."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "X", 0
    # After the program's name in parentheses, which may hold anything: state, parent, group.
    state, _, group = stat.rpartition(")")[2].split()[:3]
    return state, int(group)


def kill_group(group: int, timeout_s: float) -> bool:
    """SIGKILL to the whole process group, until no member lives. False if some still do after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while living_members(group):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def remove_shared_memory(prefix: str) -> int:
    """Removes the POSIX shared memory regions whose names start with `prefix`; says how many there were."""
    regions = list(SHM.glob(f"{prefix}*"))
    for region in regions:
        region.unlink(missing_ok=True)
    return len(regions)


class Guard:
    """The launcher's end: `disarm` when the server was stopped properly."""

    def __init__(self, group: int, shm_prefix: str, remove: Path | None) -> None:
        """Guards process group `group`; `remove` is the folder that goes with it, None to keep it."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(group), shm_prefix, str(remove or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def disarm(self) -> None:
        """Ends the guard without its doing anything."""
        # A guard that somebody killed has nothing more to be told.
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(b"done")


def main(group: int, shm_prefix: str, remove: str) -> None:
    """Waits for the launcher's word; without one, cleans up after it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.stdin.buffer.read():
        return
    kill_group(group, timeout_s=30)
    remove_shared_memory(shm_prefix)
    if remove:
        shutil.rmtree(remove, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
