"""What belongs to a scene beside its solids: light, sky, and where cameras may stand.

The kinds of scene are in training.indoors and training.outdoors: each builder piles up the solids of b scenes at once
from their draws.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from training.paints import Draws
from training.solids import Pile, Solids

SOLIDS = 32  # of each scene, its sky among them


@dataclass(frozen=True)
class Light:
    """Sun, sky and haze of b scenes; linear light."""

    sun: Tensor  # [b,3] unit vector towards it
    sun_color: Tensor  # [b,3]
    sky_color: Tensor  # [b,3] what comes from above
    bounce: Tensor  # [b,3] and from below
    haze: Tensor  # [b,3] colour of far things
    haze_range: Tensor  # [b] metres over which it grows to 63 %

    def to(self, device: torch.device) -> "Light":
        """The same on a device."""
        return Light(*(getattr(self, field.name).to(device) for field in fields(self)))

    def __getitem__(self, scenes: slice) -> "Light":
        return Light(*(getattr(self, field.name)[scenes] for field in fields(self)))

    def table(self) -> Tensor:
        """All numbers, [b,16]."""
        parts = (self.sun, self.sun_color, self.sky_color, self.bounce, self.haze, self.haze_range[:, None])
        return torch.cat(parts, -1)


@dataclass(frozen=True)
class Place:
    """Where cameras of b scenes may stand: around `focus`, in metres and radians."""

    focus: Tensor  # [b,3]
    distance: Tensor  # [b,2] least and most, from the focus
    azimuth: Tensor  # [b,2]
    elevation: Tensor  # [b,2]
    low: Tensor  # [b,3] corners of a box that holds every camera
    high: Tensor  # [b,3]

    def to(self, device: torch.device) -> "Place":
        """The same on a device."""
        return Place(*(getattr(self, field.name).to(device) for field in fields(self)))

    def __getitem__(self, scenes: slice) -> "Place":
        return Place(*(getattr(self, field.name)[scenes] for field in fields(self)))


Scene = tuple[Solids, Light, Place]


def finish(pile: Pile, draws: Draws, place: Place, *, indoors: bool = False) -> Scene:
    """Adds the sky at 6 to 9 times the mean camera distance, and the light."""
    radius = place.distance.mean(1) * draws.uniform(6, 9)
    sky = draws.paint(("sky",), radius * 0.55)
    pile.ellipsoid((0, 0, 0), (radius, radius, 0.7 * radius), sky, within=True, casts=0.0)
    height, turn = draws.uniform(0.55, 1.15), draws.uniform(0, 2 * math.pi)
    sun = torch.stack([height.cos() * turn.cos(), height.cos() * turn.sin(), height.sin()], -1)
    warm, strength = draws.uniform(0.0, 1.0), draws.uniform(0.9, 1.7) * (0.55 if indoors else 1.0)
    white = torch.ones_like(warm)
    sun_color = strength[:, None] * torch.stack([1.05 * white, 0.97 - 0.1 * warm, 0.9 - 0.3 * warm], -1)
    soft = (0.75 if indoors else 0.55) * draws.uniform(0.8, 1.2)
    sky_color = soft[:, None] * torch.stack([0.8 + 0.1 * warm, 0.9 * white, 1.1 - 0.1 * warm], -1)
    bounce = (0.75 if indoors else 0.5) * soft[:, None] * torch.tensor([1.0, 0.9, 0.78])
    haze = 0.9 * sky[:, -9:-6]
    return pile.solids(SOLIDS), Light(sun, sun_color, sky_color, bounce, haze, radius * draws.uniform(1.2, 3.0)), place


def standing(
    draws: Draws,
    focus: tuple[float, float, float],
    distance: tuple[Tensor, Tensor],
    azimuth: tuple[float, float],
    elevation: tuple[float, float],
    low: tuple[float | Tensor, ...],
    high: tuple[float | Tensor, ...],
) -> Place:
    """A Place from plain numbers, or [b]."""

    def rows(*numbers: float | Tensor) -> Tensor:
        return torch.stack([torch.as_tensor(x, dtype=torch.float32).expand(len(draws.numbers)) for x in numbers], -1)

    return Place(rows(*focus), rows(*distance), rows(*azimuth), rows(*elevation), rows(*low), rows(*high))
