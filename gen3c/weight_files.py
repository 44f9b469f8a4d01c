"""Files of weights: looked through whole, then placed on a device tensor by tensor.

Looking comes before placing, so that nothing that is wrong with a file takes memory of a GPU, and reads a tensor at a
time, so that neither step holds more than the network and one tensor.
"""

import hashlib
import math
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gen3c.errors import InvalidInputError

PACKAGED = Path(__file__).parent / "checkpoints"  # one folder a preset, for those that ship with the package
_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # safetensors' names


@dataclass(frozen=True)
class Provenance:
    """Where weights came from, for logs, manifests and the answer to the user."""

    source: str  # "transformer" or "untrained weights (seed 0)"
    sha256: str | None = None  # of the component's files: of what `sha256sum` prints for them, sorted by name

    def __str__(self) -> str:
        return self.source if self.sha256 is None else f"{self.source} (sha256 {self.sha256})"


class LazyTensor(Protocol):
    """A tensor that is somewhere else until it is read."""

    @property
    def shape(self) -> Sequence[int]: ...

    def read(self) -> Tensor: ...


@dataclass(frozen=True)
class StoredWeight:
    """A tensor in a safetensors file."""

    path: Path
    name: str
    shape: tuple[int, ...]

    def read(self) -> Tensor:
        """The tensor, in memory of its own: the file's pages, which count as ours while it is open, are let go."""
        with opened(self.path) as file:
            return file.read(self.name).clone()


@dataclass(frozen=True)
class HeldWeight:
    """A tensor in memory, or mapped there."""

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def numel(self) -> int:
        """How many numbers."""
        return self.tensor.numel()

    def read(self) -> Tensor:
        return self.tensor


class WeightFile(Protocol):
    """Named tensors that are read one by one."""

    def names(self) -> list[str]: ...

    def shape(self, name: str) -> list[int]: ...

    def type_name(self, name: str) -> str:
        """F32, F16, BF16, or another name of safetensors'."""
        ...

    def read(self, name: str) -> Tensor: ...


@contextmanager
def opened(path: Path) -> Iterator[WeightFile]:
    """A .safetensors file, or a state dict that `torch.save` wrote (any other ending).

    Raises InvalidInputError if it is none, is cut off, or asks for more than tensors.
    """
    if path.suffix != ".safetensors":
        yield _StateDict(_state_dict(path))
        return
    try:
        with safe_open(path, framework="pt", device="cpu") as file:  # compares the file's length with its header
            yield _Safetensors(file)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror or error}.", field="checkpoint") from error
    except SafetensorError as error:
        raise InvalidInputError(
            f"{path} is truncated, or no safetensors file ({error}).", field="checkpoint"
        ) from error


def problems_of(
    paths: Sequence[Path],
    expected: Mapping[str, tuple[Sequence[int], torch.dtype]],
    unread: Mapping[str, Sequence[int]] | None = None,
    weight_map: Mapping[str, str] | None = None,
) -> list[str]:
    """All that is wrong with the files of a network; a broken file is a problem like others.

    `expected` tells the shape of each tensor, and the type that its values must fit into. Tensors in `unread` may be
    there or not; their shapes alone are looked at. `weight_map` is the index of several files, if they have one.
    """
    problems: list[str] = []
    found: dict[str, str] = {}  # the file of each name
    readable = []
    for path in paths:
        try:
            with opened(path) as file:
                names = file.names()
        except InvalidInputError as error:
            problems.append(str(error))
            continue
        readable.append(path)
        problems += [f"{name} is in {found[name]} and in {path.name}" for name in names if name in found]
        found |= dict.fromkeys(names, path.name)
    for name, file_name in (weight_map or {}).items():
        if name in found and found[name] != file_name:
            problems.append(f"{name} is in {found[name]}, but the index says {file_name}")
    if readable == list(paths):  # else what is missing would be the whole of a broken file
        problems += [f"{name} is missing" for name in sorted(set(expected) - set(found))]
    unread = unread or {}
    problems += [f"{name} is unknown" for name in sorted(set(found) - set(expected) - set(unread))]
    for path in readable:
        with opened(path) as file:
            for name in sorted(file.names()):
                if name in expected:
                    shape, dtype = expected[name]
                    problems += [f"{name} {problem}" for problem in _tensor_problems(file, name, shape, dtype)]
                elif name in unread:
                    problems += [f"{name} {problem}" for problem in _shape_problems(file, name, unread[name])]
    return problems


def place(paths: Sequence[Path], types: Mapping[str, torch.dtype], device: torch.device | str) -> dict[str, Tensor]:
    """The tensors of `types` from files without problems, in memory of their own: the files may go afterwards."""
    tensors = {}
    for path in paths:
        with opened(path) as file:
            for name in file.names():
                if name in types:
                    tensors[name] = file.read(name).to(device, types[name], copy=True)
    return tensors


