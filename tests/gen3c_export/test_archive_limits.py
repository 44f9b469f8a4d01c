"""Files that are small, or say that they are large, to exhaust memory or time: they are refused."""

import io
import pickle
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from official_files import LEFTOVER_BYTES, Published

from gen3c.errors import InvalidInputError
from gen3c_export import jit_file, pt_file
from gen3c_export.jit_file import read_jit
from gen3c_export.pt_file import read_pt, read_statistics
from gen3c_export.stored import read_archive

STATISTICS = (torch.zeros(256), torch.ones(256))


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def deflated(path: Path, which: Callable[[str], bool]) -> Path:
    """The archive with some entries compressed, named by what follows its folder."""
    changed = path.with_name(f"deflated_{path.name}")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(changed, "w") as target:
        for entry in source.infolist():
            small = which(entry.filename.partition("/")[2])
            target.writestr(entry.filename, source.read(entry), zipfile.ZIP_DEFLATED if small else zipfile.ZIP_STORED)
    return changed


def never_loaded(*_: object, **__: object) -> None:
    pytest.fail("the file went to torch.load")


@pytest.mark.parametrize("name", ["data.pkl", "data/0", "version"])
def test_compressed_entries_are_refused_before_pytorch_inflates_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    states = deflated(save(tmp_path / "model.pt", {"net.x": torch.zeros(1000)}), lambda entry: entry == name)
    statistics = deflated(save(tmp_path / "mean_std.pt", STATISTICS), lambda entry: entry == name)
    monkeypatch.setattr(torch, "load", never_loaded)
    for path, read in ((states, read_pt), (statistics, read_statistics)):
        with pytest.raises(InvalidInputError, match=f"{path.name} is refused: {name} in it is compressed"):
            read(path)


def test_a_large_pickle_is_refused(published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "model.pt", {f"net.{i}": torch.zeros(1) for i in range(100)})
    monkeypatch.setattr(pt_file, "MOST_PICKLE_BYTES", 5000)
    with pytest.raises(InvalidInputError, match=r"data\.pkl in it has \d+ bytes, legal are 5000"):
        read_pt(path)
    monkeypatch.setattr(jit_file, "MOST_PICKLE_BYTES", 5000)
    with pytest.raises(InvalidInputError, match=r"its index has \d+ bytes, legal are 5000"):
        read_jit(published.folder / "encoder.jit")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(160_000),
        torch.zeros(1).expand(10**6, 16 * 10**6),  # 64 TB to whoever reads it
        torch.zeros(2_000_000)[:16],
        torch.zeros(1, dtype=torch.float64).expand(160_000),
    ],
)
def test_large_statistics_are_refused(tmp_path: Path, tensor: torch.Tensor) -> None:
    with pytest.raises(InvalidInputError, match=r"its tensors have \d+ bytes, legal are 1000000"):
        read_statistics(save(tmp_path / "mean_std.pt", (tensor, tensor)))


def test_statistics_are_read_as_they_lie(tmp_path: Path) -> None:
    mean, std = torch.randn(16, 32).T.double(), torch.rand(32, 16)[:, :16].half()
    loaded = read_statistics(save(tmp_path / "mean_std.pt", (mean, std)))
    assert torch.equal(loaded[0], mean.float().reshape(16, -1))
    assert torch.equal(loaded[1], std.float().reshape(16, -1))


def with_sizes(path: Path, name: str, compressed: int, size: int) -> Path:
    """Write other sizes into the index of an archive, in the fields for more than 4 GB (ZIP64)."""
    changed = path.with_name("changed.pt")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(changed, "w") as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
            if entry.filename.partition("/")[2] == name:
                target.filelist[-1].compress_size, target.filelist[-1].file_size = compressed, size
    return changed


@pytest.mark.parametrize("sizes", [(2**45, 2**45), (4, 2**45), (None, 10), (2**63, 2**63)])
@pytest.mark.parametrize("name", ["data.pkl", "data/0"])
def test_sizes_that_are_not_there_are_a_sentence(
    published: Published, tmp_path: Path, name: str, sizes: tuple[int | None, int]
) -> None:
    for source, read in (("encoder.jit", read_jit), ("model.pt", read_pt), ("mean_std.pt", read_statistics)):
        there = read_archive(published.folder / source).records[name].size
        path = Path(tmp_path / source)
        path.write_bytes((published.folder / source).read_bytes())
        changed = with_sizes(path, name, there if sizes[0] is None else sizes[0], sizes[1])
        with pytest.raises(InvalidInputError, match=f"{name} is said to have {sizes[1]} bytes, which are not there"):
            read(changed)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """Else one could be looked at and the other be read."""
    path = save(tmp_path / "model.pt", {"net.x": torch.zeros(1)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model/data.pkl", b"another")
    with pytest.raises(InvalidInputError, match=r"it holds data\.pkl twice"):
        read_pt(path)


def jit_of(path: Path, index: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", index)
    return path


def attribute(name: bytes, inner: bytes) -> bytes:
    """The pickle of an object with one attribute."""
    return b"c__torch__\nA\n)\x81}X" + struct.pack("<I", len(name)) + name + inner + b"sb"


def nested(levels: int, name: bytes = b"a") -> bytes:
    content = b"N"
    for _ in range(levels):
        content = attribute(name, content)
    return b"\x80\x02" + content + b"."


def test_deep_objects_are_refused_in_no_time(tmp_path: Path) -> None:
    assert read_jit(jit_of(tmp_path / "shallow.jit", nested(32))) == {}
    # Names of 20,000 levels are 400 MB of letters in all, in an archive of 460 KB.
    path = jit_of(tmp_path / "deep.jit", nested(20_000))
    start = time.perf_counter()
    with pytest.raises(InvalidInputError, match=r"deep\.jit is refused: it nests objects deeper than 32 levels"):
        read_jit(path)
    assert time.perf_counter() - start < 2  # takes milliseconds, and took many seconds


def test_long_names_are_refused(tmp_path: Path) -> None:
    assert read_jit(jit_of(tmp_path / "short.jit", nested(4, b"a" * 124))) == {}
    with pytest.raises(InvalidInputError, match=r"it has names longer than 500 characters"):
        read_jit(jit_of(tmp_path / "long.jit", nested(5, b"a" * 124)))
    with pytest.raises(InvalidInputError, match="corrupt"):
        read_jit(jit_of(tmp_path / "number.jit", b"\x80\x02c__torch__\nA\n)\x81}K\x01Nsb."))


def test_the_state_of_transformer_engine_is_no_tensor_and_no_danger(published: Published, tmp_path: Path) -> None:
    tensors = read_pt(published.folder / "model.pt")
    assert all(tensors[key] is None for key in LEFTOVER_BYTES)
    # Only there, and only that: not in the statistics, and no other class of its module.
    with pytest.raises(InvalidInputError, match=r"would run _io\.BytesIO"):
        read_statistics(save(tmp_path / "mean_std.pt", (io.BytesIO(b"state"), io.BytesIO())))
    assert io.BytesIO not in torch.serialization.get_safe_globals()


def test_no_other_class_of_io_is_let_through(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt", {"net.x": torch.zeros(1)})
    changed = tmp_path / "changed.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(changed, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                content = pickle.dumps({"x": io.StringIO}, 2)
            target.writestr(entry.filename, content)
    with pytest.raises(InvalidInputError, match=r"would run _io\.StringIO"):
        read_pt(changed)
