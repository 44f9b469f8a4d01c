"""The scene of the sample clip: an old walled courtyard with a fountain, pots, crates, columns and a tower."""

import math

import torch
from torch import Tensor

from training.places import Light, Place
from training.scenes import Worlds
from training.solids import Pile
from training.textures import one_material

STONE = one_material("blocks", (0.52, 0.44, 0.34), (0.22, 0.19, 0.16), 0.62, 1)
PALE_STONE = one_material("blocks", (0.66, 0.60, 0.50), (0.30, 0.27, 0.23), 0.40, 2)
BRICK = one_material("blocks", (0.50, 0.22, 0.14), (0.55, 0.50, 0.44), 0.34, 3)
PAVING = one_material("pavers", (0.42, 0.39, 0.35), (0.16, 0.17, 0.11), 0.55, 4)
LAWN = one_material("grass", (0.20, 0.33, 0.08), (0.24, 0.21, 0.09), 1.0, 5)
OCHRE = one_material("plaster", (0.78, 0.52, 0.24), (0.46, 0.36, 0.29), 1.0, 6)
WOOD = one_material("planks", (0.40, 0.24, 0.12), (0.06, 0.04, 0.03), 0.75, 7)
BLUE_WOOD = one_material("planks", (0.13, 0.30, 0.40), (0.03, 0.05, 0.06), 0.6, 8)
CLAY = one_material("plaster", (0.62, 0.27, 0.14), (0.44, 0.20, 0.12), 1.0, 9)
ROOF = one_material("shingles", (0.55, 0.20, 0.11), (0.16, 0.07, 0.05), 0.36, 10)
HEDGE = one_material("leaves", (0.17, 0.34, 0.08), (0.03, 0.07, 0.02), 0.35, 11)
FLOWERS = one_material("leaves", (0.72, 0.16, 0.28), (0.06, 0.16, 0.04), 0.3, 12)
WATER = one_material("plaster", (0.10, 0.24, 0.27), (0.16, 0.34, 0.36), 1.0, 13)
SKY = one_material("sky", (0.55, 0.68, 0.80), (0.85, 0.87, 0.88), 50.0, 14, tip=(0.14, 0.32, 0.62))


def courtyard(seed: int = 0) -> Worlds:
    """One world: a courtyard some 20 m wide around a fountain at the origin, open towards negative y.

    The seed moves and turns what stands in it; the architecture stays.
    """
    pile = Pile(1)
    _ground(pile)
    _walls(pile)
    _house(pile)
    _fountain(pile)
    _props(pile, torch.Generator().manual_seed(seed))
    pile.ellipsoid((0, 0, 0), (90, 90, 60), SKY, within=True, casts=0.0)
    light = Light(
        sun=_row(-0.55, -0.5, 0.67),
        sun_color=_row(1.75, 1.55, 1.25),
        sky_color=_row(0.36, 0.44, 0.58),
        bounce=_row(0.20, 0.16, 0.12),
        haze=_row(0.55, 0.66, 0.78),
        haze_range=torch.tensor([160.0]),
    )
    around = Place(
        focus=_row(0, 1.0, 1.25),
        distance=_row(7.0, 9.5),
        azimuth=_row(math.radians(-130), math.radians(-50)),
        elevation=_row(0.05, 0.4),
        low=_row(-8.5, -12.0, 0.4),
        high=_row(8.5, 6.0, 8.0),
    )
    return Worlds(pile.solids(), light, around)


def _row(*numbers: float) -> Tensor:
    return torch.tensor([numbers])


def _ground(pile: Pile) -> None:
    pile.box((0, 0, -0.53), (200, 200, 0.5), LAWN)
    pile.box((0, 1.5, -0.5), (6.2, 5.2, 0.5), PAVING)


def _walls(pile: Pile) -> None:
    pile.box((-9.2, 2, 1.6), (0.3, 6.5, 1.65), STONE)
    pile.box((9.2, 2, 1.4), (0.3, 6.5, 1.45), BRICK)
    pile.box((9.2, 2, 2.93), (0.42, 6.6, 0.09), PALE_STONE)
    pile.box((-9.2, 2, 3.3), (0.42, 6.6, 0.09), PALE_STONE)
    for y in (-3.5, 0.5, 4.5):
        pile.box((8.75, y, 1.6), (0.32, 0.32, 1.65), PALE_STONE)