def stored_weights(paths: Sequence[Path], prefix: str = "") -> dict[str, LazyTensor]:
    """All tensors of a network's files, unread, by their names in the network: `prefix` and the name in the file.

    Raises InvalidInputError if a file cannot be read or two of them have a name in common.
    """
    weights: dict[str, LazyTensor] = {}
    for path in paths:
        with opened(path) as file:
            for name in file.names():
                if prefix + name in weights:
                    raise InvalidInputError(f"{name} is in {path.name} and in another file too.", field="checkpoint")
                if path.suffix == ".safetensors":
                    weights[prefix + name] = StoredWeight(path, name, tuple(file.shape(name)))
                else:  # is mapped, and takes too long to open for that to be done for every tensor
                    weights[prefix + name] = HeldWeight(file.read(name))
    return weights


def random_weight(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Untrained: what keeps activations near unit variance, the same for a seed on every machine."""
    if name.endswith(".bias"):
        return torch.zeros(shape)
    if len(shape) == 1:  # norms and gains
        return torch.ones(shape)
    return torch.randn(shape, generator=generator) * (1 / math.sqrt(math.prod(shape[1:])))


def value_problem(tensor: Tensor, dtype: torch.dtype | None = None) -> str | None:
    """What makes floats unusable as weights, or as weights of type `dtype`: "has values that are not finite", or None.

    Values that are finite as they are may not be so in `dtype`, e.g. 1e5 in float16 or 3.4e38 in bfloat16.
    """
    if tensor.numel() == 0:
        return None
    # NaN is passed on by both extremes, and unlike isfinite they need no second tensor.
    extremes = torch.stack(torch.aminmax(tensor))
    if not extremes.isfinite().all():
        return "has values that are not finite"
    # Rounding keeps the order of numbers: if one becomes infinite, so does an extreme.
    if dtype is not None and not extremes.to(dtype).isfinite().all():
        return f"has values beyond the range of {str(dtype).removeprefix('torch.')}"
    return None


def listing(problems: Sequence[str]) -> str:
    """Problems for the end of a message: "(2 problems):" and a line each."""
    count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
    return "".join([f"({count}):", *(f"\n  {problem}" for problem in problems)])


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class _Safetensors:
    file: Any  # safetensors' handle has no public type

    def names(self) -> list[str]:
        return list(self.file.keys())

    def shape(self, name: str) -> list[int]:
        return list(self.file.get_slice(name).get_shape())

    def type_name(self, name: str) -> str:
        return str(self.file.get_slice(name).get_dtype())

    def read(self, name: str) -> Tensor:
        tensor: Tensor = self.file.get_tensor(name)
        return tensor


@dataclass(frozen=True)
class _StateDict:
    tensors: Mapping[str, Tensor]  # mapped from the file, not read

    def names(self) -> list[str]:
        return list(self.tensors)

    def shape(self, name: str) -> list[int]:
        return list(self.tensors[name].shape)

    def type_name(self, name: str) -> str:
        dtype = self.tensors[name].dtype
        return next((known for known, float_type in _FLOATS.items() if float_type == dtype), str(dtype))

    def read(self, name: str) -> Tensor:
        return self.tensors[name]


def _state_dict(path: Path) -> Mapping[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror or error}.", "checkpoint") from None
    except pickle.UnpicklingError:
        raise InvalidInputError(f"{path} is corrupt, or holds more than tensors.", "checkpoint") from None
    except Exception as error:  # what a broken file makes of PyTorch's reader has no common type
        first = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        if "mmap" in first:  # PyTorch's advice about its own option
            first = "it is no archive as torch.save has written since PyTorch 1.6"
        raise InvalidInputError(f"{path} is truncated, or no state dict of PyTorch ({first}).", "checkpoint") from None
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise InvalidInputError(f"{path} is no state dict: legal are names of tensors alone.", "checkpoint")
    for name, tensor in content.items():
        if tensor.layout != torch.strided or tensor.is_nested or tensor.device.type != "cpu":
            raise InvalidInputError(f"{path}: {name} has no plain values; legal are dense tensors.", "checkpoint")
    return content


def _shape_problems(file: WeightFile, name: str, expected: Sequence[int]) -> Iterator[str]:
    shape = file.shape(name)
    if shape != list(expected):
        yield f"has shape {shape}, legal is {list(expected)}"


def _tensor_problems(file: WeightFile, name: str, expected: Sequence[int], dtype: torch.dtype) -> Iterator[str]:
    """What is wrong with one tensor, or will be in `dtype`; its values are read if they are floats."""
    yield from _shape_problems(file, name, expected)
    stored = file.type_name(name)
    if stored not in _FLOATS:
        yield f"is {stored}, legal are {', '.join(_FLOATS)}"
    elif problem := value_problem(file.read(name), dtype):
        yield problem
