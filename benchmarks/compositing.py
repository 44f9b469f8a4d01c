"""Several source views rendered into one target camera and blended, for figures that need a picture without a network.

Nothing is painted: a pixel that no reliable point reaches stays empty.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from gen3c.cameras import unproject
from gen3c.splat import forward_warp

SAME_SURFACE = 0.03  # relative difference of depth within which two views show the same surface
TRUSTED_SHARE = 0.25  # a surface in front wins if it has this share of the best supported surface's weight
LEAST_ANGLE = 1.0  # degrees; nearer views do not count for more


@dataclass(frozen=True)
class Target:
    """The camera to render."""

    w2c: Tensor  # [4,4]
    K: Tensor  # [3,3] pixels of the target raster, integer centres
    size: tuple[int, int]  # height, width


@dataclass(frozen=True)
class Source:
    """One posed picture with depth."""

    image: Tensor  # [3,h,w] in [0,1]
    depth: Tensor  # [h,w]
    confidence: Tensor  # [h,w] in [0,1]
    w2c: Tensor  # [4,4]
    K: Tensor  # [3,3]


@dataclass(frozen=True)
class Composite:
    """What the sources show of the target."""

    image: Tensor  # [3,H,W] in [0,1]; 0 where nothing lands
    covered: Tensor  # [H,W] bool
    covered_by: Tensor  # [n,H,W] bool, per source


def composite(sources: list[Source], target: Target, min_confidence: float) -> Composite:
    """Splat each source and blend, per pixel, those that show the front surface.

    A source weighs confidence / angle^2, with the angle between its ray and the target's at the surface.
    Only points with at least `min_confidence` are used.
    """
    images, depths, weights = (
        torch.stack(maps) for maps in zip(*(_render(s, target, min_confidence) for s in sources), strict=True)
    )
    front = _front_surface(depths, weights)
    shown = weights * ((depths - front).abs() <= SAME_SURFACE * front)
    total = shown.sum(0)
    image = (images * shown[:, None]).sum(0) / total.clamp(min=1e-12)
    return Composite(image * (total > 0), total > 0, weights > 0)


def _render(source: Source, target: Target, min_confidence: float) -> tuple[Tensor, Tensor, Tensor]:
    """Image [3,H,W], depth [H,W] and blending weight [H,W] (0 = empty) of one source seen by the target."""
    points = unproject(source.depth[None], source.w2c[None], source.K[None])  # [1,h,w,3]
    reliable = ((source.depth > 0) & (source.confidence >= min_confidence)).float()[None, None]
    values = torch.cat([source.image * 2 - 1, source.confidence[None]])[None]
    warp = forward_warp(points, values, reliable, target.w2c[None], target.K[None], target.size)
    depth = warp.depth[0, 0]
    surface = unproject(depth[None], target.w2c[None], target.K[None])[0]  # [H,W,3]
    rays = (surface - _centre(source.w2c), surface - _centre(target.w2c))
    cosine = torch.nn.functional.cosine_similarity(*rays, dim=-1).clamp(-1, 1)
    angle = torch.rad2deg(torch.acos(cosine)).clamp(min=LEAST_ANGLE)
    weight = (warp.weight[0, 0] > 0) * warp.image[0, 3].clamp(min=1e-3) / angle**2
    return (warp.image[0, :3] + 1) / 2, depth, weight


def _front_surface(depths: Tensor, weights: Tensor) -> Tensor:
    """Depth [H,W] of the nearest surface that enough of the sources agree on, from depths and weights [n,H,W]."""
    support = torch.stack(
        [
            (weights * ((depths - d).abs() <= SAME_SURFACE * d)).sum(0) * (w > 0)
            for d, w in zip(depths, weights, strict=True)
        ]
    )
    trusted = (support > 0) & (support >= TRUSTED_SHARE * support.amax(0))
    return torch.where(trusted, depths, torch.inf).amin(0)


def _centre(w2c: Tensor) -> Tensor:
    return -(w2c[:3, :3].T @ w2c[:3, 3])
