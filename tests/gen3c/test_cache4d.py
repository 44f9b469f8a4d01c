import pytest
import torch
from torch import Tensor

from gen3c.cache4d import Cache4D
from gen3c.errors import InvalidInputError

K = torch.tensor([[60.0, 0, 19.5], [0, 60, 11.5], [0, 0, 1]])
FRAMES = 5


def clip(frames: int = FRAMES) -> tuple[Tensor, ...]:
    """A wall at 2, whose colour is frame/10 in frame i, before a camera that moves to the right."""
    images = torch.arange(frames)[:, None, None, None].expand(frames, 3, 24, 40) / 10
    w2c = torch.eye(4).repeat(frames, 1, 1)
    w2c[:, 0, 3] = -torch.arange(frames) / 100
    depth = torch.full((frames, 24, 40), 2.0)
    depth[:, 8:16, 10:20] = 1.0
    return images, depth, torch.ones(frames, 24, 40), w2c, K.expand(frames, 3, 3)


def path(frames: int) -> tuple[Tensor, Tensor]:
    w2c = torch.eye(4).repeat(frames, 1, 1)
    w2c[:, 0, 3] = 0.021
    return w2c, K.expand(frames, 3, 3)


@pytest.mark.parametrize("masking", [False, True])
@pytest.mark.parametrize(("start", "count"), [(0, FRAMES), (2, 3), (4, 1)])
def test_a_target_shows_the_clip_at_its_own_time(start: int, count: int, masking: bool) -> None:
    """With foreground masking as well: the released GEN3C fails there unless the whole clip is rendered."""
    warp = Cache4D.build(*clip()).render(*path(count), start, foreground_masking=masking)
    assert warp.image.shape == (count, 3, 24, 40)
    for i in range(count):
        seen = warp.coverage[i, 0] > 0
        assert seen.float().mean() > 0.5
        assert torch.allclose(warp.image[i, 0][seen], torch.tensor((start + i) / 10))


def test_every_frame_has_its_own_camera() -> None:
    """The wall is one wall: two frames of it, from two places, fall on the same pixels of a third camera."""
    images, depth, masks, w2c, intrinsics = clip()
    ramp = torch.arange(40.0)[None, None].expand(3, 24, 40) / 40 - 0.5
    images = torch.stack([ramp + 60 * (i / 100) / 2 / 40 for i in range(FRAMES)])  # 60 px focal length, depth 2
    flat = torch.full_like(depth, 2.0)
    shown = Cache4D.build(images, flat, masks, w2c, intrinsics).render(*path(FRAMES)).image
    middle = shown[:, 0, 12, 15:25]
    assert (middle - middle[0]).abs().max() < 2e-3


@pytest.mark.parametrize(("start", "count"), [(-1, 2), (0, FRAMES + 1), (4, 2), (FRAMES, 1)])
def test_frames_outside_the_clip_are_refused(start: int, count: int) -> None:
    cache = Cache4D.build(*clip())
    with pytest.raises(
        InvalidInputError, match=rf"Frames {start} to {start + count - 1} of a cached clip of 5 .*0 to 4"
    ):
        cache.render(*path(count), start)


@pytest.mark.parametrize("start", [0, 1, 240])
def test_one_frame_is_shown_at_all_times(start: int) -> None:
    cache = Cache4D.build(*clip(1))
    warp = cache.render(*path(3), start)
    assert len(warp.image) == 3
    assert torch.equal(warp.image[2], warp.image[0])


def test_masked_pixels_take_no_part() -> None:
    images, depth, masks, w2c, intrinsics = clip()
    masks[2] = 0
    warp = Cache4D.build(images, depth, masks, w2c, intrinsics).render(*path(FRAMES))
    assert (warp.coverage.flatten(1).amax(1) > 0).tolist() == [True, True, False, True, True]
