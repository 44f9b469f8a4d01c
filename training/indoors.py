"""Scenes at arm's length: furnished rooms, and things on a table or a plaza."""

import math

import torch

from training.paints import Draws
from training.places import Scene, finish, standing
from training.solids import Pile
from training.textures import Pattern

STONE: tuple[Pattern, ...] = ("blocks", "bricks", "rock", "marble", "plaster")
WALLS: tuple[Pattern, ...] = ("plaster", "bricks", "blocks", "planks", "cloth", "plain")
FLOORS: tuple[Pattern, ...] = ("planks", "tiles", "checker", "pavers", "cloth")
WOODS: tuple[Pattern, ...] = ("planks", "planks", "plain")
THINGS: tuple[Pattern, ...] = ("plain", "stripes", "cloth", "marble", "text", "planks", "checker", "rock")
BOXES: tuple[Pattern, ...] = ("planks", "planks", "text", "plain", "bricks", "stripes", "picture")
GROUNDS: tuple[Pattern, ...] = ("grass", "pavers", "earth", "blocks", "grass")


def room(draws: Draws) -> Scene:
    """A furnished room, seen from one end: 31 solids."""
    pile = Pile(len(draws.numbers))
    w, far, h = draws.uniform(2.9, 4.2), draws.uniform(1.7, 2.5), draws.uniform(2.7, 3.5)
    near = -4.5
    y0, d = (far + near) / 2, (far - near) / 2
    wall, side = draws.paint(WALLS, 0.7), draws.paint(WALLS, 0.7)
    pile.box((0, y0, -0.1), (w, d, 0.1), draws.paint(FLOORS, 0.7))
    pile.box((0, y0, h + 0.1), (w, d, 0.1), draws.paint(("plaster", "plain", "planks")), casts=0.0)
    for sign in (-1, 1):
        pile.box((0, y0 + sign * (d + 0.1), h / 2), (w + 0.2, 0.1, h / 2 + 0.2), wall, casts=0.0)
        pile.box((sign * (w + 0.1), y0, h / 2), (0.1, d, h / 2 + 0.2), side, casts=0.0)
    pile.box(
        (draws.uniform(-0.5, 0.5), draws.uniform(-0.3, 0.8), 0.01),
        (1.2, 0.85, 0.012),
        draws.paint(("cloth", "stripes", "checker"), 0.7),
        draws.uniform(-0.4, 0.4),
    )
    for k in (-1, 1):  # pictures at the far wall
        x, z, half = w * (0.5 * k + draws.uniform(-0.15, 0.15)), draws.uniform(1.4, 1.8), draws.uniform(0.25, 0.5)
        pile.box((x, far, z), (half + 0.05, 0.03, 0.75 * half + 0.05), draws.paint(WOODS, 0.3))
        pile.box((x, far, z), (half, 0.045, 0.75 * half), draws.paint(("picture", "text", "windows"), 0.5))
    x, y, yaw = draws.uniform(-0.6, 0.6), draws.uniform(0.0, 0.9), draws.uniform(-0.6, 0.6)  # table and what is on it
    top, half_x, half_y = draws.uniform(0.6, 0.8), draws.uniform(0.5, 0.8), draws.uniform(0.3, 0.45)
    wood = draws.paint(WOODS, 0.5)
    pile.box((x, y, top - 0.03), (half_x, half_y, 0.03), wood, yaw)
    for end in (-0.8, 0.8):
        dx = end * half_x
        pile.box(
            (x + dx * yaw.cos(), y + dx * yaw.sin(), top / 2 - 0.03), (0.05, 0.85 * half_y, top / 2 - 0.03), wood, yaw
        )
    pile.frustum(
        (x - 0.3, y, top),
        draws.uniform(0.2, 0.45),
        (draws.uniform(0.07, 0.15), draws.uniform(0.05, 0.16)),
        draws.paint(THINGS, 0.3),
    )
    r = draws.uniform(0.1, 0.2)
    pile.ellipsoid((x + 0.1, y - 0.1, top + r), (r, r, r), draws.paint(("plain", "marble", "stripes", "leaves"), 0.3))
    pile.box((x + 0.4, y + 0.1, top + 0.08), (0.14, 0.1, 0.08), draws.paint(BOXES, 0.25), draws.uniform(-1, 1))
    side_x = (w - 0.5) * torch.where(draws.chance(0.5), 1.0, -1.0)  # sofa at one side
    y, cover = draws.uniform(-0.8, 0.6), draws.paint(("cloth", "plain", "stripes"), 0.5)
    pile.box((side_x, y, 0.25), (0.42, 0.8, 0.2), cover)
    pile.box((side_x * 1.13, y, 0.55), (0.12, 0.8, 0.45), cover)
    pile.box(
        (side_x * 0.95, y - 0.2, 0.55), (0.1, 0.22, 0.2), draws.paint(THINGS, 0.3), draws.uniform(-0.4, 0.4), pitch=0.25
    )
    x, shelf = -0.55 * side_x, draws.uniform(0.8, 1.1)  # shelf of books at the far wall
    pile.box((x, far - 0.2, shelf), (0.62, 0.2, shelf), draws.paint(WOODS, 0.5))
    pile.box((x, far - 0.25, shelf), (0.55, 0.2, shelf - 0.07), draws.paint(("books", "books", "planks"), 0.62))
    x = -side_x * draws.uniform(0.9, 1.0)  # chest with a plant
    y, top = draws.uniform(-0.6, 0.8), draws.uniform(0.45, 0.9)
    pile.box((x, y, top / 2), (0.3, 0.45, top / 2), draws.paint(BOXES, 0.6))
    pile.frustum((x, y, top), 0.25, (0.12, 0.18), draws.paint(STONE, 0.3))
    pile.ellipsoid((x, y, top + 0.5), (0.3, 0.3, 0.35), draws.paint(("leaves",), 0.3))
    x, y, tall = 0.55 * side_x, draws.uniform(1.4, 1.9), draws.uniform(1.3, 1.7)  # lamp
    pile.frustum((x, y, 0), tall, (0.04, 0.03), draws.paint(("plain",)))
    pile.frustum((x, y, tall), 0.35, (0.25, 0.14), draws.paint(("plain", "cloth", "stripes"), 0.4))
    for k in (-1, 1):  # what stands in front
        x, y, half = k * draws.uniform(0.35, 1.2), draws.uniform(-1.1, -0.3), draws.uniform(0.12, 0.25)
        pile.box((x, y, half), (half, half, half), draws.paint(BOXES, 0.5), draws.uniform(-0.7, 0.7))
    x, y = draws.uniform(0.5, 1.3) * torch.where(draws.chance(0.5), 1.0, -1.0), draws.uniform(-0.8, 0.2)
    pile.frustum(
        (x, y, 0),
        draws.uniform(0.5, 2.5),
        (draws.uniform(0.12, 0.22), draws.uniform(0.1, 0.2)),
        draws.paint(STONE, 0.5),
    )
    distance = draws.uniform(2.4, 2.8), draws.uniform(3.0, 3.4)
    cameras = standing(
        draws,
        (0, 0.3, 0.9),
        distance,
        (-2.2, -0.95),
        (0.05, 0.4),
        (0.25 - w, near + 0.25, 0.3),
        (w - 0.25, far - 0.25, h - 0.2),
    )
    return finish(pile, draws, cameras, indoors=True)


