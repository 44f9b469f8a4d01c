"""Checks before anything starts. Each is a pure function of what it is given, so that each can be tested."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gen3c_server.launcher.errors import PreflightError
from gen3c_server.launcher.find import TritonInstall, Version, parse_version
from gen3c_server.launcher.options import MIB

# Servers before release 25.01 (2.54) carry pybind11 2.10, which cannot read the arrays of numpy 2: models load,
# READY is reported, and every output is empty (python_backend pull request 384).
FIRST_SERVER_WITH_NUMPY_2: Version = (2, 54)


def check_machine(install: TritonInstall, min_shm_bytes: int) -> Path:
    """Checks Python, numpy and memory. Returns the libpython that the python backend's stub must load."""
    check_stub_python(install.stub_python(), sys.version_info[:2])
    check_numpy(_installed("numpy"), install.version)
    check_python_on_path(Path(sys.prefix), Path(sys.executable))
    check_shared_memory(Path("/dev/shm"), min_shm_bytes)
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    return find_libpython(name, libpython_folders())


def check_platform(system: str = platform.system(), machine: str = platform.machine()) -> None:
    """`system` and `machine` as module `platform` names them. To be asked before a Triton is looked for."""
    if (system, machine) != ("Linux", "x86_64"):
        raise PreflightError(
            f"The Triton server runs on Linux x86-64, and this is {system} {machine}. "
            "Run it in the project's container there; the client runs everywhere."
        )


def check_stub_python(stub: tuple[int, int] | None, running: tuple[int, int]) -> None:
    """The stub embeds one Python and imports the packages of ours: the two must be the same version."""
    if stub is not None and stub != running:
        raise PreflightError(
            f"This Triton server's python backend is built for Python {stub[0]}.{stub[1]}, and gen3c is installed "
            f"in Python {running[0]}.{running[1]}. Install gen3c in a virtual environment of "
            f"Python {stub[0]}.{stub[1]}."
        )


def check_numpy(numpy: str | None, server: Version | None) -> None:
    """`numpy` is the installed version, None if absent. An unknown server is left to the first inference."""
    if numpy is None:
        raise PreflightError("numpy is not installed beside gen3c, and Triton's python models need it.")
    installed = parse_version(numpy)
    if server is None or server >= FIRST_SERVER_WITH_NUMPY_2 or installed is None or installed[0] < 2:
        return
    raise PreflightError(
        f"numpy {numpy} is installed, and Triton {server[0]}.{server[1]} would return empty tensors with it. "
        'Run `pip install "numpy<2"`, or use a Triton server of release 25.01 or later.'
    )


def check_python_on_path(prefix: Path, executable: Path) -> None:
    """The stub takes the packages of the first `python3` on PATH, so that one must be this Python."""
    python3 = prefix / "bin" / "python3"
    if not python3.exists() or python3.resolve() != executable.resolve():
        raise PreflightError(
            f"Triton's python models would not see this Python's packages: {python3} is not {executable}. "
            "Install gen3c in a virtual environment."
        )


def check_shared_memory(folder: Path, min_bytes: int) -> None:
    """Server and models exchange tensors through POSIX shared memory, mounted at `folder`."""
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise PreflightError(
            f"{folder} is missing or not writable; Triton's python models exchange tensors through it."
        )
    free = shutil.disk_usage(folder).free
    if free < min_bytes:
        raise PreflightError(
            f"{folder} has {free // MIB} MiB free and the server needs {min_bytes // MIB} MiB. In a container give "
            "it more: `docker run --shm-size=1g`, or in Kubernetes an emptyDir of medium Memory."
        )


def libpython_folders() -> list[Path]:
    """Where this interpreter's shared library can be, most specific first."""
    libdir = sysconfig.get_config_var("LIBDIR")
    multiarch = sysconfig.get_config_var("MULTIARCH")
    folders = [Path(sys.base_prefix) / "lib"]
    if libdir:
        folders.insert(0, Path(libdir))
    if libdir and multiarch:
        folders.append(Path(libdir) / multiarch)
    if multiarch:
        folders.append(Path("/usr/lib") / multiarch)
    return folders


def find_libpython(name: str, folders: Iterable[Path]) -> Path:
    """The first `name` in `folders`. Distributions ship it apart from the interpreter."""
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    package = name.partition(".so")[0]
    raise PreflightError(
        f"Triton's python backend needs {name}, which is not on this machine. On Debian and Ubuntu install "
        f"the package {package}; another Python must be one built with a shared library."
    )


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
