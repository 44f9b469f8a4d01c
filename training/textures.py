"""Procedural surface colours: functions of surface coordinates, band-limited by the size of a pixel.

Coordinates and pixel footprints are in metres, colours are linear RGB in [0,1]. Every pattern fades to its mean where
a pixel is larger than its detail, so that a moving camera sees no shimmer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

LATTICE = 256  # cells until the noise repeats

Pattern = Literal["blocks", "pavers", "planks", "plaster", "leaves", "shingles", "grass"]


@dataclass(frozen=True)
class Material:
    """What a surface is made of: a pattern, its two colours and the size of its repeating unit."""

    pattern: Pattern
    color: tuple[float, float, float]  # of the units: stones, planks, leaves
    accent: tuple[float, float, float]  # of what lies between: mortar, gaps, earth
    scale: float = 1.0  # m, the longer side of one unit
    seed: int = 0


class Noise:
    """Smooth value noise and per-cell random numbers on a repeating lattice, from a seed."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.rand(LATTICE, LATTICE, generator=generator).flatten()

    def cell(self, cells: Tensor, seed: int) -> Tensor:
        """One number in [0,1) per integer cell, [n,2] -> [n]."""
        i = (cells[:, 0].long() * 7 + seed * 89) % LATTICE
        j = (cells[:, 1].long() * 13 + seed * 137 + i * 31) % LATTICE
        return self.table[i * LATTICE + j]

    def smooth(self, points: Tensor, seed: int) -> Tensor:
        """Value noise with one lattice cell a unit, mean 0.5, [n,2] -> [n]."""
        base = points.floor()
        f = points - base
        f = f * f * (3 - 2 * f)
        i = (base.long() + seed * 53) % LATTICE
        j = (i + 1) % LATTICE
        row0, row1 = i[:, 0] * LATTICE, j[:, 0] * LATTICE
        a, b = self.table[row0 + i[:, 1]], self.table[row0 + j[:, 1]]
        c, d = self.table[row1 + i[:, 1]], self.table[row1 + j[:, 1]]
        return torch.lerp(torch.lerp(a, b, f[:, 1]), torch.lerp(c, d, f[:, 1]), f[:, 0])

    def fractal(self, points: Tensor, footprint: Tensor, size: float, octaves: int, seed: int) -> Tensor:
        """Octaves of noise, the coarsest `size` metres a cell, each faded out before a pixel spans a cell.

        Returns [n] around 0, about [-1,1].
        """
        total = torch.zeros(len(points))
        for octave in range(octaves):
            cell = size / 2**octave
            fade = (1.5 - 2 * footprint / cell).clamp(0, 1)
            if not bool(fade.any()):
                break
            total += fade * 0.6**octave * (2 * self.smooth(points / cell + 17.3 * octave, seed + octave) - 1)
        return total


def albedo(material: Material, uv: Tensor, footprint: Tensor, noise: Noise) -> Tensor:
    """Linear RGB of surface points: uv [n,2] in metres, footprint [n] in metres a pixel -> [n,3]."""
    return _PATTERNS[material.pattern](material, uv, footprint, noise).clamp(0.01, 1)


def _joint(fraction: Tensor, unit: float, width: float, footprint: Tensor) -> Tensor:
    """How much of a pixel lies in the joints of width `width` at both ends of a unit, in [0,1]."""
    distance = torch.minimum(fraction, 1 - fraction) * unit
    soft = footprint.clamp_min(0.004)
    return ((width / 2 + soft / 2 - distance) / soft).clamp(0, 1) * (width / soft).clamp_max(1)


def _mix(material: Material, amount: Tensor, shade: Tensor) -> Tensor:
    """Colour times shade, blended towards the accent by amount."""
    color, accent = torch.tensor(material.color), torch.tensor(material.accent)
    return torch.lerp(color * shade[:, None], accent.expand(len(shade), 3), amount[:, None])


