"""Do views agree about depth? Points of one, seen from another, against what that one says is there."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gen3c.cameras import unproject
from gen3c.fit import SAME_SURFACE
from gen3c.splat import project

PARTNERS = 8  # views that each one is compared with
POINTS = 4096  # of each view, about


@dataclass(frozen=True)
class Agreement:
    """What the comparison of views gave."""

    share: float  # of the points that another view should see: those that it has within SAME_SURFACE
    difference: float  # median of their |depth - the other's| / the other's
    compared: int  # points


def agreement(
    depth: Tensor,  # [n,h,w] z-depth, 0 = unknown or not to be trusted
    w2c: Tensor,  # [n,4,4]
    K: Tensor,  # [n,3,3]
) -> Agreement | None:
    """Compare every view with up to PARTNERS others, evenly spread; None if no view sees a point of another.

    A point behind what the other view sees may be hidden there and does not count; wrong depth shows the other way
    round. Memory does not grow with n.
    """
    n, height, width = depth.shape
    stride = max(1, round((height * width / POINTS) ** 0.5))
    differences = []
    for i in range(n):
        points = unproject(depth[i : i + 1], w2c[i : i + 1], K[i : i + 1])[:, ::stride, ::stride]
        known = depth[i, ::stride, ::stride] > 0
        for j in _partners(i, n):
            pixels, z = project(points, w2c[j : j + 1], K[j : j + 1])
            x, y = pixels[0].round().nan_to_num(-1, -1, -1).clamp(-1, max(height, width)).long().unbind(-1)
            inside = known & (z[0] > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
            there = depth[j, y[inside], x[inside]]
            relative = (z[0][inside] - there)[there > 0] / there[there > 0]
            differences.append(relative[relative <= SAME_SURFACE].abs())
    every = torch.cat(differences) if differences else torch.zeros(0)
    if not len(every):
        return None
    return Agreement(float((every <= SAME_SURFACE).float().mean()), float(every.median()), len(every))


def _partners(i: int, n: int) -> list[int]:
    others = [j for j in range(n) if j != i]
    if len(others) <= PARTNERS:
        return others
    return [others[round(k * (len(others) - 1) / (PARTNERS - 1))] for k in range(PARTNERS)]
