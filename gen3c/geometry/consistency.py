"""Do the depths of several views tell the same story? Confidence and fusion by forward-backward projection."""

import torch
from torch import Tensor

from gen3c.geometry.matching import Projection, View

TOLERANCE = 1.0  # pixels of forward-backward error at which a neighbour's support falls to exp(-1/2)
OWN_WEIGHT = 1.0  # of a view's own inverse depth in the fused mean, next to the neighbours' support


def cross_check(ref: View, inverse_depth: Tensor, others: list[tuple[View, Tensor]]) -> tuple[Tensor, Tensor]:
    """Compare a view's depth with its neighbours'.

    Args:
        ref: the view.
        inverse_depth: its inverse depths, [h,w].
        others: neighbours and their inverse depths, [h',w'] each.

    Returns:
        support [h,w]: neighbours that agree, each counted by exp(-(error / TOLERANCE)^2 / 2);
        fused [h,w]: mean inverse depth of the view and the neighbours that agree.
    """
    height, width = ref.size
    v, u = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    support = torch.zeros_like(inverse_depth)
    total = OWN_WEIGHT * inverse_depth
    for other, their_inverse_depth in others:
        there_u, there_v, there_z = (m[0] for m in Projection(ref, other)(inverse_depth[None]))
        inside = (
            (there_u > -0.5)
            & (there_u < other.size[1] - 0.5)
            & (there_v > -0.5)
            & (there_v < other.size[0] - 0.5)
            & (there_z > 1e-6)
        )
        column = there_u.round().long().clamp(0, other.size[1] - 1)
        row = there_v.round().long().clamp(0, other.size[0] - 1)
        theirs = their_inverse_depth[row, column]
        # The point of the other view at exactly the projected place, with the depth it has there.
        there = pixel_point(other.K, there_u, there_v) / theirs.clamp(min=1e-9)
        back = (ref.w2c @ torch.linalg.inv(other.w2c)).float()
        point = torch.einsum("ij,jhw->ihw", back[:3, :3], there) + back[:3, 3, None, None]
        z = point[2].clamp(min=1e-6)
        pixel = torch.einsum("ij,jhw->ihw", ref.K.float(), point / z)
        error = (pixel[0] - u) ** 2 + (pixel[1] - v) ** 2
        agrees = torch.where(inside & (point[2] > 1e-6), torch.exp(-error / (2 * TOLERANCE**2)), 0.0)
        agrees = torch.where(agrees > 0.01, agrees, 0.0)
        support += agrees
        total += agrees / z
    return support, total / (OWN_WEIGHT + support)


def pixel_point(K: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """The points at z-depth 1 seen at columns u and rows v [h,w], [3,h,w]."""
    x = (u - float(K[0, 2])) / float(K[0, 0])
    y = (v - float(K[1, 2])) / float(K[1, 1])
    return torch.stack([x, y, torch.ones_like(u)])
