"""A textured wall before parallel cameras: a scene whose every rendering can be written down.

The wall is at depth 1. A camera `shift` pixels to the right sees the texture `shift` columns further on. Shifts of
k + 1/2 pixels make figures of coverage exact: at whole pixels, rounding decides whether a neighbour gets a trace.
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from gen3c.conditioning import Cameras
from gen3c.presets import TINY
from gen3c.scene import Scene, SourceView

SMALL = dataclasses.replace(TINY, height=32, width=48, chunk_frames=9)  # the networks of TINY, milliseconds a call
FOCAL = 40.0  # px
MARGIN = 64  # px of texture to the right of the camera at 0


def intrinsics(height: int = SMALL.height, width: int = SMALL.width) -> Tensor:
    """K [3,3] with the principal point in the middle."""
    return torch.tensor([[FOCAL, 0, (width - 1) / 2], [0, FOCAL, (height - 1) / 2], [0, 0, 1]])


def pose(shift: float) -> Tensor:
    """w2c [4,4] of the camera `shift` px to the right."""
    w2c = torch.eye(4)
    w2c[0, 3] = -shift / FOCAL
    return w2c


def texture(height: int = SMALL.height, width: int = SMALL.width + MARGIN, seed: int = 0) -> Tensor:
    """Smooth colours [h,w,3] uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 8 + 1, width // 8 + 1, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    return (fine * 255).round().byte().permute(1, 2, 0)


def photo(shift: int, seed: int = 0) -> Tensor:
    """What the camera `shift` px to the right sees, [h,w,3] uint8."""
    return texture(seed=seed)[:, shift : shift + SMALL.width]


def view(shift: int, depth: float = 1.0, seed: int = 0) -> SourceView:
    """A view of the wall, or of another one at `depth`."""
    image = photo(shift, seed).permute(2, 0, 1).float() / 127.5 - 1
    height, width = image.shape[1:]
    return SourceView(
        image, torch.full((height, width), depth), torch.ones(height, width), pose(shift), intrinsics(height, width)
    )


def scene(shifts: Sequence[int] = (0, 10)) -> Scene:
    """Views of the wall."""
    return Scene(tuple(view(shift) for shift in shifts), 1.0, torch.eye(4))


def cameras(shifts: Sequence[float]) -> Cameras:
    """A path along the wall, one shift in px a frame."""
    return Cameras(torch.stack([pose(shift) for shift in shifts]), intrinsics().expand(len(shifts), 3, 3))
