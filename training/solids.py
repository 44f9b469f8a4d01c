"""Solids that rays meet: boxes, frusta (cylinders, cones, pots) and ellipsoids, in a z-up world of metres."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from training.textures import Material

NEAR = 1e-3  # m, hits closer than this are the surface that the ray leaves
MISS = math.inf

Vec3 = tuple[float, float, float]


class Solid(Protocol):
    """A closed shape of one material."""

    @property
    def material(self) -> Material: ...

    @property
    def bound(self) -> tuple[Tensor, float]:
        """Centre [3] and radius of a sphere around the solid."""
        ...

    def intersect(self, origins: Tensor, rays: Tensor) -> Tensor:
        """Ray parameter of the first hit beyond NEAR, inf where there is none; [n,3] or [1,3], [n,3] -> [n]."""
        ...

    def surface(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Outward unit normals [n,3] and surface coordinates [n,2] in metres, at points [n,3] of the surface."""
        ...


@dataclass(frozen=True)
class Box:
    """A box turned by `yaw` about the vertical through its centre."""

    center: Vec3
    half: Vec3
    material: Material
    yaw: float = 0.0

    @property
    def bound(self) -> tuple[Tensor, float]:
        """See Solid."""
        return torch.tensor(self.center), math.hypot(*self.half)

    def intersect(self, origins: Tensor, rays: Tensor) -> Tensor:
        """See Solid."""
        start = self._to_local(origins - torch.tensor(self.center))
        inverse = 1 / self._to_local(rays)
        half = torch.tensor(self.half)
        a, b = (-half - start) * inverse, (half - start) * inverse
        enter = torch.minimum(a, b).amax(1)
        leave = torch.maximum(a, b).amin(1)
        return torch.where((enter > NEAR) & (enter <= leave), enter, MISS)

    def surface(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """See Solid."""
        local = self._to_local(points - torch.tensor(self.center))
        axis = (local.abs() - torch.tensor(self.half)).argmax(1, keepdim=True)
        normal = torch.zeros_like(local).scatter_(1, axis, local.gather(1, axis).sign())
        first = torch.where(axis == 0, 1, 0)
        second = torch.where(axis == 2, 1, 2)
        return self._to_world(normal), torch.cat([local.gather(1, first), local.gather(1, second)], 1)

    def _to_local(self, vectors: Tensor) -> Tensor:
        return _turn(vectors, -self.yaw)

    def _to_world(self, vectors: Tensor) -> Tensor:
        return _turn(vectors, self.yaw)


@dataclass(frozen=True)
class Frustum:
    """A vertical round solid, `radii` wide at its foot and top: cylinder, cone, pot."""

    foot: Vec3
    height: float
    radii: tuple[float, float]
    material: Material

    @property
    def bound(self) -> tuple[Tensor, float]:
        """See Solid."""
        x, y, z = self.foot
        return torch.tensor((x, y, z + self.height / 2)), math.hypot(self.height / 2, max(self.radii))

    def intersect(self, origins: Tensor, rays: Tensor) -> Tensor:
        """See Solid."""
        o = origins - torch.tensor(self.foot)
        taper = self._taper
        radius = self.radii[0] + taper * o[:, 2]
        a = rays[:, 0] ** 2 + rays[:, 1] ** 2 - (taper * rays[:, 2]) ** 2
        b = o[:, 0] * rays[:, 0] + o[:, 1] * rays[:, 1] - taper * rays[:, 2] * radius
        c = o[:, 0] ** 2 + o[:, 1] ** 2 - radius**2
        root = (b * b - a * c).sqrt()  # NaN where the line misses: every comparison below is then false
        nearest = torch.full_like(root, MISS)
        for t in ((-b - root) / a, (-b + root) / a):
            z = o[:, 2] + t * rays[:, 2]
            good = (t > NEAR) & (z >= 0) & (z <= self.height)
            nearest = torch.where(good & (t < nearest), t, nearest)
        for level, limit in ((0.0, self.radii[0]), (self.height, self.radii[1])):
            t = (level - o[:, 2]) / rays[:, 2]
            off_axis = (o[:, 0] + t * rays[:, 0]) ** 2 + (o[:, 1] + t * rays[:, 1]) ** 2
            good = (t > NEAR) & (off_axis <= limit**2)
            nearest = torch.where(good & (t < nearest), t, nearest)
        return nearest

    def surface(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """See Solid."""
        local = points - torch.tensor(self.foot)
        x, y, z = local.unbind(1)
        around = torch.hypot(x, y).clamp_min(1e-6)
        side = torch.stack([x / around, y / around, torch.full_like(x, -self._taper)], 1)
        side = side / side.norm(dim=1, keepdim=True)
        cap = torch.stack([torch.zeros_like(x), torch.zeros_like(x), (z - self.height / 2).sign()], 1)
        to_side = (around - self.radii[0] - self._taper * z).abs()
        on_cap = torch.minimum(z.abs(), (z - self.height).abs()) < to_side
        wrapped = torch.stack([torch.atan2(y, x) * max(self.radii), z], 1)
        return torch.where(on_cap[:, None], cap, side), torch.where(on_cap[:, None], local[:, :2], wrapped)

    @property
    def _taper(self) -> float:
        return (self.radii[1] - self.radii[0]) / self.height


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid of vertical half axis `radii[1]` and horizontal ones `radii[0]`."""

    center: Vec3
    radii: tuple[float, float]
    material: Material

    @property
    def bound(self) -> tuple[Tensor, float]:
        """See Solid."""
        return torch.tensor(self.center), max(self.radii)

    def intersect(self, origins: Tensor, rays: Tensor) -> Tensor:
        """See Solid."""
        axes = self._axes
        o, d = (origins - torch.tensor(self.center)) / axes, rays / axes
        a, b, c = (d * d).sum(1), (o * d).sum(1), (o * o).sum(1) - 1
        t = (-b - (b * b - a * c).sqrt()) / a
        return torch.where(t > NEAR, t, MISS)

    def surface(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """See Solid."""
        local = (points - torch.tensor(self.center)) / self._axes
        normal = local / self._axes
        uv = torch.stack(
            [torch.atan2(local[:, 1], local[:, 0]) * self.radii[0], local[:, 2].clamp(-1, 1).asin() * self.radii[1]], 1
        )
        return normal / normal.norm(dim=1, keepdim=True), uv

    @property
    def _axes(self) -> Tensor:
        return torch.tensor((self.radii[0], self.radii[0], self.radii[1]))


def _turn(vectors: Tensor, angle: float) -> Tensor:
    """Rotate [n,3] about the vertical."""
    c, s = math.cos(angle), math.sin(angle)
    x, y, z = vectors.unbind(1)
    return torch.stack([c * x - s * y, s * x + c * y, z], 1)
