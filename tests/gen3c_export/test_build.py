"""`gen3c-export build`, with what `verify` and `inspect` say of what it made."""

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import yaml
from builds import DECODER_ALONE, NOTHING, contents, copied, flip, identities, run, started, unfinished

from gen3c.errors import InvalidInputError
from gen3c.exported.manifest import PROGRAMS, Artifact, Manifest
from gen3c.networks import WeightSource
from gen3c.presets import TINY
from gen3c_export import build as building
from gen3c_export.build import BuildOptions, parse_kinds
from gen3c_export.make import Request, make
from gen3c_server.deployment import Deployment

DEPLOYMENT = """
limits: {views: 7}
models: {dit: {instances: 2, batching: {max_batch_size: 4}}, conditioner: {instances: 3}}
"""


def test_a_second_build_makes_nothing(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied(built, tmp_path)
    files, made = contents(folder), identities(folder.parent)
    began = time.monotonic()
    assert run("build", "--out", folder.parent) == 0
    assert time.monotonic() - began < 5  # a minute, if it made anything
    assert capsys.readouterr().out == f"{folder}\n"
    assert identities(folder.parent) == made
    assert contents(folder) == files
    assert not unfinished(folder.parent)


def test_artifacts_are_on_the_disk_once(built: Path) -> None:
    stored = {path.stat().st_ino for path in (built.parent / "artifacts").glob("*/model.onnx*")}
    assert {path.stat().st_ino for path in built.glob("model_repository/*/1/model.onnx*")} == stored
    assert stored


def test_another_deployment_writes_configurations_alone(built: Path, tmp_path: Path) -> None:
    folder = copied(built, tmp_path)
    files, made = contents(folder), identities(folder.parent)
    (tmp_path / "mine.yaml").write_text(DEPLOYMENT)
    assert run("build", "--out", folder.parent, "--deployment", tmp_path / "mine.yaml") == 0
    now = contents(folder)
    assert {path for path in files | now if files.get(path) != now.get(path)} == {
        "deployment.yaml",
        "model_repository/dit/config.pbtxt",
        "model_repository/conditioner/config.pbtxt",
    }
    assert identities(folder.parent) == made
    assert Deployment.load(folder / "deployment.yaml") == Deployment.model_validate(yaml.safe_load(DEPLOYMENT))


def test_a_damaged_artifact_is_noticed_and_repaired(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(built, tmp_path)
    flip(folder / "model_repository" / "video_decoder" / "1" / "model.onnx.data")
    sentence = "Error: video_decoder: model.onnx.data is not the file that was built (its SHA-256 differs"
    for command in (["inspect", "--files"], ["verify"]):
        assert run(*command, folder) == 1
        errors = capsys.readouterr().err
        assert sentence in errors
        assert "Traceback" not in errors
    assert run("inspect", folder) == 0, "a look at the manifest alone reads no files"
    others = {path: of for path, of in identities(folder.parent).items() if "video_decoder" not in path}
    # The file of the store is the same one. It is made again, and what is intact is not.
    assert run("build", "--out", folder.parent) == 0
    assert {path: of for path, of in identities(folder.parent).items() if "video_decoder" not in path} == others
    assert not unfinished(folder.parent)
    capsys.readouterr()
    assert run("inspect", "--files", folder) == 0
    assert "All files are as they were built." in capsys.readouterr().out
    assert run("verify", folder, "--seed", "5") == 0
    verdicts = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in verdicts] == [
        ["ok", name, graph.file]
        for name, artifact in Manifest.read(folder).artifacts.items()
        for graph in artifact.graphs
        for _ in graph.checks
    ]


def test_a_file_of_the_repository_that_was_replaced_is_repaired_without_making_it(built: Path, tmp_path: Path) -> None:
    folder = copied(built, tmp_path)
    files, made = contents(folder), identities(folder.parent)
    graph = folder / "model_repository" / "dit" / "1" / "model.onnx"
    graph.unlink()
    graph.write_bytes(b"mine")
    assert run("inspect", "--files", folder) == 1
    assert run("build", "--out", folder.parent) == 0
    assert contents(folder) == files
    assert identities(folder.parent) == made


def test_two_builds_at_once_make_each_artifact_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    both = threading.Barrier(2)

    def slowly(request: Request, weights: str, key: str, folder: Path) -> Artifact:
        made.append(request.program)
        time.sleep(0.2)  # for the other one to come
        return make(request, weights, key, folder)

    def one(_: int) -> Path:
        both.wait()
        return building.build(
            BuildOptions(WeightSource(TINY), "cpu", tmp_path, kinds=dict.fromkeys(PROGRAMS, "pytorch"))
        )

    monkeypatch.setattr(building, "make", slowly)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(one, range(2))) == [tmp_path / "tiny-cpu"] * 2
    assert sorted(made) == sorted(PROGRAMS)
    assert not unfinished(tmp_path)
    assert set(Manifest.read(tmp_path / "tiny-cpu").artifacts) == set(PROGRAMS)


