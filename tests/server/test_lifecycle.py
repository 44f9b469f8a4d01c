"""Cancelling, stopping, starting again: real signals at the real server."""

import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from gen3c_client.contract import Progress
from gen3c_client.errors import JobError
from gen3c_client.transport import Client

from gen3c.samples import COURTYARD
from gen3c_server.launcher import EmbeddedServer
from tests.server.conftest import SmallJob, collect, run
from tests.server.serve_process import EXIT_S, leftovers, serving, wait_until


def jobs(server: EmbeddedServer) -> list[str]:
    return [path.name for path in (server.run.path / "jobs").iterdir()]


def step_seconds(client: Client, job: SmallJob) -> float:
    result = run(client, job, steps=10)
    return result.done.timings_s["denoise"] / 10


def test_closing_a_job_stops_it_within_a_step(server: EmbeddedServer, client: Client) -> None:
    job = SmallJob()
    step = step_seconds(client, job)
    events = client.generate(job.media, job.job_spec(steps=500), geometry=job.geometry)
    for event in events:
        if isinstance(event, Progress) and event.stage == "denoise" and event.step == 2:
            break
    assert len(jobs(server)) == 1
    events.close()
    # The step under way ends, plus the queue's poll of 0.1 s, plus the way of the cancellation.
    assert wait_until(lambda: not jobs(server), 2 * step + 0.5) < 2 * step + 0.5
    assert run(client, job).files["video.mp4"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killing_the_command_line_stops_its_job(
    tmp_path: Path, server: EmbeddedServer, client: Client, how: int
) -> None:
    job = SmallJob()
    step = step_seconds(client, job)
    for i, picture in enumerate(job.media):
        (tmp_path / f"{i}.png").write_bytes(picture)
    (tmp_path / "geometry.npz").write_bytes(job.geometry)
    command = [str(Path(sys.prefix) / "bin" / "gen3c"), "generate", str(tmp_path), "--url", server.grpc_url]
    command += [
        "--geometry-file",
        str(tmp_path / "geometry.npz"),
        "--steps",
        "1000",
        "--json",
        "--output",
        str(tmp_path),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if '"denoise"' in line)
        assert len(jobs(server)) == 1
        process.send_signal(how)
        wait_until(lambda: not jobs(server), 2 * step + 0.5)
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    assert not (tmp_path / "video.mp4").exists()


def geometry_started(client: Client, part: str = "sfm") -> Generator[object, None, None]:
    """A job whose reconstruction has come to the part of that name."""
    spec = SmallJob().job_spec(geometry={"provider": "sfm"}, select={"method": "all", "max_frames": 8})
    events = client.generate([COURTYARD.read_bytes()], spec)
    for event in events:
        if isinstance(event, Progress) and event.stage == "geometry" and event.message.startswith(part):
            return events
    raise AssertionError("no geometry")


def workers(launcher: int | None = None) -> list[psutil.Process]:
    """The reconstruction processes of this process's server, or of the one that `launcher` runs."""
    try:
        children = psutil.Process(launcher).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    found = []
    for process in children:
        with suppress(psutil.NoSuchProcess):
            if "sfm_worker" in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.mark.parametrize("part", ["sfm.pictures", "sfm.matching", "sweep.coarse", "sweep.fine"])
def test_closing_a_job_stops_its_reconstruction_within_a_second(
    server: EmbeddedServer, client: Client, part: str
) -> None:
    """COLMAP works in a child process, the sweep in the model's own."""
    events = geometry_started(client, part)
    events.close()
    assert wait_until(lambda: not jobs(server) and not workers(), 1.5) < 1.5  # 1 s, and the poll and the way there
    assert run(client, SmallJob()).done  # the geometry model is free again


def test_a_job_over_its_time_is_stopped_with_the_figure(client: Client) -> None:
    job = SmallJob()
    with pytest.raises(JobError, match="more than 2 seconds") as caught:
        collect(client.generate(job.media, job.job_spec(steps=1000, timeout_s=2.0), geometry=job.geometry))
    assert caught.value.code == "DEADLINE"


def test_a_second_job_waits_its_turn(client: Client) -> None:
    job = SmallJob()
    first = client.generate(job.media, job.job_spec(steps=30), geometry=job.geometry)
    for event in first:
        if isinstance(event, Progress) and event.stage == "denoise":
            break
    second = client.generate(job.media, job.job_spec(), geometry=job.geometry)
    queued = next(second)
    assert isinstance(queued, Progress)
    assert (queued.stage, queued.total) == ("queued", 1)
    assert collect(second).files["video.mp4"]
    assert collect(first).files["video.mp4"]


def test_a_fresh_server_with_other_limits_gives_the_same_video_and_ends_with_its_jobs_at_sigterm(
    built: Path, tmp_path: Path, client: Client
) -> None:
    """A video and a reconstruction are in flight. Limits and the number of jobs alone need no other build."""
    job = SmallJob()
    here = run(client, job, seed=3).files["video.mp4"]
    (tmp_path / "limits.yaml").write_text("limits: {views: 8}\nrunning_jobs: 2\n")
    with serving(built, tmp_path / "run", "--deployment", str(tmp_path / "limits.yaml")) as served:
        process, url = served.process, served.url
        assert run(Client(url), job, seed=3).files["video.mp4"] == here
        with pytest.raises(JobError, match="8 views"):
            run(Client(url), SmallJob(views=9))
        video = Client(url).generate(job.media, job.job_spec(steps=1000), geometry=job.geometry)
        for event in video:
            if isinstance(event, Progress) and event.stage == "denoise":
                break
        reconstruction = geometry_started(Client(url))
        wait_until(lambda: bool(workers(process.pid)), 10)
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        for events in (video, reconstruction):
            with pytest.raises(JobError, match="shutting down") as caught:
                collect(events)
            assert caught.value.code == "CANCELLED"
        assert process.wait(EXIT_S + 5) == 0
        took = time.monotonic() - started
        assert took < EXIT_S, served.lines()
        told = served.lines()
        ended = {line["job_id"]: line["outcome"] for line in told if line["event"] == "job_ended"}
        assert sorted(ended.values()) == ["completed", "invalid", "shutdown", "shutdown"]
        assert {line["job_id"] for line in told if "job_id" in line} == set(ended)
        assert any("Stopping" in line["message"] for line in told if line["event"] == "server")
        assert leftovers(process.pid) == ([], [])
        assert not workers(process.pid)


@pytest.mark.slow
def test_a_fresh_server_gives_the_same_reconstruction(built: Path, tmp_path: Path, client: Client) -> None:
    spec = SmallJob().job_spec(
        geometry={"provider": "sfm"}, select={"method": "all", "max_frames": 5}, save=["video", "points", "geometry"]
    )
    media = [COURTYARD.read_bytes()]
    run(client, SmallJob())  # other requests before
    here = collect(client.generate(media, spec)).files
    with serving(built, tmp_path / "run") as served:
        there = collect(Client(served.url).generate(media, spec)).files
    assert {name for name in here if here[name] != there[name]} == set()
