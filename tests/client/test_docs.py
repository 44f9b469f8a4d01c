"""The examples of docs/contract.md run, and docs/cli.md names every flag."""

import inspect
import re
from pathlib import Path
from typing import get_args

import pytest
from gen3c_client.camera_file import load_camera_file
from gen3c_client.contract import JobSpec
from gen3c_client.generate import generate
from triton_peer import Peer

DOCS = Path(__file__).parents[2] / "docs"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / "contract.md").read_text(), re.DOTALL)


@pytest.mark.server
@pytest.mark.parametrize("example", [0, 1])
def test_the_python_examples_run(
    example: int, peer: Peer, photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(photo.parent)
    (photo.parent / "photos").mkdir()
    photo.rename(photo.parent / "photos" / "a.jpg")
    exec(compile(blocks("python")[example].replace("127.0.0.1:8001", peer.url), "contract.md", "exec"), {})
    assert "denoise" in capsys.readouterr().out
    video = next(photo.parent.rglob("video.mp4"))
    assert video.read_bytes() == b"video of seed 1 " * 200


def test_the_json_examples_are_legal(tmp_path: Path) -> None:
    spec, cameras = blocks("json")
    assert JobSpec.model_validate_json(spec).select.frame_interval == 15
    (tmp_path / "path.json").write_text(cameras)
    assert load_camera_file(tmp_path / "path.json").keyframes


def test_every_flag_is_documented_and_no_other() -> None:
    flags = set()
    for parameter in inspect.signature(generate).parameters.values():
        declared = get_args(parameter.annotation)[1]
        names = [declared.default, *(declared.param_decls or ())]  # typer keeps the first name as a default
        flags |= {part for name in names if isinstance(name, str) for part in name.split("/")}
    table = (DOCS / "cli.md").read_text().partition("## Flags")[2].partition("## Results")[0]
    documented = set(re.findall(r"`(-o|-q|--[a-z-]+)", table)) - {"--help"}
    assert documented == flags - {"--no-foreground-masking"}
