"""Replacing a checkpoint directory is done whole or not at all, wherever it is stopped."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gen3c_export.writer import replaced

OLD = {
    "manifest.json": "old",
    "vae/weights": "old",
    "text_encoder/weights": "mine",
    "embeddings": "mine",
    "z/a": "mine",
}
NEW = {"manifest.json": "new", "transformer/weights": "new"}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def replace(output: Path) -> None:
    with replaced(output, force=True, needed=0) as folder:
        write(folder, NEW)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "place" / "out"


class Stopped:
    """A step of the file system that fails at its nth call, before it is done or after."""

    def __init__(self, step: Callable[..., object], at: int, error: BaseException, after: bool) -> None:
        self.step, self.at, self.error, self.after = step, at, error, after
        self.calls = 0

    def __call__(self, *arguments: object, **options: object) -> object:
        self.calls += 1
        if self.calls == self.at and not self.after:
            raise self.error
        result = self.step(*arguments, **options)
        if self.calls == self.at:
            raise self.error
        return result

    @property
    def method(self) -> Callable[..., object]:
        """The step as a function, which unlike this object is bound when it is an attribute of a class."""

        def call(*arguments: object) -> object:
            return self(*arguments)

        return call


ERRORS = [(KeyboardInterrupt(), False), (KeyboardInterrupt(), True), (OSError("no"), False)]


@pytest.mark.parametrize(("error", "after"), ERRORS)
@pytest.mark.parametrize("at", range(1, 6))  # away, in place, and three things that lie there
def test_a_replacement_that_is_stopped_is_undone(
    output: Path, monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException, after: bool
) -> None:
    write(output, OLD)
    rename = Stopped(Path.rename, at, error, after)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename.method)
        with pytest.raises(type(error)):
            replace(output)
    assert rename.calls > at or at == 1
    assert content(output) == OLD
    assert [path.name for path in output.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(("error", "after"), ERRORS)
def test_a_first_checkpoint_that_is_stopped_is_undone(
    output: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, after: bool
) -> None:
    rename = Stopped(Path.rename, 1, error, after)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename.method)
        with pytest.raises(type(error)):
            replace(output)
    assert not list(output.parent.iterdir())


@pytest.mark.parametrize(("error", "after"), ERRORS)
def test_once_the_old_one_is_being_deleted_the_new_one_stays(
    output: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, after: bool
) -> None:
    write(output, OLD)
    rmtree = Stopped(shutil.rmtree, 1, error, after)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", rmtree)
        replace(output)
    assert content(output) == NEW | {name: text for name, text in OLD.items() if text == "mine"}
    assert [path.name for path in output.parent.iterdir()] == ["out"]


def test_what_cannot_be_put_back_is_lost_neither(
    output: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that fails at the third step, and at the first one of undoing it."""
    write(output, OLD)
    calls = []
    rename = Path.rename

    def failing(source: Path, target: Path) -> Path:
        calls.append(source)
        if len(calls) in (4, 5):
            raise OSError("no")
        return rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        with pytest.raises(OSError, match="no"), caplog.at_level(logging.ERROR):
            replace(output)
    assert "could not be put back" in caplog.text
    kept = {name: text for folder in output.parent.iterdir() for name, text in content(folder).items()}
    assert {name for name in OLD if name != "manifest.json"} <= kept.keys()
    assert "old" in [content(folder).get("manifest.json") for folder in output.parent.iterdir()]
