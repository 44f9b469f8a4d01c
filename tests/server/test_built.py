"""Built repositories that do not fit: `gen3c serve` says so at once, and so do the models of a Triton without it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from gen3c.exported.manifest import MANIFEST, REPOSITORY
from gen3c_server import cli
from gen3c_server.canary import check
from gen3c_server.launcher import EmbeddedServer, ServeOptions
from gen3c_server.launcher.errors import ServerError
from tests.gen3c.exported.samples import H100
from tests.server.conftest import Weighted

app = typer.Typer()
app.command()(cli.serve)

FOREIGN_GPU = {"target": "cuda", "gpu": H100.model_dump()}
FOR_A_GPU = "The repository cannot be served here: it was built for NVIDIA H100 (compute capability 9.0), and there is"


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """Of the build, to change."""
    shutil.copytree(built, tmp_path / "copy")
    return tmp_path / "copy"


def change(build: Path, **values: Any) -> None:
    """Entries of the manifest."""
    content = json.loads((build / MANIFEST).read_text())
    (build / MANIFEST).write_text(json.dumps(content | values))


def refused(*arguments: str | Path, code: int = 2) -> str:
    """What `gen3c serve` says and ends with."""
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--health-port", "0"]
    ended = CliRunner().invoke(app, [*ports, *map(str, arguments)])
    assert ended.exit_code == code, ended.output
    assert "Traceback" not in ended.stderr
    assert code == 1 or ended.stderr.count("\n") == 1, "what is refused before Triton starts is one line"
    return ended.stderr.removesuffix("\n")


def alone(build: Path, model: str) -> Path:
    """The models of the build without all others, which take time to start; returns their folder."""
    for other in (build / REPOSITORY).iterdir():
        if other.name != model:
            shutil.rmtree(other)
    return build / REPOSITORY


def refused_by_a_model(build: Path, model: str, **environment: str) -> str:
    """What a plain Triton gives as the reason why the model is not loaded."""
    options = ServeOptions(alone(build, model), environment=environment)
    with EmbeddedServer(options) as server, pytest.raises(ServerError) as caught:
        server.wait_ready()
    return str(caught.value)


def test_the_source_tree_is_served_too_in_pytorch(weighted: Weighted) -> None:
    done = check(weighted.server.grpc_url)
    assert str(dict(done.provenance["weights"])["dit"]).startswith("transformer (sha256 ")  # type: ignore[call-overload]


def test_a_build_for_another_gpu_is_refused(copy: Path) -> None:
    change(copy, **FOREIGN_GPU)
    assert refused("--model-repository", copy).startswith(FOR_A_GPU)
    assert refused("--model-repository", copy / REPOSITORY).startswith(FOR_A_GPU)
    assert FOR_A_GPU in refused_by_a_model(copy, "dit")


def test_another_preset_is_refused(copy: Path) -> None:
    sentence = "it was built for preset tiny, and gen3c-7b is asked for"
    assert sentence in refused("--model-repository", copy, "--preset", "gen3c-7b")
    assert sentence in refused_by_a_model(copy, "video_decoder", GEN3C_PRESET="gen3c-7b")


def test_a_build_of_another_version_is_refused(copy: Path) -> None:
    change(copy, gen3c="0.0.9")
    said = refused("--model-repository", copy)
    assert "it was built by gen3c-triton 0.0.9, and this is " in said
    assert said.endswith("build it again with `gen3c-export build`.")


def test_a_manifest_that_cannot_be_read_is_told(copy: Path) -> None:
    (copy / MANIFEST).write_text("{")
    assert "manifest.json cannot be read as JSON" in refused("--model-repository", copy)


@pytest.mark.parametrize("missing", [REPOSITORY, "deployment.yaml"])
def test_a_build_that_is_not_whole_is_told(copy: Path, missing: str) -> None:
    (copy / missing).rename(copy / "elsewhere")
    assert refused("--model-repository", copy) == (
        f"{copy} has no {missing}; build it again with `gen3c-export build`."
    )


def test_a_damaged_artifact_ends_the_start_with_a_sentence(copy: Path) -> None:
    """Its model reads it, so that a plain Triton says the same."""
    path = alone(copy, "dit") / "dit" / "1" / "model.onnx.data"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    said = refused("--model-repository", copy, code=1)
    assert (
        "dit: model.onnx.data is not the file that was built (its SHA-256 differs from that in manifest.json)" in said
    )


def test_weights_that_the_build_was_not_made_from_are_refused(copy: Path, weighted: Weighted) -> None:
    said = refused_by_a_model(copy, "dit", GEN3C_CHECKPOINTS=str(weighted.checkpoints))
    weights = r"transformer \(sha256 (\w+)\)"
    wanted = rf"The repository's dit was built from {weights}, and this server is given {weights}"
    found = re.search(wanted, said)
    assert found, said
    assert found[1] != found[2]


@pytest.mark.parametrize("text", ["models: {dit: {instances: 2}}", "resources: {turn: 1}"])
def test_another_placement_than_the_builds_is_refused(built: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    said = refused("--model-repository", built, "--deployment", tmp_path / "mine.yaml")
    assert said.startswith(
        f"mine.yaml places the models otherwise than {built} was built for: run `gen3c-export build`"
    )


def test_another_device_than_the_builds_is_refused(built: Path) -> None:
    said = refused("--model-repository", built, "--device", "cuda")
    assert said == "The repository was built for cpu, and the device is 'cuda'."


def test_placement_without_a_build_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("models: {dit: {instances: 2}}")
    said = refused("--model-repository", Path(__file__).parents[2] / REPOSITORY, "--deployment", tmp_path / "mine.yaml")
    assert said.startswith("mine.yaml places models, and this repository was not built: run `gen3c-export build`")
