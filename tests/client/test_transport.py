"""The client against a real Triton server."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gen3c_client.connection import Tls
from gen3c_client.contract import Done, GeometryOptions, JobSpec, Notice, Progress
from gen3c_client.errors import InputError, JobError
from gen3c_client.transport import MAX_MESSAGE_BYTES, ArtifactData, Client, JobEvent, check_upload
from triton_peer import Peer

server = pytest.mark.server
PHOTO = b"\xff\xd8\xff\xe0 photo"


def run(peer: Peer, prompt: str, **more: Any) -> list[JobEvent]:
    return list(Client(peer.url).generate([PHOTO], JobSpec(prompt=prompt), **more))


def wait_for(file: Path, seconds: float = 5) -> str:
    """The content of `file`, as soon as there is any."""
    end = time.monotonic() + seconds
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < end, f"{file.name} did not appear within {seconds} s"
        time.sleep(0.02)
    return file.read_text()


@server
def test_a_job_sends_all_its_tensors_and_yields_its_events_in_order(peer: Peer) -> None:
    w2c = np.stack([np.eye(4)] * 2)
    w2c[1, 0, 3] = 0.25
    K = np.stack([np.diag([100.0, 100.0, 1.0])] * 2)
    media = [b"one", bytes(300_000), b"three"]
    spec = JobSpec(seed=9, geometry=GeometryOptions(provider="file"), save=["video", "points"], names=["a", "b", "c"])
    events = list(Client(peer.url).generate(media, spec, cameras_w2c=w2c, cameras_k=K, geometry=b"npz" * 7))

    assert [type(e) for e in events[:2]] == [Progress, Notice]
    parts = [e for e in events if isinstance(e, ArtifactData)]
    video = b"".join(p.data for p in parts if p.artifact.name == "video.mp4")
    assert video == b"video of seed 9 " * 200
    assert hashlib.sha256(video).hexdigest() == parts[0].artifact.sha256
    done = events[-1]
    assert isinstance(done, Done)
    received: Any = done.provenance["received"]
    assert received["media"] == [hashlib.sha256(m).hexdigest() for m in media]
    assert received["cameras"] == [w2c.tolist(), K.tolist()]
    assert received["geometry"] == [21]
    assert JobSpec.model_validate(received["spec"]) == spec


@server
@pytest.mark.parametrize("code", ["INVALID_ARG", "UNAVAILABLE", "CANCELLED", "DEADLINE", "INTERNAL"])
def test_an_error_event_arrives_with_its_code_and_field(peer: Peer, code: str) -> None:
    with pytest.raises(JobError) as error:
        run(peer, f"error {code} num_frames")
    assert (error.value.code, error.value.field) == (code, "num_frames")
    assert str(error.value) == "num_frames is 7, legal are 25, 49"


@server
def test_an_error_without_an_event_is_still_a_sentence_without_server_paths(peer: Peer) -> None:
    with pytest.raises(JobError, match=r"^the job ran over its 5 seconds$") as error:
        run(peer, "raise status")
    assert error.value.code == "DEADLINE"
    with pytest.raises(JobError, match="ValueError: a bug") as error:
        run(peer, "raise bug")
    assert error.value.code == "INTERNAL"
    assert "model.py" not in str(error.value)


@server
def test_a_job_that_ends_without_result_is_an_error(peer: Peer) -> None:
    with pytest.raises(JobError, match="without a result and without an error"):
        run(peer, "silent")


@server
def test_closing_the_generator_cancels_the_job_at_its_next_step(peer: Peer, tmp_path: Path) -> None:
    with closing(Client(peer.url).generate([PHOTO], JobSpec(prompt=f"slow {tmp_path}/cancelled"))) as events:
        for event in events:
            if isinstance(event, Progress) and event.step == 2:
                break
    started = time.monotonic()
    assert wait_for(tmp_path / "cancelled").startswith("cancelled after step")
    assert time.monotonic() - started < 1.5  # a step is 0.1 s


@server
def test_the_timeout_cancels_the_job(peer: Peer, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"within the timeout of 0\.7 s") as error:
        run(peer, f"slow {tmp_path}/cancelled", timeout=0.7)
    assert error.value.code == "DEADLINE"
    wait_for(tmp_path / "cancelled")


@server
def test_a_job_waiting_behind_another_can_be_cancelled_before_it_begins(peer: Peer, tmp_path: Path) -> None:
    with closing(Client(peer.url).generate([PHOTO], JobSpec(prompt=f"slow {tmp_path}/first"))) as first:
        next(first)
        with pytest.raises(JobError) as error:
            run(peer, f"slow {tmp_path}/second", timeout=0.3)
        assert error.value.code == "DEADLINE"
    wait_for(tmp_path / "first")
    assert isinstance(run(peer, "ok")[-1], Done)


@server
def test_jobs_leave_no_threads_behind(peer: Peer, tmp_path: Path) -> None:
    run(peer, "ok")
    before = threading.active_count()
    for i in range(3):
        run(peer, "ok")
        events = Client(peer.url).generate([PHOTO], JobSpec(prompt=f"slow {tmp_path}/{i}"))
        next(events)
        events.close()
        wait_for(tmp_path / str(i))
    assert threading.active_count() <= before


@server
def test_a_server_that_dies_mid_job_is_a_sentence(mortal_peer: Peer) -> None:
    with pytest.raises(JobError, match="went away while the job was running") as error:
        run(mortal_peer, f"die {mortal_peer.pid}")
    assert error.value.code == "UNAVAILABLE"
    # Killed a moment ago, its port refuses or still resets.
    refused = rf"No server can be reached at {mortal_peer.url} \(Connection (refused|reset by peer).*\)\. .*gen3c serve"
    with pytest.raises(JobError, match=refused) as error:
        run(mortal_peer, "ok")
    assert error.value.code == "UNAVAILABLE"


@server
def test_tls_with_client_certificates(tls_peer: tuple[Peer, Tls]) -> None:
    peer, tls = tls_peer
    events = list(Client(peer.url, tls).generate([PHOTO], JobSpec()))
    assert isinstance(events[-1], Done)
    for wrong in (None, Tls(ca=tls.ca)):
        with pytest.raises(JobError) as error:
            list(Client(peer.url, wrong).generate([PHOTO], JobSpec()))
        assert error.value.code == "UNAVAILABLE"
        assert ("needs --tls" in str(error.value)) == (wrong is None)


@pytest.mark.parametrize("url", ["http://localhost:8001", "localhost", "host:port", ""])
def test_a_url_is_host_and_port(url: str) -> None:
    with pytest.raises(InputError, match="must be host:port"):
        Client(url)


def test_a_certificate_needs_its_key_and_both_must_be_readable(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="belong together"):
        Client(tls=Tls(cert=tmp_path / "c.pem"))
    with pytest.raises(InputError, match=r"c\.pem cannot be read"):
        Client(tls=Tls(ca=tmp_path / "c.pem"))


@pytest.mark.parametrize(
    ("media", "more", "sentence"),
    [
        ([], {}, "at least one image or video"),
        ([PHOTO], {"timeout": 0}, "more than 0 seconds"),
        ([PHOTO], {"cameras_k": np.eye(3)[None]}, "needs cameras_w2c"),
        ([PHOTO], {"cameras_w2c": np.eye(4)[None] * 2}, "Camera 0"),
        ([PHOTO], {"geometry": b"npz"}, "Geometry is given, and the geometry provider is 'auto'"),
    ],
)
def test_what_cannot_work_is_refused_before_any_event_is_asked_for(
    media: list[bytes], more: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        Client().generate(media, JobSpec(), **more)


def test_an_upload_over_grpc_s_limit_is_refused_with_the_figure() -> None:
    check_upload(MAX_MESSAGE_BYTES - 2**20)
    with pytest.raises(InputError, match="2,147,483,647 bytes; a gRPC message can hold 2,146,435,071"):
        check_upload(MAX_MESSAGE_BYTES)


def test_a_stream_is_read_to_its_end_before_its_error_is_told() -> None:
    """Triton sometimes did not stop after streams that were cancelled between their error and their end."""
    from tritonclient.grpc import service_pb2

    reached = []

    def stream() -> Iterator[service_pb2.ModelStreamInferResponse]:
        for text in ("INVALID_ARG(num_frames): the first", "INTERNAL: the second"):
            yield service_pb2.ModelStreamInferResponse(error_message=text)
        reached.append("end")

    with pytest.raises(JobError, match="the first"):
        list(Client()._events(stream()))
    assert reached == ["end"]
