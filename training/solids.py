"""Convex solids in a z-up world of metres, as tensors: boxes, roofs, frusta and ellipsoids, and rays that meet them.

A solid is the image of a unit shape under an affine map. Unit shapes lie in |z| <= 1: a box is |x|,|y| <= 1, a round
one x^2 + y^2 + bulge z^2 <= (middle + taper z)^2. So one formula, without branches, meets them all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from training.textures import NAMES, Vec

NEAR = 1e-3  # m: nearer than this, a ray leaves the surface that it meets

Number = float | Tensor  # a plain number, or [b]


@dataclass(frozen=True)
class Solids:
    """b scenes of n solids each, on one device."""

    inverse: Tensor  # [b,n,3,3] world directions to directions of the unit shape
    centre: Tensor  # [b,n,3] metres
    lengths: Tensor  # [b,n,3] metres, half lengths along the axes of the unit shape
    shape: Tensor  # [b,n,6] round (0 or 1), bulge, middle, taper, within (seen from inside), casts (a shadow)
    material: Tensor  # [b,n,len(NAMES)]

    def to(self, device: torch.device) -> "Solids":
        """The same on a device."""
        return Solids(*(getattr(self, field.name).to(device) for field in fields(self)))

    def __getitem__(self, scenes: slice) -> "Solids":
        return Solids(*(getattr(self, field.name)[scenes] for field in fields(self)))

    def table(self) -> Tensor:
        """All numbers, [b,len(COLUMNS),n]."""
        parts = (self.inverse.flatten(2), self.centre, self.lengths, self.shape, self.material)
        return torch.cat(parts, -1).transpose(1, 2).contiguous()

    def contain(self, points: Tensor) -> Tensor:
        """Which solids points [b,p,3] are in, bool [b,p,n]; never those that are seen from within."""
        local = ((points[:, :, None] - self.centre[:, None])[..., None, :] * self.inverse[:, None]).sum(-1)  # [b,p,n,3]
        x, y, z = local.unbind(-1)
        is_round, bulge, middle, taper, within, _ = self.shape[:, None].unbind(-1)
        radius = middle + taper * z
        round_in = x * x + y * y + bulge * z * z < radius * radius
        square_in = (x.abs() < 1) & (y.abs() < 1)
        return torch.where(is_round > 0, round_in, square_in) & (z.abs() < 1) & (within == 0)


COLUMNS = (
    *(f"i{row}{column}" for row in range(3) for column in range(3)),
    *("cx", "cy", "cz", "lx", "ly", "lz"),
    *("round", "bulge", "middle", "taper", "within", "casts"),
    *NAMES,
)


def to_unit(s: dict[str, Tensor], vector: Vec) -> Vec:
    """World directions in the coordinates of unit shapes."""
    x, y, z = vector
    a, b, c = (s[f"i{row}0"] * x + s[f"i{row}1"] * y + s[f"i{row}2"] * z for row in range(3))
    return a, b, c


def from_centre(s: dict[str, Tensor], point: Vec) -> Vec:
    """World points in the coordinates of unit shapes."""
    return to_unit(s, (point[0] - s["cx"], point[1] - s["cy"], point[2] - s["cz"]))


def crossing(s: dict[str, Tensor], origin: Vec, ray: Vec) -> tuple[Tensor, Tensor]:
    """Ray parameters where rays enter and leave solids, all in unit coordinates; enter > leave where they miss."""
    (ox, oy, oz), (dx, dy, dz) = origin, ray
    (near_x, far_x), (near_y, far_y), (near_z, far_z) = (_slab(o, d) for o, d in zip(origin, ray, strict=True))
    radius, growth = s["middle"] + s["taper"] * oz, s["taper"] * dz
    a = dx * dx + dy * dy + s["bulge"] * dz * dz - growth * growth + 1e-20
    b = ox * dx + oy * dy + s["bulge"] * oz * dz - radius * growth
    c = ox * ox + oy * oy + s["bulge"] * oz * oz - radius * radius
    square = b * b - a * c
    root, scale = square.clamp_min(0).sqrt(), 1 / a
    first, second = (-b - root) * scale, (-b + root) * scale
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    # a < 0: the ray stays in the cone from where it enters, or has always been in it; |z| <= 1 holds one half of it.
    steep, widens = a < 0, growth > 0
    enter = torch.where(steep, torch.where(widens, high, -math.inf), low)
    leave = torch.where(steep, torch.where(widens, math.inf, low), high)
    enter = torch.where(square < 0, math.inf, enter)
    is_round = s["round"] > 0
    enter = torch.maximum(near_z, torch.where(is_round, enter, torch.maximum(near_x, near_y)))
    leave = torch.minimum(far_z, torch.where(is_round, leave, torch.minimum(far_x, far_y)))
    return enter, leave


def _slab(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Where o + t d lies in [-1,1]."""
    inverse = 1 / (d + 1e-20)
    return -o * inverse - inverse.abs(), -o * inverse + inverse.abs()


