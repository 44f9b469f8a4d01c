"""A build's folder, which takes the place of an older one as a whole."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from gen3c.errors import InvalidInputError
from gen3c.exported.manifest import MANIFEST, REPOSITORY
from gen3c_export.store import locked


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of `folder` at the end, or vanishes after a failure."""
    with locked(folder.parent / f".{folder.name}.lock"):
        for left in folder.parent.glob(f".{folder.name}.*.partial"):  # of a build that was killed
            shutil.rmtree(left, ignore_errors=True)
        check_replaceable(folder)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
        unfinished, old = work / "new", work / "old"
        try:
            unfinished.mkdir()
            yield unfinished
            with _uninterrupted():
                if folder.exists():
                    folder.rename(old)
                try:
                    unfinished.rename(folder)
                except OSError:
                    if old.exists():
                        old.rename(folder)
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)


def check_replaceable(folder: Path) -> None:
    """Raises InvalidInputError if `folder` is there and is no build."""
    lacking = [name for name in (MANIFEST, REPOSITORY) if not (folder / name).exists()]
    if folder.exists() and lacking:
        raise InvalidInputError(
            f"{folder} is no built repository (it has no {lacking[0]}) and is not replaced; name another folder with "
            "--out.",
            field="out",
        )


def link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system knows no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Two renames between which no signal comes: there would be no repository."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        before: dict[int, Callable[..., object] | int | None] = {n: signal.signal(n, note) for n in numbers}
    except ValueError:  # not the main thread, which alone gets signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in received:
            signal.raise_signal(number)
