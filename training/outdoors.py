"""Scenes in the open: villages from above, and lanes between walls."""

import math

from training.paints import Draws
from training.places import Scene, finish, standing
from training.solids import Pile
from training.textures import Pattern

STONE: tuple[Pattern, ...] = ("blocks", "bricks", "rock", "marble", "plaster")
BOXES: tuple[Pattern, ...] = ("planks", "planks", "text", "plain", "bricks", "stripes", "picture")


def village(draws: Draws) -> Scene:
    """Houses and trees between hills, from above: 31 solids."""
    pile = Pile(len(draws.numbers))
    pile.box((0, 0, -5), (900, 900, 5), draws.paint(("grass", "earth", "grass"), 3.0))
    turn = draws.uniform(0, 2 * math.pi)
    for k in range(3):
        angle, far = turn + 2.1 * k + draws.uniform(-0.4, 0.4), draws.uniform(35, 70)
        pile.ellipsoid(
            (far * angle.cos(), far * angle.sin(), -1),
            (draws.uniform(18, 40), draws.uniform(15, 30), draws.uniform(5, 14)),
            draws.paint(("grass", "earth", "rock", "leaves"), 4.0),
            draws.uniform(0, 3),
        )
    pile.box(
        (draws.uniform(-4, 4), draws.uniform(-4, 4), 0),
        (120, draws.uniform(1.2, 2.2), 0.06),
        draws.paint(("pavers", "earth", "blocks"), 1.5),
        turn,
    )
    for k in range(2):  # fields and a pond
        angle, far = turn + 1 + 3 * k, draws.uniform(10, 20)
        pile.box(
            (far * angle.cos(), far * angle.sin(), 0),
            (draws.uniform(5, 9), draws.uniform(4, 7), 0.04 + 0.02 * k),
            draws.paint(("stripes", "earth", "grass", "cloth"), 2.5),
            draws.uniform(0, 3),
        )
    pile.ellipsoid(
        (draws.uniform(-14, 14), draws.uniform(-14, 14), -0.1),
        (draws.uniform(3, 7), draws.uniform(3, 6), 0.22),
        draws.paint(("water",), 2.0),
        draws.uniform(0, 3),
    )
    for k in range(5):
        angle = turn + 2 * math.pi * (k + draws.uniform(-0.3, 0.3)) / 5
        far = draws.uniform(3, 7) if k == 0 else draws.uniform(7, 14)
        x, y, yaw = far * angle.cos(), far * angle.sin(), draws.uniform(0, 3.2)
        long, deep, tall = draws.uniform(2.4, 4.2), draws.uniform(1.8, 2.6), draws.uniform(1.8, 3.6)
        pile.box(
            (x, y, tall / 2),
            (long, deep, tall / 2),
            draws.paint(("windows", "plaster", "bricks", "windows", "planks"), 1.0),
            yaw,
        )
        pile.roof(
            (x, y, tall - 0.1),
            (long + 0.3, deep + 0.5, draws.uniform(1.2, 2.2)),
            draws.paint(("shingles", "shingles", "planks"), 1.0),
            yaw,
        )
    for k in range(5):
        angle, far = turn + 0.6 + 2 * math.pi * (k + draws.uniform(-0.3, 0.3)) / 5, draws.uniform(4, 15)
        x, y, r, tall = far * angle.cos(), far * angle.sin(), draws.uniform(1.2, 2.4), draws.uniform(1.2, 2.6)
        pile.frustum((x, y, 0), tall + r, (0.3, 0.2), draws.paint(("planks",), 1.0))
        if k % 2:
            pile.frustum((x, y, tall * 0.6), 2.6 * r, (r, 0.02), draws.paint(("leaves",), 1.2))
        else:
            pile.ellipsoid((x, y, tall + r), (r, r, 1.1 * r), draws.paint(("leaves",), 1.4))
    x, y, tall = draws.uniform(-9, 9), draws.uniform(-9, 9), draws.uniform(5, 9)
    pile.frustum((x, y, 0), tall, (1.4, 1.2), draws.paint(STONE, 1.0))
    pile.frustum((x, y, tall), 2.4, (1.7, 0.02), draws.paint(("shingles", "plain"), 1.0))
    pile.box(
        (draws.uniform(-5, 5), draws.uniform(-5, 5), 0.6), (1.0, 0.7, 0.6), draws.paint(BOXES, 0.9), draws.uniform(0, 3)
    )
    distance = draws.uniform(20, 24), draws.uniform(26, 34)
    cameras = standing(draws, (0, 0, 1.5), distance, (-math.pi, math.pi), (0.3, 0.85), (-90, -90, 5), (90, 90, 90))
    return finish(pile, draws, cameras)


