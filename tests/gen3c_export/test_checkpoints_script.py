"""What the chart's init container does with the hub: deploy/helm/gen3c/files/checkpoints.sh, with the real `hf`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from hub import Hub, serve
from official_files import Published

from gen3c.generator.weights import load_dit, load_vae
from tests.cosmos import TINY_COSMOS

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "gen3c"
SCRIPT = CHART / "files" / "checkpoints.sh"
DOWNLOAD = yaml.safe_load((CHART / "values.yaml").read_text())["checkpoints"]["download"]
# The exporter; its preset gen3c-7b has the sizes of the small files here.
EXPORTER = """#!{python}
import sys
sys.path.insert(0, {root!r})
from gen3c.presets import PRESETS
from tests.cosmos import TINY_COSMOS
PRESETS["gen3c-7b"] = TINY_COSMOS
from gen3c_export.cli import main
main()
"""


@pytest.fixture
def hub(published: Published, tmp_path: Path) -> Iterator[Hub]:
    (tmp_path / "vggt.safetensors").write_bytes(b"not read here")
    repositories = {
        DOWNLOAD["transformer"]["repository"]: {"model.pt": published.folder / "model.pt"},
        DOWNLOAD["tokenizer"]["repository"]: {
            name: published.folder / name for name in ("encoder.jit", "decoder.jit", "mean_std.pt")
        },
        "facebook/VGGT-1B": {"model.safetensors": tmp_path / "vggt.safetensors"},
    }
    with serve(Hub(repositories)) as found:
        yield found


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "hf").symlink_to(Path(sys.executable).parent / "hf")
    (folder / "gen3c-export").write_text(EXPORTER.format(python=sys.executable, root=str(ROOT)))
    (folder / "gen3c-export").chmod(0o755)
    return folder


def environment(url: str, programs: Path, volume: Path, vggt: str = "") -> dict[str, str]:
    """The variables of the container, which tests/deploy looks at."""
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(volume.parent),
        "GEN3C_CHECKPOINTS": str(volume / "gen3c-7b"),
        "PUBLISHED": str(volume / ".published"),
        "PRESET": "gen3c-7b",
        "TRANSFORMER": DOWNLOAD["transformer"]["repository"],
        "TRANSFORMER_REVISION": "v1",
        "TOKENIZER": DOWNLOAD["tokenizer"]["repository"],
        "TOKENIZER_REVISION": "main",
        "VGGT": vggt,
        "VGGT_REVISION": "main",
        "HF_ENDPOINT": url,
        "HF_TOKEN": "hf_secret",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    }


def run(hub: Hub, programs: Path, volume: Path, vggt: str = "") -> subprocess.CompletedProcess[str]:
    """The script."""
    variables = environment(hub.url, programs, volume, vggt)
    return subprocess.run(["sh", SCRIPT], env=variables, capture_output=True, text=True, timeout=120, check=False)


def test_weights_are_downloaded_and_converted_once(hub: Hub, programs: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    ended = run(hub, programs, volume)
    assert ended.returncode == 0, ended.stderr
    load_dit(TINY_COSMOS, volume / "gen3c-7b")
    load_vae(TINY_COSMOS, volume / "gen3c-7b")
    assert sorted(hub.downloads) == ["decoder.jit", "encoder.jit", "mean_std.pt", "model.pt"]
    assert "v1" in hub.revisions
    assert "Bearer hf_secret" in hub.tokens
    assert [path.name for path in (volume / ".published").iterdir()] == ["lock"]  # no second copy of 15 GB

    hub.repositories.clear()
    assert run(hub, programs, volume).returncode == 0

    hub.downloads.clear()
    hub.repositories["facebook/VGGT-1B"] = {"model.safetensors": tmp_path / "vggt.safetensors"}
    ended = run(hub, programs, volume, vggt="facebook/VGGT-1B")
    assert ended.returncode == 0, ended.stderr
    assert hub.downloads == ["model.safetensors"]
    assert (volume / "gen3c-7b" / "vggt" / "model.safetensors").read_bytes() == b"not read here"
    load_dit(TINY_COSMOS, volume / "gen3c-7b")


@pytest.mark.slow
def test_a_download_that_broke_off_goes_on(hub: Hub, programs: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    missing = hub.repositories.pop(DOWNLOAD["tokenizer"]["repository"])
    ended = run(hub, programs, volume)
    assert ended.returncode != 0
    assert not (volume / "gen3c-7b").exists()

    hub.repositories[DOWNLOAD["tokenizer"]["repository"]] = missing
    ended = run(hub, programs, volume)
    assert ended.returncode == 0, ended.stderr
    assert hub.downloads.count("model.pt") == 1
    load_dit(TINY_COSMOS, volume / "gen3c-7b")


@pytest.mark.slow
def test_pods_that_share_the_volume_download_once(hub: Hub, programs: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    with ThreadPoolExecutor(2) as pods:
        ended = list(pods.map(lambda _: run(hub, programs, volume), range(2)))
    assert [one.returncode for one in ended] == [0, 0], [one.stderr for one in ended]
    assert hub.downloads.count("model.pt") == 1


@pytest.mark.parametrize("slow", ["hf", "gen3c-export", "flock"])
def test_a_pod_that_goes_does_not_wait_for_the_download(tmp_path: Path, slow: str) -> None:
    """Whatever is at work: the download, the conversion, or another pod that is at them."""
    programs, volume = tmp_path / "bin", tmp_path / "volume"
    programs.mkdir()
    for name in ("hf", "gen3c-export", "flock"):
        work = f'echo $$ > "{tmp_path}/writing" && mv "{tmp_path}/writing" "{tmp_path}/at-work" && exec sleep 60'
        (programs / name).write_text(f"#!/bin/sh\n{work if name == slow else 'exit 0'}\n")
        (programs / name).chmod(0o755)
    variables = environment("http://127.0.0.1:9", programs, volume)
    with subprocess.Popen(["sh", SCRIPT], env=variables) as script:
        deadline = time.monotonic() + 30
        while not (tmp_path / "at-work").exists():
            assert script.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        script.send_signal(signal.SIGTERM)
        try:
            assert script.wait(10) == 143
        finally:
            script.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "at-work").read_text()), 0)
