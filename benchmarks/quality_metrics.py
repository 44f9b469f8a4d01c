"""Measures of pictures, of videos and of geometry. Pictures are floats in [0,1].

A map holds a value for every pixel, so that one computation serves all kinds of pixels: `mean_over` takes those wanted.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gen3c.cameras import unproject
from gen3c.splat import project

_SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5  # px
_LUMA = (0.299, 0.587, 0.114)  # BT.601
LEAST_PIXELS = 0.005  # share of a video below which a kind of pixels says nothing of it
_SLACK = 0.01  # px, and of a pixel's weight: for rounding
SAME_DEPTH = 0.02  # relative difference up to which two depths are of one point


def squared_error(video: Tensor, truth: Tensor) -> Tensor:
    """Mean over the colours, [t,h,w], of videos [t,3,h,w]."""
    return (video - truth).square().mean(1)


def ssim(video: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of luma (Wang et al. 2004: Gaussian window, 11x11, sigma 1.5), [t,h,w] of [t,3,h,w].

    Edges are mirrored, so that every pixel has a value.
    """
    weights = torch.tensor(_LUMA, device=video.device)[:, None, None]
    x, y = ((picture * weights).sum(1, keepdim=True) for picture in (video, truth))
    moments = _blurred(torch.cat((x, y, x * x, y * y, x * y), dim=1))
    mean_x, mean_y, xx, yy, xy = moments.unbind(1)
    c1, c2 = 0.01**2, 0.03**2
    covariance = xy - mean_x * mean_y
    variances = xx - mean_x**2 + yy - mean_y**2
    return (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))


def _blurred(maps: Tensor) -> Tensor:  # [t,c,h,w]
    pad = _SSIM_WINDOW // 2
    at = torch.arange(_SSIM_WINDOW, device=maps.device) - pad
    kernel = torch.exp(-at.square() / (2 * _SSIM_SIGMA**2))
    kernel = (kernel / kernel.sum()).expand(maps.shape[1], 1, 1, -1)
    maps = F.pad(maps, (pad,) * 4, mode="reflect")
    maps = F.conv2d(maps, kernel, groups=maps.shape[1])
    return F.conv2d(maps, kernel.transpose(2, 3), groups=maps.shape[1])


def mean_over(values: Tensor, where: Tensor) -> float | None:
    """Mean of a map [t,h,w] over the pixels `where` [t,h,w] bool; None where they are fewer than LEAST_PIXELS."""
    share = where.double().mean()
    if float(share) < LEAST_PIXELS:
        return None
    return float((values.double() * where).mean() / share)


def decibel(error: float | None) -> float | None:
    """Peak signal-to-noise ratio of a mean squared error; 100 dB at most, so that equal pictures have a number."""
    return None if error is None else float(-10 * torch.log10(torch.tensor(max(error, 1e-10), dtype=torch.float64)))


@dataclass(frozen=True)
class Motion:
    """Where the surface points of frame i are in frame i+1, for t-1 pairs of frames."""

    grid: Tensor  # [t-1,h,w,2] of torch's grid_sample
    visible: Tensor  # [t-1,h,w] bool: the same surface is there, and all around the point


def motion(depth: Tensor, w2c: Tensor, K: Tensor) -> Motion:
    """From exact z-depth [t,h,w] and cameras w2c [t,4,4], K [3,3]."""
    height, width = depth.shape[1:]
    pairs = len(depth) - 1
    points = unproject(depth[:-1], w2c[:-1], K.expand(pairs, -1, -1))
    pixels, z = project(points, w2c[1:], K.expand(pairs, -1, -1))
    last = torch.tensor([width - 1, height - 1], device=depth.device)
    inside = (z > 0) & ((pixels >= -_SLACK) & (pixels <= last + _SLACK)).all(-1)
    grid = pixels / last * 2 - 1
    # All four pixels that the colour is interpolated from must show the surface.
    near, far = -F.max_pool2d(-depth[1:, None], 2, 1), F.max_pool2d(depth[1:, None], 2, 1)
    corner = torch.minimum(pixels.floor().nan_to_num(0.0).clamp(min=0), last - 1).long()
    index = (corner[..., 1] * (width - 1) + corner[..., 0]).flatten(1)
    near, far = (d.flatten(1).gather(1, index).view_as(z) for d in (near, far))
    same = (near >= z * (1 - SAME_DEPTH)) & (far <= z * (1 + SAME_DEPTH))
    return Motion(grid, inside & same)


def flicker_map(video: Tensor, moved: Motion) -> Tensor:
    """|difference| of colours [0,1] along true correspondences, [t-1,h,w]; means something where they are visible."""
    after = F.grid_sample(video[1:], moved.grid, mode="bilinear", padding_mode="border", align_corners=True)
    return (after - video[:-1]).abs().mean(1)


def lasting(covered: Tensor, moved: Motion) -> Tensor:
    """Points [t-1,h,w] that are visible in both frames and covered in both by a mask [t,h,w] bool."""
    floats = covered[1:, None].float()
    after = F.grid_sample(floats, moved.grid, mode="bilinear", padding_mode="border", align_corners=True)[:, 0]
    return moved.visible & covered[:-1] & (after > 1 - _SLACK)


def rotation_error(estimated: Tensor, true: Tensor) -> Tensor:
    """Angle in degrees [n] between the rotations of w2c [n,4,4], each relative to the first's."""
    relative = [w2c[:, :3, :3].double() @ w2c[:1, :3, :3].double().transpose(1, 2) for w2c in (estimated, true)]
    trace = (relative[0] * relative[1]).sum((1, 2))
    return torch.rad2deg(torch.acos(((trace - 1) / 2).clamp(-1, 1)))


def centres(w2c: Tensor) -> Tensor:
    """Camera positions [n,3] in the frame of the first camera of w2c [n,4,4]."""
    camera = w2c[:1].double() @ torch.linalg.inv(w2c.double())
    position: Tensor = camera[:, :3, 3]
    return position


def abs_rel(estimated: Tensor, true: Tensor) -> tuple[float, float]:
    """Mean |estimate - truth| / truth of known depths, after their median ratio is made 1, and that ratio est/true."""
    known = estimated > 0
    ratio = (estimated[known] / true[known]).double().median()
    return float(((estimated[known] / ratio - true[known]).abs() / true[known]).mean()), float(ratio)
