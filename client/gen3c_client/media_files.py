"""Which files a command line means: names, quoted globs and folders, to media files in a fixed order."""

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from gen3c_client.errors import InputError

IMAGE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
VIDEO_EXTENSIONS = frozenset({".mp4", ".mov", ".webm", ".mkv", ".avi", ".gif"})
MEDIA_EXTENSIONS = IMAGE_EXTENSIONS | VIDEO_EXTENSIONS

# How the containers above begin (offset, bytes). A saved error page called photo.jpg is the usual case to catch.
_SIGNATURES: tuple[tuple[int, bytes], ...] = (
    (0, b"\x89PNG\r\n\x1a\n"),
    (0, b"\xff\xd8\xff"),
    (0, b"GIF8"),
    (0, b"BM"),
    (0, b"II*\x00"),
    (0, b"MM\x00*"),
    (0, b"II+\x00"),
    (0, b"MM\x00+"),
    (8, b"WEBP"),
    (8, b"AVI "),
    (0, b"\x1aE\xdf\xa3"),
    *((4, box) for box in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")),
)


def find_media(inputs: Sequence[str]) -> list[Path]:
    """The media files that `inputs` name, in order, each once.

    A folder gives the media files directly in it, a glob those that match it (`**` crosses folders), both sorted by
    name and without hidden files or files of another kind. A file named outright must be a media file. A file that
    comes up again (`first.jpg photos/`) keeps its first place.

    Raises:
        InputError: nothing matches, a file is empty, unreadable, or not an image or video.
    """
    unique: dict[Path, Path] = {}
    for given in inputs:
        for path in _expand(given):
            unique.setdefault(path.resolve(), path)
    for path in unique.values():
        _check_content(path)
    return list(unique.values())


def read_media(files: Iterable[Path]) -> list[bytes]:
    """The contents of `files`.

    Raises:
        InputError: a file cannot be read (any more).
    """
    contents = []
    for path in files:
        try:
            contents.append(path.read_bytes())
        except OSError as e:
            raise InputError(f"{path} cannot be read: {e.strerror}.", "INPUT") from e
    return contents


def _expand(given: str) -> list[Path]:
    path = Path(given).expanduser()
    known = f"Known are {', '.join(sorted(e[1:] for e in MEDIA_EXTENSIONS))}."
    if path.is_dir():
        try:
            found = [p for p in sorted(path.iterdir()) if _is_media(p)]
        except OSError as e:
            raise InputError(f"The folder {given} cannot be read: {e.strerror}.", "INPUT") from e
        if not found:
            raise InputError(f"The folder {given} has no image or video directly in it. {known}", "INPUT")
        return found
    if path.exists():  # before globs: a file may be called scene[1].jpg
        if path.suffix.lower() not in MEDIA_EXTENSIONS:
            raise InputError(f"{given} has the unsupported extension '{path.suffix}'. {known}", "INPUT")
        return [path]
    if glob.has_magic(given):
        matches = glob.glob(str(path), recursive=True)  # noqa: PTH207 (Path.glob enters hidden folders)
        found = [p for p in sorted(map(Path, matches)) if _is_media(p)]
        if not found:
            raise InputError(f"No image or video matches {given!r}. {known}", "INPUT")
        return found
    raise InputError(f"There is no file, folder or glob match for {given!r}.", "INPUT")


def _is_media(path: Path) -> bool:
    return path.suffix.lower() in MEDIA_EXTENSIONS and not path.name.startswith(".") and path.is_file()


def _check_content(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror}.", "INPUT") from e
    if not head:
        raise InputError(f"{path} is empty (0 bytes).", "INPUT")
    if not any(head[at:].startswith(mark) for at, mark in _SIGNATURES):
        raise InputError(f"{path} is neither an image nor a video: its content begins with {head[:8]!r}.", "INPUT")
