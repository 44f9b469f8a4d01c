"""The scratch folder of one server, and the token files in it that launcher and models share.

<run_dir>/drain      while it exists, models stop running jobs soon and refuse new ones
<run_dir>/closed     while it exists, models refuse new jobs and those that wait; made by `gen3c drain`
<run_dir>/restart    a failed server is about to be restarted: as drain, but running jobs go on until that is there, too
<run_dir>/jobs/      one file a job that has not ended, kept by the job model; it holds the id of the job's process
<run_dir>/progress-made   touched by the job model whenever a job begins or gets on
<run_dir>/shm-prefix how the names of the server's shared memory begin
<run_dir>/client-ca.pem   whose certificates Triton trusts, with mutual TLS
<run_dir>/gen3c.lock      held by the launcher
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

from gen3c_server.launcher.errors import PreflightError
from gen3c_server.launcher.find import STUB, TritonInstall
from gen3c_server.launcher.guard import has_ended, remove_shared_memory
from gen3c_server.launcher.security import TRUSTED_CLIENTS

VARIABLE = "GEN3C_RUN_DIR"
LOCK, CLOSED = "gen3c.lock", "closed"
SHM_PREFIX = re.compile(r"gen3c-\d+-[0-9a-f]{8}-")


class RunDirectory:
    """Owns the folder from construction to `remove`.

    Raises PreflightError if the folder is not usable: in use by another server, or full of somebody's files.
    """

    def __init__(self, path: Path | None) -> None:
        self.temporary = path is None
        try:
            self.path = Path(tempfile.mkdtemp(prefix="gen3c-")) if path is None else path.resolve()
            self.path.mkdir(parents=True, exist_ok=True)
            foreign = any(self.path.iterdir()) and not (self.path / LOCK).exists()
            if foreign:
                raise PreflightError(
                    f"The folder {self.path} is not empty and was not made by gen3c serve; "
                    "the run directory must be a new or an empty folder."
                )
            self._lock = (self.path / LOCK).open("w")
        except OSError as error:
            raise PreflightError(
                f"The run directory {path or tempfile.gettempdir()} is not usable: {error}."
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise PreflightError(f"The run directory {self.path} is in use by another gen3c server.") from error
        # What a killed launcher may have left in a folder that is used again. Memory, too: where a whole container is
        # killed, the guard is among the dead, and a volume at /dev/shm outlives it.
        if SHM_PREFIX.fullmatch(prefix := self._shm_prefix_left()):
            remove_shared_memory(prefix)
        self._remove_ours()
        self.jobs.mkdir()

    @property
    def jobs(self) -> Path:
        return self.path / "jobs"

    @property
    def drain(self) -> Path:
        return self.path / "drain"

    @property
    def restart(self) -> Path:
        return self.path / "restart"

    @property
    def closed(self) -> Path:
        return self.path / CLOSED

    @property
    def log(self) -> Path:
        return self.path / "triton.log"

    def note_shared_memory(self, prefix: str) -> None:
        """Keeps how the names of the server's shared memory begin, for whoever uses the folder after a kill."""
        (self.path / "shm-prefix").write_text(prefix)

    def _shm_prefix_left(self) -> str:
        try:
            return (self.path / "shm-prefix").read_text()
        except FileNotFoundError:
            return ""

    def running_jobs(self) -> int:
        """How many jobs the models say have not ended, but for those whose process is dead."""
        return running_jobs(self.path)

    def makes_progress(self, within_s: float) -> bool:
        """Whether there are jobs, and one of them has got on in the last `within_s` seconds."""
        try:
            age_s = time.time() - (self.path / "progress-made").stat().st_mtime
        except FileNotFoundError:
            return False
        return age_s < within_s and self.running_jobs() > 0

    def backends(self, install: TritonInstall) -> Path:
        """The backend folder to serve with: the installation's own, or symlinks to it plus the stub.

        The python backend finds its stub only in its own folder, and the wheel keeps the stubs elsewhere.
        """
        if install.stub_is_in_place:
            return install.backends
        folder = self.path / "backends"
        for backend in install.backends.iterdir():
            (folder / backend.name).mkdir(parents=True)
            for file in backend.iterdir():
                if file.name != "__pycache__":
                    (folder / backend.name / file.name).symlink_to(file)
        (folder / "python" / STUB).symlink_to(install.stub)
        return folder

    def library_path(self, libpython: Path) -> Path:
        """A folder that holds `libpython` alone, for LD_LIBRARY_PATH.

        The folder where it lives may hold another libstdc++ or libssl than Triton wants (conda does).
        """
        folder = self.path / "lib"
        folder.mkdir()
        (folder / libpython.name).symlink_to(libpython)
        return folder

    def remove(self) -> None:
        """A temporary folder goes; of a given one, everything but the log and the mark."""
        self._lock.close()
        if self.temporary:
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self._remove_ours()

    def _remove_ours(self) -> None:
        for name in ("backends", "lib", "jobs", "cancel", "progress", "tmp"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        tokens = (self.drain, self.restart, self.closed, self.path / "progress-made", self.path / "shm-prefix")
        for file in (*tokens, self.path / TRUSTED_CLIENTS):
            file.unlink(missing_ok=True)


def running_jobs(run_dir: Path) -> int:
    """As of a RunDirectory, for who does not own it."""
    jobs = run_dir / "jobs"
    return sum(_is_alive(path) for path in jobs.iterdir()) if jobs.is_dir() else 0


def close_to_jobs(run_dir: Path) -> bool:
    """Have the server of this folder refuse jobs that have not begun. False if the folder is no server's."""
    if not (run_dir / LOCK).exists():
        return False
    (run_dir / CLOSED).touch()
    return True


def _is_alive(job: Path) -> bool:
    """Whether the process that a job's file names lives; a file that names none is believed."""
    try:
        owner = job.read_text()
    except FileNotFoundError:
        return False
    return not owner.isdecimal() or not has_ended(int(owner))


def server_environment(prefix: Path, library_path: Path, run_dir: Path, extra: dict[str, str]) -> dict[str, str]:
    """The environment of Triton: ours, with this Python first on PATH, its libpython, and the run directory."""
    environment = {**os.environ, **extra}
    inherited = environment.get("LD_LIBRARY_PATH")
    environment["LD_LIBRARY_PATH"] = f"{library_path}:{inherited}" if inherited else str(library_path)
    environment["PATH"] = f"{prefix / 'bin'}:{environment.get('PATH', os.defpath)}"
    environment[VARIABLE] = str(run_dir)
    # What models write and a kill would leave behind goes away with the run directory.
    scratch = run_dir / "tmp"
    scratch.mkdir(exist_ok=True)
    environment["TMPDIR"] = str(scratch)
    # Several models share the cores. OpenMP threads that spin while they wait take them from whoever works: measured
    # 10 to 30 times slower as soon as anything else runs.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return environment
