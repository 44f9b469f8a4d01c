"""Builds that are stopped: what was there stays, nothing half made is left to stumble over."""

import os
import signal
from pathlib import Path

import pytest
from builds import (
    NOTHING,
    contents,
    copied,
    identities,
    run,
    started,
    unfinished,
    wait_for_half_an_artifact,
)

from gen3c_export import build as building
from gen3c_export.replace import replaced


@pytest.mark.slow  # 25 s
def test_a_build_that_is_stopped_or_killed_leaves_the_earlier_one_and_can_be_taken_up_again(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(built, tmp_path)
    out, files = folder.parent, contents(folder)
    (decoder,) = (out / "artifacts").glob("video_decoder-*")
    (decoder / "artifact.json").unlink()
    others = {path: of for path, of in identities(out).items() if "video_decoder" not in path}

    with started("build", "--out", out) as process:
        wait_for_half_an_artifact(out, "video_decoder", process)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "Interrupted; what was not finished is removed."
    assert "Traceback" not in errors
    assert not unfinished(out)
    assert contents(folder) == files

    with started("build", "--out", out) as process:
        wait_for_half_an_artifact(out, "video_decoder", process)
        process.kill()
        process.communicate(timeout=60)
    assert unfinished(out), "it had no time to remove anything"
    assert contents(folder) == files
    assert run("inspect", "--files", folder) == 0

    capsys.readouterr()
    assert run("build", "--out", out) == 0
    assert not unfinished(out)
    assert (decoder / "artifact.json").is_file()
    assert {path: of for path, of in identities(out).items() if "video_decoder" not in path} == others
    assert run("inspect", "--files", folder) == 0


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A build that takes no time."""
    assert run("build", "--out", tmp_path, *NOTHING) == 0
    (tmp_path / "other.yaml").write_text("models: {dit: {instances: 2}}\n")  # for another build of the same artifacts
    return tmp_path / "tiny-cpu"


def test_an_interruption_while_the_repository_is_written_leaves_the_earlier_one(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = contents(plain)

    def interrupted(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(building.Manifest, "write", interrupted)
    assert run("build", "--out", plain.parent, *NOTHING, "--deployment", plain.parent / "other.yaml") == 130
    assert contents(plain) == files
    assert not unfinished(plain.parent)


def test_a_signal_never_falls_between_the_old_repository_and_the_new(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, asked = Path.rename, []

    def renamed(path: Path, target: Path) -> Path:
        moved = rename(path, target)
        asked.append(path)
        if path == plain:  # the earlier one has gone
            os.kill(os.getpid(), signal.SIGTERM)
        return moved

    monkeypatch.setattr(Path, "rename", renamed)
    assert run("build", "--out", plain.parent, *NOTHING, "--deployment", plain.parent / "other.yaml") == 130
    assert asked[0] == plain
    assert run("inspect", "--files", plain) == 0
    assert not unfinished(plain.parent)


def test_what_cannot_be_put_in_place_leaves_the_earlier_one(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, rename = contents(plain), Path.rename

    def renamed(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise PermissionError(13, "Permission denied", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", renamed)
    with pytest.raises(PermissionError), replaced(plain) as folder:
        (folder / "manifest.json").write_text("{}")
    assert contents(plain) == files
    assert not unfinished(plain.parent)