def things(draws: Draws) -> Scene:
    """Things on a table top or a plaza, with walls and trees behind: 31 solids."""
    pile = Pile(len(draws.numbers))
    size = draws.uniform(0.8, 1.6)
    wide = torch.where(draws.chance(0.5), draws.uniform(0.9, 1.2), draws.uniform(2.0, 5.0)) * size
    floor = -0.8 * size
    pile.box((0, 0, floor - 0.5), (200, 200, 0.5), draws.paint((*GROUNDS, *FLOORS), 1.0))
    top = draws.paint((*WOODS, *FLOORS, "marble"), 0.5 * size)
    pile.box((0, 0, -0.05 * size), (wide, wide * draws.uniform(0.7, 1.0), 0.05 * size), top)
    pile.frustum((0, 0, floor), 0.72 * size, (0.4 * size, 0.25 * size), draws.paint(WOODS, 0.5))
    turn, count = draws.uniform(0, 2 * math.pi), 5
    for k in range(count):  # big things around, two small ones before each, and one on top of some
        angle = turn + 2 * math.pi * (k + draws.uniform(-0.25, 0.25)) / count
        x, y = draws.uniform(0.18, 0.6) * size * angle.cos(), draws.uniform(0.18, 0.6) * size * angle.sin()
        half, tall = draws.uniform(0.09, 0.17) * size, draws.uniform(0.12, 0.5) * size
        if k % 2:
            pile.box(
                (x, y, tall / 2),
                (half, half * draws.uniform(0.6, 1.2), tall / 2),
                draws.paint(BOXES, 0.3 * size),
                angle,
            )
        else:
            pile.frustum(
                (x, y, 0),
                tall,
                (half * draws.uniform(0.6, 1.1), half * draws.uniform(0.4, 1.2)),
                draws.paint(THINGS, 0.3 * size),
            )
        r = half * draws.uniform(0.5, 0.95)
        pile.ellipsoid(
            (x, y, tall + 0.9 * r),
            (r, r, r * draws.uniform(0.8, 1.3)),
            draws.paint(("plain", "leaves", "marble", "stripes", "rock"), 0.25 * size),
        )
        x, y, r = x * draws.uniform(1.3, 1.7), y * draws.uniform(1.3, 1.7), draws.uniform(0.05, 0.1) * size
        if k % 2:
            pile.ellipsoid((x, y, r), (r, r, r), draws.paint(("plain", "marble", "stripes", "checker"), 0.2 * size))
        else:
            pile.box((x, y, r), (1.3 * r, r, r), draws.paint(BOXES, 0.25 * size), draws.uniform(-1.5, 1.5))
    pile.box(
        (0.05, 0.02, 0.02),
        (0.3 * size, 0.22 * size, 0.02),
        draws.paint(("text", "picture", "cloth"), 0.35 * size),
        turn,
    )
    for k in range(2):  # walls
        angle, far = 1.57 + (k - 0.5) * draws.uniform(1.2, 2.2), draws.uniform(2.2, 4.0) * size
        pile.box(
            (far * angle.cos(), far * angle.sin(), floor + 1.0 * size),
            (draws.uniform(1.0, 2.4) * size, 0.15, draws.uniform(0.7, 1.8) * size),
            draws.paint((*WALLS, "windows"), 0.8 * size),
            angle - 1.57,
        )
    for k in range(4):  # trees and bushes
        angle, far = draws.uniform(0, 1) + 1.6 * k, draws.uniform(3.0, 6.0) * size
        x, y, r = far * angle.cos(), far * angle.sin(), draws.uniform(0.5, 1.0) * size
        pile.frustum((x, y, floor), 1.6 * size, (0.16 * size, 0.1 * size), draws.paint(("planks", "rock"), 0.5))
        if k < 3:
            pile.ellipsoid(
                (x, y, floor + (1.0 + draws.uniform(0.2, 1.0)) * size), (r, r, r), draws.paint(("leaves",), 0.7 * size)
            )
    distance = draws.uniform(1.3, 1.6) * size, draws.uniform(1.8, 2.4) * size
    cameras = standing(draws, (0, 0, 0.15), distance, (-2.6, -0.5), (0.2, 0.75), (-50, -50, 0.12), (50, 50, 50))
    return finish(pile, draws, cameras)
