"""A T5 encoder's folder in transformers' layout: which files are read, whether they fit, and their hash.

    config.json, and the tokenizer's *.json, *.model or *.txt
    model.safetensors
    or model.safetensors.index.json and the shards that it names
    or, where neither exists, pytorch_model.bin as torch >= 1.6 writes it

transformers picks the weights in this order, too. What would make it read another file is refused, so that the hash is
that of the very weights which answer.
"""

import hashlib
import json
import logging
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.generator.text_cache import write_whole
from gen3c.weight_files import sha256_of

logger = logging.getLogger(__name__)

NETWORK_FOLDER = "text_encoder"  # in a checkpoint directory: T5EncoderModel and tokenizer
CACHE_FOLDER = "text_embeddings"  # in a checkpoint directory
HASHES_FILE = "encoder_hashes.json"  # in the folder of embeddings: what the weights hashed to, when they were read

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
PICKLED = "pytorch_model.bin"
ADAPTER = "adapter_config.json"  # transformers would add the weights that it describes

_DESCRIBING = {".json", ".model", ".txt"}
_SHOWN = 10  # problems of a message; another network has hundreds

UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, KeyError, SafetensorError, pickle.UnpicklingError)


@dataclass(frozen=True)
class T5Folder:
    """The files of an encoder that can be expected to load."""

    folder: Path
    describing: tuple[Path, ...]  # small: configuration, tokenizer, index
    weights: tuple[Path, ...]

    def identity(self, precision: str, known: Path) -> str:
        """SHA-256 of all that decides what the network answers: the files and the precision of the weights.

        `known` is a file that remembers the weights' hashes.
        """
        total = hashlib.sha256(precision.encode())
        for name, digest in self._digests(known):
            total.update(f"\n{name} {digest}".encode())
        return total.hexdigest()

    def digest(self, known: Path) -> str:
        """What `sha256sum <files> | sha256sum` prints in the folder, for provenance; `known` as in `identity`."""
        lines = "".join(f"{digest}  {name}\n" for name, digest in self._digests(known))
        return hashlib.sha256(lines.encode()).hexdigest()

    def _digests(self, known: Path) -> list[tuple[str, str]]:
        """Names and SHA-256 of all files, sorted."""
        digests = {path.name: sha256_of(path) for path in self.describing} | _remembered(self.weights, known)
        return sorted(digests.items())


def require_transformers() -> None:
    """Raises InvalidInputError where the optional extra `text` is not installed."""
    if find_spec("transformers") is None:
        raise InvalidInputError(
            "The checkpoints have a text encoder, which needs transformers; install gen3c-triton[text].",
            field="checkpoint",
        )


def open_folder(folder: Path, width: int) -> T5Folder:
    """Find the files and compare names and shapes of the weights with config.json, reading no values.

    Raises InvalidInputError for a folder that holds no T5 encoder of that width, or not the whole of it, and without
    transformers.
    """
    require_transformers()
    described = _read_object(folder / CONFIG)
    kind, found = described.get("model_type"), described.get("d_model")
    if kind != "t5" or found != width:
        raise InvalidInputError(
            f"{folder} holds a network of type {kind!r} and width {found!r}; legal is 't5' of width {width}, "
            "which the diffusion network reads.",
            field="checkpoint",
        )
    if "transformers_weights" in described or (folder / ADAPTER).exists():
        raise InvalidInputError(
            f"{folder} names further weights (transformers_weights in {CONFIG}, or {ADAPTER}); legal are those in "
            f"{WEIGHTS} alone.",
            field="checkpoint",
        )
    weights = _weights(folder)
    shapes = {key: shape for path in weights for key, shape in _shapes(path).items()}
    problems = _problems(shapes, folder)
    if problems:
        shown = "".join(f"\n  {problem}" for problem in problems[:_SHOWN])
        raise InvalidInputError(
            f"{folder} does not hold the whole network of its {CONFIG}; {len(problems)} tensors are unfit, such as"
            f"{shown}",
            field="checkpoint",
        )
    describing = sorted(path for path in folder.iterdir() if path.suffix in _DESCRIBING and path.is_file())
    return T5Folder(folder, tuple(describing), weights)


