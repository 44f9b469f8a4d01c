"""Files of `torch.save`, read through PyTorch's own restricted unpickler (`weights_only`)."""

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c_export.stored import StoredTensor, archive_records


def read_pt(path: Path) -> dict[str, StoredTensor | None]:
    """The tensors of a state dict, or of the one under "model"; None stands for what is not a tensor.

    Only the pickle is read. Raises InvalidInputError for a file that asks for code, is broken or of another format.
    """
    records = {record.offset: record for record in archive_records(path).values()}
    content = _load(path, map_location="meta")
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InvalidInputError(f"{path.name} is no state dict: its keys are not names.")
    tensors: dict[str, StoredTensor | None] = {}
    for key, tensor in content.items():
        if not isinstance(tensor, Tensor):
            tensors[key] = None
            continue
        storage = tensor.untyped_storage()
        # PyTorch leaves the place in the file at storages that it has not read.
        record = records.get(getattr(storage, "_checkpoint_offset", -1))
        if record is None or record.size != storage.nbytes():
            raise InvalidInputError(f"{path.name} is corrupt: the bytes of {key} are not where its index says.")
        tensors[key] = StoredTensor(
            path, record, tensor.dtype, tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset())
        )
    return tensors


def read_statistics(path: Path) -> tuple[Tensor, Tensor]:
    """mean_std.pt: mean and standard deviation of each channel and latent frame, [16,n] float32 each.

    Raises InvalidInputError if it holds anything else.
    """
    content = _load(path, map_location="cpu")
    if not isinstance(content, tuple | list) or len(content) != 2 or not all(isinstance(t, Tensor) for t in content):
        raise InvalidInputError(f"{path.name} is not a pair of tensors, (mean, standard deviation).")
    mean, std = content
    if not (mean.is_floating_point() and std.is_floating_point() and mean.numel() == std.numel() > 0) or (
        mean.numel() % 16
    ):
        raise InvalidInputError(
            f"{path.name} has tensors of {list(mean.shape)} and {list(std.shape)}; legal are 16 channels of floats."
        )
    return mean.float().reshape(16, -1), std.float().reshape(16, -1)


def _load(path: Path, map_location: str) -> Any:
    """`torch.load` with its failures as sentences."""
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
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
