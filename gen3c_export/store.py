"""Artifacts on disk, each made once for what it is made from, whoever asks, however often, also at the same time.

    <out>/artifacts/<program>-<key>/artifact.json    what the manifest will say of it
    <out>/artifacts/<program>-<key>/model.onnx ...
    <out>/artifacts/.<program>-<key>.lock            held while it is made

An artifact appears whole or not at all: it is made in a hidden folder beside its place and moved there.
"""

import fcntl
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from gen3c.errors import InvalidInputError
from gen3c.exported.manifest import Artifact, check_files

logger = logging.getLogger(__name__)

FOLDER = "artifacts"
BUSY = ".building.lock"  # held by builds, and alone by who cleans
RECORD = "artifact.json"
KEY_DIGITS = 16  # of the name; the whole key is in the record

Make = Callable[[Path], Artifact]  # writes the files into an empty folder


class ArtifactStore:
    """The artifacts under `out`."""

    def __init__(self, out: Path) -> None:
        self.folder = out / FOLDER

    def place(self, program: str, key: str) -> Path:
        """Where an artifact is, or would be."""
        return self.folder / f"{program}-{key[:KEY_DIGITS]}"

    def obtain(self, program: str, key: str, make: Make) -> tuple[Artifact, bool]:
        """The artifact, and whether it was made now. One that is damaged is made again.

        While another process makes it, this one waits. Raises what `make` raises; nothing is left of a failure.
        """
        place = self.place(program, key)
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / f".{place.name}.lock"):
            found = self._intact(place, key)
            if found is not None:
                return found, False
            self._remove_partial(place.name)  # of a build that was killed: its lock is ours now
            partial = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".partial", dir=self.folder))
            try:
                artifact = make(partial)
                (partial / RECORD).write_text(artifact.model_dump_json(indent=2) + "\n", encoding="utf-8")
                partial.chmod(0o755)
                shutil.rmtree(place, ignore_errors=True)
                partial.rename(place)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            return artifact, True

    def remove_except(self, kept: set[Path]) -> list[Path]:
        """Delete all artifacts but those in `kept`, and what killed builds left; returns what went.

        One that is being made is left alone.
        """
        removed = []
        for lock in sorted(self.folder.glob(".*.lock")) if self.folder.is_dir() else []:
            name = lock.name.removeprefix(".").removesuffix(".lock")
            try:
                with locked(lock, wait=False):
                    removed += self._remove_partial(name)
                    if self.folder / name not in kept and (self.folder / name).is_dir():
                        shutil.rmtree(self.folder / name)
                        removed.append(self.folder / name)
                    if not (self.folder / name).is_dir():
                        lock.unlink()
            except BlockingIOError:
                logger.info("%s is being built and stays.", name)
        return removed

    def _intact(self, place: Path, key: str) -> Artifact | None:
        if not (place / RECORD).is_file():
            return None
        try:
            artifact = Artifact.model_validate(json.loads((place / RECORD).read_text(encoding="utf-8")))
            check_files(artifact, place)
        except (OSError, ValueError, ValidationError) as error:  # InvalidInputError is a ValueError
            logger.warning("%s is damaged and is built again: %s", place.name, _first_line(error))
            return None
        return artifact if artifact.key == key else None

    def _remove_partial(self, name: str) -> list[Path]:
        left = list(self.folder.glob(f".{name}.*.partial"))
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        return left


@contextmanager
def building(out: Path) -> Iterator[None]:
    """While entered nobody cleans `out`: artifacts are in no repository yet. Builds may be several."""
    with locked(out / BUSY, shared=True):
        yield


@contextmanager
def locked(path: Path, *, wait: bool = True, shared: bool = False) -> Iterator[None]:
    """Hold the lock file `path`, which goes with its holder; `shared` with others who do so.

    Without `wait`, BlockingIOError if someone else has it.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        with path.open("a") as file:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise
                logger.info("Another process holds %s; waiting for it.", path.name)
                fcntl.flock(file, kind)
            if not _is_still(path, file.fileno()):  # its last holder has removed it, and others do not see this one
                continue
            yield
            return


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def check_space(out: Path, needed: int) -> None:
    """Raises InvalidInputError if the disk of `out`, which exists, has not `needed` bytes left."""
    free = shutil.disk_usage(out).free
    if free < needed:
        raise InvalidInputError(
            f"Building needs {needed / 1e9:.2f} GB in {out}, but {free / 1e9:.2f} GB are free; make room, or name "
            "another folder with --out.",
            field="out",
        )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
