"""One parametrised family of surface textures, from bricks to leaves, band-limited by the size of a pixel.

A texture is a grid of cells (bricks, planks, tiles, letters) with joints, tones and odd cells, and two fractal noises
(grain and stain) over it; a material is a row of numbers of that family. Lengths are in metres, colours are linear RGB
in [0,1]. Every detail fades to its mean before its period reaches two pixels, so that nothing shimmers as a camera
moves and an autoencoder can hold it. The noise hashes integers: CPU and GPU give the same.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

Pattern = Literal[
    "plain", "blocks", "bricks", "pavers", "tiles", "checker", "planks", "plaster", "leaves", "grass", "shingles",
    "stripes", "books", "text", "marble", "cloth", "windows", "earth", "water", "rock", "picture", "sky",
]  # fmt: skip
Vec = tuple[Tensor, Tensor, Tensor]

# What the numbers of a pattern mean. Lengths are multiples of the material's scale.
PARAMETERS = {
    "unit_u": 1e4,  # size of a cell along u
    "unit_v": 1e4,  # and along v
    "shift": 0.0,  # cells by which each row is moved against the one below
    "joint_u": 0.0,  # width of the joints between cells, of the accent's colour
    "joint_v": 0.0,
    "spread": 0.0,  # range of the cells' tones
    "alternate": 0.0,  # 1: every other cell has the accent's colour
    "odd": 0.0,  # share of random cells that have the accent's colour
    "ramp": 0.0,  # how much lighter a cell is at its upper end
    "grain_size": 0.5,  # coarsest cell of the fine noise
    "stretch": 1.0,  # how much finer the grain is across v
    "grain": 0.2,  # its part in the tone
    "veil": 0.0,  # largest share of the accent's colour that the grain brings
    "level": 0.0,  # grain where half of that is reached
    "sharp": 3.0,  # how steeply
    "stain_size": 2.5,  # coarsest cell of the coarse noise
    "stain": 0.15,  # its part in the tone
    "gradient": 0.0,  # how much the upper half of the solid turns to the tip's colour
    "glow": 0.0,  # 1: shines by itself, as the sky does
}
LENGTHS = ("unit_u", "unit_v", "joint_u", "joint_v", "grain_size", "stain_size")
NAMES = (*PARAMETERS, "seed", "red", "green", "blue", "accent_red", "accent_green", "accent_blue", "tip_red",
         "tip_green", "tip_blue")  # fmt: skip

PATTERNS: dict[Pattern, dict[str, float]] = {
    "plain": {"grain": 0.06, "grain_size": 0.3, "stain": 0.12, "gradient": 0.3},
    "blocks": {"unit_u": 1, "unit_v": 0.48, "shift": 0.5, "joint_u": 0.05, "joint_v": 0.05, "spread": 0.5,
               "grain": 0.3, "grain_size": 0.5, "stain": 0.2},
    "bricks": {"unit_u": 0.5, "unit_v": 0.18, "shift": 0.5, "joint_u": 0.03, "joint_v": 0.03, "spread": 0.55,
               "grain": 0.2, "grain_size": 0.4, "stain": 0.25},
    "pavers": {"unit_u": 1, "unit_v": 1, "shift": 0.37, "joint_u": 0.05, "joint_v": 0.05, "spread": 0.35,
               "grain": 0.25, "grain_size": 0.6, "stain": 0.25},
    "tiles": {"unit_u": 0.8, "unit_v": 0.8, "joint_u": 0.04, "joint_v": 0.04, "spread": 0.15, "odd": 0.12,
              "grain": 0.08, "stain": 0.1},
    "checker": {"unit_u": 0.9, "unit_v": 0.9, "alternate": 1, "spread": 0.15, "grain": 0.15, "stain": 0.15},
    "planks": {"unit_u": 0.25, "unit_v": 2.3, "shift": 0.0, "joint_u": 0.02, "joint_v": 0.015, "spread": 0.5,
               "grain": 0.45, "grain_size": 0.8, "stretch": 7, "stain": 0.15},
    "plaster": {"grain": 0.12, "grain_size": 0.8, "veil": 0.35, "level": 0.25, "sharp": 3, "stain": 0.25,
                "stain_size": 2},
    "leaves": {"grain": 0.7, "grain_size": 0.5, "veil": 0.75, "level": 0.0, "sharp": 2.2, "stain": 0.4,
               "stain_size": 1.2, "gradient": 0.6},
    "grass": {"grain": 0.45, "grain_size": 0.5, "veil": 0.5, "level": 0.15, "sharp": 1.5, "stain": 0.4,
              "stain_size": 3, "stretch": 1.6},
    "shingles": {"unit_u": 0.45, "unit_v": 0.4, "shift": 0.5, "joint_u": 0.02, "joint_v": 0.03, "spread": 0.5,
                 "ramp": 0.35, "grain": 0.2, "stain": 0.25},
    "stripes": {"unit_u": 0.35, "alternate": 1, "grain": 0.1, "grain_size": 0.2, "stain": 0.12},
    "books": {"unit_u": 0.09, "unit_v": 0.62, "shift": 0.3, "joint_u": 0.012, "joint_v": 0.09, "spread": 1.2,
              "odd": 0.3, "grain": 0.1},
    "text": {"unit_u": 0.12, "unit_v": 0.26, "shift": 0.4, "joint_u": 0.03, "joint_v": 0.11, "odd": 0.3,
             "spread": 0.3, "grain": 0.05, "stain": 0.08},
    "marble": {"grain": 0.15, "grain_size": 1.2, "veil": 0.6, "level": 0.2, "sharp": 2.5, "stretch": 1.8},
    "cloth": {"unit_u": 0.5, "unit_v": 0.5, "shift": 0.5, "joint_u": 0.12, "joint_v": 0.0, "spread": 0.1,
              "grain": 0.15, "grain_size": 0.4, "stain": 0.15, "stain_size": 1},
    "windows": {"unit_u": 2.2, "unit_v": 2.8, "joint_u": 1.2, "joint_v": 1.4, "spread": 0.5, "grain": 0.12,
                "ramp": 0.4, "stain": 0.2},
    "earth": {"grain": 0.45, "grain_size": 0.9, "veil": 0.6, "level": 0.05, "sharp": 1.6, "stain": 0.35,
              "stain_size": 6},
    "water": {"grain": 0.12, "grain_size": 0.7, "stretch": 2.5, "veil": 0.3, "level": 0.2, "stain": 0.2},
    "rock": {"grain": 0.6, "grain_size": 0.9, "veil": 0.4, "level": 0.1, "sharp": 1.8, "stain": 0.35, "gradient": 0.3},
    "picture": {"grain": 0.3, "grain_size": 0.7, "veil": 0.9, "level": 0.0, "sharp": 2.5, "stain": 0.4,
                "stain_size": 1, "gradient": 1.0},
    "sky": {"grain": 0.0, "grain_size": 0.7, "veil": 0.75, "level": 0.22, "sharp": 1.8, "stretch": 1.0, "stain": 0.0,
            "gradient": 1.0, "glow": 1.0},
}  # fmt: skip


def material(
    pattern: Tensor,  # [...] index into PATTERNS
    colors: Tensor,  # [...,9] linear RGB of the cells, of what lies between them, and of the solid's upper end
    scale: Tensor,  # [...] metres
    seed: Tensor,  # [...] integers below 2^20
) -> Tensor:
    """Rows [...,len(NAMES)] of numbers that describe surfaces."""
    table = torch.tensor([[{**PARAMETERS, **PATTERNS[p]}[n] for n in PARAMETERS] for p in get_args(Pattern)])
    longer = torch.tensor([name in LENGTHS for name in PARAMETERS])
    rows = table[pattern]
    rows = torch.where(longer, rows * scale[..., None], rows)
    return torch.cat([rows, seed[..., None].float(), colors], -1)


def one_material(
    pattern: Pattern,
    color: Sequence[float],
    accent: Sequence[float],
    scale: float = 1.0,
    seed: int = 0,
    *,
    tip: Sequence[float] | None = None,
) -> Tensor:
    """One row [len(NAMES)] of `material` from plain numbers; without a tip, the upper end is a little lighter."""
    colors = torch.tensor([*color, *accent, *(tip or (min(1.0, 1.15 * c) for c in color))])
    return material(torch.tensor(get_args(Pattern).index(pattern)), colors, torch.tensor(scale), torch.tensor(seed))


def albedo(
    m: dict[str, Tensor],  # NAMES -> [...]
    u: Tensor,  # [...] metres along the surface
    v: Tensor,  # [...] metres, upwards on walls
    inside: Vec,  # [...] metres, a place in the solid: noise is a function of space
    height: Tensor,  # [...] -1 at the foot of the solid, 1 at its top
    pixel_u: Tensor,  # [...] metres of u that a pixel spans
    pixel_v: Tensor,  # [...] metres of v
) -> Vec:
    """Linear red, green and blue, [...] each."""
    seed = m["seed"].int()
    row = (v / m["unit_v"]).floor()
    along = u / m["unit_u"] + m["shift"] * row
    column = along.floor()
    tone, chance = _cell(column, row, seed)
    edge_u = (0.5 - (along - column - 0.5).abs()) * m["unit_u"]  # distance from the border of the cell
    edge_v = (0.5 - (v / m["unit_v"] - row - 0.5).abs()) * m["unit_v"]
    sight_u = (m["unit_u"] / (2 * pixel_u) - 1).clamp(0, 1)
    sight_v = (m["unit_v"] / (2 * pixel_v) - 1).clamp(0, 1)
    joint_u = _joint(edge_u, m["joint_u"], m["unit_u"], pixel_u, sight_u)
    joint_v = _joint(edge_v, m["joint_v"], m["unit_v"], pixel_v, sight_v)
    # How much of a pixel is this cell and not its neighbour: at the border both are as good as the mean.
    own = (2 * edge_u / pixel_u).clamp(0, 1) * (2 * edge_v / pixel_v).clamp(0, 1) * sight_u * sight_v
    parity = (column + row) - 2 * ((column + row) / 2).floor()
    odd = m["alternate"] * parity + (1 - m["alternate"]) * (chance < m["odd"]).float()
    usual = 0.5 * m["alternate"] + (1 - m["alternate"]) * m["odd"]
    cell = usual + (odd - usual) * own

    widest = torch.maximum(pixel_u * m["stretch"], pixel_v)
    x, y, z = inside
    place = (x * m["stretch"], y, z * m["stretch"] + 3 * tone * (m["spread"] > 0))
    grain = fractal(place, widest, m["grain_size"], 5, seed)
    stain = fractal(inside, torch.maximum(pixel_u, pixel_v), m["stain_size"], 3, seed + 71)
    veil = m["veil"] * ((grain - m["level"]) * m["sharp"] + 0.5).clamp(0, 1)
    ramp = m["ramp"] * (v / m["unit_v"] - row - 0.5)
    shade = 1 + (m["spread"] * (tone - 0.5) + ramp) * own + m["grain"] * grain + m["stain"] * stain
    shade = shade.clamp(0.25, 1.8)
    accent = 1 - (1 - joint_u) * (1 - joint_v) * (1 - cell) * (1 - veil)
    tip = m["gradient"] * height.clamp(0, 1).sqrt()

    def channel(name: str) -> Tensor:
        base = torch.lerp(m[name], m[f"tip_{name}"], tip) * shade
        return torch.lerp(base, m[f"accent_{name}"] * (0.5 + 0.5 * shade), accent).clamp(0.01, 1)

    return channel("red"), channel("green"), channel("blue")


def fractal(point: Vec, pixel: Tensor, size: Tensor, octaves: int, seed: Tensor) -> Tensor:
    """Octaves of noise [...] around 0, about [-1,1], the coarsest `size` metres a cell, of what `pixel` leaves.

    Value noise: numbers at the corners of a lattice of cubes, blended between them. A sum over all octaves' corners in
    one further axis, which compiles to a short loop.
    """
    i = torch.arange(8 * octaves, dtype=torch.int32, device=pixel.device)
    octave = (i >> 3).float()
    finer = torch.exp2(octave)
    # A period is two cells or more: gone at 1.1 pixels a cell, whole at 3.
    fade = (0.53 * (size / pixel)[..., None] / finer - 0.58).clamp(0, 1)
    share = fade * torch.exp(math.log(0.6) * octave)
    key = (seed[..., None] + 13 * (i >> 3)) * _PRIMES[3]
    for axis, (c, offset) in enumerate(zip(point, (17.3, 5.7, 11.9), strict=True)):
        place = (c / size)[..., None] * finer + offset * (finer - 1)
        floor = place.floor()
        far = (i >> axis) & 1
        blend = _ease(place - floor)
        share = share * torch.where(far == 1, blend, 1 - blend)
        key = key ^ ((floor.int() + far) * _PRIMES[axis])
    return (share * (2 * _number(key) - 1)).sum(-1)


_PRIMES = (374761393, 668265263, 1274126177, 461845907)


def _cell(column: Tensor, row: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent numbers in [0,1) of every cell."""
    key = (column.int() * _PRIMES[0]) ^ (row.int() * _PRIMES[1]) ^ (seed * _PRIMES[3])
    return _number(key), _number(key + _PRIMES[2])


def _number(key: Tensor) -> Tensor:
    """Integers int32 -> numbers in [0,1): a multiplicative hash, equal on every device."""
    key = (key ^ ((key >> 15) & 0x1FFFF)) * 739982445
    key = (key ^ ((key >> 12) & 0xFFFFF)) * 695872825
    return ((key >> 8) & 0xFFFFFF).float() * 2.0**-24


def _ease(f: Tensor) -> Tensor:
    return f * f * (3 - 2 * f)


def _joint(edge: Tensor, width: Tensor, unit: Tensor, pixel: Tensor, sight: Tensor) -> Tensor:
    """Share of a pixel that lies in the joint around a cell border at distance `edge`, [...] in [0,1]."""
    covered = ((width / 2 - edge) / pixel + 0.5).clamp(0, 1) * (width / pixel).clamp_max(1)
    return torch.lerp(width / unit, covered, sight)
