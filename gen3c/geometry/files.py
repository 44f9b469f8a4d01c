"""Geometry from a file: an npz with depth, w2c and K of every view (docs/contract.md)."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gen3c.cameras import check_cameras
from gen3c.errors import InvalidInputError
from gen3c.geometry.npz import FIELD, Header, NpzReader
from gen3c.geometry.types import Frames, Geometry, empty_like_frames

MAX_UNPACKED_BYTES = 4 * 2**30  # bounds the time that reading takes
ASPECT_TOLERANCE = 0.02  # of width/height between a file's raster and the picture's
CONFIDENCE_TOLERANCE = 1e-5  # beyond 0..1: a resampling in float32 errs by less, another scale by far more


def read_geometry(data: bytes, frames: Frames, *, max_pixels: int = 100_000_000) -> Geometry:
    """Depth [n,h,w], w2c [n,4,4], K [n,3,3], optional confidence [n,h,w] and sizes [n,2], for the n frames in order.

    The file's raster may have another resolution than the frames, not another aspect, and at most `max_pixels` pixels.
    `sizes` tells height and width of each picture inside a common raster; without it every picture fills the raster.
    Depth is z-depth, 0 or not finite where unknown; pixel centres are integers. Confidence is 0..1, NaN is 0. K is in
    pixels of the file's raster. Memory beyond the result does not grow with n. Raises InvalidInputError naming the
    array.
    """
    file = NpzReader(data)
    depth = _raster(file, "depth", (None, None, None), max_pixels)
    n, h, w = depth.shape
    if n != len(frames):
        raise InvalidInputError(f"The geometry has {n} views for {len(frames)} selected frames; legal: as many.", FIELD)
    confidence = _raster(file, "confidence", (n, h, w), max_pixels) if "confidence" in file else None
    unpacked = depth.size + (confidence.size if confidence is not None else 0)
    if unpacked > MAX_UNPACKED_BYTES:
        raise InvalidInputError(f"The geometry unpacks to {unpacked} bytes; legal: {MAX_UNPACKED_BYTES}.", FIELD)
    w2c = torch.from_numpy(file.read(file.header("w2c", (n, 4, 4))))
    K = torch.from_numpy(file.read(file.header("K", (n, 3, 3))))
    check_cameras(w2c, K, FIELD)
    sizes = _sizes(file, n, h, w, frames)

    out_depth, out_confidence = empty_like_frames(frames)
    for i, values in enumerate(file.slices(depth)):
        known = np.where(np.isfinite(values) & (values > 0), values, 0)
        _place(known, sizes[i], out_depth[i], frames.sizes[i])
        if i == 0 and not bool((out_depth[0] > 0).any()):
            raise InvalidInputError("The geometry knows no depth of view 0; legal: finite depth above 0.", FIELD)
    if confidence is not None:
        for i, values in enumerate(file.slices(confidence)):
            _check_confidence(values[: sizes[i][0], : sizes[i][1]], i)
            _place(np.nan_to_num(values).clip(0, 1), sizes[i], out_confidence[i], frames.sizes[i])
        out_confidence[out_depth == 0] = 0
    else:
        out_confidence = (out_depth > 0).float()
    out_K = torch.stack([_rescaled(K[i], frames.sizes[i], sizes[i]) for i in range(n)])
    warnings = _doubtful_principal_points(K, sizes)
    return Geometry(out_depth, out_confidence, w2c, out_K, {"provider": "file"}, warnings)


def _raster(file: NpzReader, name: str, shape: tuple[int | None, ...], max_pixels: int) -> Header:
    """The header of depth or confidence, if what has to be in memory at once is small enough."""
    header = file.header(name, shape)
    _, h, w = header.shape
    if h * w > max_pixels:
        raise InvalidInputError(
            f"{name} of the geometry has {w}x{h} = {w * h} pixels a view; legal: {max_pixels}.", FIELD
        )
    pixels = math.prod(header.shape)
    if header.fortran_order and pixels > max_pixels:
        raise InvalidInputError(
            f"{name} of the geometry is in Fortran order and has {pixels} pixels in all; legal: {max_pixels}, or C "
            "order (numpy.ascontiguousarray).",
            FIELD,
        )
    return header


def _sizes(file: NpzReader, n: int, h: int, w: int, frames: Frames) -> list[tuple[int, int]]:
    """Height and width of every picture on the file's raster."""
    if "sizes" not in file:
        sizes = [(h, w)] * n
    else:
        given = file.read(file.header("sizes", (n, 2)))
        if not ((given >= 1) & (given <= (h, w))).all():
            raise InvalidInputError(f"sizes of the geometry are {given.tolist()}; legal: 1..{h} and 1..{w}.", FIELD)
        sizes = [(int(height), int(width)) for height, width in given]
    for i, (file_h, file_w) in enumerate(sizes):
        height, width = frames.sizes[i].tolist()
        if abs(file_w / file_h * height / width - 1) > ASPECT_TOLERANCE:
            raise InvalidInputError(
                f"Depth of view {i} is {file_w}x{file_h}, its picture {frames.names[i]!r} {width}x{height}; "
                "legal: the same aspect.",
                FIELD,
            )
    return sizes


def _doubtful_principal_points(
    K: Tensor,  # [n,3,3]
    sizes: list[tuple[int, int]],
) -> tuple[str, ...]:
    """A sentence if intrinsics seem to be of another raster, as the full picture's beside depth of half its resolution.

    A tight crop far from a camera's axis looks the same and is legal, so it is no error.
    """
    for i, (height, width) in enumerate(sizes):
        cx, cy = float(K[i, 0, 2]), float(K[i, 1, 2])
        if not (0 <= cx <= width - 1 and 0 <= cy <= height - 1):
            return (
                f"K of view {i} has cx {cx:g} and cy {cy:g}, outside its depth of {width}x{height} pixels. K must be "
                "in pixels of the depth, not of a larger picture.",
            )
    return ()


def _check_confidence(
    values: np.ndarray,  # type: ignore[type-arg]  # [h,w] of one picture
    view: int,
) -> None:
    low, high = float(np.fmin.reduce(values, axis=None)), float(np.fmax.reduce(values, axis=None))  # numbers alone
    if low < -CONFIDENCE_TOLERANCE or high > 1 + CONFIDENCE_TOLERANCE:
        raise InvalidInputError(f"confidence of view {view} has values of {low:g} to {high:g}; legal: 0..1.", FIELD)


def _place(
    values: np.ndarray,  # type: ignore[type-arg]  # [h,w] of the file
    file_size: tuple[int, int],
    canvas: Tensor,  # [h,w] of the frames; written in its top left corner
    size: Tensor,  # [2]
) -> None:
    """Resample a picture of the file to its frame, without mixing near and far."""
    height, width = size.tolist()
    picture = torch.from_numpy(values)[None, None, : file_size[0], : file_size[1]]
    canvas[:height, :width] = F.interpolate(picture, (height, width), mode="nearest-exact")[0, 0]


def _rescaled(K: Tensor, size: Tensor, file_size: tuple[int, int]) -> Tensor:
    """K after a resize: integer pixel centres move by c -> (c + .5) s - .5."""
    sy, sx = (float(new) / old for new, old in zip(size, file_size, strict=True))
    move = torch.tensor([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]], dtype=K.dtype)
    return move @ K
