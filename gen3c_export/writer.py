"""Writing of a checkpoint directory: one component at a time, of that one shard at a time, all of it or nothing."""

import json
import logging
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.generator.checkpoint import CONFIG, INDEX, MANIFEST, WEIGHTS, ComponentName, Manifest, Output
from gen3c.weight_files import sha256_of

logger = logging.getLogger(__name__)

SHARD_BYTES = 1_000_000_000
CLASSES: dict[ComponentName, str] = {"transformer": "CosmosTransformer3DModel", "vae": "AutoencoderKLCosmos"}
PACKAGES = ("gen3c-triton", "torch", "diffusers", "safetensors")


class Readable(Protocol):
    """A tensor that is somewhere else until it is read."""

    @property
    def numel(self) -> int: ...

    def read(self) -> Tensor: ...


@dataclass(frozen=True)
class Weight:
    """A tensor to write, and the type to write it in."""

    source: Readable
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Bytes when written."""
        return self.source.numel * self.dtype.itemsize


def write_component(
    root: Path,
    name: ComponentName,
    config: Mapping[str, Any],
    weights: Mapping[str, Weight],
    shard_bytes: int = SHARD_BYTES,
) -> list[Output]:
    """Write a network as diffusers' `from_pretrained` reads it, in files of up to `shard_bytes`; returns the files.

    A `config` that names another class is of a network that diffusers does not have. Memory holds one
    shard. A tensor that is larger than a shard has one to itself.
    """
    folder = root / name
    folder.mkdir()
    header = {"_class_name": CLASSES[name], "_diffusers_version": version("diffusers")}
    (folder / CONFIG).write_text(_json(header | dict(config)), encoding="utf-8")
    outputs = [_output(root, folder / CONFIG)]
    shards = _shards(weights, shard_bytes)
    weight_map: dict[str, str] = {}
    for i, keys in enumerate(shards):
        file_name = WEIGHTS if len(shards) == 1 else WEIGHTS.replace(".", f"-{i + 1:05}-of-{len(shards):05}.", 1)
        tensors = {key: weights[key].source.read().to(weights[key].dtype) for key in keys}
        save_file(tensors, folder / file_name, metadata={"format": "pt"})
        del tensors  # before the next ones are read
        weight_map |= dict.fromkeys(keys, file_name)
        outputs.append(_output(root, folder / file_name, len(keys)))
        logger.info("%s/%s: %d tensors, %.0f MB", name, file_name, len(keys), outputs[-1].size / 1e6)
    if len(shards) > 1:
        total = sum(weight.size for weight in weights.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / INDEX).write_text(_json(index), encoding="utf-8")
        outputs.append(_output(root, folder / INDEX))
    return outputs


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write manifest.json."""
    (root / MANIFEST).write_text(_json(manifest.model_dump()), encoding="utf-8")


def package_versions() -> dict[str, str]:
    """Of what writes a checkpoint, for its manifest."""
    return {package: version(package) for package in PACKAGES}


@contextmanager
def replaced(output: Path, *, force: bool, needed: int) -> Iterator[Path]:
    """A folder beside `output` to write into, which takes its place at the end, or vanishes after a failure.

    What else a checkpoint directory holds stays there. After an exception `output` is as it was.

    Raises InvalidInputError if `output` exists, unless `force` and it is a checkpoint; or if the disk has not `needed`
    bytes left.
    """
    _check_free(output, force)
    output.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(output.parent).free
    if free < needed:
        raise InvalidInputError(f"The checkpoint needs {needed / 1e9:.2f} GB, but {free / 1e9:.2f} GB are free.")
    partial = output.parent / f".{output.name}.{secrets.token_hex(4)}.partial"
    partial.mkdir()
    try:
        yield partial
        _check_free(output, force)  # another run may have ended meanwhile
        _swap(partial, output, partial.with_suffix(".old"))
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _swap(partial: Path, output: Path, old: Path) -> None:
    """Put `partial` in the place of `output`, by way of `old`, with what else lay there; or leave all as it was.

    What else lay there is in `old` or `output` at every moment, never in `partial`, which is deleted after a failure.
    """
    done = False
    try:
        if output.exists():
            output.rename(old)
        partial.rename(output)
        if old.exists():
            _move_others(old, output)
        done = True
        if old.exists():
            shutil.rmtree(old)
    except BaseException as error:
        if not done:
            _undo_swap(partial, output, old)
            raise
        # Too late to undo, for part of the old one is deleted: the new one is whole, so this is a success.
        shutil.rmtree(old, ignore_errors=True)
        if old.exists():
            logger.warning("%s holds the replaced checkpoint and could not be removed: %s", old, error)


def _undo_swap(partial: Path, output: Path, old: Path) -> None:
    """Undo as much of `_swap` as the folders show was done; an interruption comes before or after any step."""
    try:
        if not partial.exists():
            if old.exists():
                _move_others(output, old)
            output.rename(partial)
        if old.exists():
            old.rename(output)
    except BaseException:
        logger.exception("%s could not be put back; what it held is there and in %s.", output, old)
        raise


def _move_others(source: Path, target: Path) -> None:
    """Move what a conversion does not write, such as a text encoder and what it made."""
    for path in list(source.iterdir()):
        if path.name not in (MANIFEST, *CLASSES):
            path.rename(target / path.name)


def _check_free(output: Path, force: bool) -> None:
    if not output.exists():
        return
    if not force:
        raise InvalidInputError(f"{output} exists; name another folder, or --force to replace it.")
    if not (output / MANIFEST).is_file():
        raise InvalidInputError(f"{output} is no checkpoint (it has no {MANIFEST}), so --force does not replace it.")


def _shards(weights: Mapping[str, Weight], shard_bytes: int) -> list[list[str]]:
    """The keys, in their order, in groups of at most `shard_bytes`."""
    shards: list[list[str]] = [[]]
    size = 0
    for key, weight in weights.items():
        if shards[-1] and size + weight.size > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(key)
        size += weight.size
    return shards


def _output(root: Path, path: Path, tensors: int = 0) -> Output:
    name = path.relative_to(root).as_posix()
    return Output(name=name, sha256=sha256_of(path), size=path.stat().st_size, tensors=tensors)


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, allow_nan=False) + "\n"
