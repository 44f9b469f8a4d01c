"""Pictures on the network's raster.

`on_canvas` is ours: pictures of any sizes keep their aspect and are padded. `released` and `released_square` are the
two loaders of the released code, which resize by up to half a patch unevenly; parity is judged with them.

All resize by Pillow's antialiased cubic filter on bytes, as the network was trained.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.fit import Fit
from gen3c.geometry.types import Frames

WHITE, BLACK = 255, 0


def on_canvas(
    frames: Frames, side: int, patch: int, canvas_size: tuple[int, int] | None = None
) -> tuple[Tensor, list[Fit]]:
    """Frames with their longer side at `side` px, centred on the smallest canvas of whole patches that holds them all.

    On a canvas of a given size (height, width) they are as large as it allows. The rest is white, as in the released
    loader. Returns the canvas [n,H,W,3] uint8 and where each frame lies on it.
    """
    sizes = [(int(h), int(w)) for h, w in frames.sizes]
    if canvas_size is None:
        scaled = [[max(1, round(length * side / max(size))) for length in size] for size in sizes]
        height, width = (patch * math.ceil(max(lengths) / patch) for lengths in zip(*scaled, strict=True))
    else:
        height, width = canvas_size
        scales = [min(height / h, width / w) for h, w in sizes]
        scaled = [[max(1, round(length * scale)) for length in size] for size, scale in zip(sizes, scales, strict=True)]
    canvas = torch.full((len(frames), height, width, 3), WHITE, dtype=torch.uint8)
    fits = []
    for i, (size, (h, w)) in enumerate(zip(sizes, scaled, strict=True)):
        left, top = (width - w) // 2, (height - h) // 2
        fit = Fit(size, (height, width), (0, 0, size[1], size[0]), (left, top, left + w, top + h))
        canvas[i, top : top + h, left : left + w] = fit.resized(frames.frame(i))
        fits.append(fit)
    return canvas, fits


def released(
    pictures: Sequence[Image.Image], mode: Literal["crop", "pad"], side: int = 518, patch: int = 14
) -> Tensor:  # [n,3,H,W] uint8
    """The released loader. `crop`: width `side`, at most as high, the middle kept; `pad`: the longer side `side`, white
    around it to a square. Pictures that end in several sizes are centred on the largest, white around them.

    Raises InvalidInputError for a picture so elongated that a side of it would vanish.
    """
    loaded = []
    for picture in pictures:
        width, height = released_size(picture.width, picture.height, mode, side, patch)
        pixels = _resized(picture, width, height)
        if mode == "crop":
            top = max(0, height - side) // 2
            pixels = pixels[:, top : top + side]
        else:
            pixels = _centred(pixels, side, side, WHITE)
        loaded.append(pixels)
    height, width = (max(pixels.shape[axis] for pixels in loaded) for axis in (1, 2))
    return torch.stack([_centred(pixels, height, width, WHITE) for pixels in loaded])


def released_size(width: int, height: int, mode: Literal["crop", "pad"], side: int, patch: int) -> tuple[int, int]:
    """Width and height that `released` resizes a picture to."""

    def whole_patches(length: int, longer: int) -> int:
        return round(length * (side / longer) / patch) * patch

    if mode == "pad" and height > width:
        size = (whole_patches(width, height), side)
    else:
        size = (side, whole_patches(height, width))
    if min(size) == 0:
        raise InvalidInputError(
            f"A picture of {width}x{height} px would be {size[0]}x{size[1]} px for VGGT; its sides may differ by a "
            f"factor of {2 * side // patch} at most."
        )
    return size


def released_square(pictures: Sequence[Image.Image], side: int) -> tuple[Tensor, Tensor]:
    """The other released loader: pictures centred on black squares, resized.

    Returns [n,3,side,side] uint8, and for each picture where its left, top, right and bottom edges lie in the result
    and its own width and height, [n,6] float32.
    """
    squares, places = [], []
    for picture in pictures:
        width, height = picture.size
        longer = max(width, height)
        left, top = (longer - width) // 2, (longer - height) // 2
        square = Image.new("RGB", (longer, longer), (BLACK, BLACK, BLACK))
        square.paste(_opaque(picture), (left, top))
        squares.append(_resized(square, side, side))
        edges = [v * side / longer for v in (left, top, left + width, top + height)]
        places.append([*edges, width, height])
    return torch.stack(squares), torch.tensor(places, dtype=torch.float32)


def _opaque(picture: Image.Image) -> Image.Image:
    """RGB. Only the mode RGBA is laid over white: others lose their alpha, as in the released code."""
    if picture.mode == "RGBA":
        white = Image.new("RGBA", picture.size, (WHITE, WHITE, WHITE, WHITE))
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _resized(picture: Image.Image, width: int, height: int) -> Tensor:
    resized = _opaque(picture).resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def _centred(pixels: Tensor, height: int, width: int, fill: int) -> Tensor:
    """Pixels [3,h,w] in the middle of a larger raster; of an odd rest the smaller half is on the left and top."""
    _, h, w = pixels.shape
    if (h, w) == (height, width):
        return pixels
    top, left = (height - h) // 2, (width - w) // 2
    out = pixels.new_full((3, height, width), fill)
    out[:, top : top + h, left : left + w] = pixels
    return out
