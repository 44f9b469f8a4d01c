import threading

import pytest
import torch
import torch.nn.functional as F
from scenes import Shot, camera, shoot

from gen3c.conditioning import Cameras
from gen3c.errors import CancelledError
from gen3c.geometry.plane_sweep import FILLED, SweepOptions
from gen3c.geometry.swept_depth import SweptDepth
from gen3c.geometry.types import Watch
from gen3c.growth import NoDepthError

ESTIMATE = SweptDepth(SweepOptions(planes=48, offsets=12))
FRAMES = 9


def clip(reach: float) -> tuple[Shot, Cameras]:
    """A camera that moves `reach` to the right within FRAMES frames."""
    shot = shoot([camera(reach * i / (FRAMES - 1)) for i in range(FRAMES)], (120, 160), 140.0)
    return shot, Cameras(shot.w2c.float(), shot.K.float())


def test_the_last_frames_depth_is_true_also_where_the_cache_shows_nothing() -> None:
    shot, cameras = clip(1.0)
    truth = shot.depth[-1]
    shown = truth.clone()
    shown[:, 110:] = 0
    depth, confidence = ESTIMATE(shot.frames.pixels, cameras, shown, Watch())
    error = (depth - truth).abs() / truth
    sure = confidence > FILLED
    assert depth.shape == confidence.shape == (120, 160)
    assert sure.float().mean() > 0.7
    assert sure[:, 110:].float().mean() > 0.5
    # What the earliest frame shows as well moves by 28 px, and matching is good to a quarter of a pixel: 1%. What has
    # just come into the picture moves by 4 px, and the strip beside the square is hidden from earlier frames.
    assert error[sure].median() < 0.01
    assert error[:, 110:][sure[:, 110:]].median() < 0.01
    assert (error[sure] < 0.03).float().mean() > 0.92


def test_without_parallax_there_is_no_depth() -> None:
    shot, cameras = clip(0.05)
    with pytest.raises(NoDepthError, match=r"moved too little to measure depth: 0\.\d+ degrees .*, 1 are needed"):
        ESTIMATE(shot.frames.pixels, cameras, shot.depth[-1], Watch())


@pytest.mark.parametrize("grain", [1, 8])
def test_frames_that_do_not_agree_have_no_depth(grain: int) -> None:
    shot, cameras = clip(1.0)
    coarse = torch.rand(FRAMES, 3, 120 // grain, 160 // grain, generator=torch.Generator().manual_seed(0))
    noise = (F.interpolate(coarse, (120, 160), mode="bilinear") * 255).byte().permute(0, 2, 3, 1)
    with pytest.raises(NoDepthError, match=r"agree on the depth of only \d+% of the last one, 20% are needed"):
        ESTIMATE(noise, cameras, shot.depth[-1], Watch())


def test_a_frame_that_shows_nothing_of_the_cache_has_no_depth() -> None:
    shot, cameras = clip(1.0)
    with pytest.raises(NoDepthError, match="next to nothing of the cache"):
        ESTIMATE(shot.frames.pixels, cameras, torch.zeros(120, 160), Watch())


def test_a_picture_that_does_not_follow_the_camera_has_no_depth() -> None:
    shot, cameras = clip(1.0)
    still = shot.frames.pixels[:1].expand(FRAMES, -1, -1, -1)
    with pytest.raises(NoDepthError, match="agree on the depth of only"):
        ESTIMATE(still, cameras, shot.depth[-1], Watch())


def test_it_can_be_cancelled() -> None:
    shot, cameras = clip(1.0)
    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError):
        ESTIMATE(shot.frames.pixels, cameras, shot.depth[-1], Watch(is_cancelled=stop.is_set))
