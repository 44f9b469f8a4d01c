"""What `gen3c serve` serves: which repository, and the export at the first start."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gen3c_server import launch, repository
from gen3c_server.launch import Wishes, plan
from gen3c_server.launcher.errors import PreflightError
from gen3c_server.repository import Build, build_folder, build_now, default_model_repository, find_build


def whole(folder: Path) -> Build:
    """Files where a build has them."""
    (folder / "model_repository").mkdir(parents=True)
    for name in ("manifest.json", "deployment.yaml"):
        (folder / name).touch()
    return Build(folder)


def test_a_build_is_found_by_its_folder_and_by_its_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = whole(tmp_path / "tiny-cpu")
    assert find_build(build.folder) == build
    assert find_build(build.models) == build
    monkeypatch.chdir(build.models)
    assert find_build(Path()) == build
    monkeypatch.chdir(build.folder)
    assert find_build(Path("model_repository")) == build


def test_what_is_no_build_is_a_plain_repository(tmp_path: Path) -> None:
    assert find_build(default_model_repository()) is None
    assert find_build(tmp_path) is None
    build = whole(tmp_path / "tiny-cpu")
    shutil.copytree(build.models, build.folder / "mine")
    assert find_build(build.folder / "mine") is None


@pytest.mark.parametrize("missing", ["model_repository", "deployment.yaml"])
def test_a_build_that_is_not_whole_is_told(tmp_path: Path, missing: str) -> None:
    build = whole(tmp_path / "tiny-cpu")
    (build.folder / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(PreflightError, match=f"tiny-cpu has no {missing}; build it again"):
        find_build(build.folder)


def test_builds_are_kept_in_the_checkout() -> None:
    assert build_folder() == Path(__file__).parents[2] / "build"


def test_tiny_is_exported_with_what_the_server_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, asked, said = whole(tmp_path / "tiny-cpu"), [], []
    (tmp_path / "limits.yaml").write_text("limits: {views: 3}")

    def export(out: Path, **options: object) -> Build:
        asked.append((out, options))
        return build

    monkeypatch.setattr(launch, "build_now", export)
    wishes = Wishes(None, None, tmp_path / "limits.yaml", None, None, 2, None)
    planned = plan(wishes, said.append)
    [(out, options)] = asked
    assert out == build_folder()
    assert options["deployment"] == tmp_path / "limits.yaml"
    assert planned.models == build.models
    assert planned.environment == {
        "GEN3C_PRESET": "tiny",
        "GEN3C_DEVICE": "cpu",
        "GEN3C_DEPLOYMENT": str(tmp_path / "limits.yaml"),
        "GEN3C_THREADS": "2",
    }
    assert "networks exported" in planned.note


def test_a_repository_that_was_not_built_is_served_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "build_now", lambda *_, **__: pytest.fail("exported"))
    planned = plan(Wishes(None, default_model_repository(), None, None, None, None, None), print)
    assert planned.models == default_model_repository()
    assert planned.environment == {"GEN3C_PRESET": "tiny", "GEN3C_DEVICE": "cpu"}
    assert "networks in PyTorch" in planned.note


def test_the_first_start_exports_and_the_second_does_not(built: Path, tmp_path: Path) -> None:
    """But for what is missing: here nothing is."""
    subprocess.run(["cp", "-a", built.parent, tmp_path / "out"], check=True)
    said: list[str] = []
    build = build_now(tmp_path / "out", checkpoints=None, vggt=None, deployment=None, say=said.append)
    assert build.folder == tmp_path / "out" / "tiny-cpu"
    assert said == []
    shutil.rmtree(build.folder)
    assert build_now(tmp_path / "out", checkpoints=None, vggt=None, deployment=None, say=said.append) == build
    assert said == [f"Exporting the networks to {build.folder}, once; it takes about a minute."]
    assert find_build(build.folder) == build


def test_an_export_that_fails_ends_the_start_with_a_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny-cpu").mkdir()  # and is no build
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(PreflightError, match="could not be exported, for the reason above"):
        build_now(tmp_path, checkpoints=None, vggt=None, deployment=None, say=print)
    assert "is no built repository" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_stop_while_it_exports_stops_the_exporter(tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    code = (
        "import os, signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (open({str(stopped)!r}, 'w').close(), sys.exit(1)))\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(30)\n"
    )
    with pytest.raises(SystemExit) as ended:
        repository._run([sys.executable, "-c", code])
    assert ended.value.code == 128 + signal.SIGTERM
    assert stopped.exists()
