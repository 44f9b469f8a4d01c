"""Forward warp: splat coloured world points into a target camera. The PyTorch reference; on a GPU, splat_gpu's twin.

Every point spreads over the four pixels around its projection, bilinearly, weighted down with its distance so that
near points win softly: weight = bilinear / (exp(50 log(1+z) / M) + 1e-7) with M the largest log(1+z). GEN3C takes M
over all images of one call, so a picture depends on its batch mates; here M is per image unless `normaliser="call"`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gen3c.cameras import to_camera, transform

EMPTY = -1.0  # colour of a pixel that no point reaches
_SHARPNESS = 50.0
_MAX_EXPONENT = 80.0  # keeps exp() within float32


@dataclass(frozen=True)
class Warp:
    """What a set of points looks like from a target camera."""

    image: Tensor  # [b,c,h,w], EMPTY where nothing lands
    coverage: Tensor  # [b,1,h,w] float 0 or 1: some weight landed
    depth: Tensor  # [b,1,h,w] target z, 0 where nothing lands
    weight: Tensor  # [b,1,h,w] summed splat weight


def project(points: Tensor, w2c: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel coordinates [b,h,w,2] and camera z [b,h,w] of world points [b,h,w,3]; z <= 0 is behind the camera."""
    q = transform(K, to_camera(points, w2c))
    return q[..., :2] / (q[..., 2:] + 1e-7), q[..., 2]


def depth_weight(z: Tensor, normaliser: Literal["image", "call"]) -> Tensor:
    """The divisor of the splat weight, >= 1, growing with z [b,h,w]; points behind the camera count as z = 0."""
    log_z = torch.log1p(z.clamp(min=0))
    largest = log_z.amax() if normaliser == "call" else log_z.amax(dim=(1, 2), keepdim=True)
    return torch.exp((_SHARPNESS * log_z / (largest + 1e-7)).clamp(max=_MAX_EXPONENT)) + 1e-7


def splat(
    values: Tensor,  # [b,c,h,w]
    pixels: Tensor,  # [b,h,w,2] target x, y
    weight: Tensor,  # [b,h,w] >= 0; 0 = the point takes no part
    size: tuple[int, int],  # target height, width
) -> tuple[Tensor, Tensor]:
    """Weighted mean of the values that land on each target pixel, [b,c,H,W], and the summed weight [b,1,H,W].

    The mean is 0 where the weight is 0. Points up to one pixel outside the picture still reach its edge. A coordinate
    that is an integer makes all four corners coincide, as in GEN3C: such a point counts four times.
    """
    b, c = values.shape[:2]
    height, width = size
    padded_h, padded_w = height + 2, width + 2
    limit = torch.tensor([padded_w - 1, padded_h - 1], dtype=torch.float32, device=values.device)
    xy = torch.nan_to_num(pixels, nan=-1.0, posinf=1e6, neginf=-1e6) + 1
    low, high = xy.floor(), xy.ceil()
    weight_low, weight_high = 1 - (xy - low), 1 - (high - xy)
    low = torch.minimum(low.clamp(min=0), limit).long()
    high = torch.minimum(high.clamp(min=0), limit).long()

    total = torch.zeros(b, c + 1, padded_h * padded_w, dtype=torch.float32, device=values.device)
    payload = torch.cat((values.float(), torch.ones_like(values[:, :1], dtype=torch.float32)), dim=1)
    for x, wx in ((low[..., 0], weight_low[..., 0]), (high[..., 0], weight_high[..., 0])):
        for y, wy in ((low[..., 1], weight_low[..., 1]), (high[..., 1], weight_high[..., 1])):
            corner = (wx * wy * weight)[:, None] * payload  # [b,c+1,h,w]
            index = (y * padded_w + x).flatten(1)[:, None].expand(-1, c + 1, -1)
            total.scatter_add_(2, index, corner.flatten(2))
    total = total.view(b, c + 1, padded_h, padded_w)[:, :, 1:-1, 1:-1]
    summed = total[:, -1:]
    covered = summed > 0
    mean = total[:, :-1] / torch.where(covered, summed, torch.ones_like(summed))
    return torch.where(covered, mean, torch.zeros_like(mean)), summed


def forward_warp(
    points: Tensor,  # [b,h,w,3] world
    image: Tensor,  # [b,c,h,w] in [-1,1]
    mask: Tensor,  # [b,1,h,w] 0 or 1: points that exist
    w2c: Tensor,  # [b,4,4] target camera
    K: Tensor,  # [b,3,3]
    size: tuple[int, int] | None = None,  # target height, width; default: the source's
    *,
    normaliser: Literal["image", "call"] = "image",
) -> Warp:
    """Render coloured points into target cameras (GEN3C section 3.2 of the paper; softmax splatting)."""
    pixels, z = project(points, w2c, K)
    weight = mask[:, 0].float() * (z > 0) / depth_weight(z, normaliser)
    height, width = size or image.shape[-2:]
    values = torch.cat((image.float(), z[:, None]), dim=1)
    mean, summed = (_splat_gpu if points.is_cuda else splat)(values, pixels, weight, (height, width))
    covered = summed > 0
    colour = torch.where(covered, mean[:, :-1], torch.full_like(mean[:, :-1], EMPTY)).clamp(-1, 1)
    return Warp(colour, covered.float(), mean[:, -1:], summed)


def _splat_gpu(values: Tensor, pixels: Tensor, weight: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    from gen3c import splat_gpu  # needs the compiler that PyTorch's CUDA builds bring, and its CPU builds do not

    return splat_gpu.splat(values, pixels, weight, size)
