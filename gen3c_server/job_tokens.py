"""Files in the run directory by which the job queue, the launcher and other models know of jobs."""

import logging
import os
from pathlib import Path

logger = logging.getLogger("gen3c")


class JobTokens:
    """What the job queue writes and reads of a run directory.

    Writing never raises: a full disk must not end the work on all jobs.
    """

    def __init__(self, run_dir: Path) -> None:
        self._jobs, self._cancel = run_dir / "jobs", run_dir / "cancel"
        self._drain, self._restart, self._closed = run_dir / "drain", run_dir / "restart", run_dir / "closed"
        self._progress = run_dir / "progress-made"

    def add(self, job_id: str) -> None:
        """The job lives, in this process: where that is dead, nobody need wait for the job."""
        _write(self._jobs / job_id, str(os.getpid()))

    def cancel(self, job_id: str) -> None:
        """The job should stop; for models that work for it elsewhere."""
        _write(self._cancel / job_id)

    def remove(self, job_id: str) -> None:
        """The job has ended."""
        for folder in (self._cancel, self._jobs):
            try:
                (folder / job_id).unlink(missing_ok=True)
            except OSError:
                logger.exception("job %s: its file in %s stays", job_id, folder.name)

    def made_progress(self) -> None:
        """A job has begun or got on."""
        _write(self._progress)

    def is_draining(self) -> bool:
        """Whether all jobs should stop."""
        return self._drain.exists()

    def is_closed(self) -> bool:
        """Whether the server will be stopped: no job should begin any more."""
        return self._closed.exists()

    def is_restarting(self) -> bool:
        """Whether the server has failed and will be started again: no job should begin any more."""
        return self._restart.exists()


def _write(path: Path, text: str = "") -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError:
        logger.exception("the token %s cannot be written", path.name)
