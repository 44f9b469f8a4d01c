"""Camera files: what is read, and what no camera can be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gen3c_client.camera_file import check_camera_arrays, load_camera_file
from gen3c_client.errors import InputError

EYE = np.eye(4).tolist()
K = [[200.0, 0.0, 160.0], [0.0, 200.0, 96.0], [0.0, 0.0, 1.0]]


def write(path: Path, content: dict[str, Any]) -> Path:
    file = path / "path.json"
    file.write_text(json.dumps(content))
    return file


def pose(**changes: Any) -> dict[str, Any]:
    """A pose whose w2c differs in the entries `rc=value`."""
    w2c = np.eye(4)
    for place, value in changes.items():
        w2c[int(place[1]), int(place[2])] = value
    return {"w2c": w2c.tolist()}


def test_poses_and_keyframes_are_read(tmp_path: Path) -> None:
    cameras = load_camera_file(write(tmp_path, {"poses": [{"w2c": EYE, "K": K}, {"w2c": EYE}]}))
    assert cameras.poses is not None
    assert [p.K is None for p in cameras.poses] == [False, True]
    keys = load_camera_file(write(tmp_path, {"keyframes": [{"time": 0, "w2c": EYE}, {"time": 1, "w2c": EYE}]}))
    assert keys.keyframes is not None
    assert keys.keyframes[1].time == 1


def test_rounded_rotations_pass(tmp_path: Path) -> None:
    c, s = round(np.cos(0.3), 4), round(np.sin(0.3), 4)
    load_camera_file(write(tmp_path, {"poses": [pose(m00=c, m01=-s, m10=s, m11=c)]}))


def test_constant_entries_may_be_off_by_as_much_as_at_the_server(tmp_path: Path) -> None:
    rounded = (np.array(K) + 9e-4 * np.eye(3, k=-1) + 9e-4 * np.diag([0, 0, 1])).tolist()
    load_camera_file(write(tmp_path, {"poses": [{**pose(m30=9e-4, m33=1.0009), "K": rounded}]}))
    check_camera_arrays(np.array([pose(m33=1.0009)["w2c"]]), np.array([rounded]))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"poses": [pose(), pose(m00=1.01)]}, r"poses\[1\].w2c has no rotation .* is 0.0201, legal is 0.001"),
        ({"poses": [pose(m00=-1)]}, "reflection"),
        ({"poses": [pose(m33=2)]}, r"must end in the row \[0, 0, 0, 1\], got \[0.0, 0.0, 0.0, 2.0\]"),
        ({"poses": [pose(m30=0.0011)]}, "must end in the row"),
        ({"poses": [pose(m03=1e39)]}, r"poses\[0\].w2c has a value that is not finite"),  # in float32
        ({"poses": [pose(m03=float("nan"))]}, r"poses\[0\].w2c\[0\]\[3\]: .*finite"),
        ({"poses": [{"w2c": np.eye(3).tolist()}]}, "at least 4"),
        ({"poses": [{"w2c": EYE, "K": np.zeros((3, 3)).tolist()}]}, "positive focal lengths, got 0 and 0"),
        ({"poses": [{"w2c": EYE, "K": (np.array(K).T).tolist()}]}, r"K must end in the row \[0, 0, 1\]"),
        ({"poses": [{"w2c": EYE, "K": [K[0], [0.0011, 200, 96], K[2]]}]}, "K must be upper triangular, got 0.0011"),
        ({"poses": [{"w2c": EYE}], "keyframes": [{"time": 0, "w2c": EYE}, {"time": 1, "w2c": EYE}]}, "not both"),
        ({}, "give either 'poses' or 'keyframes'"),
        ({"keyframes": [{"time": 0.5, "w2c": EYE}, {"time": 0.5, "w2c": EYE}]}, "must grow"),
        ({"poses": [{"w2c": EYE}], "unit": "m"}, "unit: Extra inputs"),
        ({"version": 2, "poses": [{"w2c": EYE}]}, r"version: .*\(got 2\)"),
    ],
)
def test_what_is_no_camera_path_is_refused_by_name(tmp_path: Path, content: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as error:
        load_camera_file(write(tmp_path, content))
    assert error.value.field == "--cameras"


def test_a_file_that_is_no_json_or_missing_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "path.json").write_text("w2c = eye(4)")
    with pytest.raises(InputError, match="Invalid JSON"):
        load_camera_file(tmp_path / "path.json")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_camera_file(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("w2c", "k", "sentence"),
    [
        (np.eye(4), None, r"\[t, 4, 4\], got \[4, 4\]"),
        (np.zeros((0, 4, 4)), None, r"got \[0, 4, 4\]"),
        (np.stack([np.eye(4)] * 2), np.array([K]), r"\[2, 3, 3\], got \[1, 3, 3\]"),
        (np.stack([np.eye(4), np.eye(4) * 2]), None, "Camera 1: w2c must end"),
        (np.eye(4)[None], -np.array([K]), "Camera 0: K needs positive"),
        (np.full((1, 4, 4), "x"), None, "cameras_w2c must hold numbers, got <U1"),
        (np.eye(4)[None], np.full((1, 3, 3), None), "cameras_k must hold numbers, got object"),
    ],
)
def test_camera_tensors_are_checked(w2c: Any, k: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        check_camera_arrays(w2c, k)
