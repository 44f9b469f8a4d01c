"""Do views agree about depth? Points of one, seen from another, against what that one says is there."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gen3c.cameras import unproject
from gen3c.fit import SAME_SURFACE
from gen3c.splat import project

NEAREST, SPREAD = 4, 4  # views that each one is compared with: by place, and evenly spread over all
POINTS = 4096  # of each view, about
FEWEST = 50  # comparisons that say something about a view


@dataclass(frozen=True)
class Agreement:
    """What the comparison of n views gave.

    A comparison is of a point of one view that another should see; it agrees if that one has it within SAME_SURFACE.
    """

    compared: Tensor  # [n] int64, comparisons that a view had a part in
    agreed: Tensor  # [n] int64, of those
    difference: float  # median of |depth - the other's| / the other's; NaN without comparisons

    @property
    def share(self) -> float | None:
        """Of all comparisons, those that agree; None if there are none to speak of."""
        total = int(self.compared.sum())
        return float(self.agreed.sum()) / total if total >= FEWEST else None

    def shares(self) -> list[float | None]:
        """The same by view."""
        counts = zip(self.compared.tolist(), self.agreed.tolist(), strict=True)
        return [agreed / compared if compared >= FEWEST else None for compared, agreed in counts]


def agreement(
    depth: Tensor,  # [n,h,w] z-depth, 0 = unknown or not to be trusted
    w2c: Tensor,  # [n,4,4]
    K: Tensor,  # [n,3,3]
) -> Agreement:
    """Compare every view with up to NEAREST + SPREAD others.

    A point behind what the other view sees may be hidden there and does not count; wrong depth shows the other way
    round, and counts against both views. Memory does not grow with n^2.
    """
    n, height, width = depth.shape
    stride = max(1, round((height * width / POINTS) ** 0.5))
    counts = torch.zeros(2, n, dtype=torch.int64)
    differences = [torch.zeros(0)]
    partners = _partners(w2c)
    for i in range(n):
        points = unproject(depth[i : i + 1], w2c[i : i + 1], K[i : i + 1])[:, ::stride, ::stride]
        known = depth[i, ::stride, ::stride] > 0
        for j in partners[i]:
            pixels, z = project(points, w2c[j : j + 1], K[j : j + 1])
            x, y = pixels[0].round().nan_to_num(-1, -1, -1).clamp(-1, max(height, width)).long().unbind(-1)
            inside = known & (z[0] > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
            there = depth[j, y[inside], x[inside]]
            relative = (z[0][inside] - there)[there > 0] / there[there > 0]
            visible = relative[relative <= SAME_SURFACE].abs()
            differences.append(visible)
            for view in (i, j):
                counts[0, view] += len(visible)
                counts[1, view] += int((visible <= SAME_SURFACE).sum())
    every = torch.cat(differences)
    return Agreement(counts[0], counts[1], float(every.median()) if len(every) else float("nan"))


def _partners(w2c: Tensor) -> list[list[int]]:
    """For each camera the nearest others, and some from everywhere."""
    n = len(w2c)
    places = torch.linalg.inv(w2c.double())[:, :3, 3]
    spread = {round(k * (n - 1) / (SPREAD - 1)) for k in range(SPREAD)}
    chosen = []
    for i in range(n):
        distances = (places - places[i]).norm(dim=-1)
        nearest = distances.argsort(stable=True)[: NEAREST + 1].tolist()
        chosen.append(sorted((set(nearest) | spread) - {i}))
    return chosen