def street(draws: Draws) -> Scene:
    """A lane or court between walls, with columns, crates and barrels: 31 solids."""
    pile = Pile(len(draws.numbers))
    wide = draws.uniform(3.0, 4.5)
    pile.box((0, 0, -0.5), (300, 300, 0.5), draws.paint(("pavers", "blocks", "earth", "grass"), 1.0))
    pile.box((0, 0, -0.47), (wide * 0.6, 12, 0.5), draws.paint(("pavers", "blocks", "tiles", "planks"), 0.8))
    for sign in (-1, 1):
        for along in (-3.2, 4.2):
            tall = draws.uniform(1.3, 3.0)
            pile.box(
                (sign * (wide + 1), along + draws.uniform(-0.4, 0.4), tall),
                (1 + draws.uniform(0, 0.5), 3.5, tall),
                draws.paint(("windows", "bricks", "blocks", "plaster", "planks"), 1.0),
            )
        tall = draws.uniform(1.7, 2.2)
        pile.box(
            (sign * (wide - 0.3), draws.uniform(-2, 3), tall),
            (0.8, 1.2, 0.05),
            draws.paint(("stripes", "shingles", "planks"), 0.8),
        )
        pile.box(
            (sign * (wide - 0.08), draws.uniform(0, 4), 1.3), (0.08, 0.5, 0.35), draws.paint(("text", "picture"), 0.7)
        )
    tall = draws.uniform(1.5, 3.5)  # what closes the lane
    pile.box(
        (draws.uniform(-1, 1), 10, tall), (wide + 2, 1.5, tall), draws.paint(("windows", "plaster", "bricks"), 1.1)
    )
    pile.roof((0, 10, 2 * tall), (wide + 2.3, 2.0, draws.uniform(0.8, 1.8)), draws.paint(("shingles",), 0.8))
    x, tall = draws.uniform(-3, 3), draws.uniform(4, 7)
    pile.frustum((x, 8, 0), tall, (1.0, 0.9), draws.paint(STONE, 0.9))
    pile.frustum((x, 8, tall), 1.6, (1.25, 0.02), draws.paint(("shingles",), 0.6))
    for k in range(3):  # columns
        x, y, r = (k - 1) * 1.6 + draws.uniform(-0.5, 0.5), draws.uniform(-1.5, 3.5), draws.uniform(0.14, 0.26)
        pile.frustum((x, y, 0), draws.uniform(1.4, 3.2), (r, 0.85 * r), draws.paint(STONE, 0.6))
    for _ in range(4):  # crates
        x, y, half = wide * draws.uniform(-0.7, 0.7), draws.uniform(-3, 3), draws.uniform(0.2, 0.45)
        pile.box((x, y, half), (half, half, half), draws.paint(BOXES, 0.8), draws.uniform(-0.7, 0.7))
    for k in range(3):  # barrels and pots with plants
        x, y, r = wide * (0.35 * k - 0.4) + draws.uniform(-0.3, 0.3), draws.uniform(-2.5, 2.5), draws.uniform(0.2, 0.35)
        pile.frustum((x, y, 0), draws.uniform(0.5, 1.0), (0.85 * r, r), draws.paint(("planks", "plain", "marble"), 0.6))
        if k:
            pile.ellipsoid((x, y, 1.1), (1.3 * r, 1.3 * r, 1.4 * r), draws.paint(("leaves",), 0.5))
    x, y = draws.uniform(-0.8, 0.8), draws.uniform(0, 1.5)  # fountain or statue
    pile.frustum((x, y, 0), 0.3, (1.0, 0.9), draws.paint(STONE, 0.7))
    pile.frustum((x, y, 0.3), draws.uniform(0.5, 1.0), (0.3, 0.2), draws.paint(STONE, 0.5))
    pile.ellipsoid((x, y, 1.3), (0.3, 0.3, draws.uniform(0.3, 0.5)), draws.paint((*STONE, "leaves"), 0.4))
    distance = draws.uniform(5.0, 5.6), draws.uniform(6.2, 7.2)
    cameras = standing(
        draws, (0, 1.0, 1.1), distance, (-2.0, -1.14), (0.05, 0.35), (-wide + 0.2, -20, 0.5), (wide - 0.2, 20, 20)
    )
    return finish(pile, draws, cameras)
