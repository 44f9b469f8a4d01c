"""`gen3c serve`: what the options become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from gen3c_server import cli
from gen3c_server.launcher import ServeOptions

app = typer.Typer()
app.command()(cli.serve)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ServeOptions]:
    """The options that the launcher was called with; the command then exits with its code."""
    options: list[ServeOptions] = []

    def run(given: ServeOptions, *_: Any, **__: Any) -> int:
        options.append(given)
        return 1

    for name in ("GEN3C_PRESET", "GEN3C_DEPLOYMENT", "GEN3C_CHECKPOINTS", "GEN3C_THREADS", "GEN3C_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cli, "run_server", run)
    return options


def test_defaults(started: list[ServeOptions], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--model-repository", str(tmp_path)])
    assert result.exit_code == 1
    [options] = started
    assert (options.http_port, options.grpc_port, options.metrics_port) == (8000, 8001, 8002)
    assert (options.host, options.exit_timeout_s, options.run_dir) == ("127.0.0.1", 20.0, None)
    assert options.environment == {"GEN3C_PRESET": "tiny", "GEN3C_DEVICE": "cpu"}


def test_settings_of_the_models_become_environment(
    started: list[ServeOptions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "limits.yaml").write_text("limits: {}\n")
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
    }
    assert options.http_port is None


def test_impossible_options_are_usage_errors(started: list[ServeOptions], tmp_path: Path) -> None:
    ports = ["--http-port", "8000", "--grpc-port", "8000"]
    result = CliRunner().invoke(app, ["--model-repository", str(tmp_path), *ports])
    assert result.exit_code == 2
    assert "three different ports" in result.output
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
