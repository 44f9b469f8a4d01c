"""`gen3c drain`: a server that is about to be stopped ends its jobs first."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gen3c_client.contract import Progress
from gen3c_client.errors import JobError
from gen3c_client.transport import Client

from gen3c_server.launcher import EmbeddedServer
from tests.server.conftest import SmallJob, collect, run

DRAIN = [str(Path(sys.prefix) / "bin" / "gen3c"), "drain", "--run-dir"]


@pytest.fixture
def run_dir(server: EmbeddedServer) -> Iterator[Path]:
    """Of the server that other tests use, too: open again at the end."""
    yield server.run.path
    server.run.closed.unlink(missing_ok=True)


def drain(run_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DRAIN, run_dir, *options], capture_output=True, text=True, timeout=60, check=False)


def test_a_drained_server_ends_its_job_and_takes_no_other(run_dir: Path, client: Client) -> None:
    job = SmallJob()
    at_work = client.generate(job.media, job.job_spec(steps=100), geometry=job.geometry)
    for event in at_work:
        if isinstance(event, Progress) and event.stage == "denoise":
            break
    waiting = client.generate(job.media, job.job_spec(), geometry=job.geometry)
    next(waiting)

    ended = drain(run_dir, "--timeout", "0")
    assert ended.returncode == 1
    assert ended.stderr == "1 job(s) did not end within 0 seconds.\n"  # the other one has ended
    with pytest.raises(JobError, match="the job had not begun; send it again") as refused:
        collect(waiting)
    assert refused.value.code == "UNAVAILABLE"
    with pytest.raises(JobError, match="shutting down; try another one") as refused:
        run(client, job)
    assert refused.value.code == "UNAVAILABLE"

    with subprocess.Popen([*DRAIN, run_dir], stdout=subprocess.PIPE, text=True) as patient:
        assert collect(at_work).files["video.mp4"]
        assert patient.communicate(timeout=30) == ("No job is left.\n", None)
    assert patient.returncode == 0


def test_it_takes_the_time_that_clients_need(run_dir: Path) -> None:
    started = time.monotonic()
    ended = drain(run_dir, "--at-least", "3")
    assert time.monotonic() - started > 3
    assert (ended.returncode, ended.stdout) == (0, "No job is left.\n")


def test_a_folder_of_no_server_is_refused(tmp_path: Path) -> None:
    ended = drain(tmp_path)
    assert ended.returncode == 1
    assert ended.stderr == f"The folder {tmp_path} is not the run directory of a server.\n"
    assert not list(tmp_path.iterdir())
