"""Depth known only up to scale, brought into agreement with depth that is known (GEN3C's cache update).

First one scale and one shift for the whole picture, in inverse depth, where an affine-invariant network is wrong by
just that; then a factor per pixel, for what remains. `reference` computes what the released GEN3C does, where that
differs.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gen3c.cameras import unproject
from gen3c.errors import InvalidInputError

INNER = (0.1, 0.9)  # quantiles of depth between which a pixel may vote for scale and shift
STEPS = 100
LEARNING_RATE = 1e-3
SMOOTHNESS = 0.1  # weight of the factor's difference from its 3x3 mean
EXPLAINED = 0.5  # share of the target's variance below which a shift would be guessed from noise, and none is fitted
_FLAT = 1e-10  # relative variance of inverse depth that is rounding


def align_rigid(
    depth: Tensor,  # [h,w] z-depth up to scale, 0 = unknown
    target: Tensor,  # [h,w] z-depth in the scene's unit
    overlap: Tensor,  # [h,w] bool: where the target is known
    *,
    reference: bool = False,
) -> Tensor:
    """`depth` as 1 / (s/depth + b) with s and b by least squares against 1/target, [h,w]; unknown depth stays 0.

    Pixels vote whose depth lies within the INNER quantiles of both depths over the overlap. The reference takes the
    quantiles of `depth` over the whole picture and asks for strictly inside. Where the line explains less than half of
    the target, as on a flat wall, b is 0 and s the ratio of the means; not so in the reference.

    Raises InvalidInputError if nothing is left to vote, or if far and near are exchanged (s < 0).
    """
    shared = overlap & (depth > 0) & (target > 0)
    if not shared.any():
        raise InvalidInputError("The new depth and the cache have no pixel in common; legal: views that overlap.")
    limits = torch.tensor(INNER, dtype=torch.float64, device=depth.device)
    low, high = _quantiles(depth if reference else depth[shared], limits)
    target_low, target_high = _quantiles(target[overlap if reference else shared], limits)
    if reference:
        votes = shared & (depth > low) & (depth < high) & (target > target_low) & (target < target_high)
    else:
        votes = shared & (depth >= low) & (depth <= high) & (target >= target_low) & (target <= target_high)
    if not votes.any():
        raise InvalidInputError(
            f"No pixel has both depths within their inner {INNER[0]:.0%} to {INNER[1]:.0%}; legal: a new depth that "
            "resembles what the cache shows."
        )
    s, b = _line(1 / depth[votes].double(), 1 / target[votes].double(), 0.0 if reference else EXPLAINED)
    if reference:
        return 1 / (s / depth + b)
    if s <= 0:
        raise InvalidInputError(
            f"The new depth contradicts the cache: its scale in inverse depth is {s:.3g}; legal: a positive one."
        )
    inverse = s / torch.where(depth > 0, depth, 1.0) + b
    return torch.where((depth > 0) & (inverse > 0), 1 / inverse.clamp(min=1e-12), 0.0)


def align_nonrigid(
    depth: Tensor,  # [h,w] z-depth, already of the right size, 0 = unknown
    target: Tensor,  # [h,w]
    overlap: Tensor,  # [h,w] bool: where the target is known
    w2c: Tensor,  # [4,4]
    K: Tensor,  # [3,3]
    *,
    steps: int = STEPS,
    reference: bool = False,
) -> Tensor:
    """`depth` times a factor per pixel, [h,w], that brings its points to those of the target and stays smooth.

    Minimises `nonrigid_loss` with Adam from a factor of 1. The reference hands over the inverse pose, and counts zeros
    outside the picture in the mean that the factor is compared with, which bends the rim. Raises InvalidInputError for
    an empty overlap. Deterministic, and independent of any ambient gradient or inference mode.
    """
    shared = overlap if reference else overlap & (depth > 0) & (target > 0)
    if not shared.any():
        raise InvalidInputError("The new depth and the cache have no pixel in common; legal: views that overlap.")
    with torch.inference_mode(False), torch.enable_grad():
        # Tensors made in inference mode take no part in a graph; their copies do.
        start, shared, K = depth.detach().clone(), shared.clone(), K.detach().clone()
        pose = torch.linalg.inv(w2c.detach().clone()) if reference else w2c.detach().clone()
        goal = unproject(target.detach().clone()[None], pose[None], K[None])[0]
        factor = torch.ones_like(start, requires_grad=True)
        optimizer = torch.optim.Adam([factor], lr=LEARNING_RATE)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = nonrigid_loss(factor, start, goal, shared, pose, K, zeros_outside=reference)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return (start * factor).detach()


def nonrigid_loss(
    factor: Tensor,  # [h,w]
    depth: Tensor,  # [h,w]
    goal: Tensor,  # [h,w,3] world points
    shared: Tensor,  # [h,w] bool
    w2c: Tensor,  # [4,4]
    K: Tensor,  # [3,3]
    *,
    zeros_outside: bool = False,
) -> Tensor:
    """Mean absolute coordinate error over the shared pixels + SMOOTHNESS * mean |box3x3(factor) - factor|, a scalar."""
    points = unproject((depth * factor)[None], w2c[None], K[None])[0]
    mean = F.avg_pool2d(factor[None, None], 3, 1, 1, count_include_pad=zeros_outside)[0, 0]
    return (points - goal)[shared].abs().mean() + SMOOTHNESS * (mean - factor).abs().mean()


def _quantiles(values: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
    """Two quantiles of all values; torch.quantile itself takes no more than 2^24 of them."""
    ordered = values.flatten().double().sort().values
    place = limits * (len(ordered) - 1)
    below, above = ordered[place.floor().long()], ordered[place.ceil().long()]
    low, high = (below + (above - below) * (place - place.floor())).unbind()
    return low, high


def _line(x: Tensor, y: Tensor, explained: float) -> tuple[float, float]:
    """Slope and intercept of y [n] over x [n] by least squares; a pure scale where x explains less of y than asked."""
    mean_x, mean_y = x.mean(), y.mean()
    variance, target_variance = (x - mean_x).square().mean(), (y - mean_y).square().mean()
    covariance = ((x - mean_x) * (y - mean_y)).mean()
    if variance <= _FLAT * mean_x**2 or covariance**2 < explained * variance * target_variance:
        return float(mean_y / mean_x), 0.0
    slope = covariance / variance
    return float(slope), float(mean_y - slope * mean_x)
