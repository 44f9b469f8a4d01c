"""Podman and buildah, called for the tests; what they need on machines without systemd or a network of their own."""

import json
import os
import shutil
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TOOLS = ("buildah", "podman", "runc", "catatonit", "debootstrap")
# Ports of the host and bounded limits: neither a bridge nor the default limits can be had everywhere.
RUN = ["podman", "--runtime", "runc", "run", "--network=host", "--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096"]
UID = 10001


def require_tools() -> None:
    """Fails with what is missing."""
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing:
        pytest.fail(
            f"The tests of the images need {', '.join(missing)}, not found on this machine. On Debian: "
            f"apt-get install --no-install-recommends {' '.join(TOOLS)}",
            pytrace=False,
        )
    if os.geteuid() != 0:
        pytest.fail("The tests of the images must run as root: `sudo make image-test`.", pytrace=False)


def call(*command: str | Path, timeout_s: float = 120, **environment: str) -> str:
    """Standard output of a command; fails with its last words if it fails."""
    ended = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **environment},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    words = " ".join(map(str, command))
    assert ended.returncode == 0, f"{words} ended with {ended.returncode}: {ended.stdout[-2000:]}{ended.stderr[-4000:]}"
    return ended.stdout


def succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, cwd="/", check=False).returncode == 0


def inspect(kind: str, name: str) -> dict[str, Any]:
    """What podman knows of an image or a container."""
    (facts,) = json.loads(call("podman", kind, "inspect", name))
    assert isinstance(facts, dict)
    return facts


@contextmanager
def mounted(image: str) -> Generator[Path]:
    """The files of an image."""
    root = Path(call("podman", "image", "mount", image).strip())
    try:
        yield root
    finally:
        call("podman", "image", "unmount", image)


def files_of(root: Path) -> Iterator[Path]:
    """The regular files under `root`, relative to it; links are not followed."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield path.relative_to(root)


def compressed_bytes(image: str, scratch: Path) -> int:
    """What a registry keeps of an image: its layers, compressed with gzip."""
    call("podman", "push", "--quiet", image, f"oci:{scratch}/layout:image", timeout_s=600)
    return sum(path.stat().st_size for path in (scratch / "layout" / "blobs").rglob("*") if path.is_file())
