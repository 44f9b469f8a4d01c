"""The images, built once for all tests here, each layer only when it has changed."""

import os
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from tests.image import base, pip_configuration
from tests.image.podman import call, require_tools

ROOT = Path(__file__).resolve().parents[2]
NAMES = {target: f"localhost/gen3c-test/{target}" for target in ("client", "server", "export")}
BUILD_TIMEOUT_S = 2400

Build = Callable[[str], str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.image)


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A function from a target of the Dockerfile to the name of its image."""
    require_tools()
    chosen = os.environ.get("BASE") or base.stand_in()
    pip = pip_configuration.read()
    configuration = tmp_path_factory.mktemp("pip") / "pip.conf"
    configuration.write_text(pip.text)
    arguments = [f"--build-arg=BASE={chosen}", f"--build-arg=CLIENT_BASE={chosen}"]
    torch_index = os.environ.get("TORCH_INDEX") or ("" if pip.has_torch_for_cpus() else None)
    if torch_index is not None:
        arguments.append(f"--build-arg=TORCH_INDEX={torch_index}")
    arguments += [f"--volume={here}:{there}:ro" for here, there in pip.mounts.items()]
    arguments.append(f"--secret=id=pip,src={configuration}")
    done: set[str] = set()

    def build_target(target: str) -> str:
        if target not in done:
            started = time.monotonic()
            # HEALTHCHECK is in Docker's format only. chroot: an outer container seldom allows more.
            call(
                *("buildah", "bud", "--format", "docker", "--layers", "--file", str(ROOT / "docker" / "Dockerfile")),
                *("--target", target, "--tag", NAMES[target], *arguments, str(ROOT)),
                timeout_s=BUILD_TIMEOUT_S,
                BUILDAH_ISOLATION="chroot",
            )
            done.add(target)
            print(f"\n{target}: built in {time.monotonic() - started:.0f} s")
        return NAMES[target]

    return build_target


@pytest.fixture(scope="session")
def built(build: Build) -> Generator[str]:
    """The volume that servers serve."""
    from tests.image import containers  # which needs what is above

    with containers.volume(build) as volume:
        yield volume
