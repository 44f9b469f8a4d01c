"""`gen3c serve`: what the options become."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from safetensors.torch import save_file
from typer.testing import CliRunner

from gen3c.generator.checkpoint import STATISTICS
from gen3c.geometry.vggt.weights import VggtSource, find_vggt, load_vggt
from gen3c.presets import GEN3C_7B, TINY, VGGT_TINY, Preset
from gen3c_server import cli, launch
from gen3c_server.launcher import ServeOptions
from gen3c_server.repository import Build
from tests.gen3c.generator.checkpoint_files import save_transformer, save_vae

app = typer.Typer()
app.command()(cli.serve)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> list[ServeOptions]:
    """The options that the launcher was called with; the command then exits with its code. Nothing is exported."""
    options: list[ServeOptions] = []
    build = Build(tmp_path_factory.mktemp("build"))
    build.deployment.touch()

    def run(given: ServeOptions, *_: Any, **__: Any) -> int:
        options.append(given)
        return 1

    for name in (
        "GEN3C_PRESET",
        "GEN3C_DEPLOYMENT",
        "GEN3C_CHECKPOINTS",
        "GEN3C_VGGT",
        "GEN3C_THREADS",
        "GEN3C_DEVICE",
        "GEN3C_LOG_FORMAT",
        "GEN3C_OTLP_ENDPOINT",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launch, "build_now", lambda *_, **__: build)
    monkeypatch.setattr(cli, "run_server", run)
    return options


def write_networks(folder: Path, preset: Preset) -> None:
    """A checkpoint directory as far as the launcher looks: the files are there, tensors are the models' matter."""
    save_transformer(folder, preset, {})
    save_vae(folder, preset, {key: torch.ones(16, preset.latent_shape[0]) for key in STATISTICS})


