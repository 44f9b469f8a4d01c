"""What is in the images, and what is not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.image.conftest import ROOT, Build
from tests.image.podman import RUN, UID, call, compressed_bytes, files_of, inspect, mounted

MB = 10**6
CLIENT_COMPRESSED, CLIENT_UNPACKED = 120 * MB, 320 * MB
BUILD_TOOLS = re.compile(
    r"(.*-)?(gcc|g\+\+|cc|c\+\+|cpp|clang(\+\+)?|ld|as|make|cmake|ninja|nvcc|rustc|pip3?)(-?[\d.]+)?"
)
WEIGHTS = {".safetensors", ".pt", ".pth", ".pt2", ".ckpt", ".bin", ".onnx", ".plan", ".engine"}
PACKAGED = "site-packages/gen3c/checkpoints/tiny/"
WEIGHTS_FROM = MB // 4  # smaller files of these endings are examples of the packages that read them
PIP_CACHES = {"root/.cache", "tmp/.cache", "wheel", "tools", "requirements", "source", "etc/pip.conf"}

targets = pytest.mark.parametrize("target", ["client", "server", "export"])


def test_the_dockerfile_has_no_faults() -> None:
    linted = subprocess.run(
        [Path(sys.executable).parent / "hadolint", "--no-color", ROOT / "docker" / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode == 0, linted.stdout


@targets
def test_an_image_has_no_compiler_no_cache_and_no_weights_but_tiny_ones(build: Build, target: str) -> None:
    with mounted(build(target)) as root:
        files = list(files_of(root))
        programs = {
            path.name
            for folder in ("bin", "usr/bin", "usr/local/bin", "opt/gen3c/bin")
            for path in (root / folder).iterdir()
        }
        weights = [
            str(path)
            for path in files
            if path.suffix in WEIGHTS and PACKAGED not in str(path) and (root / path).stat().st_size > WEIGHTS_FROM
        ]
        packaged = [path for path in files if PACKAGED in str(path) and path.suffix == ".safetensors"]
        caches = [name for name in PIP_CACHES if (root / name).exists()]
        torch = [path for path in files if "site-packages/torch/" in str(path)]
    assert [name for name in sorted(programs) if BUILD_TOOLS.fullmatch(name)] == []
    assert weights == []
    assert caches == []
    assert len(packaged) == (0 if target == "client" else 3)
    assert bool(torch) == (target != "client")
    print(f"\n{target}: {inspect('image', build(target))['Size'] / MB:.0f} MB unpacked, {len(files)} files")


@targets
def test_an_image_names_itself_and_a_user_that_is_not_root(build: Build, target: str) -> None:
    facts = inspect("image", build(target))["Config"]
    assert facts["User"] == f"{UID}:{UID}"
    labels = {name.rpartition(".")[2]: value for name, value in facts["Labels"].items() if "opencontainers" in name}
    assert labels["title"] == f"gen3c-{target}"
    assert labels["licenses"] == "Apache-2.0"
    assert set(labels) >= {"description", "version", "revision"}
    version = call(*RUN, "--rm", "--read-only", "--cap-drop=ALL", "--entrypoint=gen3c", build(target), "version")
    assert version.startswith(f"gen3c-triton {labels['version']},")


@targets
def test_no_program_of_ours_can_be_changed_by_the_user_that_runs_it(build: Build, target: str) -> None:
    with mounted(build(target)) as root:
        for path in (root / "opt" / "gen3c").rglob("*"):
            status = path.lstat()
            assert status.st_uid == 0, path
            assert path.is_symlink() or not status.st_mode & 0o022, path


def test_the_client_is_small(build: Build, tmp_path: Path) -> None:
    unpacked, compressed = inspect("image", build("client"))["Size"], compressed_bytes(build("client"), tmp_path)
    print(f"\nclient: {compressed / MB:.0f} MB compressed, {unpacked / MB:.0f} MB unpacked")
    assert compressed <= CLIENT_COMPRESSED
    assert unpacked <= CLIENT_UNPACKED