def hits(s: dict[str, Tensor], origin: Vec, ray: Vec) -> Tensor:
    """Ray parameter of the visible hit with each solid, inf where there is none; unit coordinates."""
    enter, leave = crossing(s, origin, ray)
    t = torch.where(s["within"] > 0, leave, enter)
    return torch.where((enter <= leave) & (t > NEAR), t, math.inf)


@dataclass(frozen=True)
class Surface:
    """Points of surfaces, [...] each."""

    normal: Vec  # world, unit length, outwards (inwards where seen from within)
    u: Tensor  # metres along the surface
    v: Tensor
    inside: Vec  # metres along the solid's axes, the third one least along the surface: noise is a function of space
    height: Tensor  # -1 at the foot of the solid, 1 at its top
    slope_u: Tensor  # metres of u that the surface shows for a metre across the line of sight, >= 1
    slope_v: Tensor


def surface(s: dict[str, Tensor], point: Vec, ray: Vec) -> Surface:
    """What rays find at points of solids; unit coordinates, all [...]."""
    x, y, z = point
    lengths = s["lx"], s["ly"], s["lz"]
    is_round = s["round"] > 0
    radius = s["middle"] + s["taper"] * z
    around = torch.sqrt(x * x + y * y) + 1e-9
    on_cap = is_round & (s["bulge"] == 0) & ((1 - z.abs()).abs() * s["lz"] < (around - radius).abs() * s["lx"])
    ax, ay, az = x.abs(), y.abs(), z.abs()
    face_z = torch.where(is_round, on_cap, (az >= ax) & (az >= ay))
    face_x = ~is_round & ~face_z & (ax >= ay)
    face_y = ~is_round & ~face_z & ~face_x
    side = is_round & ~on_cap
    zero = torch.zeros_like(x)
    gradient = (
        torch.where(side, x, torch.where(face_x, x.sign(), zero)),
        torch.where(side, y, torch.where(face_y, y.sign(), zero)),
        torch.where(side, s["bulge"] * z - s["taper"] * radius, torch.where(face_z, z.sign(), zero)),
    )
    # The same in metres along the solid's axes, where lengths and angles are true.
    normal = _unit(tuple(g / length for g, length in zip(gradient, lengths, strict=True)))
    sight = tuple(d * length for d, length in zip(ray, lengths, strict=True))
    mx, my, mz = x * s["lx"], y * s["ly"], z * s["lz"]
    # Whole cells go around a round solid, so that there is no seam.
    cells = (2 * math.pi * s["lx"] / s["unit_u"]).round().clamp_min(1)
    wrapped = torch.atan2(y, x) * (1 / (2 * math.pi)) * cells * s["unit_u"]
    wrapped = torch.where(s["unit_u"] > 100, torch.atan2(y, x) * s["lx"], wrapped)
    lifted = torch.where(s["bulge"] > 0, z.clamp(-1, 1).asin() * s["lz"], mz)
    flow_u = torch.where(side, (-y * sight[0] + x * sight[1]) / around, torch.where(face_x, sight[1], sight[0]))
    up = _cross(normal, (-y / around, x / around, zero))
    flow_v = torch.where(side, _dot(up, sight), torch.where(face_z, sight[1], sight[2]))
    through = _dot(normal, sight).abs().clamp_min(1e-3)
    turned = torch.where(s["within"] > 0, -1.0, 1.0)
    return Surface(
        normal=_to_world(s, gradient, turned),
        u=torch.where(side, wrapped, torch.where(face_x, my, mx)),
        v=torch.where(side, lifted, torch.where(face_z, my, mz)),
        inside=(
            torch.where(face_x, my, mx),
            torch.where(face_z, my, mz),
            torch.where(face_x, mx, torch.where(face_z, mz, my)),
        ),
        height=z,
        slope_u=torch.sqrt(1 + (flow_u / through).square()).clamp_max(40),
        slope_v=torch.sqrt(1 + (flow_v / through).square()).clamp_max(40),
    )


def _to_world(s: dict[str, Tensor], gradient: Sequence[Tensor], turned: Tensor) -> Vec:
    """World unit vector of gradients in unit coordinates."""
    a, b, c = gradient
    x, y, z = _unit(tuple(s[f"i0{k}"] * a + s[f"i1{k}"] * b + s[f"i2{k}"] * c for k in range(3)))
    return x * turned, y * turned, z * turned


def _unit(vector: Sequence[Tensor]) -> Vec:
    x, y, z = vector
    scale = torch.rsqrt(x * x + y * y + z * z + 1e-20)
    return x * scale, y * scale, z * scale


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: Sequence[Tensor], b: Sequence[Tensor]) -> Vec:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


