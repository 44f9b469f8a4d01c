"""Result files appear whole, verified and together, or not at all."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from gen3c_client.contract import Artifact
from gen3c_client.errors import ClientError, InputError, JobError, OutputExistsError
from gen3c_client.outputs import ArtifactWriter
from gen3c_client.transport import ArtifactData

CONTENT = bytes(range(256)) * 10


def parts(name: str = "video.mp4", content: bytes = CONTENT, count: int = 3) -> Iterator[ArtifactData]:
    size = -(-len(content) // count)
    for i in range(count):
        data = content[i * size : (i + 1) * size]
        artifact = Artifact(
            name=name,
            media_type="video/mp4",
            sha256=hashlib.sha256(content).hexdigest(),
            size=len(content),
            part=i + 1,
            parts=count,
        )
        yield ArtifactData(artifact, data)


def test_parts_become_files_at_commit_and_not_before(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "deep"
    with ArtifactWriter(folder, ["video", "points"]) as writer:
        assert [writer.add(part) for part in parts()] == [None, None, folder / "video.mp4"]
        for part in parts("points.ply", b"ply", 1):
            writer.add(part)
        assert [p.name[0] for p in folder.iterdir()] == [".", "."]
        assert writer.commit() == [folder / "video.mp4", folder / "points.ply"]
    assert sorted(p.name for p in folder.iterdir()) == ["points.ply", "video.mp4"]
    assert (folder / "video.mp4").read_bytes() == CONTENT


def test_interleaved_files_are_kept_apart(tmp_path: Path) -> None:
    with ArtifactWriter(tmp_path, ["video", "warps"]) as writer:
        for a, b in zip(parts(), parts("warps.mp4", CONTENT[::-1]), strict=True):
            writer.add(a)
            writer.add(b)
        writer.commit()
    assert (tmp_path / "warps.mp4").read_bytes() == CONTENT[::-1]


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    with ArtifactWriter(tmp_path, ["video"]) as writer:
        writer.add(next(parts(content=b"", count=1)))
        writer.commit()
    assert (tmp_path / "video.mp4").read_bytes() == b""


def receive(writer: ArtifactWriter, arrived: Iterable[ArtifactData]) -> None:
    """A job whose results are `arrived`."""
    with writer:
        for part in arrived:
            writer.add(part)
        writer.commit()


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ({"sha256": "0" * 64}, "arrived damaged: its sha256 is"),
        ({"size": 9999}, "arrived with 2,560 bytes, announced were 9,999"),
        ({"parts": 4}, "ended without video.mp4 having arrived whole"),
        ({"part": 2}, "got part 2 of 3, expected 1 of 3"),
        ({"name": "../evil"}, r"'../evil', which was not asked for \(only video.mp4\)"),
        ({"name": "points.ply"}, "was not asked for"),
    ],
)
def test_a_broken_file_leaves_nothing(tmp_path: Path, broken: dict[str, object], sentence: str) -> None:
    folder = tmp_path / "new" / "deep"
    arrived = [ArtifactData(p.artifact.model_copy(update=broken), p.data) for p in parts()]
    with pytest.raises(JobError, match=sentence):
        receive(ArtifactWriter(folder, ["video"]), arrived)
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_another_file_of_the_same_name_is_refused(tmp_path: Path) -> None:
    first, _, _ = parts()
    _, second, _ = parts(content=b"other" * 100)
    with pytest.raises(JobError, match="do not fit"):
        receive(ArtifactWriter(tmp_path, ["video"]), [first, second])


def test_an_interrupted_job_leaves_nothing_but_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")

    def interrupted() -> Iterator[ArtifactData]:
        yield next(parts())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        receive(ArtifactWriter(tmp_path, ["video"]), interrupted())
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_existing_results_are_refused_before_the_job_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "video.mp4").write_text("precious")
    with pytest.raises(OutputExistsError, match=r"video.mp4 exists. Give --force") as error:
        ArtifactWriter(tmp_path, ["video", "points"])
    assert error.value.exit_code == 6
    ArtifactWriter(tmp_path, ["points"])
    with ArtifactWriter(tmp_path, ["video"], force=True) as writer:
        for part in parts():
            writer.add(part)
        assert (tmp_path / "video.mp4").read_text() == "precious"
        writer.commit()
    assert (tmp_path / "video.mp4").read_bytes() == CONTENT


def test_a_result_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:

    def slow() -> Iterator[ArtifactData]:
        yield from parts()
        (tmp_path / "video.mp4").write_text("of another run")

    with pytest.raises(OutputExistsError):
        receive(ArtifactWriter(tmp_path, ["video"]), slow())
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("video.mp4", "of another run")]


def test_a_folder_that_is_a_file_or_below_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        ArtifactWriter(tmp_path / "file", ["video"])
    with pytest.raises(InputError, match="cannot be written"), ArtifactWriter(tmp_path / "file" / "x", ["video"]):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_sentence_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / f".video.mp4.{os.getpid()}.part").symlink_to("/dev/full")
    with pytest.raises(ClientError, match=r"video\.mp4 cannot be written: No space left") as error:
        receive(ArtifactWriter(tmp_path, ["video"]), parts())
    assert error.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []
