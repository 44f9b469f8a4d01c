"""Result files: parts are put together beside their destination, verified, and appear only when the job is done."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from gen3c_client.contract import ARTIFACT_FILES, Artifact, ArtifactName
from gen3c_client.errors import ClientError, InputError, JobError, OutputExistsError
from gen3c_client.transport import ArtifactData


@dataclass
class _Partial:
    """A file on its way: `path` exists only while this does."""

    artifact: Artifact
    path: Path
    file: IO[bytes]
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    size: int = 0
    part: int = 0


class ArtifactWriter:
    """Writes the artifacts of one job into `folder`; a context manager that leaves nothing behind unless committed.

    All files of a job appear together, at `commit`: a failed job can be given again unchanged.

    Args:
        folder: created if it is missing (and removed again if nothing comes to lie in it).
        save: artifacts asked for.
        force: whether files that exist are replaced.

    Raises:
        OutputExistsError: before anything is sent, if a file that would be written exists and `force` is off.
        InputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, save: Sequence[ArtifactName], *, force: bool = False) -> None:
        self._folder = folder
        self._force = force
        self._targets = {ARTIFACT_FILES[name][0]: folder / ARTIFACT_FILES[name][0] for name in save}
        self._partials: dict[str, _Partial] = {}
        self._created: list[Path] = []
        self.check()

    @property
    def targets(self) -> list[Path]:
        """The files that the job is to produce."""
        return list(self._targets.values())

    def check(self) -> None:
        """Refuses to go on where a result would overwrite a file."""
        if self._folder.exists() and not self._folder.is_dir():
            raise InputError(f"The output folder {self._folder} is a file.", "--output")
        there = [path for path in self.targets if path.exists() or path.is_symlink()]
        if there and not self._force:
            names = ", ".join(str(path) for path in there)
            verb = "exist" if len(there) > 1 else "exists"
            raise OutputExistsError(f"{names} {verb}. Give --force to overwrite, or another --output.")

    def __enter__(self) -> Self:
        missing = [p for p in (self._folder, *self._folder.parents) if not p.exists()]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._created = missing
            if not os.access(self._folder, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as e:
            self.discard()
            raise InputError(f"The output folder {self._folder} cannot be written: {e.strerror}.", "--output") from e
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.discard()

    def add(self, data: ArtifactData) -> Path | None:
        """Takes one part; returns the file's destination when that was its last part and the whole is sound.

        Raises:
            JobError: a file that was not asked for, a part out of order, or a size or sha256 that is not the
                announced one.
            ClientError: the disk does not take it.
        """
        artifact = data.artifact
        if artifact.name not in self._targets:
            legal = ", ".join(self._targets)
            raise JobError(f"The server sent the file {artifact.name!r}, which was not asked for (only {legal}).")
        try:
            partial = self._partials.get(artifact.name) or self._begin(artifact)
            if artifact.part != partial.part + 1 or artifact.model_copy(update={"part": 1}) != partial.artifact:
                got = (
                    f"part {artifact.part} of {artifact.parts}, expected {partial.part + 1} of {partial.artifact.parts}"
                )
                raise JobError(f"The parts of {artifact.name} do not fit: got {got}.")
            partial.file.write(data.data)
            partial.digest.update(data.data)
            partial.size += len(data.data)
            partial.part += 1
            if partial.part < artifact.parts:
                return None
            _verify(partial)
            partial.file.flush()
            os.fsync(partial.file.fileno())
            partial.file.close()
        except OSError as e:
            raise ClientError(f"{self._targets[artifact.name]} cannot be written: {e.strerror}.") from e
        return self._targets[artifact.name]

    def commit(self) -> list[Path]:
        """Gives every file its name, and returns the paths in the order of `save`.

        Raises:
            JobError: the server left a file out.
            OutputExistsError: a file has appeared meanwhile and `force` is off.
        """
        for name in self._targets:
            partial = self._partials.get(name)
            if partial is None or partial.part < partial.artifact.parts:
                raise JobError(f"The job ended without {name} having arrived whole.")
        self.check()
        for name, path in self._targets.items():
            self._partials[name].path.replace(path)
            del self._partials[name]
        self._created = []
        return self.targets

    def discard(self) -> None:
        """Removes what is unfinished, and the folders that were made for it. Safe to call at any time, also twice."""
        for partial in self._partials.values():
            with suppress(OSError):  # a full disk complains once more
                partial.file.close()
        for name in self._targets:
            with suppress(OSError):  # also where the folder could never be made
                self._part_path(name).unlink()
        self._partials = {}
        for folder in self._created:
            with suppress(OSError):  # somebody else's file lies in it
                folder.rmdir()
        self._created = []

    def _begin(self, artifact: Artifact) -> _Partial:
        path = self._part_path(artifact.name)
        partial = _Partial(artifact.model_copy(update={"part": 1}), path, path.open("wb"))
        self._partials[artifact.name] = partial
        return partial

    def _part_path(self, name: str) -> Path:
        return self._folder / f".{name}.{os.getpid()}.part"


def _verify(partial: _Partial) -> None:
    artifact = partial.artifact
    if partial.size != artifact.size:
        raise JobError(f"{artifact.name} arrived with {partial.size:,} bytes, announced were {artifact.size:,}.")
    if partial.digest.hexdigest() != artifact.sha256:
        got = partial.digest.hexdigest()[:12]
        raise JobError(
            f"{artifact.name} arrived damaged: its sha256 is {got}..., announced was {artifact.sha256[:12]}..."
        )
