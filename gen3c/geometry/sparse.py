"""A sparse reconstruction: posed cameras and the 3-D points that they share."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SparseScene:
    """What structure from motion knows of n views, in its own world frame and unit.

    Cameras are OpenCV; pixel centres are integers; K of a view is in pixels of that view's own frame.
    """

    w2c: Tensor  # [n,4,4] float64, world to camera
    K: Tensor  # [n,3,3] float64
    points: Tensor  # [p,3] float64, world
    seen: Tensor  # [p,n] bool, whether a point was measured in a view
    error: Tensor  # [p] float64, mean reprojection error in pixels of the matched pictures

    def __len__(self) -> int:
        return self.w2c.shape[0]

    @property
    def centres(self) -> Tensor:
        """Camera centres in the world, [n,3]."""
        return -(self.w2c[:, :3, :3].transpose(1, 2) @ self.w2c[:, :3, 3:])[:, :, 0]

    def subset(self, views: Sequence[int]) -> "SparseScene":
        """The scene as these views alone know it: points that fewer than two of them measured are gone."""
        index = list(views)
        seen = self.seen[:, index]
        kept = seen.sum(1) >= 2
        return SparseScene(self.w2c[index], self.K[index], self.points[kept], seen[kept], self.error[kept])

    def depths(self, view: int) -> Tensor:
        """z-depths in `view` of the points that it measured and that lie before it, [m]."""
        pose = self.w2c[view]
        z = self.points[self.seen[:, view]] @ pose[2, :3] + pose[2, 3]
        return z[z > 0]

    def ray_angles(self, view: int, other: int) -> Tensor:
        """Angles in degrees under which the points that both views measured see the two centres, [m]."""
        shared = self.points[self.seen[:, view] & self.seen[:, other]]
        a = torch.nn.functional.normalize(self.centres[view] - shared, dim=1)
        b = torch.nn.functional.normalize(self.centres[other] - shared, dim=1)
        # atan2 of sine and cosine, because acos loses half of the digits near zero.
        return torch.rad2deg(torch.atan2(torch.linalg.cross(a, b).norm(dim=1), (a * b).sum(1)))
