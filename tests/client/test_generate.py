"""`gen3c generate` against a real Triton server: results, failures, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from gen3c_client.contract import TraceParent
from triton_peer import Peer

pytestmark = pytest.mark.server
Run = Callable[..., Any]


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_job_leaves_its_files_and_tells_where(run: Run, peer: Peer, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = run("generate", photo, "--url", peer.url, "--output", out, "--save", "points,video", "--seed", 5)
    assert ended.code == 0
    assert visible(out) == ["points.ply", "video.mp4"]
    assert (out / "video.mp4").read_bytes() == b"video of seed 5 " * 200
    assert f"{out / 'video.mp4'}  3.2 kB" in ended.out
    assert "Seed 5, " in ended.out
    assert "Preset peer, weights dit: untrained, seed 0" in ended.out
    assert "denoising 3/3" in ended.err
    last = ended.err.splitlines()[-1]
    assert last == "NOTE: untrained weights: the picture means nothing"


def test_cameras_and_geometry_reach_the_server(run: Run, peer: Peer, photo: Path, tmp_path: Path) -> None:
    poses = [{"w2c": np.eye(4).tolist()}] * 2
    (tmp_path / "path.json").write_text(json.dumps({"frame": "world", "poses": poses}))
    K = np.diag([5.0, 5.0, 1.0])[None]
    np.savez(tmp_path / "g.npz", depth=np.ones((1, 6, 8), np.float32), w2c=np.eye(4)[None], K=K)
    flags = (
        "--cameras",
        tmp_path / "path.json",
        "--geometry-file",
        tmp_path / "g.npz",
        "--json",
        "--output",
        tmp_path / "o",
    )
    events = [json.loads(line) for line in run("generate", photo, "--url", peer.url, *flags).out.splitlines()]
    received = events[-1]["provenance"]["received"]
    assert received["geometry"] == [(tmp_path / "g.npz").stat().st_size]
    assert received["spec"]["geometry"]["provider"] == "file"
    assert [p["w2c"] for p in received["spec"]["cameras"]["poses"]] == [p["w2c"] for p in poses]


def test_a_json_run_prints_events_and_nothing_else(run: Run, peer: Peer, photo: Path, tmp_path: Path) -> None:
    ended = run("generate", photo, "--url", peer.url, "--output", tmp_path / "out", "--json")
    events = [json.loads(line) for line in ended.out.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds == ["progress", "warning", "progress", "progress", "progress", "artifact", "done"]
    assert events[-2]["path"] == str(tmp_path / "out" / "video.mp4")
    assert ended.err == ""


@pytest.mark.parametrize("given", [f"00-{'a' * 32}-{'b' * 16}-00", "no such thing", None])
def test_a_job_is_part_of_the_trace_of_the_environment_or_of_a_new_one(
    run: Run, peer: Peer, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    monkeypatch.delenv("TRACEPARENT", raising=False)
    if given is not None:
        monkeypatch.setenv("TRACEPARENT", given)
    ended = run("generate", photo, "--url", peer.url, "--output", tmp_path / "out", "--json")
    done = json.loads(ended.out.splitlines()[-1])
    received = done["provenance"]["received"]["traceparent"]
    parent = TraceParent.parse(received)
    assert parent is not None
    assert parent.trace_id == done["trace_id"]
    assert (received == given) == (given is not None and given.startswith("00-"))
    assert parent.sampled == (received != given)
    assert ended.err == ""


def test_a_quiet_run_prints_only_the_warning(run: Run, peer: Peer, photo: Path, tmp_path: Path) -> None:
    ended = run("generate", photo, "--url", peer.url, "--output", tmp_path / "out", "--quiet")
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == "NOTE: untrained weights: the picture means nothing\n"


@pytest.mark.parametrize(
    ("prompt", "code", "sentence"),
    [
        ("error INTERNAL", 1, "num_frames is 7"),
        ("error INVALID_ARG", 2, "num_frames is 7, legal are 25, 49"),
        ("error UNAVAILABLE", 3, "num_frames is 7"),
        ("error CANCELLED", 4, "num_frames is 7"),
        ("error DEADLINE", 5, "num_frames is 7"),
        ("raise bug", 1, "ValueError: a bug"),
        ("silent", 1, "without a result"),
        ("damaged sha", 1, "video.mp4 arrived damaged"),
        ("damaged short", 1, "arrived with 2,499 bytes, announced were 2,500"),
        ("damaged lost", 1, "got part 3 of 3, expected 2 of 3"),
        ("stranger ../../evil.sh", 1, "'../../evil.sh', which was not asked for"),
    ],
)
def test_failures_are_sentences_with_an_exit_code_and_leave_nothing(
    run: Run, peer: Peer, photo: Path, tmp_path: Path, prompt: str, code: int, sentence: str
) -> None:
    out = tmp_path / "new" / "out"
    ended = run("generate", photo, "--url", peer.url, "--output", out, "--prompt", prompt)
    assert ended.code == code
    assert sentence in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "new").exists()


def test_the_timeout_is_exit_code_5_and_cancels_the_job(run: Run, peer: Peer, photo: Path, tmp_path: Path) -> None:
    prompt = f"slow {tmp_path}/cancelled"
    ended = run("generate", photo, "--url", peer.url, "-o", tmp_path / "out", "--prompt", prompt, "--timeout", 0.8)
    assert ended.code == 5
    wait_for(tmp_path / "cancelled")


def test_a_server_that_dies_is_exit_code_3(run: Run, mortal_peer: Peer, photo: Path, tmp_path: Path) -> None:
    prompt = f"die {mortal_peer.pid}"
    ended = run("generate", photo, "--url", mortal_peer.url, "-o", tmp_path / "out", "--prompt", prompt)
    assert ended.code == 3
    assert "the same command can be given again" in ended.err
    assert visible(tmp_path / "out") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_cancels_the_job_and_leaves_nothing(peer: Peer, photo: Path, tmp_path: Path, number: int) -> None:
    process = start(peer, photo, tmp_path, f"slow {tmp_path}/cancelled")
    process.send_signal(number)
    started = time.monotonic()
    assert process.wait(10) == 130
    assert time.monotonic() - started < 3
    assert "Interrupted; the job was cancelled." in read(process.stderr)
    wait_for(tmp_path / "cancelled")
    assert visible(tmp_path / "out") == []


def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path) -> None:
    """A clean-up that hangs is what the second Ctrl-C is for, so this one does."""
    script = (
        "import sys, time\n"
        "from gen3c_client.interrupt import interruptible\n"
        "with interruptible(lambda: print('last words', flush=True)):\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        print('cleaning', flush=True)\n"
        "        time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == b"cleaning\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 130
    assert process.stdout.read() == b"last words\n"


def start(peer: Peer, photo: Path, tmp_path: Path, prompt: str) -> "subprocess.Popen[bytes]":
    """`gen3c generate` as a process of its own, once the job runs and a part of a result has arrived."""
    arguments = ["generate", photo, "--url", peer.url, "-o", tmp_path / "out", "--prompt", prompt]
    command = [sys.executable, "-c", "from gen3c_client.cli import main; main()", *map(str, arguments)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert process.stderr is not None
    while b"denoising" not in (line := process.stderr.readline()):
        assert line, "the client ended early"
    assert [path.suffix for path in (tmp_path / "out").iterdir()] == [".part"]
    return process


def read(stream: IO[bytes] | None) -> str:
    assert stream is not None
    return stream.read().decode()


def wait_for(file: Path, seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < end, f"{file.name} did not appear within {seconds} s"
        time.sleep(0.02)
