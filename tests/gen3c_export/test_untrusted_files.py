"""Files that would run something: they are refused, and nothing runs."""

import io
import os
import pickle
import pickletools
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from official_files import Published

from gen3c.errors import InvalidInputError
from gen3c_export.jit_file import read_jit
from gen3c_export.pt_file import read_pt, read_statistics

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


class Evil:
    """Runs a command where it is unpickled without care."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def with_index(archive: Path, index: bytes) -> Path:
    """Replace the pickle of an archive."""
    changed = archive.with_name("changed.jit")
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(changed, "w") as target:
        for entry in source.infolist():
            content = index if entry.filename.endswith("/data.pkl") else source.read(entry)
            target.writestr(entry.filename, content, entry.compress_type)
    return changed


@pytest.fixture
def archive(published: Published, tmp_path: Path) -> Path:
    return Path(shutil.copy(published.folder / "encoder.jit", tmp_path / "encoder.jit"))


def index_of(archive: Path) -> bytes:
    with zipfile.ZipFile(archive) as file:
        return file.read("encoder/data.pkl")


def test_the_tensors_of_an_archive_are_those_that_pytorch_finds(archive: Path) -> None:
    tensors = read_jit(archive)
    expected = torch.jit.load(str(archive)).state_dict()
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[key].read(), value) for key, value in expected.items())


def test_a_scripted_archive_with_other_attributes_is_read(tmp_path: Path) -> None:
    class Scripted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Linear(3, 2, dtype=torch.bfloat16)
            self.register_buffer("table", torch.arange(6).view(2, 3).T)
            self.sizes, self.names, self.none = [1, 2], {"a": 1.0}, None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) * self.sizes[0] + self.names["a"] + self.table.sum()

    torch.jit.script(Scripted()).save(str(tmp_path / "scripted.jit"))
    tensors = read_jit(tmp_path / "scripted.jit")
    assert tensors.keys() == {"inner.weight", "inner.bias", "table"}
    assert torch.equal(tensors["table"].read(), torch.arange(6).view(2, 3).T)
    assert tensors["inner.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    "content", [lambda evil: {"model": {"net.x": evil}}, lambda evil: evil, lambda evil: (evil, 1)]
)
def test_a_state_dict_that_runs_something_is_refused(tmp_path: Path, content: Callable[[Evil], object]) -> None:
    marker = tmp_path / "it ran"
    torch.save(content(Evil(marker)), tmp_path / "model.pt")
    for read in (read_pt, read_statistics):
        with pytest.raises(InvalidInputError, match=r"model\.pt is refused: loading it would run posix\.system;"):
            read(tmp_path / "model.pt")
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_an_archive_that_runs_something_is_refused(archive: Path, tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "it ran"
    changed = with_index(archive, pickle.dumps(Evil(marker), protocol))
    with pytest.raises(InvalidInputError, match=r"changed\.jit is refused: reading it would run posix\.system;"):
        read_jit(changed)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", ["builtins eval", "torch.jit._pickle unknown", "torch.serialization load", "torch._utils _rebuild_qtensor"]
)
def test_an_archive_may_ask_for_nothing_but_what_makes_tensors(archive: Path, name: str) -> None:
    module, _, attribute = name.partition(" ")
    changed = with_index(archive, f"\x80\x02c{module}\n{attribute}\n.".encode("latin-1"))
    with pytest.raises(InvalidInputError, match="is refused"):
        read_jit(changed)


def test_what_one_archive_does_to_its_classes_does_not_reach_the_next(archive: Path) -> None:
    # GLOBAL a class, then BUILD it with the slots {"__setstate__": None}: unpickling assigns them to the class.
    spoil = b"\x80\x02c__torch__ A\n".replace(b" ", b"\n") + b"N}X\x0c\x00\x00\x00__setstate__Ns\x86b."
    pickletools.dis(spoil, io.StringIO())  # it is well formed
    with pytest.raises(InvalidInputError, match="corrupt"):
        read_jit(with_index(archive, spoil))
    assert read_jit(archive).keys() == torch.jit.load(str(archive)).state_dict().keys()


def test_a_tensor_that_reaches_beyond_its_bytes_is_corrupt(archive: Path) -> None:
    index = bytearray(index_of(archive))
    # A tensor's start, 0 (K\0), and its shape from the first number below 256 on (K and a byte).
    index[index.index(b"K\x00(K") + 4] = 255
    changed = with_index(archive, bytes(index))
    with pytest.raises(InvalidInputError, match="corrupt"):
        read_jit(changed)


def test_objects_without_end_are_refused(archive: Path) -> None:
    # 30 objects, each of which holds the next one twice, have 2^30 paths.
    def node(inner: bytes) -> bytes:
        return b"c__torch__\nA\n)\x81}(X\x01\x00\x00\x00a" + inner + b"q\x01X\x01\x00\x00\x00bh\x01ub"

    content = b"N"
    for _ in range(30):
        content = node(content)
    with pytest.raises(InvalidInputError, match="more than 100000 objects"):
        read_jit(with_index(archive, b"\x80\x02" + content + b"."))
