"""Artifacts on disk, each made once; and what `gen3c-export clean` removes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from builds import NOTHING, contents, run

from gen3c.errors import InvalidInputError
from gen3c.exported.manifest import Artifact, files_of
from gen3c_export.store import RECORD, ArtifactStore, check_space, locked
from tests.gen3c.exported.samples import artifact

KEY = "0" * 64


class Maker:
    """Makes an artifact of one file; counts."""

    def __init__(self, content: bytes = b"weights") -> None:
        self.content, self.made = content, 0

    def __call__(self, folder: Path) -> Artifact:
        self.made += 1
        (folder / "weights").write_bytes(self.content)
        return artifact().model_copy(update={"files": files_of(folder, ["weights"])})


def folders(store: ArtifactStore) -> set[str]:
    return {path.name for path in store.folder.iterdir() if path.is_dir()}


def test_an_artifact_is_made_once_for_its_key(tmp_path: Path) -> None:
    store, make = ArtifactStore(tmp_path), Maker()
    first, made = store.obtain("dit", KEY, make)
    again, made_again = store.obtain("dit", KEY, make)
    assert (made, made_again, make.made) == (True, False, 1)
    assert again == first
    assert contents(store.place("dit", KEY)).keys() == {RECORD, "weights"}


@pytest.mark.parametrize("file", ["weights", RECORD])
@pytest.mark.parametrize("content", [b"", b"weighty", b"\xff", None])
def test_one_that_is_damaged_is_made_again(tmp_path: Path, file: str, content: bytes | None) -> None:
    store, make = ArtifactStore(tmp_path), Maker()
    store.obtain("dit", KEY, make)
    intact = contents(store.place("dit", KEY))
    path = store.place("dit", KEY) / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    assert store.obtain("dit", KEY, make)[1]
    assert make.made == 2
    assert contents(store.place("dit", KEY)) == intact


def test_keys_that_begin_alike_are_not_mistaken(tmp_path: Path) -> None:
    """A folder's name has the beginning of the key alone."""
    store, make = ArtifactStore(tmp_path), Maker()
    store.obtain("dit", KEY, make)
    assert store.obtain("dit", KEY[:32] + "1" * 32, make)[1]


@pytest.mark.parametrize("failure", [InvalidInputError("too far"), KeyboardInterrupt(), OSError(28, "full")])
def test_a_failure_leaves_nothing_but_what_was_there(tmp_path: Path, failure: BaseException) -> None:
    store = ArtifactStore(tmp_path)
    store.obtain("vggt", KEY, Maker())

    def fail(folder: Path) -> Artifact:
        (folder / "half").write_bytes(b"x")
        raise failure

    with pytest.raises(type(failure)):
        store.obtain("dit", KEY, fail)
    assert folders(store) == {store.place("vggt", KEY).name}


def test_what_a_killed_build_left_is_removed_by_the_next(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    left = store.folder / f".{store.place('dit', KEY).name}.abc.partial"
    other = store.folder / f".{store.place('vggt', KEY).name}.abc.partial"  # perhaps of one that still runs
    left.mkdir(parents=True)
    other.mkdir()
    store.obtain("dit", KEY, Maker())
    assert not left.exists()
    assert other.exists()


def test_who_comes_while_it_is_made_waits_for_it(tmp_path: Path) -> None:
    store, make, begun, go_on = ArtifactStore(tmp_path), Maker(), threading.Event(), threading.Event()

    def slow(folder: Path) -> Artifact:
        begun.set()
        assert go_on.wait(10)
        return make(folder)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(store.obtain, "dit", KEY, slow)
        assert begun.wait(10)
        second = pool.submit(store.obtain, "dit", KEY, slow)
        assert store.remove_except(set()) == [], "what is being made stays"
        assert not second.done()
        go_on.set()
        assert (first.result(10)[1], second.result(10)[1]) == (True, False)
    assert make.made == 1


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(tmp_path: Path) -> None:
    path, inside = tmp_path / "lock", threading.Event()

    def hold() -> None:
        with locked(path):
            inside.set()

    with locked(path):
        thread = threading.Thread(target=hold)
        thread.start()
        assert not inside.wait(0.2)
        path.unlink()  # as `remove_except` does at the end
    thread.join(10)
    assert inside.is_set()
    assert path.is_file(), "of the second holder, for whoever comes third"


def test_what_is_not_kept_is_removed(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    assert store.remove_except(set()) == []
    for program in ("dit", "vggt"):
        store.obtain(program, KEY, Maker())
    left = store.folder / f".{store.place('vggt', KEY).name}.abc.partial"
    left.mkdir()
    removed = store.remove_except({store.place("dit", KEY)})
    assert set(removed) == {left, store.place("vggt", KEY)}
    assert {path.name for path in store.folder.iterdir()} == {
        store.place("dit", KEY).name,
        f".{store.place('dit', KEY).name}.lock",
    }


def test_room_is_told_with_both_figures(tmp_path: Path) -> None:
    check_space(tmp_path, 1)
    with pytest.raises(InvalidInputError, match=r"needs 1000000\.00 GB in .*, but [0-9.]+ GB are free; make room"):
        check_space(tmp_path, 10**15)


def test_clean_removes_what_no_build_uses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("build", "--out", tmp_path, *NOTHING) == 0
    store = ArtifactStore(tmp_path)
    used = folders(store)
    store.obtain("dit", "1" * 64, Maker())
    (tmp_path / ".tiny-cpu.abc.partial").mkdir()  # a build was killed
    assert run("clean", "--out", tmp_path) == 0
    assert capsys.readouterr().out.endswith(f"{tmp_path}: 2 folder(s) removed.\n")
    assert folders(store) == used
    assert run("inspect", "--files", tmp_path / "tiny-cpu") == 0
    assert run("clean", "--out", tmp_path, "--all") == 0
    assert folders(store) == set()
    assert not (tmp_path / "tiny-cpu").exists()


def test_clean_keeps_everything_if_it_cannot_tell_what_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("build", "--out", tmp_path, *NOTHING) == 0
    (tmp_path / "tiny-cpu" / "manifest.json").write_text("{")
    used = folders(ArtifactStore(tmp_path))
    assert run("clean", "--out", tmp_path) == 1
    assert "cannot be read as JSON" in capsys.readouterr().err
    assert folders(ArtifactStore(tmp_path)) == used


@pytest.mark.parametrize("flags", [[], ["--all"]])
def test_clean_leaves_alone_what_is_no_build(tmp_path: Path, flags: list[str]) -> None:
    """Such as a checkpoint directory, which has a manifest of its own."""
    (tmp_path / "gen3c-7b").mkdir()
    (tmp_path / "gen3c-7b" / "manifest.json").write_text('{"outputs": []}')
    before = contents(tmp_path / "gen3c-7b")
    assert run("clean", "--out", tmp_path, *flags) == 0
    assert contents(tmp_path / "gen3c-7b") == before


def test_clean_of_no_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("clean", "--out", tmp_path / "none") == 1
    assert "is no folder; legal is one that `gen3c-export build` wrote to." in capsys.readouterr().err