def _house(pile: Pile) -> None:
    pile.box((0.5, 9.3, 2.6), (8.6, 1.0, 2.65), OCHRE)
    pile.box((0.5, 9.2, 5.35), (9.0, 1.4, 0.16), ROOF)
    pile.box((0.5, 9.6, 5.75), (8.6, 1.0, 0.28), ROOF)
    pile.box((0.5, 8.24, 0.35), (8.65, 0.1, 0.4), STONE)
    pile.frustum((-8.3, 8.6, 0), 7.0, (1.7, 1.55), PALE_STONE)
    pile.frustum((-8.3, 8.6, 7.0), 2.8, (2.05, 0.0), ROOF)
    pile.box((0.5, 7.1, 3.05), (5.6, 1.15, 0.12), WOOD)
    pile.box((0.5, 8.22, 1.2), (0.75, 0.08, 1.25), BLUE_WOOD)
    pile.box((0.5, 8.22, 2.52), (0.95, 0.12, 0.12), PALE_STONE)
    for x in (-4.8, -2.2, 0.5, 3.2, 5.8):
        if x != 0.5:
            pile.frustum((x, 6.3, 0.3), 2.63, (0.21, 0.17), PALE_STONE)
            pile.box((x, 6.3, 0.15), (0.3, 0.3, 0.16), PALE_STONE)
        pile.box((x, 8.27, 4.25), (0.42, 0.06, 0.55), WATER)
        pile.box((x, 8.22, 3.62), (0.6, 0.12, 0.07), PALE_STONE)
        for side in (-0.68, 0.68):
            pile.box((x + side, 8.23, 4.25), (0.24, 0.07, 0.6), BLUE_WOOD)


def _fountain(pile: Pile) -> None:
    pile.frustum((0, 0, 0), 0.16, (2.1, 2.1), STONE)
    pile.frustum((0, 0, 0.16), 0.5, (1.5, 1.62), PALE_STONE)
    pile.frustum((0, 0, 0.66), 0.02, (1.42, 1.42), WATER)
    pile.frustum((0, 0, 0.6), 1.0, (0.24, 0.17), PALE_STONE)
    pile.frustum((0, 0, 1.6), 0.24, (0.22, 0.78), STONE)
    pile.frustum((0, 0, 1.84), 0.55, (0.13, 0.09), PALE_STONE)
    pile.ellipsoid((0, 0, 2.52), (0.2, 0.2, 0.22), BRICK)


def _props(pile: Pile, generator: torch.Generator) -> None:
    """Pots with bushes, crates and barrels, each a little out of line."""

    def jitter(amount: float) -> float:
        return amount * (2 * float(torch.rand(1, generator=generator)) - 1)

    for x, y, plant in ((-3.9, -1.8, HEDGE), (3.8, -1.6, FLOWERS), (-5.3, 2.6, FLOWERS), (5.2, 3.0, HEDGE)):
        px, py, size = x + jitter(0.3), y + jitter(0.3), 1 + jitter(0.15)
        pile.frustum((px, py, 0), 0.62 * size, (0.3 * size, 0.46 * size), CLAY)
        pile.ellipsoid((px, py, 1.05 * size), (0.58 * size, 0.58 * size, 0.55 * size), plant)
    for x, y, z, half in (
        (6.6, -0.3, 0.42, 0.42),
        (7.5, -0.1, 0.38, 0.38),
        (7.0, -0.2, 1.1, 0.32),
        (-7.4, 0.4, 0.5, 0.5),
    ):
        yaw = jitter(0.6)
        pile.box((x + jitter(0.1), y + jitter(0.1), z), (half, half, half), WOOD, yaw)
    for x, y in ((-7.6, 3.4), (-7.0, 4.2), (3.9, 7.4)):
        foot = (x + jitter(0.2), y + jitter(0.1), -0.03)
        pile.frustum(foot, 1.0, (0.36, 0.36), WOOD)
        pile.frustum((foot[0], foot[1], 0.22), 0.07, (0.375, 0.375), STONE)
        pile.frustum((foot[0], foot[1], 0.70), 0.07, (0.375, 0.375), STONE)
    pile.box((-2.9, 3.1, 0.42), (0.85, 0.25, 0.05), WOOD, 0.5 + jitter(0.2))
    pile.box((-2.9, 3.1, 0.18), (0.5, 0.2, 0.2), STONE, 0.5)
    for k in range(5):
        angle = math.pi * (0.1 + 0.2 * k)
        pile.ellipsoid((12.5 * math.cos(angle), 13 + 2 * math.sin(angle), 4.2), (2.2, 2.2, 3.0 + jitter(0.8)), HEDGE)
