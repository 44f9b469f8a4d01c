"""Geometry files (npz, docs/contract.md): those of the server's checks that need no media."""

import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gen3c_client.camera_file import as_float32, holds_numbers, k_problem, w2c_problem
from gen3c_client.errors import InputError

_FIELD = "--geometry-file"
_NEEDED = ("depth", "w2c", "K")
_OPTIONAL = ("confidence", "sizes")


def load_geometry_file(path: Path, views: int | None = None) -> bytes:
    """The bytes of the geometry file `path`, once its arrays have been found legal.

    Args:
        path: npz with `depth` [n,h,w], `w2c` [n,4,4], `K` [n,3,3] and optionally `confidence` [n,h,w] and `sizes`
            [n,2], of integers or floating-point numbers. Depth that is 0, negative or not finite is unknown.
        views: the n that the job will have, where it is known (still images only).

    Raises:
        InputError: unreadable, an array is missing or malformed, or n is another.
    """
    try:
        data = path.read_bytes()
        npz = np.load(io.BytesIO(data), allow_pickle=False)
        if not isinstance(npz, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        arrays = {key: npz[key] for key in _NEEDED + _OPTIONAL if key in npz}
    except OSError as e:
        raise InputError(f"The geometry file {path} cannot be read: {e.strerror}.", _FIELD) from e
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        raise InputError(f"The geometry file {path} is not an npz of plain arrays: {e}.", _FIELD) from e
    problem = next(_problems(arrays, views), None)
    if problem:
        raise InputError(f"The geometry file {path} is not valid: {problem}.", _FIELD)
    return data


def _problems(arrays: dict[str, NDArray[Any]], views: int | None) -> Iterator[str]:
    """What is wrong; each check may rely on the ones before it, so only the first counts."""
    missing = [key for key in _NEEDED if key not in arrays]
    if missing:
        yield f"it lacks {' and '.join(missing)}"
    for key, array in arrays.items():
        if not holds_numbers(array):
            yield f"{key} must hold numbers, got {array.dtype}"
    depth = arrays["depth"]
    if depth.ndim != 3 or not depth.size:
        yield f"depth must have the shape [n, h, w], none of them 0, got {list(depth.shape)}"
    n, h, w = depth.shape
    if views is not None and n != views:
        yield f"it has {n} views, and {views} images are given"
    shapes = {"w2c": (n, 4, 4), "K": (n, 3, 3), "confidence": (n, h, w), "sizes": (n, 2)}
    for key, shape in shapes.items():
        if key in arrays and arrays[key].shape != shape:
            yield f"{key} must have the shape {list(shape)}, got {list(arrays[key].shape)}"
    for i in range(n):
        problem = w2c_problem(arrays["w2c"][i]) or k_problem(arrays["K"][i])
        if problem:
            yield f"view {i}: {problem}"
    sizes = arrays.get("sizes", np.full((n, 2), (h, w)))
    for i, (height, width) in enumerate(sizes.tolist()):
        if not (1 <= height <= h and 1 <= width <= w):
            yield f"view {i}: sizes is {height:g}, {width:g}, legal are a height of 1..{h} and a width of 1..{w}"
    height, width = (int(v) for v in sizes[0])
    first = as_float32(depth[0, :height, :width])
    if not (np.isfinite(first) & (first > 0)).any():
        yield "view 0 has no known depth, legal are finite values above 0"