class Pile:
    """Solids of b scenes in the making; numbers are plain or [b], materials [M] or [b,M]."""

    def __init__(self, scenes: int) -> None:
        self.scenes = scenes
        self.rows: list[Tensor] = []  # [b,3 + 9 + 6 + M] each: centre, axes as columns, shape, material

    def box(
        self,
        centre: Sequence[Number],
        half: Sequence[Number],
        material: Tensor,
        yaw: Number = 0.0,
        *,
        pitch: Number = 0.0,
        casts: Number = 1.0,
    ) -> None:
        """A box of half lengths `half`, tilted by `pitch` about its x axis, then turned by `yaw` about the vertical."""
        x, y, z = (self._all(h) for h in half)
        c, s = self._all(pitch).cos(), self._all(pitch).sin()
        zero = torch.zeros_like(x)
        axes = torch.stack([x, zero, zero, zero, y * c, -z * s, zero, y * s, z * c], -1)
        self._add(centre, axes, yaw, (0, 0, 1, 0, 0, casts), material)

    def roof(self, centre: Sequence[Number], half: Sequence[Number], material: Tensor, yaw: Number = 0.0) -> None:
        """A prism along x of a rhombus with half diagonals half[1] and half[2]: its upper half is a roof."""
        x, y, z = (self._all(h) for h in half)
        zero = torch.zeros_like(x)
        axes = torch.stack([x, zero, zero, zero, y / 2, -y / 2, zero, z / 2, z / 2], -1)
        self._add(centre, axes, yaw, (0, 0, 1, 0, 0, 1), material)

    def frustum(self, foot: Sequence[Number], height: Number, radii: tuple[Number, Number], material: Tensor) -> None:
        """A vertical round solid, `radii` wide at its foot and top: cylinder, cone, pot."""
        low, high = (self._all(r) for r in radii)
        widest, half = torch.maximum(low, high), self._all(height) / 2
        zero = torch.zeros_like(low)
        axes = torch.stack([widest, zero, zero, zero, widest, zero, zero, zero, half], -1)
        shape = (1, 0, (low + high) / (2 * widest), (high - low) / (2 * widest), 0, 1)
        self._add((foot[0], foot[1], self._all(foot[2]) + half), axes, 0.0, shape, material)

    def ellipsoid(
        self,
        centre: Sequence[Number],
        half: Sequence[Number],
        material: Tensor,
        yaw: Number = 0.0,
        *,
        within: bool = False,
        casts: Number = 1.0,
    ) -> None:
        """An ellipsoid of half axes `half`, seen from outside or from within."""
        x, y, z = (self._all(h) for h in half)
        zero = torch.zeros_like(x)
        axes = torch.stack([x, zero, zero, zero, y, zero, zero, zero, z], -1)
        self._add(centre, axes, yaw, (1, 1, 1, 0, float(within), casts), material)

    def solids(self, count: int | None = None) -> Solids:
        """What has been piled up, filled to `count` with solids too small to meet."""
        rows = torch.stack(self.rows, 1)
        if count is not None and len(self.rows) > count:
            raise ValueError(f"The pile holds {len(self.rows)} solids; legal: at most {count}.")
        if count is not None:
            speck = rows[:, :1].clone()
            speck[..., :3] = torch.tensor([0.0, 0, -1e4])
            speck[..., 3:12] = 1e-3 * torch.eye(3).flatten()
            rows = torch.cat([rows, speck.expand(-1, count - len(self.rows), -1)], 1)
        axes = rows[..., 3:12].unflatten(-1, (3, 3)).double()
        return Solids(
            inverse=torch.linalg.inv(axes).float(),
            centre=rows[..., :3].contiguous(),
            lengths=axes.norm(dim=-2).float(),
            shape=rows[..., 12:18].contiguous(),
            material=rows[..., 18:].contiguous(),
        )

    def _all(self, number: Number) -> Tensor:
        return torch.as_tensor(number, dtype=torch.float32).expand(self.scenes)

    def _add(self, centre: Sequence[Number], axes: Tensor, yaw: Number, shape: Sequence[Number], m: Tensor) -> None:
        c, s = self._all(yaw).cos(), self._all(yaw).sin()
        x, y, z = axes.unflatten(-1, (3, 3)).unbind(-2)  # rows [b,3]
        turned = torch.cat([c[:, None] * x - s[:, None] * y, s[:, None] * x + c[:, None] * y, z], -1)
        place = torch.stack([self._all(number) for number in centre], -1)
        form = torch.stack([self._all(number) for number in shape], -1)
        self.rows.append(torch.cat([place, turned, form, m.expand(self.scenes, -1)], -1))