def test_defaults(started: list[ServeOptions], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--model-repository", str(tmp_path)])
    assert result.exit_code == 1
    [options] = started
    assert (options.http_port, options.grpc_port, options.metrics_port, options.health_port) == (8000, 8001, 8002, 8003)
    assert (options.canary_interval_s, options.canary_timeout_s, options.restarts) == (30, 60, 3)
    assert (options.host, options.exit_timeout_s, options.run_dir) == ("127.0.0.1", 20.0, None)
    assert options.environment == {"GEN3C_PRESET": "tiny", "GEN3C_DEVICE": "cpu", "GEN3C_LOG_FORMAT": "text"}
    assert options.log_format == "text"


def test_settings_of_the_models_become_environment(
    started: list[ServeOptions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "limits.yaml").write_text("limits: {}\n")
    write_networks(tmp_path, GEN3C_7B)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    arguments = (
        "--model-repository . --preset gen3c-7b --deployment limits.yaml --checkpoints . --threads 2 --device cuda:1"
    )
    CliRunner().invoke(app, [*arguments.split(), "--http-port", "0"])
    [options] = started
    # Absolute: the models run in other processes.
    assert options.environment == {
        "GEN3C_PRESET": "gen3c-7b",
        "GEN3C_DEPLOYMENT": str(tmp_path / "limits.yaml"),
        "GEN3C_CHECKPOINTS": str(tmp_path),
        "GEN3C_THREADS": "2",
        "GEN3C_DEVICE": "cuda:1",
        "GEN3C_LOG_FORMAT": "text",
    }
    assert options.http_port is None


def test_an_unknown_preset_is_refused_by_its_name(started: list[ServeOptions]) -> None:
    result = CliRunner().invoke(app, ["--preset", "foo"])
    assert result.exit_code == 2
    assert result.stderr == "preset is 'foo'; legal: tiny, gen3c-7b.\n"
    assert not started


@pytest.mark.parametrize("by", ["option", "environment"])
def test_logs_in_json_are_for_models_and_launcher(
    started: list[ServeOptions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    if by == "environment":
        monkeypatch.setenv("GEN3C_LOG_FORMAT", "json")
    CliRunner().invoke(
        app, ["--model-repository", str(tmp_path), *(["--log-format", "json"] if by == "option" else [])]
    )
    [options] = started
    assert options.log_format == "json"
    assert options.environment["GEN3C_LOG_FORMAT"] == "json"


def test_a_refusal_is_json_where_logs_are(started: list[ServeOptions]) -> None:
    result = CliRunner().invoke(app, ["--preset", "foo", "--log-format", "json"])
    assert result.exit_code == 2
    said = json.loads(result.stdout)
    assert (said["event"], said["message"]) == ("server", "preset is 'foo'; legal: tiny, gen3c-7b.")
    assert result.stderr == ""
    assert not started


def test_a_preset_that_must_be_trained_needs_a_folder(started: list[ServeOptions]) -> None:
    result = CliRunner().invoke(app, ["--preset", "gen3c-7b"])
    assert result.exit_code == 2
    assert "'gen3c-7b' needs its weights: name their folder with --checkpoints" in result.stderr
    assert not started


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("limit: {}", "The deployment file limits.yaml is wrong: limit"),
        ("limits: {frames: none}", "The deployment file limits.yaml is wrong: limits.frames"),
        ("limits: {", "The deployment file limits.yaml is not YAML"),
    ],
)
def test_a_wrong_deployment_file_ends_the_start_at_once(
    started: list[ServeOptions], tmp_path: Path, content: str, sentence: str
) -> None:
    (tmp_path / "limits.yaml").write_text(content)
    result = CliRunner().invoke(app, ["--deployment", str(tmp_path / "limits.yaml")])
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert not started


def test_checkpoints_without_a_network_end_the_start_at_once(started: list[ServeOptions], tmp_path: Path) -> None:
    def serve() -> str:
        result = CliRunner().invoke(app, ["--checkpoints", str(tmp_path)])
        assert result.exit_code == 2
        return result.stderr

    assert f"There is no transformer in {tmp_path}; legal is a directory that holds the checkpoints of tiny" in serve()
    save_transformer(tmp_path, TINY, {})
    assert f"There is no vae in {tmp_path}" in serve()
    (tmp_path / "vae").mkdir()
    assert "config.json" in serve()
    assert not started


def test_impossible_options_are_usage_errors(started: list[ServeOptions], tmp_path: Path) -> None:
    ports = ["--http-port", "8000", "--grpc-port", "8000"]
    result = CliRunner().invoke(app, ["--model-repository", str(tmp_path), *ports])
    assert result.exit_code == 2
    assert "need different ports" in result.output
    assert not started


def test_a_refused_start_exits_with_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--model-repository", str(tmp_path)])
    assert result.exit_code == 2
    assert "holds no model" in result.output


def test_a_gpu_that_is_not_there_ends_the_start_at_once(
    started: list[ServeOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    result = CliRunner().invoke(app, ["--device", "cuda:1"])
    assert result.exit_code == 2
    assert "is 'cuda:1'; legal on this machine: cpu, cuda, cuda:0" in result.stderr
    assert not started


def test_weights_of_vggt_may_lie_behind_a_link(
    started: list[ServeOptions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the cache of Hugging Face's tools: what the link points to has no ending, which tells the format."""
    (tmp_path / "blob").mkdir()
    save_file(load_vggt(VggtSource(VGGT_TINY, None)).state_dict(), tmp_path / "blob" / "0123abcd")
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blob" / "0123abcd")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["--vggt", "model.safetensors"])
    assert result.exit_code == 1, result.stderr
    [options] = started
    passed = Path(options.environment["GEN3C_VGGT"])
    assert passed == tmp_path / "model.safetensors"
    assert find_vggt(passed).config is VGGT_TINY


def test_a_file_that_is_no_vggt_ends_the_start_at_once(started: list[ServeOptions], tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    result = CliRunner().invoke(app, ["--vggt", str(tmp_path / "model.safetensors")])
    assert result.exit_code == 2
    assert "is no VGGT: aggregator.camera_token is missing" in result.stderr
    assert not started


@pytest.mark.parametrize("by", ["option", "environment"])
def test_the_endpoint_of_traces_reaches_the_models(
    started: list[ServeOptions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    url = "https://collector.example:4318/v1/traces"
    if by == "environment":
        monkeypatch.setenv("GEN3C_OTLP_ENDPOINT", url)
    CliRunner().invoke(
        app, ["--model-repository", str(tmp_path), *(["--otlp-endpoint", url] if by == "option" else [])]
    )
    [options] = started
    assert options.environment["GEN3C_OTLP_ENDPOINT"] == url


def test_an_endpoint_that_is_none_is_refused(started: list[ServeOptions]) -> None:
    result = CliRunner().invoke(app, ["--otlp-endpoint", "collector:4317"])
    assert result.exit_code == 2
    assert "--otlp-endpoint is 'collector:4317'; legal: a full URL of OTLP over HTTP" in result.stderr
    assert not started
