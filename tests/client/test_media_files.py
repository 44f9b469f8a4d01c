"""Which files a command line means."""

import os
from pathlib import Path

import pytest
from gen3c_client.errors import InputError
from gen3c_client.media_files import find_media, read_media

JPEG = b"\xff\xd8\xff\xe0"
MP4 = b"\x00\x00\x00\x20ftypisom"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "c.jpeg", ".hidden.jpg", "sub/d.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(JPEG)
    (tmp_path / "z.mp4").write_bytes(MP4)
    (tmp_path / "notes.txt").write_text("not a photo")
    return tmp_path


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_a_folder_gives_its_media_sorted_without_hidden_and_foreign_files(folder: Path) -> None:
    assert names(find_media([str(folder)])) == ["a.PNG", "b.jpg", "c.jpeg", "z.mp4"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("*.jp*g", ["b.jpg", "c.jpeg"]), ("*", ["a.PNG", "b.jpg", "c.jpeg", "z.mp4"]), ("**/d.*", ["d.jpg"])],
)
def test_quoted_globs_are_expanded(folder: Path, pattern: str, expected: list[str]) -> None:
    assert names(find_media([f"{folder}/{pattern}"])) == expected


def test_globs_work_relative_to_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "sub")
    assert names(find_media(["../?.jpg", "d.jpg"])) == ["b.jpg", "d.jpg"]


def test_order_is_as_given_and_a_repeated_file_keeps_its_first_place(folder: Path) -> None:
    assert names(find_media([f"{folder}/z.mp4", f"{folder}/c.jpeg", str(folder)])) == [
        "z.mp4",
        "c.jpeg",
        "a.PNG",
        "b.jpg",
    ]


def test_a_file_name_with_glob_characters_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "scene[1].jpg").write_bytes(JPEG)
    assert names(find_media([f"{tmp_path}/scene[1].jpg"])) == ["scene[1].jpg"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("missing.jpg", "no file, folder or glob match"),
        ("*.webp", "No image or video matches"),
        ("notes.txt", "unsupported extension '.txt'"),
        ("nothing", "has no image or video directly in it"),
        ("empty.png", r"is empty \(0 bytes\)"),
        ("page.jpg", "neither an image nor a video: its content begins with b'<!DOCTYP'"),
    ],
)
def test_what_cannot_be_a_view_is_refused(folder: Path, given: str, sentence: str) -> None:
    (folder / "nothing").mkdir()
    (folder / "empty.png").touch()
    (folder / "page.jpg").write_text("<!DOCTYPE html>")
    with pytest.raises(InputError, match=sentence):
        find_media([f"{folder}/{given}"])


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("a.webp", b"RIFF\x10\x00\x00\x00WEBPVP8 "),
        ("a.avi", b"RIFF\x10\x00\x00\x00AVI LIST"),
        ("a.mkv", b"\x1aE\xdf\xa3\x01"),
        ("a.mov", b"\x00\x00\x00\x08wide\x00"),
        ("a.gif", b"GIF89a"),
        ("a.tif", b"II*\x00"),
        ("a.bmp", b"BM6\x00"),
        ("a.png", JPEG),
    ],
)
def test_every_known_container_passes_whatever_its_extension_says(tmp_path: Path, name: str, head: bytes) -> None:
    (tmp_path / name).write_bytes(head)
    assert names(find_media([str(tmp_path / name)])) == [name]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    (tmp_path / "a.jpg").chmod(0)
    with pytest.raises(InputError, match="cannot be read: Permission denied"):
        find_media([str(tmp_path / "a.jpg")])


def test_a_file_that_has_gone_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.jpg cannot be read: No such file"):
        read_media([tmp_path / "gone.jpg"])


def test_a_broken_link_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no file, folder or glob match"):
        find_media([str(tmp_path / "a.jpg")])
