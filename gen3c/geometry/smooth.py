"""Smooth completion and edge-aware enlargement of inverse depth.

Inverse depth is the right quantity to smooth: over a plane in the world it is an affine function of the pixel,
whatever the plane's slant, so a penalty on second differences does not bend planes.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

EDGE_CONTRAST = 0.06  # colour difference at which a picture edge weakens smoothness by a factor e
SMOOTHNESS = 1.0  # weight of squared second differences next to a measurement of weight 1
FLATNESS = 1e-4  # weight of squared first differences; makes the solution unique


def complete(
    values: Tensor,
    weight: Tensor,
    image: Tensor,
    iterations: int = 80,
    poll: Callable[[], None] = lambda: None,
) -> Tensor:
    """Fill and smooth a map so that it follows its reliable values and bends little within a picture's regions.

    Minimises sum(weight (x - values)^2) + edge-aware squared second differences, by conjugate gradients from
    coarse to fine.

    Args:
        values: the map, [h,w].
        weight: >= 0, how far each value is to be trusted, [h,w].
        image: the picture, [3,h,w] in [0,1].
        iterations: of conjugate gradients on each level.
        poll: called at every iteration; may raise.

    Returns:
        The completed map, [h,w].
    """
    if min(values.shape) >= 32:
        size = (values.shape[0] // 2, values.shape[1] // 2)
        small_weight = F.interpolate(weight[None, None], size, mode="area")[0, 0]
        small_sum = F.interpolate((weight * values)[None, None], size, mode="area")[0, 0]
        small_image = F.interpolate(image[None], size, mode="area")[0]
        small = complete(small_sum / small_weight.clamp(min=1e-6), small_weight, small_image, iterations, poll)
        start = F.interpolate(small[None, None], values.shape, mode="bilinear", align_corners=False)[0, 0]
    else:
        mean = (weight * values).sum() / weight.sum().clamp(min=1e-6)
        start = mean.expand_as(values).clone()
    return _conjugate_gradients(start, values, weight, _Smoothness(image), iterations, poll)


class _Smoothness:
    """The quadratic form of edge-aware first and second differences along rows and columns."""

    def __init__(self, image: Tensor) -> None:
        across = torch.exp(-(image[:, :, 1:] - image[:, :, :-1]).abs().amax(0) / EDGE_CONTRAST)  # [h,w-1]
        down = torch.exp(-(image[:, 1:] - image[:, :-1]).abs().amax(0) / EDGE_CONTRAST)  # [h-1,w]
        self._across, self._down = across, down
        # A second difference spans two steps; it is as weak as the stronger edge of the two.
        self._bend_across = SMOOTHNESS * torch.minimum(across[:, 1:], across[:, :-1])
        self._bend_down = SMOOTHNESS * torch.minimum(down[1:], down[:-1])

    def gradient(self, x: Tensor) -> Tensor:
        """Half of the gradient at x [h,w]."""
        out = torch.zeros_like(x)
        slope = FLATNESS * self._across * (x[:, 1:] - x[:, :-1])
        out[:, 1:] += slope
        out[:, :-1] -= slope
        slope = FLATNESS * self._down * (x[1:] - x[:-1])
        out[1:] += slope
        out[:-1] -= slope
        bend = self._bend_across * (x[:, 2:] - 2 * x[:, 1:-1] + x[:, :-2])
        out[:, 2:] += bend
        out[:, 1:-1] -= 2 * bend
        out[:, :-2] += bend
        bend = self._bend_down * (x[2:] - 2 * x[1:-1] + x[:-2])
        out[2:] += bend
        out[1:-1] -= 2 * bend
        out[:-2] += bend
        return out


def _conjugate_gradients(
    x: Tensor,
    values: Tensor,
    weight: Tensor,
    smoothness: _Smoothness,
    iterations: int,
    poll: Callable[[], None],
) -> Tensor:
    residual = weight * (values - x) - smoothness.gradient(x)
    direction = residual.clone()
    energy = (residual * residual).sum()
    for _ in range(iterations):
        poll()
        if energy < 1e-16 * x.numel() * (x * x).mean():
            break
        image_of = weight * direction + smoothness.gradient(direction)
        step = energy / (direction * image_of).sum().clamp(min=1e-30)
        x = x + step * direction
        residual = residual - step * image_of
        energy, previous = (residual * residual).sum(), energy
        direction = residual + (energy / previous) * direction
    return x


def enlarge(values: Tensor, small_image: Tensor, image: Tensor, tolerance: float = 0.03) -> Tensor:
    """Resize a map to the raster of `image`, without mixing the two sides of a step at a picture edge.

    Each pixel takes, of the 3x3 values around its place, the one whose colour and distance fit best, averaged
    with those that differ from it by less than the relative `tolerance`.

    Args:
        values: the map, positive, [h,w].
        small_image: the picture at the map's size, [3,h,w].
        image: the picture at the wanted size, [3,H,W].
    """
    size = image.shape[1:]
    if size == values.shape:
        return values
    height, width = values.shape
    rows = (torch.arange(size[0]) + 0.5) * (height / size[0]) - 0.5
    columns = (torch.arange(size[1]) + 0.5) * (width / size[1]) - 0.5
    near_row, near_column = rows.round().long().clamp(0, height - 1), columns.round().long().clamp(0, width - 1)
    weights, candidates = [], []
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            y = (near_row + dy).clamp(0, height - 1)
            x = (near_column + dx).clamp(0, width - 1)
            distance = (rows - near_row - dy)[:, None] ** 2 + (columns - near_column - dx)[None] ** 2
            contrast = (small_image[:, y][:, :, x] - image).abs().amax(0)
            weights.append(torch.exp(-distance / (2 * 0.6**2) - contrast / EDGE_CONTRAST))
            candidates.append(values[y][:, x])
    weight, candidate = torch.stack(weights), torch.stack(candidates)
    chosen = candidate.gather(0, weight.argmax(0, keepdim=True))
    weight = weight * ((candidate - chosen).abs() <= tolerance * chosen)
    return (weight * candidate).sum(0) / weight.sum(0)
