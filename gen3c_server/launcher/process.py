"""The processes of one server: Triton and the stubs that run its python models, one process group."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from gen3c_server.launcher.find import STUB
from gen3c_server.launcher.guard import Guard, kill_group, lives_in, living_members, remove_shared_memory

POLL_S = 0.05
# Of a stop's time, kept for SIGKILL and for taking the memory of large models apart.
KILL_RESERVE_S = 2.0


class ServerProcess:
    """Triton in a session of its own, so that one signal reaches it and all its stubs, and Ctrl-C none of them."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        shm_prefix: str,
        remove: Path | None,
    ) -> None:
        """Starts it. `log` takes its output; `remove` is a folder that the guard removes if we are killed."""
        self._shm_prefix = shm_prefix
        with log.open("ab") as output:
            self._triton = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.group = self._triton.pid
        try:
            self._guard = Guard(self.group, shm_prefix, remove)
        except OSError:
            kill_group(self.group, KILL_RESERVE_S)
            raise

    def exit_code(self) -> int | None:
        """Triton's exit code, negative for a signal; None while it runs."""
        return self._triton.poll()

    def stubs(self) -> dict[int, str]:
        """Process id -> model, of the living processes that run the python models."""
        found = {}
        for pid in living_members(self.group):
            try:
                arguments = psutil.Process(pid).cmdline()
            except psutil.NoSuchProcess:
                continue
            # The stub's first argument is <repository>/<model>/<version>/model.py.
            if len(arguments) > 1 and Path(arguments[0]).name == STUB:
                found[pid] = Path(arguments[1]).parent.parent.name
        return found

    def lives(self, pid: int) -> bool:
        """Whether process `pid` of this server still runs."""
        return lives_in(self.group, pid)

    def terminate(self, timeout_s: float, hurry: Callable[[], bool]) -> bool:
        """SIGTERM, and waits for Triton's own exit. False if it still ran at the end, or `hurry` said so."""
        self._triton.send_signal(signal.SIGTERM)
        return wait_until(lambda: self.exit_code() is not None, timeout_s, hurry)

    def kill(self, timeout_s: float) -> bool:
        """Ends every process of the group and removes its shared memory. False if a process outlived it."""
        gone = kill_group(self.group, timeout_s)
        remove_shared_memory(self._shm_prefix)
        if gone:
            self._triton.wait()
            self._reap_orphans()
            # Otherwise the guard goes on trying once we have ended.
            self._guard.disarm()
        return gone

    def _reap_orphans(self) -> None:
        """Takes the stubs' exit codes where their orphans come to us: as a container's first process."""
        try:
            while os.waitpid(-self.group, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return


def wait_until(condition: Callable[[], bool], timeout_s: float, hurry: Callable[[], bool]) -> bool:
    """Polls until `condition` holds: True; or until the time is over or `hurry` holds: False."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if hurry() or time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def describe_exit(code: int) -> str:
    """`exit code 1`, `signal SIGKILL, as the kernel sends when memory runs out`."""
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    hint = ", as the kernel sends when memory runs out" if name == "SIGKILL" else ""
    return f"signal {name}{hint}"
