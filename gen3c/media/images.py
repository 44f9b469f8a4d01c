"""Encoded pictures and animations -> RGB uint8, with Pillow."""

import io
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from gen3c.errors import CancelledError, InvalidInputError
from gen3c.media.types import MediaLimits, Selection, check_cancelled, check_pixels, scaled_size

# The formats that are opened. Others of Pillow's start programs (EPS) or are too odd to be photographs.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
ANIMATED = ("PNG", "WEBP", "GIF", "AVIF")  # several pictures in the others are pages or thumbnails

# Pillow's own limit is one number for the process. Ours is per call, and checked before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None


def load_pictures(
    data: bytes,
    name: str,
    select: Selection,
    max_side: int,
    limits: MediaLimits,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int | None, Tensor]]:
    """The picture, or the selected frames of an animation.

    Yields (frame number or None for a still, [h,w,3] uint8). Orientation from EXIF is applied, transparent pixels
    are shown over white, 16-bit grey is scaled, CMYK becomes RGB.

    Raises:
        InvalidInputError: not a picture, broken, too large or too small.
        CancelledError: `is_cancelled` said so.
    """
    image = _open(_PolledFile(data, lambda: check_cancelled(is_cancelled, name)), name)
    check_pixels(image.height, image.width, limits, name)
    height, width = scaled_size(image.height, image.width, max_side, name)
    try:
        total = getattr(image, "n_frames", 1) if image.format in ANIMATED else 1
        if total == 1:
            # The JPEG decoder can scale by powers of two while it decodes; twice the target keeps the filter exact.
            image.draft(None, (2 * width, 2 * height))
            yield None, _to_rgb(image, (width, height), name)
            return
        wanted = select.indices(total, limits.views + 1)
        for index in range(min(wanted[-1] + 1, total)):
            check_cancelled(is_cancelled, name)
            image.seek(index)
            image.load()  # a frame builds on the one before it: left to a later one, this is part of one long call
            if index in wanted:
                yield index, _to_rgb(image, (width, height), name)
    except (InvalidInputError, CancelledError, MemoryError):
        raise
    except Exception as error:  # broken files make Pillow's decoders raise almost anything
        raise InvalidInputError(f"{name} is broken: the picture cannot be decoded completely.") from error


class _PolledFile(io.BytesIO):
    """Bytes that call `poll` at every read: Pillow counts the frames of a GIF by going through the whole file."""

    def __init__(self, data: bytes, poll: Callable[[], None]) -> None:
        super().__init__(data)
        self._poll = poll

    def read(self, size: int | None = -1, /) -> bytes:
        """As in BytesIO. Raises what `poll` raises."""
        self._poll()
        return super().read(size)


def _open(file: _PolledFile, name: str) -> Image.Image:
    try:
        return Image.open(file, formats=FORMATS)
    except (OSError, ValueError, SyntaxError, RuntimeError) as error:
        raise InvalidInputError(
            f"{name} is not a picture or video that can be read ({_guess(file.getvalue())}). "
            "Legal: PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF; MP4, MOV, WebM, MKV, AVI."
        ) from error


def _guess(data: bytes) -> str:
    """What unreadable bytes look like, for the message."""
    if data[:2] == b"\xff\xd8" or data[:8] == b"\x89PNG\r\n\x1a\n":
        return "it starts like a picture but is broken"
    if data[4:8] == b"ftyp":
        return "HEIC pictures cannot be decoded; save it as JPEG"
    try:
        data[:512].decode("ascii")
    except UnicodeDecodeError:
        return "its content has no known format"
    return "it looks like text"


def _to_rgb(image: Image.Image, size: tuple[int, int], name: str) -> Tensor:
    """The current frame at `size` (width, height before EXIF orientation), upright, [h,w,3] uint8."""
    image.load()
    orientation = image.getexif()
    upright = _eight_bit(image, name)
    if upright.size != size:
        upright = upright.resize(size, Image.Resampling.LANCZOS)
    if upright.mode == "RGBA":
        white = Image.new("RGBA", upright.size, (255, 255, 255, 255))
        upright = Image.alpha_composite(white, upright).convert("RGB")
    upright.getexif().update(orientation)
    return torch.from_numpy(np.array(ImageOps.exif_transpose(upright)))


def _eight_bit(image: Image.Image, name: str) -> Image.Image:
    """RGB or, with transparency, RGBA."""
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise InvalidInputError(f"{name} has 32-bit samples; save it with 8 or 16 bits.")
        return Image.fromarray((values / 257 + 0.5).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise InvalidInputError(
            f"{name} has floating-point samples, whose range is unknown; save it with 8 or 16 bits."
        )
    return image.convert("RGBA" if image.has_transparency_data else "RGB")
