import json

import pytest
import torch
from gen3c_client.contract import Limits
from pydantic import ValidationError
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.presets import TINY
from gen3c.scene import Scene, SourceView
from gen3c_server.inputs import read_inputs, target_cameras

K = torch.tensor([[200.0, 0, 159.5], [0, 200, 95.5], [0, 0, 1]])


def wire(spec: object | None = None, **more: object) -> dict[str, Tensor | list[bytes]]:
    return {"MEDIA": [b"x"], "SPEC": [json.dumps(spec or {}).encode()], **more}  # type: ignore[dict-item]


def read(spec: object | None = None, limits: Limits | None = None, **more: object):
    return read_inputs(wire(spec, **more), TINY, limits or Limits())


def scene() -> Scene:
    blank = torch.zeros(192, 320)
    origin = torch.eye(4)
    origin[0, 3] = 6.0
    return Scene((SourceView(torch.zeros(3, 192, 320), blank, blank, torch.eye(4), K),), 2.0, origin)


def test_an_empty_spec_is_a_job_of_one_chunk() -> None:
    inputs = read()
    cameras = target_cameras(inputs, scene())
    assert inputs.num_frames == 25
    assert cameras.w2c.shape == (25, 4, 4)
    assert torch.equal(cameras.w2c[0], torch.eye(4))
    assert torch.equal(cameras.K[7], K)


def poses(n: int) -> Tensor:
    w2c = torch.eye(4).repeat(n, 1, 1)
    w2c[:, 0, 3] = torch.linspace(0, 1, n)
    return w2c


def test_explicit_cameras_set_the_number_of_frames() -> None:
    inputs = read(CAMERAS_W2C=poses(49))
    cameras = target_cameras(inputs, scene())
    assert inputs.num_frames == 49
    assert torch.equal(cameras.w2c, poses(49))
    assert torch.equal(cameras.K[3], K)


def test_keyframes_reach_their_poses() -> None:
    keyframes = [{"time": 0.0, "w2c": poses(2)[0].tolist()}, {"time": 1.0, "w2c": poses(2)[1].tolist()}]
    cameras = target_cameras(read({"cameras": {"keyframes": keyframes}}), scene())
    assert (cameras.w2c[[0, -1]] - poses(2)).abs().max() < 1e-5


def test_world_cameras_are_brought_into_the_frame_of_view_0() -> None:
    """View 0 stands at x = -6 in the file's world, whose unit is half a centre depth."""
    file = {"frame": "world", "poses": [{"w2c": poses(1)[0].tolist()}] * 25}
    inputs = read({"cameras": file, "geometry": {"provider": "file"}}, GEOMETRY=[b"npz"])
    w2c = target_cameras(inputs, scene()).w2c[0]
    assert torch.allclose(w2c[:3, 3], torch.tensor([-3.0, 0, 0]))


NAN_POSES = poses(25)
NAN_POSES[3, 0, 0] = torch.nan
STRETCHED = poses(25)
STRETCHED[5, :3, :3] *= 1.1


@pytest.mark.parametrize(
    ("spec", "more", "field", "fragment"),
    [
        ({}, {"MEDIA": []}, "MEDIA", "no media"),
        ({"preset": "gen3c-7b"}, {}, "spec.preset", "serves 'tiny'"),
        ({"num_frames": 30}, {}, "spec.num_frames", "25 or 49"),
        ({"num_frames": 7}, {}, "spec.num_frames", "nearest legal count is 25"),
        ({"num_frames": 24 * 100 + 1}, {}, "spec.num_frames", "at most 1211 frames, so 1201 with tiny"),
        ({"num_frames": 1300}, {}, "spec.num_frames", "so 1201 with tiny"),  # not 1297 or 1321, nearer but too many
        ({"names": ["a", "b"]}, {}, "spec.names", "2 names for 1"),
        ({"geometry": {"provider": "file"}}, {}, "GEOMETRY", "not given"),
        ({}, {"GEOMETRY": [b"npz"]}, "GEOMETRY", "'auto'"),
        ({}, {"CAMERAS_W2C": torch.zeros(25, 3, 4)}, "CAMERAS_W2C", "[25, 3, 4]"),
        ({}, {"CAMERAS_W2C": poses(25), "CAMERAS_K": torch.zeros(3, 3, 3)}, "CAMERAS_K", "[25,3,3]"),
        ({}, {"CAMERAS_K": torch.zeros(25, 3, 3)}, "CAMERAS_W2C", "None"),
        ({}, {"CAMERAS_W2C": NAN_POSES}, "CAMERAS_W2C", "camera 3 is not finite"),
        ({}, {"CAMERAS_W2C": STRETCHED}, "CAMERAS_W2C", "camera 5 is not rigid"),
        ({"path": {"kind": "zoom_in", "distance": 1.5}}, {}, "spec.path.distance", "reaches or passes"),
        (
            {"cameras": {"width": 1280, "height": 704, "poses": [{"w2c": poses(1)[0].tolist(), "K": K.tolist()}] * 25}},
            {},
            "spec.cameras.width",
            "1280x704",
        ),
        ({}, {"CAMERAS_W2C": poses(25), "CAMERAS_K": -K.expand(25, 3, 3)}, "CAMERAS_K", "positive focal"),
        ({"path": {}}, {"CAMERAS_W2C": poses(25)}, "CAMERAS_W2C", "one of them"),
        ({"num_frames": 49}, {"CAMERAS_W2C": poses(25)}, "spec.num_frames", "25 poses"),
        (
            {"cameras": {"frame": "world", "poses": [{"w2c": poses(1)[0].tolist()}] * 25}},
            {},
            "spec.cameras.frame",
            "file",
        ),
        ({"cameras": {"poses": [{"w2c": (2 * poses(1)[0]).tolist()}] * 25}}, {}, "spec.cameras", "not rigid"),
    ],
)
def test_bad_inputs_are_refused_by_name(spec: object, more: dict[str, object], field: str, fragment: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read(spec, **more)
    assert caught.value.field == field
    assert fragment in str(caught.value)


def test_an_upload_over_the_limit_is_refused_with_the_figure() -> None:
    with pytest.raises(InvalidInputError, match="takes 10"):
        read(limits=Limits(upload_bytes=10), MEDIA=[b"12345", b"678901"])


@pytest.mark.parametrize(("limit", "largest"), [(24, "none"), (25, "25"), (48, "25"), (49, "49"), (50, "49")])
def test_the_limit_of_frames_is_told_as_a_number_that_the_preset_makes(limit: int, largest: str) -> None:
    with pytest.raises(InvalidInputError, match=f"at most {limit} frames, so {largest} with tiny"):
        read({"num_frames": 73}, Limits(frames=limit))
    if largest != "none":
        assert read({"num_frames": int(largest)}, Limits(frames=limit)).num_frames == int(largest)


def test_both_ways_to_give_a_path_are_refused() -> None:
    with pytest.raises(ValidationError, match="not both"):
        read({"path": {}, "cameras": {"poses": [{"w2c": poses(1)[0].tolist()}] * 25}})
