"""Where a Triton server is on this machine, and what is known of it before it runs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from gen3c_server.launcher.errors import PreflightError

Version = tuple[int, int]

SYSTEM_TRITON = Path("/opt/tritonserver")
WHEEL = "nvidia-pytriton"
# The wheel does not say which server it carries. 2.51 is release 24.10.
SERVER_OF_WHEEL: Mapping[str, Version] = {"0.7.0": (2, 51)}
STUB = "triton_python_backend_stub"


@dataclass(frozen=True)
class TritonInstall:
    """A Triton server on disk. `version` is (2, minor), None where nothing tells; 2.51 is release 24.10."""

    root: Path
    version: Version | None
    stub: Path

    @property
    def binary(self) -> Path:
        return self.root / "bin" / "tritonserver"

    @property
    def backends(self) -> Path:
        return self.root / "backends"

    @property
    def stub_is_in_place(self) -> bool:
        """Whether the python backend finds its stub by itself: it looks only in its own folder."""
        return self.stub.parent == self.backends / "python"

    def stub_python(self) -> tuple[int, int] | None:
        """The Python (major, minor) that the stub is linked against, read from the file's library names."""
        match = re.search(rb"libpython(\d+)\.(\d+)\.so", self.stub.read_bytes())
        return (int(match[1]), int(match[2])) if match else None


def find_triton(triton: Path | None = None) -> TritonInstall:
    """The server at `triton` if given, else at /opt/tritonserver, else the one of the nvidia-pytriton wheel.

    Raises PreflightError with what to install when there is none.
    """
    if triton is not None:
        if not (triton / "bin" / "tritonserver").is_file():
            raise PreflightError(f"There is no Triton server in {triton}: {triton}/bin/tritonserver is missing.")
        return _describe(triton)
    wheel = _wheel_root()
    for root in (SYSTEM_TRITON, wheel):
        if root is not None and (root / "bin" / "tritonserver").is_file():
            return _describe(root)
    raise PreflightError(
        f"No Triton server was found: neither in {SYSTEM_TRITON} nor in the Python package {WHEEL}. "
        'Install it with `pip install "gen3c-triton[serve,embedded]"` or name its folder with --triton.'
    )


def parse_version(text: str) -> Version | None:
    """`2.51.0` -> (2, 51); None for anything that is not a version."""
    match = re.match(r"\s*(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def _wheel_root() -> Path | None:
    spec = find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "tritonserver"


def _describe(root: Path) -> TritonInstall:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    in_place = root / "backends" / "python" / STUB
    beside = root / "python_backend_stubs" / python / STUB
    stub = in_place if in_place.is_file() else beside
    if not stub.is_file():
        raise PreflightError(
            f"The Triton server in {root} has no python backend for Python {python}: {beside} is missing."
        )
    return TritonInstall(root, _server_version(root), stub)


def _server_version(root: Path) -> Version | None:
    if root == _wheel_root():
        try:
            return SERVER_OF_WHEEL.get(version(WHEEL))
        except PackageNotFoundError:
            return None
    file = root / "TRITON_VERSION"
    return parse_version(file.read_text() if file.is_file() else os.environ.get("TRITON_SERVER_VERSION", ""))
