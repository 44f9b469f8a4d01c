import dataclasses
import os
from pathlib import Path

import pytest
import torch
from gen3c_client.contract import Limits

from gen3c.errors import InvalidInputError
from gen3c.presets import GEN3C_7B, TINY
from gen3c_server.settings import Deployment, Settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("GEN3C_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GEN3C_RUN_DIR", str(tmp_path / "run"))


def deployment(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "deployment.yaml"
    path.write_text(text)
    return path


def test_a_deployment_file_changes_what_it_names(tmp_path: Path) -> None:
    limits = Deployment.load(deployment(tmp_path, "limits:\n  views: 3\n  job_seconds: 60\n")).limits
    assert limits == Limits(views=3, job_seconds=60.0)


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "limits: {}\n"])
def test_an_empty_deployment_file_changes_nothing(tmp_path: Path, text: str) -> None:
    assert Deployment.load(deployment(tmp_path, text)) == Deployment()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("limits:\n  viewz: 3\n", "limits.viewz: Extra inputs are not permitted (got 3)"),
        ("limit:\n  views: 3\n", "limit: Extra inputs"),
        ("limits:\n  views: many\n", "limits.views: Input should be a valid integer (got 'many')"),
        ("limits:\n  views: '3'\n", "limits.views: Input should be a valid integer (got '3')"),
        ("limits:\n  views: 0\n", "limits.views: Input should be greater than or equal to 1 (got 0)"),
        ("limits:\n  job_seconds: .inf\n", "limits.job_seconds: Input should be a finite number"),
        ("limits: 3\n", "limits: Input should be"),
        ("3\n", "Input should be"),
        ("[]\n", "Input should be"),
        ("false\n", "Input should be"),
        ("limits: [\n", "is not YAML"),
        ("limits: !!python/object/apply:os.getcwd []\n", "is not YAML"),
    ],
)
def test_a_wrong_deployment_file_is_refused_by_key_and_value(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"The deployment file deployment\.yaml is") as caught:
        Deployment.load(deployment(tmp_path, text))
    assert said in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_binary_deployment_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deployment.yaml"
    path.write_bytes(b"\xff\xfe\x00limits")
    with pytest.raises(ValueError, match=r"The deployment file deployment\.yaml is not YAML"):
        Deployment.load(path)


def test_settings_without_an_environment(tmp_path: Path) -> None:
    settings = Settings.from_environment()
    assert settings.preset is TINY
    assert settings.limits == Limits()
    assert settings.checkpoints is None
    assert settings.threads == len(os.sched_getaffinity(0))
    assert settings.jobs_dir.is_dir()
    assert settings.cancel_dir.is_dir()
    assert settings.jobs_dir.parent == settings.cancel_dir.parent == tmp_path / "run"


def test_the_run_directory_of_two_users_differs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GEN3C_RUN_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert Settings.from_environment().run_dir == tmp_path / f"gen3c-{os.getuid()}"


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GEN3C_PRESET", "gen3c-7b")
    monkeypatch.setenv("GEN3C_DEPLOYMENT", str(deployment(tmp_path, "limits:\n  queued_jobs: 0\n")))
    monkeypatch.setenv("GEN3C_CHECKPOINTS", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("GEN3C_THREADS", "3")
    settings = Settings.from_environment()
    assert settings.preset is GEN3C_7B
    assert settings.limits.queued_jobs == 0
    assert settings.checkpoints == tmp_path / "checkpoints"
    assert settings.threads == 3


def test_an_unknown_preset_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEN3C_PRESET", "huge")
    with pytest.raises(InvalidInputError, match="legal: tiny, gen3c-7b"):
        Settings.from_environment()


@pytest.mark.parametrize("threads", ["many", "-1", "1.5", ""])
def test_other_numbers_of_threads_are_refused_but_none_is_all(monkeypatch: pytest.MonkeyPatch, threads: str) -> None:
    monkeypatch.setenv("GEN3C_THREADS", threads)
    if threads:
        with pytest.raises(InvalidInputError, match=f"GEN3C_THREADS is '{threads}'"):
            Settings.from_environment()
    else:
        assert Settings.from_environment().threads == len(os.sched_getaffinity(0))


def test_torch_gets_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setenv("GEN3C_THREADS", "1")
    try:
        Settings.from_environment().apply_threads()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", ""])
def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setenv("GEN3C_DEVICE", device)
    with pytest.raises(InvalidInputError, match=rf"\(GEN3C_DEVICE\) is '{device}'; legal on this machine: cpu"):
        Settings.from_environment()


def test_networks_are_float32_on_a_cpu_and_bfloat16_on_a_gpu() -> None:
    settings = Settings.from_environment()
    assert (settings.device.type, settings.dtype) == ("cpu", torch.float32)
    assert dataclasses.replace(settings, device=torch.device("cuda")).dtype == torch.bfloat16


def test_the_log_format_is_text_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.from_environment().log_format == "text"
    monkeypatch.setenv("GEN3C_LOG_FORMAT", "json")
    assert Settings.from_environment().log_format == "json"
    monkeypatch.setenv("GEN3C_LOG_FORMAT", "xml")
    with pytest.raises(InvalidInputError, match="GEN3C_LOG_FORMAT is 'xml'; legal: text, json"):
        Settings.from_environment()
