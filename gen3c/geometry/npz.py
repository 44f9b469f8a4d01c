"""The arrays of a geometry file, judged by their headers and read one slice at a time.

A zip of zeros grows a thousandfold. So nothing is unpacked before its header has told how large it will be, and never
more than a slice at once; `numpy.load` reads whole arrays.
"""

import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from gen3c.errors import InvalidInputError

FIELD = "GEOMETRY"
NAMES = ("depth", "w2c", "K", "confidence", "sizes")
_COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what numpy writes; LZMA may demand any amount of memory


@dataclass(frozen=True)
class Header:
    """What an array claims to be; nothing of it has been read."""

    member: zipfile.ZipInfo
    offset: int  # bytes of the member before the data
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool  # slices of the first axis are interleaved

    @property
    def size(self) -> int:
        """Bytes of the data."""
        return math.prod(self.shape) * self.dtype.itemsize


class NpzReader:
    """A geometry file in memory. Raises InvalidInputError, naming the array, for whatever is wrong with it."""

    def __init__(self, data: bytes) -> None:
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(data))
            stored = set(self._archive.namelist())
            self._headers = {name: _header(self._archive, name) for name in NAMES if f"{name}.npy" in stored}
        except Exception as error:  # hostile bytes make zipfile and the parser of headers raise nearly anything
            raise _not_an_npz(error) from None

    def __contains__(self, name: str) -> bool:
        return name in self._headers

    def header(self, name: str, shape: tuple[int | None, ...]) -> Header:
        """The header of an array of numbers with this shape; None stands for any length from 1."""
        if name not in self._headers:
            raise InvalidInputError(
                f"The geometry has no array {name!r}; legal: depth, w2c, K [, confidence, sizes].", FIELD
            )
        header = self._headers[name]
        if len(header.shape) != len(shape) or any(
            have < 1 or want not in (None, have) for have, want in zip(header.shape, shape, strict=True)
        ):
            wanted = f"{len(shape)} axes" if None in shape else list(shape)
            raise InvalidInputError(f"{name} of the geometry has shape {list(header.shape)}; legal: {wanted}.", FIELD)
        if header.dtype.kind not in "fiu":
            raise InvalidInputError(f"{name} of the geometry is {header.dtype}; legal: numbers.", FIELD)
        return header

    def slices(self, header: Header) -> Iterator[npt.NDArray[np.float32]]:
        """The array along its first axis, as float32; what float32 cannot hold becomes infinite.

        Only one slice is in memory, or the whole array if it is in Fortran order.
        """
        count, *axes = header.shape
        try:
            with self._archive.open(header.member) as stream:
                _read(stream, header.offset)
                if header.fortran_order:
                    flat = np.frombuffer(_read(stream, header.size), header.dtype)
                    yield from map(_float32, flat.reshape(header.shape, order="F"))
                    return
                for _ in range(count):
                    flat = np.frombuffer(_read(stream, header.size // count), header.dtype)
                    yield _float32(flat.reshape(axes))
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise _not_an_npz(error) from None

    def read(self, header: Header) -> npt.NDArray[np.float32]:
        """A whole array, for small ones."""
        return np.stack(list(self.slices(header)))


def _header(archive: zipfile.ZipFile, name: str) -> Header:
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type not in _COMPRESSION:
        raise ValueError(f"compression {member.compress_type}")
    with archive.open(member) as stream:
        version = npy.read_magic(stream)  # type: ignore[no-untyped-call]
        if version != (1, 0):  # later ones are for structured arrays, and their headers may be of any length
            raise ValueError(f"npy version {version}")
        shape, fortran_order, dtype = npy.read_array_header_1_0(stream)  # type: ignore[no-untyped-call]
        if dtype.hasobject:
            raise ValueError("pickled objects")
        return Header(member, stream.tell(), shape, dtype, fortran_order)


def _read(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError(f"{len(data)} of {size} bytes")
    return data


def _float32(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return np.array(values, np.float32, order="C")


def _not_an_npz(error: Exception) -> InvalidInputError:
    return InvalidInputError(f"The geometry is not an npz file of plain arrays ({type(error).__name__}).", FIELD)
