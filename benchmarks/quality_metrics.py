"""Measures of pictures, of videos and of geometry. Pictures are floats in [0,1].

A map holds a value for every pixel, so that one computation serves all kinds of pixels: `mean_over` takes those wanted.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.motion import SLACK, Motion

_SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5  # px
_LUMA = (0.299, 0.587, 0.114)  # BT.601
LEAST_PIXELS = 0.005  # share of a video below which a kind of pixels says nothing of it


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


def flicker_map(video: Tensor, moved: Motion) -> Tensor:
    """|difference| of colours [0,1] along true correspondences, [t-1,h,w]; means something where they are visible."""
    after = F.grid_sample(video[1:], moved.grid, mode="bilinear", padding_mode="border", align_corners=True)
    return (after - video[:-1]).abs().mean(1)


def lasting(covered: Tensor, moved: Motion) -> Tensor:
    """Points [t-1,h,w] that are visible in both frames and covered in both by a mask [t,h,w] bool."""
    floats = covered[1:, None].float()
    after = F.grid_sample(floats, moved.grid, mode="bilinear", padding_mode="border", align_corners=True)[:, 0]
    return moved.visible & covered[:-1] & (after > 1 - SLACK)


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
