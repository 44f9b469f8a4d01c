"""How well two pictures agree if a pixel had a given depth: the matching cost of the plane sweep."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gen3c.cameras import pixel_rays

NO_MATCH = 1.0  # the worst cost, and that of a place that no neighbour sees
UNSEEN = 2.0  # marks a place outside a neighbour's picture
MISSING_NEIGHBOUR = 0.1  # cost of having one neighbour fewer to agree with
# Standard deviation of a window below which its correlation is noise, in units of the value range [0,1].
NOISE_FLOOR = 0.012
COLOUR_SCALE = 0.15  # mean absolute colour difference at which the colour term saturates
CORRELATION_SHARE = 0.75  # of the cost; the rest is the colour term


@dataclass(frozen=True)
class View:
    """One picture at the size at which it is matched."""

    image: Tensor  # [3,h,w] float32 in [0,1]
    w2c: Tensor  # [4,4] float64
    K: Tensor  # [3,3] float64, pixels of `image`, integer centres

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[1], self.image.shape[2]

    def resized(self, size: tuple[int, int]) -> "View":
        """The same view at another size; a pixel centre c goes to (c + .5) s - .5."""
        if size == self.size:
            return self
        image = F.interpolate(self.image[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
        return View(image, self.w2c, scale_intrinsics(self.K, self.size, size))


def scale_intrinsics(K: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """K [3,3] of a picture that was resized from `old` to `new` (height, width)."""
    scale = torch.tensor([new[1] / old[1], new[0] / old[0]], dtype=K.dtype)
    scaled = K.clone()
    scaled[:2, :2] *= scale[:, None]
    scaled[:2, 2] = (K[:2, 2] + 0.5) * scale - 0.5
    return scaled


class Projection:
    """Where the pixels of one view fall in another, as a function of their inverse depth."""

    def __init__(self, ref: View, other: View) -> None:
        relative = other.w2c @ torch.linalg.inv(ref.w2c)
        turn = (other.K @ relative[:3, :3]).float()
        self._far = torch.einsum("ij,hwj->ihw", turn, pixel_rays(*ref.size, ref.K[None])[0])  # [3,h,w]
        self._shift = (other.K @ relative[:3, 3]).float()  # [3]
        self._size = other.size

    def __call__(self, inverse_depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Column, row and relative depth (in front: > 0) for inverse depths [p,h,w] or [p,1,1]; each [p,h,w].

        The depth in the other view is the relative depth divided by the inverse depth.
        """
        x, y, z = (self._far[i] + inverse_depth * self._shift[i] for i in range(3))
        scale = z.clamp(min=1e-6).reciprocal()
        return x * scale, y * scale, z

    def sample(self, maps: Tensor, u: Tensor, v: Tensor, mode: str = "bilinear") -> Tensor:
        """`maps` [c,h',w'] of the other view at columns u and rows v [p,h,w]; [p,c,h,w], 0 outside."""
        height, width = self._size
        grid = torch.stack([u * (2 / (width - 1)) - 1, v * (2 / (height - 1)) - 1], -1)
        source = maps.expand(len(u), *maps.shape)
        return F.grid_sample(source, grid, mode=mode, padding_mode="zeros", align_corners=True)

    def inside(self, u: Tensor, v: Tensor, z: Tensor) -> Tensor:
        """Whether the places lie within the other picture and before its camera, [p,h,w] bool."""
        height, width = self._size
        return (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1) & (z > 1e-6)


def box_mean(maps: Tensor, radius: int) -> Tensor:
    """Mean over a (2 radius + 1) square window within the picture, [n,c,h,w].

    Sums of shifted maps: four times as fast as avg_pool2d on a CPU, and exact where running sums are not.
    """
    height, width = maps.shape[2:]
    padded = F.pad(maps, (radius, radius, radius, radius))
    rows = padded[..., :width].clone()
    for shift in range(1, 2 * radius + 1):
        rows += padded[..., shift : shift + width]
    total = rows[..., :height, :].clone()
    for shift in range(1, 2 * radius + 1):
        total += rows[..., shift : shift + height, :]
    return total.mul_(1 / _window_sizes(height, width, radius))


def _window_sizes(height: int, width: int, radius: int) -> Tensor:
    """How many pixels of each window lie within the picture, [h,w]."""
    sides = []
    for length in (height, width):
        at = torch.arange(length)
        sides.append((at + radius).clamp(max=length - 1) - (at - radius).clamp(min=0) + 1)
    return sides[0][:, None].float() * sides[1][None].float()


class Matcher:
    """The matching cost of one reference view against several neighbours.

    Normalised cross-correlation of grey windows, which ignores exposure and vignetting, plus a truncated
    difference of colours, which tells apart what correlation cannot: flat surfaces.
    """

    def __init__(self, ref: View, neighbours: list[View], radius: int, best: int) -> None:
        self._ref = ref
        self._neighbours = [(other.image, Projection(ref, other)) for other in neighbours]
        self._radius = radius
        self._best = min(best, len(neighbours))
        self._grey = ref.image.mean(0)[None, None]
        self._mean = box_mean(self._grey, radius)
        self._variance = (box_mean(self._grey**2, radius) - self._mean**2).clamp(min=0)

    def __call__(self, inverse_depth: Tensor) -> Tensor:
        """Costs in [0, 1] of inverse depths [p,1,1] or [p,h,w], [p,h,w].

        The mean over the best neighbours of each pixel and depth: those that do not see it are left out.
        """
        costs = torch.stack([self._cost(inverse_depth, *n) for n in self._neighbours])  # [m,p,h,w]
        least = costs.topk(self._best, dim=0, largest=False, sorted=True).values
        # A neighbour that cannot see the place does not speak against it, but agreement of several is better.
        least = torch.where(least == UNSEEN, least[:1] + MISSING_NEIGHBOUR, least)
        return least.mean(0).clamp(max=NO_MATCH)

    def _cost(self, inverse_depth: Tensor, image: Tensor, projection: Projection) -> Tensor:
        u, v, z = projection(inverse_depth)
        seen = projection.sample(image, u, v)  # [p,3,h,w]
        grey = seen.mean(1, keepdim=True)
        moments = box_mean(torch.cat([grey, grey**2, grey * self._grey], 1), self._radius)
        mean, square, product = (moments[:, k : k + 1] for k in range(3))
        variance = (square - mean**2).clamp(min=0)
        floor = NOISE_FLOOR**2
        correlation = (product - mean * self._mean) / ((variance + floor).sqrt() * (self._variance + floor).sqrt())
        colour = (seen - self._ref.image).abs().mean(1, keepdim=True)
        colour = box_mean(colour, 1) / COLOUR_SCALE
        cost = CORRELATION_SHARE * (1 - correlation).clamp(0, 1) + (1 - CORRELATION_SHARE) * colour.clamp(max=1)
        return torch.where(projection.inside(u, v, z), cost[:, 0], UNSEEN)
