"""Coloured points as PLY (Turk, "The PLY Polygon File Format", 1994), binary little endian."""

import numpy as np
import torch
from torch import Tensor

from gen3c.errors import InvalidInputError

VERTEX = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])


def write_ply(points: Tensor, colors: Tensor) -> bytes:
    """A PLY file of points [n,3] float and colors [n,3] uint8 RGB; raises InvalidInputError if they do not match."""
    n = len(points)
    if tuple(points.shape) != (n, 3) or tuple(colors.shape) != (n, 3) or colors.dtype != torch.uint8:
        raise InvalidInputError(
            f"points are {list(points.shape)}, colors {list(colors.shape)} {colors.dtype}; "
            "legal: [n, 3] and [n, 3] torch.uint8."
        )
    vertices = np.empty(n, VERTEX)
    vertices["xyz"] = points.detach().cpu().numpy()
    vertices["rgb"] = colors.cpu().numpy()
    return _header(n) + vertices.tobytes()


def read_ply(data: bytes) -> tuple[Tensor, Tensor]:
    """Points [n,3] float32 and colors [n,3] uint8 of a file that write_ply wrote; raises InvalidInputError else."""
    end = data.find(b"end_header\n") + len(b"end_header\n")
    n = (len(data) - end) // VERTEX.itemsize
    if data[:end] != _header(n) or len(data) != end + n * VERTEX.itemsize:
        raise InvalidInputError("the PLY file was not written by write_ply, or is cut off.")
    vertices = np.frombuffer(data, VERTEX, offset=end)
    return torch.from_numpy(vertices["xyz"].copy()), torch.from_numpy(vertices["rgb"].copy())


def _header(n: int) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {n}"]
    lines += [f"property float {axis}" for axis in "xyz"]
    lines += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    return ("\n".join([*lines, "end_header"]) + "\n").encode()
