"""Tensors inside zip archives of PyTorch, described by their place in the file and read one at a time.

Nothing is mapped into memory: pages of a map count as the process's own, and a checkpoint's would soon be all of it.
"""

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from gen3c.errors import InvalidInputError

PICKLE = "data.pkl"  # the entry that says what the tensors beside it are
MOST_PICKLE_BYTES = 64_000_000  # a thousand tensors take about 0.2 MB

_LOCAL_SIGNATURE = b"PK\x03\x04"
_LOCAL_HEADER_BYTES = 30  # of a zip entry, before its name and extra field


@dataclass(frozen=True)
class Record:
    """An uncompressed entry of an archive."""

    offset: int  # bytes, of its content in the file
    size: int  # bytes


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that has not been read."""

    path: Path
    record: Record  # the storage, which several tensors may share
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]  # elements
    start: int  # elements, of the first one in the storage

    def __post_init__(self) -> None:
        numbers = (self.start, *self.shape, *self.stride)
        sane = len(self.shape) == len(self.stride) and all(isinstance(n, int) and n >= 0 for n in numbers)
        if not sane or (self.start + self._span) * self.dtype.itemsize > self.record.size:
            raise InvalidInputError(f"{self.path.name} is corrupt: a tensor of it reaches beyond its own bytes.")

    @property
    def numel(self) -> int:
        return torch.Size(self.shape).numel()

    @property
    def _span(self) -> int:
        """Elements from the first to the last one in the file."""
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True)) if self.numel else 0

    def read(self) -> Tensor:
        """The tensor, contiguous, in memory of its own."""
        size = self.dtype.itemsize
        offset = self.record.offset + self.start * size
        content = np.fromfile(self.path, np.uint8, self._span * size, offset=offset)
        if content.size != self._span * size:
            raise InvalidInputError(f"{self.path.name} became shorter while it was read.")
        return torch.from_numpy(content).view(self.dtype).as_strided(self.shape, self.stride).contiguous()


@dataclass(frozen=True)
class Archive:
    """The entries of a zip archive by their names within its folder: "data.pkl", "data/0"."""

    records: dict[str, Record]
    compressed: tuple[str, ...]  # names of those that are no records, and never read


def read_archive(path: Path) -> Archive:
    """List a zip archive of PyTorch, reading none of its content.

    Raises InvalidInputError if the file is none, or if an uncompressed entry lies about its size.
    """
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            end = path.stat().st_size
            records: dict[str, Record] = {}
            compressed: list[str] = []
            names: set[str] = set()
            for entry in archive.infolist():
                name = entry.filename.partition("/")[2]
                if name in names:
                    raise zipfile.BadZipFile(f"it holds {name} twice")
                names.add(name)
                if entry.compress_type != zipfile.ZIP_STORED:
                    compressed.append(name)
                    continue
                record = Record(_content_offset(file, entry), entry.file_size)
                if entry.compress_size != record.size or record.offset + record.size > end:
                    raise zipfile.BadZipFile(f"{name} is said to have {record.size} bytes, which are not there")
                records[name] = record
            return Archive(records, tuple(compressed))
    except OSError as error:
        raise InvalidInputError(f"{path.name} cannot be read: {error.strerror or error}.") from None
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as error:
        reason = str(error).rstrip(".").lower()
        raise InvalidInputError(f"{path.name} is truncated, corrupt or no archive of PyTorch ({reason}).") from None


def _content_offset(file: BinaryIO, entry: zipfile.ZipInfo) -> int:
    """Bytes before the content of an entry."""
    file.seek(max(entry.header_offset, 0))  # below 0 where bytes before the index are lost
    header = file.read(_LOCAL_HEADER_BYTES)
    if not header.startswith(_LOCAL_SIGNATURE) or len(header) < _LOCAL_HEADER_BYTES:
        raise zipfile.BadZipFile(f"{entry.filename} is not where its index says")
    variable = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return entry.header_offset + _LOCAL_HEADER_BYTES + variable
