"""Files of `torch.save`, read through PyTorch's own restricted unpickler (`weights_only`).

It inflates what is compressed and believes what is declared, so the archive is looked over before it runs; and it reads
the pickle alone, the tensors are read by us.
"""

import io
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c_export.stored import MOST_PICKLE_BYTES, Record, StoredTensor, read_archive

_MOST_STATISTICS_BYTES = 1_000_000  # of both tables; 16 x 16 numbers each take 2 kB

_Records = dict[int, Record]  # by their offset in the file


def read_pt(path: Path) -> dict[str, StoredTensor | None]:
    """The tensors of a state dict, or of the one under "model"; None stands for what is not a tensor.

    Only the pickle is read. Raises InvalidInputError for a file that asks for code, is broken or of another format.
    """
    records = _records(path)
    # Transformer Engine keeps its extra state in BytesIO, which holds bytes and does nothing.
    content = _load(path, [io.BytesIO])
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InvalidInputError(f"{path.name} is no state dict: its keys are not names.")
    return {
        key: _stored(path, records, key, tensor) if isinstance(tensor, Tensor) else None
        for key, tensor in content.items()
    }


def read_statistics(path: Path) -> tuple[Tensor, Tensor]:
    """mean_std.pt: mean and standard deviation of each channel and latent frame, [16,n] float32 each.

    Raises InvalidInputError if it holds anything else, or more than 1 MB.
    """
    records = _records(path)
    content = _load(path, [])
    if not isinstance(content, tuple | list) or len(content) != 2 or not all(isinstance(t, Tensor) for t in content):
        raise InvalidInputError(f"{path.name} is not a pair of tensors, (mean, standard deviation).")
    mean, std = content
    if not (mean.is_floating_point() and std.is_floating_point() and mean.numel() == std.numel() > 0) or (
        mean.numel() % 16
    ):
        raise InvalidInputError(
            f"{path.name} has tensors of {list(mean.shape)} and {list(std.shape)}; legal are 16 channels of floats."
        )
    stored = [_stored(path, records, name, tensor) for name, tensor in (("mean", mean), ("std", std))]
    # The storage bounds what is read, the elements what it becomes: strides of 0 make few bytes many.
    size = sum(max(tensor.record.size, 4 * tensor.numel) for tensor in stored)
    if size > _MOST_STATISTICS_BYTES:
        raise InvalidInputError(
            f"{path.name} is refused: its tensors have {size} bytes, legal are {_MOST_STATISTICS_BYTES}."
        )
    mean, std = (tensor.read().float().reshape(16, -1) for tensor in stored)
    return mean, std


def _records(path: Path) -> _Records:
    """The entries of an archive that is safe to hand to `torch.load`; raises InvalidInputError if it is not."""
    archive = read_archive(path)
    names = (*archive.records, *archive.compressed)
    if any(name == "constants.pkl" or name.startswith("code/") for name in names):
        raise InvalidInputError(
            f"{path.name} is truncated, corrupt or not a file of torch.save (it is a TorchScript archive)."
        )
    if archive.compressed:
        raise InvalidInputError(
            f"{path.name} is refused: {archive.compressed[0]} in it is compressed, which torch.save does not do."
        )
    for name, record in archive.records.items():
        if not name.startswith("data/") and record.size > MOST_PICKLE_BYTES:
            raise InvalidInputError(
                f"{path.name} is refused: {name} in it has {record.size} bytes, legal are {MOST_PICKLE_BYTES}."
            )
    return {record.offset: record for record in archive.records.values()}


def _stored(path: Path, records: _Records, key: str, tensor: Tensor) -> StoredTensor:
    """Where a tensor lies that PyTorch has not read."""
    storage = tensor.untyped_storage()
    # PyTorch leaves the place in the file at storages that it has not read.
    record = records.get(getattr(storage, "_checkpoint_offset", -1))
    if record is None or record.size != storage.nbytes():
        raise InvalidInputError(f"{path.name} is corrupt: the bytes of {key} are not where its index says.")
    return StoredTensor(path, record, tensor.dtype, tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))


def _load(path: Path, allowed: Sequence[type]) -> Any:
    """`torch.load` without the tensors' bytes, with its failures as sentences; `allowed` classes beside tensors."""
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="meta", weights_only=True)
    except OSError as error:
        raise InvalidInputError(f"{path.name} cannot be read: {error.strerror or error}.") from None
    except pickle.UnpicklingError as error:
        if asked := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise InvalidInputError(
                f"{path.name} is refused: loading it would run {asked[1]}; legal are files of tensors alone."
            ) from None
        raise InvalidInputError(f"{path.name} is corrupt, or holds more than tensors.") from None
    except Exception as error:  # what a broken file makes of a reader has no common type
        # The first sentence; PyTorch's next ones advise to load without restriction.
        first = re.split(r"\. |\.?\n", str(error))[0] or type(error).__name__
        raise InvalidInputError(f"{path.name} is truncated, corrupt or not a file of torch.save ({first}).") from None
