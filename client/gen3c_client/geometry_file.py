"""Geometry files (npz, docs/contract.md): the checks that need no media."""

import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gen3c_client.camera_file import k_problem, w2c_problem
from gen3c_client.errors import InputError

_FIELD = "--geometry-file"


def load_geometry_file(path: Path, views: int | None = None) -> bytes:
    """The bytes of the geometry file `path`, once its arrays have been found legal.

    Args:
        path: npz with `depth` [n,h,w], `w2c` [n,4,4], `K` [n,3,3] and optionally `confidence` [n,h,w].
        views: the n that the job will have, where it is known (still images only).

    Raises:
        InputError: unreadable, an array is missing or malformed, or n is another.
    """
    try:
        data = path.read_bytes()
        npz = np.load(io.BytesIO(data), allow_pickle=False)
        if not isinstance(npz, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        arrays = {key: npz[key] for key in ("depth", "w2c", "K", "confidence") if key in npz}
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
    missing = [key for key in ("depth", "w2c", "K") if key not in arrays]
    if missing:
        yield f"it lacks {' and '.join(missing)}"
    depth = arrays["depth"]
    if depth.ndim != 3 or depth.dtype != np.float32:
        yield f"depth must be float32 [n, h, w], got {depth.dtype} {list(depth.shape)}"
    n = len(depth)
    if views is not None and n != views:
        yield f"it has {n} views, and {views} images are given"
    shapes = {"w2c": (n, 4, 4), "K": (n, 3, 3), "confidence": depth.shape}
    for key, shape in shapes.items():
        if key in arrays and arrays[key].shape != shape:
            yield f"{key} must have the shape {list(shape)}, got {list(arrays[key].shape)}"
    if not np.isfinite(depth).all() or (depth < 0).any():
        yield "depth has a value that is negative or not finite (unknown is 0)"
    confidence = arrays.get("confidence")
    if confidence is not None and not ((confidence >= 0) & (confidence <= 1)).all():
        yield f"confidence must lie in 0..1, got {confidence.min():g}..{confidence.max():g}"
    for i in range(n):
        problem = w2c_problem(arrays["w2c"][i]) or k_problem(arrays["K"][i])
        if problem:
            yield f"view {i}: {problem}"
