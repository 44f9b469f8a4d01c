"""Geometry from a file: an npz with depth, w2c and K of every view (docs/contract.md)."""

import io
import zipfile
import zlib

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gen3c.cameras import check_cameras
from gen3c.errors import InvalidInputError
from gen3c.geometry.types import Frames, Geometry

FIELD = "GEOMETRY"
MAX_UNPACKED_BYTES = 4 * 2**30  # a zip of zeros grows a thousandfold
ASPECT_TOLERANCE = 0.02  # of width/height between a file's raster and the picture's


def read_geometry(data: bytes, frames: Frames) -> Geometry:
    """Depth [n,h,w], w2c [n,4,4], K [n,3,3], optional confidence [n,h,w] and sizes [n,2], for the n frames in order.

    The file's raster may have another resolution than the frames, not another aspect. `sizes` tells height and width
    of each picture inside a common raster; without it every picture fills the raster. Depth is z-depth, 0 or not
    finite where unknown; pixel centres are integers. Raises InvalidInputError naming the array.
    """
    arrays = _load(data)
    depth = _array(arrays, "depth", 3)
    n, h, w = depth.shape
    if n != len(frames):
        raise InvalidInputError(f"The geometry has {n} views for {len(frames)} selected frames; legal: as many.", FIELD)
    confidence = _array(arrays, "confidence", 3, (n, h, w)) if "confidence" in arrays else np.ones_like(depth)
    w2c = torch.from_numpy(_array(arrays, "w2c", 3, (n, 4, 4)))
    K = torch.from_numpy(_array(arrays, "K", 3, (n, 3, 3)))
    check_cameras(w2c, K, FIELD)
    sizes = _array(arrays, "sizes", 2, (n, 2)).astype(int) if "sizes" in arrays else np.full((n, 2), (h, w))
    if (sizes < 1).any() or (sizes > (h, w)).any():
        raise InvalidInputError(f"sizes of the geometry are {sizes.tolist()}; legal: 1..{h} and 1..{w}.", FIELD)

    known = np.isfinite(depth) & (depth > 0)
    known_depth = torch.from_numpy(np.where(known, depth, 0))
    trusted = torch.from_numpy(np.where(known, np.nan_to_num(confidence).clip(0, 1), 0))
    out_depth, out_confidence = (torch.zeros(frames.pixels.shape[:3]) for _ in range(2))
    out_K = K.clone()
    for i in range(n):
        height, width = (int(v) for v in frames.sizes[i])
        file_h, file_w = (int(v) for v in sizes[i])
        if abs(file_w / file_h * height / width - 1) > ASPECT_TOLERANCE:
            raise InvalidInputError(
                f"Depth of view {i} is {file_w}x{file_h}, its picture {frames.names[i]!r} {width}x{height}; "
                "legal: the same aspect.",
                FIELD,
            )
        out_depth[i, :height, :width] = _nearest(known_depth[i, :file_h, :file_w], height, width)
        out_confidence[i, :height, :width] = _nearest(trusted[i, :file_h, :file_w], height, width)
        out_K[i] = _rescaled(K[i], width / file_w, height / file_h)
    if not bool((out_depth[0] > 0).any()):
        raise InvalidInputError("The geometry knows no depth of view 0; legal: finite depth above 0.", FIELD)
    return Geometry(out_depth, out_confidence, w2c, out_K, {"provider": "file"})


def _load(data: bytes) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MAX_UNPACKED_BYTES:
            raise InvalidInputError(f"The geometry unpacks to {unpacked} bytes; legal: {MAX_UNPACKED_BYTES}.", FIELD)
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in file.files if name in {"depth", "confidence", "w2c", "K", "sizes"}}
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, KeyError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(
            f"The geometry is not an npz file of plain arrays ({type(error).__name__}).", FIELD
        ) from None


def _array(
    arrays: dict[str, np.ndarray],  # type: ignore[type-arg]
    name: str,
    ndim: int,
    shape: tuple[int, ...] | None = None,
) -> np.ndarray:  # type: ignore[type-arg]
    if name not in arrays:
        raise InvalidInputError(
            f"The geometry has no array {name!r}; legal: depth, w2c, K [, confidence, sizes].", FIELD
        )
    array = arrays[name]
    if array.ndim != ndim or (shape is not None and array.shape != shape) or not array.size:
        wanted = list(shape) if shape is not None else f"{ndim} axes"
        raise InvalidInputError(f"{name} of the geometry has shape {list(array.shape)}; legal: {wanted}.", FIELD)
    if array.dtype.kind not in "fiu":
        raise InvalidInputError(f"{name} of the geometry is {array.dtype}; legal: numbers.", FIELD)
    return np.ascontiguousarray(array, dtype=np.float32)


def _nearest(values: Tensor, height: int, width: int) -> Tensor:
    """Resample [h,w] without mixing near and far."""
    return F.interpolate(values[None, None], (height, width), mode="nearest-exact")[0, 0]


def _rescaled(K: Tensor, sx: float, sy: float) -> Tensor:
    """K after a resize: integer pixel centres move by c -> (c + .5) s - .5."""
    move = torch.tensor([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]], dtype=K.dtype)
    return move @ K
