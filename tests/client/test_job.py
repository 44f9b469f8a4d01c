"""Flags to `JobSpec`."""

from typing import Any

import numpy as np
import pytest
from gen3c_client.contract import CameraFile, JobSpec, Keyframe, NamedPath, Pose, Selection
from gen3c_client.errors import InputError
from gen3c_client.job import build_spec, parse_save

EYE = np.eye(4).tolist()
TWO_POSES = CameraFile(poses=[Pose(w2c=EYE), Pose(w2c=EYE)])
KEYFRAMES = CameraFile(keyframes=[Keyframe(w2c=EYE, time=0), Keyframe(w2c=EYE, time=1)])


def test_no_flags_leave_the_contract_s_defaults() -> None:
    assert build_spec({"seed": None, "path.kind": None}, None, []) == JobSpec(names=[])


def test_flags_reach_their_fields() -> None:
    flags = {"select.method": "first-max", "select.step_size": 3, "path.distance": 0.5, "seed": 7, "guidance": 0}
    spec = build_spec(flags, None, ["a.jpg"])
    assert spec.select == Selection(method="first-max", step_size=3)
    assert spec.path == NamedPath(distance=0.5)
    assert (spec.seed, spec.guidance, spec.names) == (7, 0, ["a.jpg"])


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            {"select.method": "first-max", "select.frame_interval": 5},
            "--frame-interval has no effect with --select first-max; it applies to --select interval. "
            "The step of first-max is --step-size.",
        ),
        (
            {"select.method": "interval", "select.step_size": 5},
            "--step-size has no effect with --select interval; it applies to --select first-max. "
            "The step of interval is --frame-interval.",
        ),
        ({"select.step_size": 5}, "--step-size has no effect with --select all; it applies to --select first-max."),
        (
            {"select.method": "first", "select.max_frames": 5},
            "--max-frames has no effect with --select first; it applies to --select all or --select interval "
            "or --select first-max.",
        ),
    ],
)
def test_a_selection_flag_without_effect_is_refused(flags: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as error:
        build_spec(flags, None, [])
    assert str(error.value) == sentence


def test_a_negative_prompt_that_nothing_reads_is_refused() -> None:
    with pytest.raises(InputError, match="--negative-prompt has no effect with --guidance 0"):
        build_spec({"negative_prompt": "blur", "guidance": 0.0}, None, [])
    assert build_spec({"negative_prompt": "", "guidance": 1.0}, None, []).negative_prompt == ""
    assert build_spec({"guidance": 1.0}, None, []).negative_prompt is None


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"path.distance": 11.0}, r"--distance: .* less than or equal to 10 \(got 11.0\)"),
        ({"path.distance": float("nan")}, "--distance: .*(got nan|finite)"),
        ({"seed": -1}, "--seed: .* greater than or equal to 0"),
        ({"num_frames": 0}, "--num-frames: "),
        ({"geometry.min_confidence": 2.0}, "--min-confidence: "),
        ({"select.method": "first-max", "select.step_size": 0}, "--step-size: "),
        ({"fps": 0.0}, "--fps: "),
        ({"prompt": "x" * 5000}, "--prompt: .*4096"),
        ({"negative_prompt": "x" * 5000}, "--negative-prompt: .*4096"),
        ({"geometry.scale": "metres"}, "--scale: .*'center_depth' or 'reference'"),
    ],
)
def test_an_illegal_value_names_its_flag(flags: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as error:
        build_spec(flags, None, [])
    assert error.value.field == str(error.value).partition(":")[0]


def test_a_camera_file_is_the_path_and_its_poses_are_the_output_frames() -> None:
    spec = build_spec({}, TWO_POSES, [])
    assert (spec.cameras, spec.path, spec.num_frames) == (TWO_POSES, None, 2)
    assert build_spec({"num_frames": 49}, KEYFRAMES, []).num_frames == 49


@pytest.mark.parametrize("flag", ["path.kind", "path.rotation", "path.distance"])
def test_path_flags_do_not_mix_with_a_camera_file(flag: str) -> None:
    with pytest.raises(InputError, match=f"--{flag.removeprefix('path.')}|--path"):
        build_spec({flag: "left"}, TWO_POSES, [])


def test_a_camera_file_must_fit_frames_and_geometry() -> None:
    with pytest.raises(InputError, match="--num-frames 25 does not fit the camera file, which has 2 poses"):
        build_spec({"num_frames": 25}, TWO_POSES, [])
    world = TWO_POSES.model_copy(update={"frame": "world"})
    with pytest.raises(InputError, match="only with --geometry file"):
        build_spec({}, world, [])
    assert build_spec({"geometry.provider": "file"}, world, []).cameras == world


def test_save_lists() -> None:
    assert parse_save("points, video,points") == ["video", "points"]
    for given in ("", "video,mesh", ","):
        with pytest.raises(InputError, match="comma list out of video, warps, points, cameras, geometry"):
            parse_save(given)
