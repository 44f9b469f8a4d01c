"""Semi-global matching: pick a plane per pixel so that matching costs and jumps between pixels are low.

Hirschmueller, "Stereo Processing by Semiglobal Matching and Mutual Information", PAMI 2008.
"""

from collections.abc import Callable

import torch
from torch import Tensor

DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1))


def aggregate(
    cost: Tensor,
    image: Tensor,
    small_jump: float,
    large_jump: float,
    poll: Callable[[], None] = lambda: None,
) -> Tensor:
    """Sum over eight directions of the cheapest path costs, divided by eight.

    Args:
        cost: matching costs, [h,w,p].
        image: the picture, [3,h,w] in [0,1]; jumps across its edges cost less.
        small_jump: price of a step to an adjacent plane between two pixels.
        large_jump: price of a larger step, where the picture is flat.
        poll: called between directions; may raise.

    Returns:
        Aggregated costs, [h,w,p].
    """
    total = torch.zeros_like(cost)
    for dy, dx in DIRECTIONS:
        poll()
        jump = _jump_prices(image, dy, dx, small_jump, large_jump)  # [h,w]
        if dy == 0:  # walk along columns: the same with rows and columns swapped
            _scan(cost.transpose(0, 1), jump.T, dx, 0, small_jump, total.transpose(0, 1))
        else:
            _scan(cost, jump, dy, dx, small_jump, total)
    return total / len(DIRECTIONS)


def _jump_prices(image: Tensor, dy: int, dx: int, small: float, large: float) -> Tensor:
    """Price of a large jump from the pixel at (-dy, -dx) to each pixel, [h,w]."""
    contrast = (image - image.roll((dy, dx), (1, 2))).abs().amax(0)
    return (large / (1 + contrast / 0.04)).clamp(min=1.5 * small)


def _scan(cost: Tensor, jump: Tensor, step: int, side: int, small: float, total: Tensor) -> None:
    """Add to `total` the path costs along one direction: `step` rows on and `side` columns over a pixel."""
    rows, columns, planes = cost.shape
    order = range(rows) if step > 0 else range(rows - 1, -1, -1)
    padded = torch.full((columns, planes + 2), torch.inf)  # a border spares the end planes a special case
    path = torch.zeros(columns, planes)
    for number, y in enumerate(order):
        if number == 0:
            path = cost[y].clone()
        else:
            if side:
                path = path.roll(side, 0)
                path[0 if side > 0 else -1] = 0  # a path that enters from the side has no past
            least = path.amin(1, keepdim=True)
            padded[:, 1:-1] = path
            near = torch.minimum(padded[:, :-2], padded[:, 2:]).add_(small)
            best = torch.minimum(torch.minimum(path, near), least + jump[y][:, None])
            path = best.sub_(least).add_(cost[y])
        total[y] += path


def choose(aggregated: Tensor) -> Tensor:
    """The cheapest plane of each pixel of costs [h,w,p], refined by a parabola: fractional indices, [h,w]."""
    planes = aggregated.shape[2]
    best = aggregated.argmin(2, keepdim=True)
    inner = best.clamp(1, planes - 2)
    low, middle, high = (aggregated.gather(2, inner + k) for k in (-1, 0, 1))
    curvature = (low + high - 2 * middle).clamp(min=1e-6)
    offset = ((low - high) / (2 * curvature)).clamp(-0.5, 0.5)
    return torch.where(best == inner, inner + offset, best.float())[..., 0]
