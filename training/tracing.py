"""Rays into solids: where they end, and the light that comes back; compiled on a GPU.

Tables are [b,columns,n], so that a column is contiguous along the solids, and rays are reduced over the solids in the
last axis: the compiler then fuses each reduction into one kernel that never stores rays times solids.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from training.solids import COLUMNS, crossing, from_centre, hits, surface, to_unit
from training.textures import Vec, albedo

LIGHT_COLUMNS = (
    *("sun_x", "sun_y", "sun_z", "sun_red", "sun_green", "sun_blue", "sky_red", "sky_green", "sky_blue"),
    *("bounce_red", "bounce_green", "bounce_blue", "haze_red", "haze_green", "haze_blue", "haze_range"),
)


def geometry(table: Tensor, origin: Tensor, ray: Tensor) -> Tensor:
    """Ray parameters [b,p] of the first hits of rays [b,p,3] with solids [b,columns,n]."""
    return _compiled(_geometry)(table, origin, ray) if table.is_cuda else _geometry(table, origin, ray)


def shade(table: Tensor, light: Tensor, origin: Tensor, ray: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
    """Linear light [b,p,3] along rays [b,p,3] and their parameters at the first hits [b,p].

    `light` is [b,len(LIGHT_COLUMNS)], `pixel` [b] the width of a pixel at unit depth.
    """
    run = _compiled(_shade) if table.is_cuda else _shade
    return run(table, light, origin, ray, pixel)


P = ParamSpec("P")
R = TypeVar("R")


@functools.cache
def _compiled(function: Callable[P, R]) -> Callable[P, R]:
    return torch.compile(function, dynamic=False, fullgraph=True)


def _geometry(table: Tensor, origin: Tensor, ray: Tensor) -> Tensor:
    return _first(table, origin, ray)[0]


def _first(table: Tensor, origin: Tensor, ray: Tensor) -> tuple[Tensor, Tensor]:
    """Ray parameter and solid of the first hit, [b,p] each."""
    solids, axis = _spread(table)
    start, way = _split(origin.unsqueeze(axis)), _split(ray.unsqueeze(axis))
    t = hits(solids, from_centre(solids, start), to_unit(solids, way))
    return t.amin(axis), t.argmin(axis)


def _spread(table: Tensor) -> tuple[dict[str, Tensor], int]:
    """Columns ready to meet rays, and the axis of the solids: [b,1,n] and 2 on a GPU, [b,n,1] and 1 on a CPU.

    A GPU's compiler fuses a reduction with what it reduces where that axis is last; a CPU is fast along many rays.
    """
    axis = 2 if table.is_cuda else 1
    return dict(zip(COLUMNS, table.unsqueeze(4 - axis).unbind(1), strict=True)), axis


def _shade(table: Tensor, light: Tensor, origin: Tensor, ray: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
    t, index = _first(table, origin, ray)
    solid = {name: column.gather(1, index) for name, column in zip(COLUMNS, table.unbind(1), strict=True)}
    lamp = {name: column[:, None] for name, column in zip(LIGHT_COLUMNS, light.unbind(1), strict=True)}
    start, way = _split(origin), _split(ray)
    point = start[0] + t * way[0], start[1] + t * way[1], start[2] + t * way[2]
    found = surface(solid, from_centre(solid, point), to_unit(solid, way))
    pixel = t * pixel[:, None]
    color = albedo(solid, found.u, found.v, found.inside, found.height, pixel * found.slope_u, pixel * found.slope_v)

    nx, ny, nz = found.normal
    facing = (nx * lamp["sun_x"] + ny * lamp["sun_y"] + nz * lamp["sun_z"]).clamp_min(0)
    offset = 2e-3 + 2e-4 * t
    shadow, hidden = _blocked(
        table, lamp, (point[0] + offset * nx, point[1] + offset * ny, point[2] + offset * nz), found.normal
    )
    sun, up, open_ = facing * (1 - shadow), 0.5 + 0.5 * nz, 1 - hidden
    haze = 1 - torch.exp(-t / lamp["haze_range"])
    glow = solid["glow"]
    channels = []
    for name, reflected in zip(("red", "green", "blue"), color, strict=True):
        around = lamp[f"sky_{name}"] * up + lamp[f"bounce_{name}"] * (1 - up)
        lit = reflected * (sun * lamp[f"sun_{name}"] + open_ * around)
        seen = torch.lerp(lit, lamp[f"haze_{name}"].expand_as(lit), haze)
        channels.append(torch.lerp(seen, reflected, glow))
    return torch.stack(channels, -1), t


def _blocked(table: Tensor, lamp: dict[str, Tensor], point: Vec, normal: Vec) -> tuple[Tensor, Tensor]:
    """Whether points [b,p] lie in the sun's shadow (0 or 1), and the share of the sky that solids near them hide.

    The latter takes solids for spheres: a point sees a sphere of radius r at distance d under (r/d)^2 of its
    hemisphere.
    """
    s, axis = _spread(table)
    px, py, pz = (c.unsqueeze(axis) for c in point)
    nx, ny, nz = (c.unsqueeze(axis) for c in normal)
    sun = to_unit(s, (lamp["sun_x"][..., None], lamp["sun_y"][..., None], lamp["sun_z"][..., None]))
    enter, leave = crossing(s, from_centre(s, (px, py, pz)), sun)
    blocked = (enter <= leave) & (leave > 0) & (s["casts"] > 0)
    dx, dy, dz = s["cx"] - px, s["cy"] - py, s["cz"] - pz
    distance = dx * dx + dy * dy + dz * dz + 1e-6
    toward = (dx * nx + dy * ny + dz * nz) * distance.rsqrt()
    size = 1.5 * torch.minimum(torch.minimum(s["lx"], s["ly"]), s["lz"]).square()
    share = torch.where(s["casts"] > 0, toward.clamp_min(0) * (size / distance).clamp_max(1), 0.0)
    return blocked.float().amax(axis), 1 - torch.exp(-0.8 * share.sum(axis))


def _split(vectors: Tensor) -> Vec:
    x, y, z = vectors.unbind(-1)
    return x, y, z
