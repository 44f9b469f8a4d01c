import dataclasses

import pytest
import torch

from gen3c.conditioning import Cameras
from gen3c.geometry.types import Frames, Geometry
from gen3c.scene import Scene, build_scene
from gen3c.seed import composite, seed_frame
from tests import walls
from tests.walls import SMALL

BEHIND = torch.diag(torch.tensor([-1.0, 1, -1, 1]))  # turned round: looks away from the wall


@pytest.mark.parametrize(("shift", "view"), [(0, 0), (10, 1)])
def test_a_path_from_a_source_view_starts_with_its_photo(shift: int, view: int) -> None:
    scene = walls.scene((0, 10))
    picture, note = seed_frame(scene, walls.cameras([shift, 99]), 0.1)
    assert torch.equal(picture[0], scene.views[view].image)
    assert note is None


def test_a_padded_photo_starts_without_black_bars() -> None:
    """A square photo of one colour on a wide raster: the network would be held to bars."""
    photo = torch.full((1, 32, 32, 3), 200, dtype=torch.uint8)
    frames = Frames(photo, torch.tensor([[32, 32]], dtype=torch.int32), ("photo.png",))
    geometry = Geometry(
        torch.ones(1, 32, 32), torch.ones(1, 32, 32), torch.eye(4)[None], walls.intrinsics(32, 32)[None]
    )
    scene = build_scene(frames, geometry, (SMALL.height, SMALL.width), "pad")
    start = Cameras(scene.views[0].w2c[None], scene.views[0].K[None])
    picture, note = seed_frame(scene, start, 0.1)
    assert note is None
    assert (picture - (200 / 127.5 - 1)).abs().max() < 1e-5


def test_another_focal_length_at_a_views_pose_is_no_photo() -> None:
    scene = walls.scene((0, 10))
    path = walls.cameras([0])
    zoomed = dataclasses.replace(path, K=path.K * torch.tensor([1.2, 1.2, 1])[:, None])
    picture, note = seed_frame(scene, zoomed, 0.1)
    assert not torch.equal(picture[0], scene.views[0].image)
    assert note is not None


def test_elsewhere_it_is_a_rendering_without_holes() -> None:
    """36.5 px aside, 12 of the 48 columns of a view are still in the picture."""
    picture, note = seed_frame(walls.scene((0,)), walls.cameras([36.5]), 0.1)
    assert note == "the path starts at no source view: its first frame is a rendering of them (25% covered)."
    photo = walls.view(0).image
    assert (picture[0, :, :, :11] - (photo[:, :, 36:47] + photo[:, :, 37:48]) / 2).abs().max() < 1e-3
    assert (picture[..., 12:] > -0.999).all(), "a hole was left"
    assert picture.min() >= -1
    assert picture.max() <= 1


def test_views_complete_each_other() -> None:
    picture, note = seed_frame(walls.scene((0, 40)), walls.cameras([20.5]), 0.1)
    assert note is not None
    assert "100% covered" in note
    wide = walls.texture().permute(2, 0, 1).float() / 127.5 - 1
    error = (picture[0] - (wide[:, :, 20:68] + wide[:, :, 21:69]) / 2).abs().amax((0, 1))
    error[[19, 27]] = 0  # the last column of either view has one neighbour less to mix with
    assert error.max() < 1e-3


def test_a_path_that_sees_nothing_starts_grey_and_tells() -> None:
    path = dataclasses.replace(walls.cameras([0]), w2c=BEHIND[None])
    picture, note = seed_frame(walls.scene(), path, 0.1)
    assert picture.shape == (1, 3, SMALL.height, SMALL.width)
    assert (picture == 0).all()
    assert note is not None
    assert "sees nothing" in note


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearest_surface_is_in_front_whatever_the_order(order: tuple[int, int]) -> None:
    views = [walls.view(0, depth=1.0), walls.view(0, depth=0.5, seed=1)]
    scene = Scene(tuple(views[i] for i in order), 1.0, torch.eye(4))
    image, covered = composite(scene, torch.eye(4), walls.intrinsics(), 0.1)
    assert covered.all()
    assert (image[0] - views[1].image).abs().max() < 1e-3


def test_doubtful_points_stay_out_of_the_first_frame() -> None:
    view = walls.view(0)
    scene = Scene((dataclasses.replace(view, confidence=torch.full_like(view.confidence, 0.3)),), 1.0, torch.eye(4))
    assert composite(scene, torch.eye(4), walls.intrinsics(), 0.2)[1].all()
    assert not composite(scene, torch.eye(4), walls.intrinsics(), 0.5)[1].any()
