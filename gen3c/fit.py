"""How a view of another aspect ratio meets the output raster: picture, depth and intrinsics together.

Pixel centres are integers: a resize by s maps coordinate c to (c+.5)s-.5.
"""

from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.holes import fill_holes

FitMode = Literal["crop", "pad", "stretch"]

# Neighbouring depths further apart than this lie on different surfaces (the reliability threshold of GEN3C's cache).
SAME_SURFACE = 0.05


@dataclass(frozen=True)
class FittedView:
    """A view on the output raster."""

    image: Tensor  # [3,H,W] float32 in [-1,1]; outside the picture, colours of its rim
    depth: Tensor  # [H,W] float32, 0 where unknown and outside the picture
    confidence: Tensor  # [H,W] float32 in [0,1]; 0 where unknown and outside
    K: Tensor  # [3,3] float32, pixels of the output raster


@dataclass(frozen=True)
class Fit:
    """A rectangle of the source (x0, y0, x1, y1, edges of pixels at integers) shown in one of the target."""

    source: tuple[int, int]  # height, width
    target: tuple[int, int]  # height, width
    box: tuple[float, float, float, float]  # of the source
    tile: tuple[int, int, int, int]  # of the target
    plain_intrinsics: bool = False  # scale K without the half-pixel shift, as the reference implementation does

    @classmethod
    def of(cls, source: tuple[int, int], target: tuple[int, int], mode: FitMode) -> Self:
        """The map from a source to a target raster, both (height, width).

        `crop` covers the target and cuts off the rest, centred; `pad` shows everything, centred; `stretch` scales both
        axes independently, and K plainly (the reference implementation's way).

        Raises InvalidInputError for another mode or an empty raster.
        """
        (h, w), (H, W) = source, target
        if min(h, w, H, W) < 1:
            raise InvalidInputError(f"cannot fit {w}x{h} pixels into {W}x{H}; every side must be at least 1.")
        if mode == "crop":
            scale = max(H / h, W / w)
            x, y = max(0.0, (w - W / scale) / 2), max(0.0, (h - H / scale) / 2)
            return cls(source, target, (x, y, w - x, h - y), (0, 0, W, H))
        if mode == "pad":
            scale = min(H / h, W / w)
            width, height = max(1, round(w * scale)), max(1, round(h * scale))
            left, top = (W - width) // 2, (H - height) // 2
            return cls(source, target, (0, 0, w, h), (left, top, left + width, top + height))
        if mode == "stretch":
            return cls(source, target, (0, 0, w, h), (0, 0, W, H), plain_intrinsics=True)
        raise InvalidInputError(f"fit is {mode!r}; legal: {', '.join(get_args(FitMode))}.", field="spec.fit")

    @property
    def scale(self) -> tuple[float, float]:
        """Target pixels a source pixel, in x and y."""
        x0, y0, x1, y1 = self.box
        left, top, right, bottom = self.tile
        return (right - left) / (x1 - x0), (bottom - top) / (y1 - y0)

    def points(self, xy: Tensor) -> Tensor:
        """Where source coordinates [...,2] lie on the target raster."""
        scale = torch.tensor(self.scale, dtype=xy.dtype)
        start, tile = torch.tensor(self.box[:2], dtype=xy.dtype), torch.tensor(self.tile[:2], dtype=xy.dtype)
        return (xy + 0.5 - start) * scale - 0.5 + tile

    def intrinsics(self, K: Tensor) -> Tensor:
        """K [3,3] of the source raster -> of the target raster."""
        sx, sy = self.scale
        if self.plain_intrinsics:
            return torch.diag(torch.tensor([sx, sy, 1.0], dtype=K.dtype)) @ K
        shift = self.points(torch.zeros(2, dtype=torch.float64)).tolist()
        return torch.tensor([[sx, 0, shift[0]], [0, sy, shift[1]], [0, 0, 1]], dtype=K.dtype) @ K

    def inverse(self) -> Self:
        """From the target's raster back to that of the source; for fits that show the whole source."""
        h, w = self.source
        if self.box != (0, 0, w, h):
            raise ValueError(f"a fit of {self.box} of a {w}x{h} picture does not show all of it")
        return type(self)(self.target, self.source, self.tile, (0, 0, w, h))

    def resized(self, pixels: Tensor) -> Tensor:
        """The box of [h,w,3] uint8 at the size of the tile, [h',w',3] uint8: cubic, antialiased."""
        left, top, right, bottom = self.tile
        size = (right - left, bottom - top)
        resized = Image.fromarray(pixels.contiguous().numpy()).resize(size, Image.Resampling.BICUBIC, box=self.box)
        return torch.from_numpy(np.array(resized))

    def image(self, pixels: Tensor) -> Tensor:
        """Resample [h,w,3] uint8, antialiased -> [3,H,W] float32 in [-1,1].

        Outside the picture its colours run on: a video that starts from black bars would keep them.
        """
        left, top, right, bottom = self.tile
        out, inside = torch.zeros(3, *self.target), torch.zeros(self.target, dtype=torch.bool)
        out[:, top:bottom, left:right] = self.resized(pixels).permute(2, 0, 1) / 127.5 - 1
        inside[top:bottom, left:right] = True
        return fill_holes(out[None], inside[None, None])[0]

    def depth(self, depth: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
        """Resample depth and confidence [h,w] -> both [H,W], 0 where unknown and outside.

        Depth is interpolated only between four usable neighbours on one surface, in 1/depth, which is exact on planes;
        elsewhere the nearest pixel counts. So no depth arises between foreground and background, and unknown pixels
        spread nowhere. Confidence is the nearest pixel's.
        """
        h, w = self.source
        left, top, right, bottom = self.tile
        sx, sy = self.scale
        x = (torch.arange(right - left) + 0.5) / sx + self.box[0] - 0.5
        y = (torch.arange(bottom - top) + 0.5) / sy + self.box[1] - 0.5
        x, y = x.clamp(0, w - 1), y.clamp(0, h - 1)
        x0, y0 = x.floor().long().clamp_max(max(w - 2, 0)), y.floor().long().clamp_max(max(h - 2, 0))
        x1, y1 = (x0 + 1).clamp_max(w - 1), (y0 + 1).clamp_max(h - 1)
        usable = (depth > 0) & depth.isfinite() & (confidence > 0)
        known = torch.where(usable, depth, 0.0)
        corners = torch.stack([known[a][:, b] for a in (y0, y1) for b in (x0, x1)])  # [4,h',w']
        fx, fy = (x - x0)[None, :], (y - y0)[:, None]
        weights = torch.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx])
        lowest = corners.amin(0)
        one_surface = (lowest > 0) & (corners.amax(0) <= lowest * (1 + SAME_SURFACE))
        smooth = 1 / (weights / corners.clamp_min(1e-12)).sum(0)
        near_y, near_x = torch.where(y - y0 > 0.5, y1, y0), torch.where(x - x0 > 0.5, x1, x0)
        nearest = known[near_y][:, near_x]
        out = torch.zeros(2, *self.target)
        out[0, top:bottom, left:right] = torch.where(one_surface, smooth, nearest)
        out[1, top:bottom, left:right] = torch.where(usable, confidence, 0.0)[near_y][:, near_x]
        return out[0], out[1]


def fit_view(
    pixels: Tensor,  # [h,w,3] uint8
    depth: Tensor,  # [h,w] float32, 0 = unknown
    confidence: Tensor,  # [h,w] float32 in [0,1]
    K: Tensor,  # [3,3] float32, pixels of the [h,w] raster
    size: tuple[int, int],  # height, width of the output
    mode: FitMode = "crop",
) -> FittedView:
    """A view with its geometry on the output raster; see Fit for the modes.

    Raises InvalidInputError if pixels, depth and confidence differ in size, or for an unknown mode.
    """
    source = (pixels.shape[0], pixels.shape[1])
    if tuple(depth.shape) != source or tuple(confidence.shape) != source:
        raise InvalidInputError(
            f"picture, depth and confidence must have one size; they are {list(source)}, {list(depth.shape)} and "
            f"{list(confidence.shape)}."
        )
    fit = Fit.of(source, size, mode)
    fitted_depth, fitted_confidence = fit.depth(depth, confidence)
    return FittedView(fit.image(pixels), fitted_depth, fitted_confidence, fit.intrinsics(K))
