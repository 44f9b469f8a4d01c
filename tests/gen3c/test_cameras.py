import math
import re

import pytest
import torch

from gen3c.cameras import camera_path, check_cameras, to_camera, unproject
from gen3c.errors import InvalidInputError
from gen3c.splat import project

KINDS = ("left", "right", "up", "down", "zoom_in", "zoom_out", "clockwise", "counterclockwise")
K = torch.tensor([[[100.0, 0, 31], [0, 90, 17], [0, 0, 1]]])


def pose(angle: float, translation: tuple[float, float, float]) -> torch.Tensor:
    w2c = torch.eye(4)
    c, s = math.cos(angle), math.sin(angle)
    w2c[:3, :3] = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    w2c[:3, 3] = torch.tensor(translation)
    return w2c[None]


def test_unprojected_pixels_project_back_to_themselves() -> None:
    depth = torch.rand(1, 24, 40, generator=torch.Generator().manual_seed(0)) + 1
    w2c = pose(0.3, (0.2, -0.1, 0.4))
    pixels, z = project(unproject(depth, w2c, K), w2c, K)
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(40.0), indexing="ij")
    assert (pixels[0] - torch.stack((x, y), -1)).abs().max() < 1e-3
    assert torch.allclose(z, depth, atol=1e-5)


def test_unknown_depth_gives_the_zero_vector() -> None:
    depth = torch.tensor([[[0.0, -1.0, 2.0]]])
    points = unproject(depth, pose(0.0, (1, 2, 3)), K)
    assert points[0, 0, :2].abs().max() == 0
    assert points[0, 0, 2].abs().max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_camera_stands_where_the_path_says_and_faces_the_centre(kind: str) -> None:
    w2c = camera_path(kind, 9, torch.eye(4), distance=0.4, center_depth=2.0)
    straight = {"left": (-1, 0, 0), "right": (1, 0, 0), "up": (0, -1, 0), "down": (0, 1, 0)}
    straight |= {"zoom_in": (0, 0, 1), "zoom_out": (0, 0, -1)}
    centres = torch.linalg.inv(w2c)[:, :3, 3]
    assert centres[0].abs().max() < 1e-6
    if kind in straight:
        end = torch.tensor(straight[kind]) * 0.4 * 2.0 * 8 / 9
        assert (centres[-1] - end).abs().max() < 1e-5
    else:
        assert centres[-1].abs().max() < 1e-5  # a closed loop
        assert centres[1, 1] > 0  # that starts downwards
    centre = to_camera(torch.tensor([0.0, 0, 2.0]).expand(9, 1, 3), w2c)
    assert centre[..., :2].abs().max() < 1e-5


def test_default_paths_stay_rigid() -> None:
    w2c = camera_path("clockwise", 25, pose(0.7, (1, 0, 2))[0], distance=0.9)
    check_cameras(w2c, K.expand(25, -1, -1), "test")


def test_a_path_through_its_own_target_is_refused() -> None:
    for distance in (2.0, 2.5):  # the second frame on the centre, and behind it
        with pytest.raises(InvalidInputError, match="distance"):
            camera_path("zoom_in", 2, torch.eye(4), distance=distance)


@pytest.mark.parametrize(("kind", "rotation"), [("zoom_out", "trajectory_aligned"), ("zoom_in", "center_facing")])
@pytest.mark.parametrize("distance", [1.1, 1.25, 2.0])
def test_no_path_turns_the_camera_round(kind: str, rotation: str, distance: float) -> None:
    with pytest.raises(InvalidInputError, match="reaches or passes"):
        camera_path(kind, 25, torch.eye(4), rotation=rotation, distance=distance)


@pytest.mark.parametrize(("kind", "rotation"), [("zoom_out", "trajectory_aligned"), ("zoom_in", "center_facing")])
@pytest.mark.parametrize(("num_frames", "limit"), [(2, "2"), (7, "1.166"), (25, "1.041"), (121, "1.008")])
def test_the_distance_said_to_be_legal_is_the_largest(kind: str, rotation: str, num_frames: int, limit: str) -> None:
    """To three decimals: a straight path ends at (n-1)/n of the distance, so n/(n-1) is too far."""
    with pytest.raises(InvalidInputError, match=rf"legal: below {re.escape(limit)} for {num_frames} frames\."):
        camera_path(kind, num_frames, torch.eye(4), rotation=rotation, distance=num_frames / (num_frames - 1))
    w2c = camera_path(kind, num_frames, torch.eye(4), rotation=rotation, distance=float(limit) - 1e-4)
    check_cameras(w2c, K.expand(num_frames, -1, -1), "test")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rotation", ["center_facing", "no_rotation", "trajectory_aligned"])
def test_every_path_within_the_centre_depth_is_rigid(kind: str, rotation: str) -> None:
    check_cameras(camera_path(kind, 25, torch.eye(4), rotation=rotation, distance=0.95), K.expand(25, -1, -1), "test")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w2c, K: w2c.__setitem__((1, 0, 0), torch.nan), "camera 1 is not finite"),
        (
            lambda w2c, K: w2c.__setitem__((2, slice(None, 3), slice(None, 3)), 2 * torch.eye(3)),
            "camera 2 is not rigid",
        ),
        (lambda w2c, K: w2c.__setitem__((0, 0, 0), -1.0), "camera 0 is not rigid"),
        (lambda w2c, K: w2c.__setitem__((0, 3, 2), 1.0), "camera 0 is not rigid"),
        (lambda w2c, K: K.__setitem__((1, 0, 0), -5.0), "K of camera 1"),
        (lambda w2c, K: K.__setitem__((1, 2, 0), 5.0), "K of camera 1"),
    ],
)
def test_bad_cameras_are_refused_by_name(spoil, message: str) -> None:
    w2c, intrinsics = torch.eye(4).repeat(3, 1, 1), K.repeat(3, 1, 1)
    spoil(w2c, intrinsics)
    with pytest.raises(InvalidInputError, match=message):
        check_cameras(w2c, intrinsics, "CAMERAS_W2C")
