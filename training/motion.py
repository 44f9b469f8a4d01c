"""Where surface points of a frame are in the next one, from exact depth and cameras."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gen3c.cameras import unproject
from gen3c.splat import project

SAME_DEPTH = 0.02  # relative difference up to which two depths are of one point
SLACK = 0.01  # px, for rounding


@dataclass(frozen=True)
class Motion:
    """Where the surface points of frame i are in frame i+1, for t-1 pairs of frames."""

    pixels: Tensor  # [t-1,h,w,2] x, y
    visible: Tensor  # [t-1,h,w] bool: the same surface is there, and all around the point

    @property
    def grid(self) -> Tensor:
        """The same for torch's grid_sample, [t-1,h,w,2]."""
        height, width = self.visible.shape[1:]
        return self.pixels / _last(height, width, self.pixels) * 2 - 1


def motion(depth: Tensor, w2c: Tensor, K: Tensor) -> Motion:
    """From z-depth [t,h,w] and cameras w2c [t,4,4], K [3,3]."""
    height, width = depth.shape[1:]
    pairs = len(depth) - 1
    points = unproject(depth[:-1], w2c[:-1], K.expand(pairs, -1, -1))
    pixels, z = project(points, w2c[1:], K.expand(pairs, -1, -1))
    last = _last(height, width, depth)
    inside = (z > 0) & ((pixels >= -SLACK) & (pixels <= last + SLACK)).all(-1)
    # All four pixels that the colour is interpolated from must show the surface.
    near, far = -F.max_pool2d(-depth[1:, None], 2, 1), F.max_pool2d(depth[1:, None], 2, 1)
    corner = torch.minimum(pixels.floor().nan_to_num(0.0).clamp(min=0), last - 1).long()
    index = (corner[..., 1] * (width - 1) + corner[..., 0]).flatten(1)
    near, far = (d.flatten(1).gather(1, index).view_as(z) for d in (near, far))
    same = (near >= z * (1 - SAME_DEPTH)) & (far <= z * (1 + SAME_DEPTH))
    return Motion(pixels, inside & same)


def shifts(moved: Motion) -> Tensor:
    """How far points move in pixels, [t-1,h,w,2] float16; NaN where they are not visible in the next frame."""
    height, width = moved.visible.shape[1:]
    shift = moved.pixels - _raster(height, width, moved.pixels.device)
    return torch.where(moved.visible[..., None], shift, torch.nan).half()


def unsteadiness(values: Tensor, shift: Tensor) -> Tensor:
    """Mean absolute change of values [n,c,t,h,w] along the `shifts` [n,t-1,h,w,2] of their points; a scalar.

    Points that leave the raster do not count, so that windows of pictures may be given with windows of shifts.
    """
    n, channels, frames, height, width = values.shape
    known = shift.isfinite().all(-1)
    last = _last(height, width, values)
    pixels = _raster(height, width, values.device) + shift.float().nan_to_num(0.0)
    known = known & ((pixels >= 0) & (pixels <= last)).all(-1)
    after = values[:, :, 1:].transpose(1, 2).reshape(n * (frames - 1), channels, height, width)
    grid = (pixels / last * 2 - 1).flatten(0, 1)
    after = F.grid_sample(after, grid, mode="bilinear", padding_mode="border", align_corners=True)
    change = after.unflatten(0, (n, frames - 1)).transpose(1, 2) - values[:, :, :-1]
    return (change.abs().mean(1) * known).sum() / known.sum().clamp(min=1)


def _raster(height: int, width: int, device: torch.device) -> Tensor:
    """x, y of every pixel, [h,w,2]."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack((x, y), dim=-1)


def _last(height: int, width: int, like: Tensor) -> Tensor:
    return torch.tensor([width - 1, height - 1], dtype=torch.float32, device=like.device)