def _weights(folder: Path) -> tuple[Path, ...]:
    """The files of weights that transformers reads."""
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    if not (folder / INDEX).is_file():
        if (folder / PICKLED).is_file():
            return (folder / PICKLED,)
        raise InvalidInputError(
            f"There are no weights in {folder}; legal: {WEIGHTS}, {INDEX} with its shards, or {PICKLED}.",
            field="checkpoint",
        )
    index = _read_object(folder / INDEX)
    weight_map = index.get("weight_map")
    if (
        not isinstance(index.get("metadata"), dict)
        or not isinstance(weight_map, dict)
        or not all(isinstance(shard, str) for shard in weight_map.values())
    ):
        raise InvalidInputError(
            f"{folder / INDEX} is no index; legal are objects metadata and weight_map, from keys to files.",
            field="checkpoint",
        )
    shards = sorted(set(weight_map.values()))
    for shard in shards:
        if Path(shard).name != shard or not shard.endswith(".safetensors") or not (folder / shard).is_file():
            raise InvalidInputError(
                f"{folder / INDEX} names {shard!r}; legal are *.safetensors that are in that folder.",
                field="checkpoint",
            )
    return tuple(folder / shard for shard in shards)


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a file's tensors, by name."""
    try:
        if path.name != PICKLED:
            with safe_open(path, framework="pt") as file:
                return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (no mapping)
        if not zipfile.is_zipfile(path):
            raise InvalidInputError(
                f"{path} is no whole zip file, as torch >= 1.6 writes it; legal: save the network again, with "
                "save_pretrained of transformers.",
                field="checkpoint",
            )
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except InvalidInputError:
        raise
    except UNREADABLE as error:
        raise InvalidInputError(f"{path} cannot be read: {error}.", field="checkpoint") from error
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise InvalidInputError(f"{path} does not hold tensors by name, which alone is legal.", field="checkpoint")
    return {key: tuple(tensor.shape) for key, tensor in content.items()}


def _problems(shapes: Mapping[str, tuple[int, ...]], folder: Path) -> list[str]:
    """What the encoder of config.json lacks in the files; its decoder, which they may also hold, is not ours."""
    from transformers import T5Config, T5EncoderModel

    try:
        with torch.device("meta"):
            network = T5EncoderModel(T5Config.from_pretrained(folder, local_files_only=True))
    except Exception as error:  # transformers' validation of a config has a base class of its own
        raise InvalidInputError(f"{folder / CONFIG} describes no T5 encoder: {error}.", field="checkpoint") from error
    # The embedding has two names, either of which serves.
    other_name = {source: alias for alias, source in network.all_tied_weights_keys.items()}
    problems = []
    for key, tensor in network.state_dict().items():
        shape, expected = shapes.get(key), tuple(tensor.shape)
        if shape is None and key not in network.all_tied_weights_keys and other_name.get(key) not in shapes:
            problems.append(f"{key} is missing")
        elif shape is not None and shape != expected:
            problems.append(f"{key} has the shape {list(shape)}, legal is {list(expected)}")
    return problems


def _remembered(paths: Sequence[Path], known: Path) -> dict[str, str]:
    """SHA-256 of files by name. One that is as it was is not read again, which takes minutes for tens of gigabytes.

    Of a file that was changed or replaced the time of change (ctime) differs, which unlike that of modification
    cannot be set.
    """
    try:
        before = json.loads(known.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = None
    before = before if isinstance(before, dict) else {}
    now = {}
    for path in paths:
        stat = path.stat()
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        match before.get(path.name):
            case {"state": found, "sha256": str(digest)} if found == state:
                now[path.name] = {"state": state, "sha256": digest}
            case _:
                now[path.name] = {"state": state, "sha256": sha256_of(path)}
    if now != before:
        try:
            write_whole(known, json.dumps(now, indent=2).encode())
        except OSError as error:
            logger.warning("The hashes of the text encoder are not kept, and every start reads it whole: %s", error)
    return {name: str(entry["sha256"]) for name, entry in now.items()}


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object in a file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"{path.parent} is not a T5 encoder in transformers' layout: {error!r} in {path.name}.", field="checkpoint"
        ) from error
    if not isinstance(content, dict):
        raise InvalidInputError(f"{path} does not hold a JSON object, which alone is legal.", field="checkpoint")
    return content
