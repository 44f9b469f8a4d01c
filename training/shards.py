"""Files of tensors that stay small, and are there whole or not at all."""

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

SHARD_BYTES = 15 << 20


def shards(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The tensors in groups of at most SHARD_BYTES; a larger tensor is alone."""
    groups: list[dict[str, Tensor]] = [{}]
    size = 0
    for key, tensor in tensors.items():
        if size and size + tensor.nbytes > SHARD_BYTES:
            groups.append({})
            size = 0
        groups[-1][key] = tensor
        size += tensor.nbytes
    return groups


def replace(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors to a file, which gets its name once it is complete."""
    new = path.with_suffix(".new")
    save_file({key: x.detach().cpu().contiguous() for key, x in tensors.items()}, new)
    new.replace(path)
