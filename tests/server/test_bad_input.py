"""What users get wrong, through the real server: the right code, a sentence, and the next request is served."""

import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from gen3c_client.contract import Error
from gen3c_client.transport import Client
from PIL import Image

from gen3c_server.canary import check
from gen3c_server.launcher import EmbeddedServer
from tests.server.conftest import SmallJob, clip, picture, png, raw_job, run

FILE = {"geometry": {"provider": "file"}, "steps": 2}


def refused(
    server: EmbeddedServer, spec: Any, media: list[bytes], code: str = "INVALID_ARG", **tensors: np.ndarray
) -> Error:
    """The error of a job that must fail; the server must then answer a probe."""
    text = spec if isinstance(spec, bytes) else json.dumps(spec).encode()
    events, message = raw_job(server.grpc_url, text, media, **tensors)
    error = events[-1]
    assert isinstance(error, Error), events
    assert error.code == code
    assert message is not None
    assert message.startswith(code)
    for secret in ("Traceback", "/root", "/home", "/tmp", "site-packages", ".py"):
        assert secret not in error.message
        assert secret not in message
    check(server.grpc_url)
    return error


def png_header(width: int, height: int) -> bytes:
    """The start of a PNG that claims a size, without its pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    ends = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (chunk, data, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(ends)


@pytest.mark.parametrize(
    ("media", "fragment"),
    [
        ([b""], "empty"),
        ([b"this is no video, whatever its name says" * 20], "clip.mp4"),
        ([clip()[: len(clip()) // 2]], "clip.mp4"),
        ([png(Image.new("RGB", (1, 1)))], "1x1"),
        ([png_header(30000, 30000)], "900000000 pixels"),
        ([png(picture())[:500]], "clip.mp4"),
    ],
    ids=["empty", "text", "truncated-mp4", "1x1", "bomb", "truncated-png"],
)
def test_media_that_cannot_be_used(server: EmbeddedServer, media: list[bytes], fragment: str) -> None:
    error = refused(server, {"names": ["clip.mp4"]}, media)
    assert error.field == "MEDIA[0]"
    assert fragment in error.message


def test_no_media(server: EmbeddedServer) -> None:
    assert refused(server, {}, []).field == "MEDIA"


def test_one_frame_is_too_few_to_reconstruct(server: EmbeddedServer) -> None:
    error = refused(server, {"geometry": {"provider": "sfm"}}, [png(picture())])
    assert "at least 2" in error.message


def test_views_without_overlap(server: EmbeddedServer) -> None:
    spec = {"names": ["left.png", "right.png"], "geometry": {"provider": "sfm"}}
    error = refused(server, spec, [png(picture(seed=s)) for s in (1, 2)])
    assert "left.png" in error.message or "right.png" in error.message
    assert "overlap" in error.message


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"steps": 0}, "spec.steps"),
        ({"fusion": "mean"}, "spec.fusion"),
        ({"path": {"kind": "sideways"}}, "spec.path.kind"),
        ({"preset": "huge"}, "spec.preset"),
        ({"geometry": {"provider": "lidar"}}, "spec.geometry.provider"),
        ({"save": ["movie"]}, "spec.save.0"),
        ({"colour": "blue"}, "spec.colour"),
        ({"path": {"kind": "left", "speed": 2}}, "spec.path.speed"),
        ({"num_frames": 26}, "spec.num_frames"),
        ({"seed": -1}, "spec.seed"),
        ({"prompt": "a castle"}, "spec.prompt"),
        ({"negative_prompt": "blur"}, "spec.negative_prompt"),
        ({"geometry": {"scale": "metres"}}, "spec.geometry.scale"),
        (b"{", "spec"),
        (b"\xff\xfe", "spec"),
        (b'{"guidance": NaN}', "spec.guidance"),
    ],
)
def test_specs_that_make_no_sense(server: EmbeddedServer, spec: Any, field: str) -> None:
    assert refused(server, spec, [png(picture())]).field == field


def cameras(n: int = 25) -> np.ndarray:
    return np.tile(np.eye(4, dtype=np.float32), (n, 1, 1))


def spoilt(index: tuple[int, ...], value: float) -> np.ndarray:
    w2c = cameras()
    w2c[index] = value
    return w2c


@pytest.mark.parametrize(
    ("w2c", "fragment"),
    [
        (spoilt((4, 1, 1), np.nan), "camera 4 is not finite"),
        (spoilt((3, 0, 0), 1.5), "camera 3 is not rigid"),
        (spoilt((2, 2, 2), -1.0), "camera 2 is not rigid"),
        (cameras(26), "25 or 49"),
    ],
)
def test_cameras_that_are_none(server: EmbeddedServer, w2c: np.ndarray, fragment: str) -> None:
    error = refused(server, {}, [png(picture())], CAMERAS_W2C=w2c)
    assert fragment in error.message


def test_camera_tensors_of_wrong_shape_are_refused_by_triton(server: EmbeddedServer) -> None:
    events, message = raw_job(server.grpc_url, b"{}", [png(picture())], CAMERAS_W2C=np.zeros((25, 3, 4), np.float32))
    assert not events
    assert message is not None
    assert "unexpected shape for input 'CAMERAS_W2C'" in message
    check(server.grpc_url)


def test_a_geometry_file_for_other_views(server: EmbeddedServer) -> None:
    job = SmallJob(views=3)
    geometry = np.array([job.geometry], dtype=np.object_)
    error = refused(server, FILE, job.media[:2], GEOMETRY=geometry)
    assert "3 views for 2" in error.message
    assert error.field == "GEOMETRY"
    assert "npz" in refused(server, FILE, job.media, GEOMETRY=np.array([b"junk"], dtype=np.object_)).message


def test_bad_input_is_answered_while_a_job_runs(server: EmbeddedServer, client: Client) -> None:
    job = SmallJob()
    running = client.generate(job.media, job.job_spec(steps=200), geometry=job.geometry)
    for event in running:
        if getattr(event, "stage", "") == "denoise":
            break
    error = refused(server, {"steps": 0}, [png(picture())])
    assert error.field == "spec.steps"
    running.close()


def test_a_good_job_still_runs_after_all_that(client: Client) -> None:
    assert run(client, SmallJob()).files["video.mp4"]
