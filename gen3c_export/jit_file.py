"""TorchScript archives, read for their tensors.

`torch.jit.load` would load the archive's program. Its parameters need no program: `data.pkl` is the pickle of nested
objects whose attributes are submodules and tensors, and the tensors lie beside it. The classes of those objects become
bags of attributes here, and besides them the pickle may ask for nothing but the names that make tensors and lists.
"""

import io
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gen3c.errors import InvalidInputError
from gen3c_export.stored import MOST_PICKLE_BYTES, PICKLE, Record, StoredTensor, read_archive

_MOST_OBJECTS = 100_000  # objects that contain each other twice at every level would keep us busy for ever
_MOST_LEVELS = 32  # the published have about 10; names grow with the levels, and with them the time to make them
_LONGEST_NAME = 500
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class _Storage(NamedTuple):
    kind: str  # a key of _STORAGES
    key: str  # of the entry in data/


class _Tensor(NamedTuple):
    storage: _Storage
    start: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_jit(path: Path) -> dict[str, StoredTensor | None]:
    """The parameters and buffers of a TorchScript archive by their dotted names, as `state_dict` has them.

    Only the pickle is read. Raises InvalidInputError for a file that asks for code, is broken or of another format.
    """
    records = read_archive(path).records
    if PICKLE not in records:
        raise InvalidInputError(f"{path.name} is not a TorchScript archive: it has no uncompressed {PICKLE}.")
    size = records[PICKLE].size
    if size > MOST_PICKLE_BYTES:
        raise InvalidInputError(f"{path.name} is refused: its index has {size} bytes, legal are {MOST_PICKLE_BYTES}.")
    with path.open("rb") as file:
        file.seek(records[PICKLE].offset)
        content = file.read(size)
    try:
        root = _Unpickler(content, path.name).load()
        return {name: _stored(path, tensor, records) for name, tensor in _attributes(root, path.name)}
    except InvalidInputError:
        raise
    except Exception as error:  # a broken pickle can raise nearly anything
        raise InvalidInputError(f"{path.name} is corrupt: its index cannot be read ({error}).") from None


class _Unpickler(pickle.Unpickler):
    """Makes descriptions of tensors, lists, dicts, numbers, strings and bags; refuses all else."""

    def __init__(self, content: bytes, file_name: str) -> None:
        super().__init__(io.BytesIO(content))
        self._file_name = file_name

        # Classes and functions are made for each file, because a pickle can write to those that it is given.
        class Bag:
            def __new__(cls, *_: object) -> "Bag":
                return super().__new__(cls)

            def __setstate__(self, state: object) -> None:
                self.attributes = state

        def rebuild_tensor(
            storage: object, start: object, shape: object, stride: object, *_: object
        ) -> tuple[object, ...]:
            return _Tensor(storage, start, shape, stride)  # type: ignore[arg-type]  # checked when it is used

        def rebuild_parameter(data: object, *_: object) -> object:
            return data

        def first(value: object, *_: object) -> object:
            return value

        self._bag = Bag
        self._known: dict[tuple[str, str], Any] = {
            ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
            ("torch", "device"): first,
            ("collections", "OrderedDict"): OrderedDict,
        }
        lists = ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist", "restore_type_tag")
        self._known |= {("torch.jit._pickle", name): first for name in lists}
        self._known |= {("torch", name): name for name in _STORAGES}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return self._bag
        if (module, name) in self._known:
            return self._known[module, name]
        raise InvalidInputError(
            f"{self._file_name} is refused: reading it would run {module}.{name}; legal are archives whose index "
            "holds tensors and modules alone."
        )

    def persistent_load(self, pid: Any) -> _Storage:
        tag, kind, key, *_ = pid
        if tag != "storage" or kind not in _STORAGES:
            raise ValueError("an unknown kind of storage")
        return _Storage(kind, key)


def _attributes(root: Any, file_name: str) -> Iterator[tuple[str, _Tensor]]:
    """The tensors of a module and of its submodules, with dotted names."""
    waiting = [("", 0, root)]
    for _ in range(_MOST_OBJECTS):
        if not waiting:
            return
        name, level, value = waiting.pop()
        if isinstance(value, _Tensor):
            yield name, value
        elif isinstance(attributes := getattr(value, "attributes", None), dict):
            if level == _MOST_LEVELS:
                raise InvalidInputError(f"{file_name} is refused: it nests objects deeper than {_MOST_LEVELS} levels.")
            prefix = f"{name}." if name else ""
            if any(len(prefix) + len(key) > _LONGEST_NAME for key in attributes):
                raise InvalidInputError(f"{file_name} is refused: it has names longer than {_LONGEST_NAME} characters.")
            waiting += [(f"{prefix}{key}", level + 1, child) for key, child in attributes.items()]
    raise InvalidInputError(f"{file_name} is refused: it has more than {_MOST_OBJECTS} objects.")


def _stored(path: Path, tensor: _Tensor, records: dict[str, Record]) -> StoredTensor:
    storage = tensor.storage
    return StoredTensor(
        path, records[f"data/{storage.key}"], _STORAGES[storage.kind], tensor.shape, tensor.stride, tensor.start
    )