@pytest.mark.slow
def test_two_programs_at_once_make_each_artifact_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    both = [started("build", "--out", out, *DECODER_ALONE) for _ in range(2)]
    ended = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    for program in PROGRAMS:
        said = [line for _, errors in ended for line in errors.splitlines() if f"{program}: " in line]
        assert sum(f"{program}: built in" in line for line in said) == 1, said
        assert sum(f"{program}: unchanged" in line for line in said) == 1, said
    assert not unfinished(out)
    assert run("inspect", "--files", out / "tiny-cpu") == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB, less than an artifact; skips where it may not be made."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True, check=False)
    if mount.returncode != 0:
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_disk_that_is_too_small_is_told_before(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("build", "--out", small_disk, *DECODER_ALONE) == 1
    errors = capsys.readouterr().err
    assert f"GB in {small_disk}, but 0.00 GB are free; make room, or name another folder with --out." in errors
    assert "exporting" not in errors
    assert not list(small_disk.rglob("*.onnx*"))


def test_a_disk_that_is_full_costs_the_new_build_alone(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Full while the repository is written: what is linked takes no room, its configurations do."""
    (tmp_path / "mine.yaml").write_text(DEPLOYMENT)
    monkeypatch.setattr(building, "check_space", lambda *_: None)  # as if somebody else filled it meanwhile
    assert run("build", "--out", small_disk, *NOTHING) == 0
    files = contents(small_disk)
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    capsys.readouterr()
    assert run("build", "--out", small_disk, *NOTHING, "--deployment", tmp_path / "mine.yaml") == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"Error: The disk of {small_disk} is full; make room, or name another folder with --out."
    )
    (small_disk / "filler").unlink()
    assert not unfinished(small_disk)
    assert contents(small_disk) == files
    assert run("build", "--out", small_disk, *NOTHING) == 0


@pytest.mark.slow
def test_a_disk_that_fills_up_while_it_exports_costs_the_new_build_alone(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(building, "check_space", lambda *_: None)  # as if somebody else filled it meanwhile
    assert run("build", "--out", small_disk, *NOTHING) == 0
    files = contents(small_disk)
    capsys.readouterr()
    assert run("build", "--out", small_disk, *DECODER_ALONE) == 1
    errors = capsys.readouterr().err
    assert errors.splitlines()[-1] == (
        f"Error: The disk of {small_disk} is full; make room, or name another folder with --out."
    )
    assert "Traceback" not in errors
    assert not unfinished(small_disk)
    assert {path: data for path, data in contents(small_disk).items() if not path.endswith(".lock")} == {
        path: data for path, data in files.items() if not path.endswith(".lock")
    }
    assert run("inspect", "--files", small_disk / "tiny-cpu") == 0


def test_programs_are_served_in_pytorch_as_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("build", "--out", tmp_path, *NOTHING) == 0
    manifest = Manifest.read(tmp_path / "tiny-cpu")
    for name in ("dit", "video_encoder", "video_decoder"):
        artifact = manifest.artifacts[name]
        assert (artifact.kind, artifact.reason, artifact.files) == ("pytorch", "as asked for", [])
    assert manifest.artifacts["vggt"].reason.startswith("ONNX Runtime ")  # as nobody asked for
    capsys.readouterr()
    assert run("inspect", tmp_path / "tiny-cpu") == 0
    assert "dit: PyTorch, not exported, float32 (as asked for), 0.0 MB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--target", "tpu"], "target is 'tpu'; legal: cpu, cuda, tensorrt."),
        (["--preset", "huge"], "preset is 'huge'; legal: tiny, gen3c-7b."),
        (["--kind", "dit=torchscript"], "--kind is 'dit=torchscript'; legal: NAME=KIND, with one of dit, "),
        (["--kind", "unet=onnx"], "--kind is 'unet=onnx'; legal: NAME=KIND, with one of dit, "),
        (["--kind", "dit"], "--kind is 'dit'; legal: NAME=KIND, "),
        (["--kind", "dit=aoti"], "--kind is dit=aoti; legal for target cpu: dit=onnx, dit=pytorch."),
        (["--fp8"], "--fp8 is for target cuda; the target is cpu."),
        (["--native"], "--native is for target cuda; the target is cpu."),
        (["--target", "cuda"], "Target cuda is built on the GPU that will serve it, and PyTorch sees none here; "),
        (["--target", "tensorrt"], "Target tensorrt is built on the GPU that will serve it, and PyTorch sees none "),
    ],
)
def test_what_cannot_be_built_is_one_sentence_and_no_folder(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run("build", "--out", tmp_path / "out", *arguments) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"Error: {sentence}")
    assert not (tmp_path / "out").exists()


def test_a_deployment_of_another_target_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("models: {dit: {gpus: [0]}}\n")
    assert run("build", "--out", tmp_path / "out", "--deployment", tmp_path / "mine.yaml") == 1
    assert "models.dit.gpus is [0], and a repository for cpu has none for it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_build_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And is refused before anything is made."""
    (tmp_path / "tiny-cpu").mkdir()
    (tmp_path / "tiny-cpu" / "thesis.tex").write_text("mine")
    assert run("build", "--out", tmp_path) == 1
    assert "tiny-cpu is no built repository (it has no manifest.json) and is not replaced" in capsys.readouterr().err
    assert contents(tmp_path) == {"tiny-cpu/thesis.tex": b"mine"}


@pytest.mark.parametrize("command", [["inspect"], ["verify"]])
def test_a_folder_without_a_manifest_is_told(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command, tmp_path) == 1
    assert f"Error: {tmp_path / 'manifest.json'} cannot be read: No such file or directory." in capsys.readouterr().err


def test_kinds_are_read_by_program() -> None:
    assert parse_kinds(["dit=pytorch", "vggt=onnx"]) == {"dit": "pytorch", "vggt": "onnx"}
    with pytest.raises(InvalidInputError, match="legal: NAME=KIND"):
        parse_kinds(["=onnx"])


@pytest.mark.parametrize("name", ["../elsewhere", "/tmp/elsewhere", ".hidden", ""])
def test_a_build_stays_in_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="legal: a folder's name without a path"):
        building.build(BuildOptions(WeightSource(TINY), "cpu", tmp_path / "out", name=name))
    assert not list(tmp_path.iterdir())