def _courses(
    material: Material, uv: Tensor, footprint: Tensor, noise: Noise, *, aspect: float, joint: float, spread: float
) -> Tensor:
    """Rows of units, every other row shifted by half a unit; each unit has its own tone."""
    long, short = material.scale, material.scale / aspect
    row = (uv[:, 1] / short).floor()
    along = uv[:, 0] / long + 0.5 * (row % 2)
    column = along.floor()
    tone = noise.cell(torch.stack([column, row], 1), material.seed)
    joints = torch.maximum(
        _joint(along - column, long, joint, footprint), _joint(uv[:, 1] / short - row, short, joint, footprint)
    )
    seen = (1.5 - footprint / short).clamp(0, 1)
    grain = noise.fractal(uv, footprint, material.scale * 0.6, 5, material.seed)
    stain = noise.fractal(uv, footprint, 2.5, 2, material.seed + 40)
    return _mix(material, 0.85 * joints, 1 + 1.3 * spread * seen * (tone - 0.5) + 0.4 * grain + 0.2 * stain)


def _blocks(material: Material, uv: Tensor, footprint: Tensor, noise: Noise) -> Tensor:
    return _courses(material, uv, footprint, noise, aspect=2.1, joint=0.022, spread=0.75)


def _shingles(material: Material, uv: Tensor, footprint: Tensor, noise: Noise) -> Tensor:
    colors = _courses(material, uv, footprint, noise, aspect=1.1, joint=0.02, spread=0.9)
    down = uv[:, 1] * 1.1 / material.scale
    seen = (1.5 - 1.1 * footprint / material.scale).clamp(0, 1)
    return colors * (1 + 0.35 * seen * (down - down.floor() - 0.5))[:, None]


def _pavers(material: Material, uv: Tensor, footprint: Tensor, noise: Noise) -> Tensor:
    return _courses(material, uv, footprint, noise, aspect=1.0, joint=0.035, spread=0.6)


def _planks(material: Material, uv: Tensor, footprint: Tensor, noise: Noise) -> Tensor:
    width = material.scale / 5
    column = (uv[:, 0] / width).floor()
    tone = noise.cell(torch.stack([column, torch.zeros_like(column)], 1), material.seed)
    gap = _joint(uv[:, 0] / width - column, width, 0.012, footprint)
    stretched = torch.stack([uv[:, 0] * 6, uv[:, 1] + 5 * tone], 1)
    grain = noise.fractal(stretched, footprint * 6, 0.6, 4, material.seed)
    return _mix(material, 0.9 * gap, 1 + 0.5 * (tone - 0.5) + 0.35 * grain)


def _plaster(material: Material, uv: Tensor, footprint: Tensor, noise: Noise) -> Tensor:
    stain = noise.fractal(uv, footprint, 1.6, 6, material.seed)
    bare = noise.fractal(uv, footprint, 0.9, 5, material.seed + 20)
    return _mix(material, ((bare - 0.3) * 6).clamp(0, 0.85), 1 + 0.4 * stain)


def _leaves(material: Material, uv: Tensor, footprint: Tensor, noise: Noise) -> Tensor:
    leaf = noise.fractal(uv, footprint, material.scale, 3, material.seed)
    fine = noise.fractal(uv, footprint, material.scale / 3, 2, material.seed + 9)
    return _mix(material, (0.45 - 0.9 * leaf).clamp(0, 0.85), 1 + 0.6 * fine)


def _grass(material: Material, uv: Tensor, footprint: Tensor, noise: Noise) -> Tensor:
    patch = noise.fractal(uv, footprint, 1.4, 4, material.seed)
    blade = noise.fractal(uv, footprint, 0.16, 3, material.seed + 5)
    return _mix(material, (0.3 - 0.7 * patch).clamp(0, 0.7), 1 + 0.45 * blade + 0.2 * patch)


_PATTERNS: dict[Pattern, Callable[[Material, Tensor, Tensor, Noise], Tensor]] = {
    "blocks": _blocks,
    "pavers": _pavers,
    "planks": _planks,
    "plaster": _plaster,
    "leaves": _leaves,
    "shingles": _shingles,
    "grass": _grass,
}
