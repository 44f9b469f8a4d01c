"""Whether a built repository can run where it is."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import torch

import gen3c
from gen3c.errors import InvalidInputError
from gen3c.exported.manifest import Artifact, Gpu, Manifest, signature_problem
from gen3c.networks import NETWORKS

RUNTIMES: Mapping[str, str] = {"onnx": "onnxruntime", "aoti": "torch"}  # what runs a kind of artifact in a python model
_AGAIN = "build it again with `gen3c-export build`"


@dataclass(frozen=True)
class Machine:
    """What of a machine decides which artifacts run on it."""

    gpu: Gpu | None
    packages: Mapping[str, str]  # installed versions

    @classmethod
    def here(cls, device: torch.device | None = None) -> "Machine":
        """This one, with its first GPU or the one that `device` names."""
        return cls(gpu_here(device), installed(("gen3c-triton", *RUNTIMES.values())))


def gpu_here(device: torch.device | None = None) -> Gpu | None:
    """The GPU that `device` is, else the first one; None without."""
    if (device is not None and device.type != "cuda") or not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(device or 0)
    return Gpu(name=properties.name, capability=f"{properties.major}.{properties.minor}")


def installed(packages: tuple[str, ...]) -> dict[str, str]:
    """The versions of those that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def code_digest() -> str:
    """Of the code that decides what a network computes, and how its artifact is called."""
    return digest_of(gen3c, ("*.py", "generator/*.py", "geometry/vggt/*.py", "exported/*.py"))


def digest_of(package: ModuleType, patterns: tuple[str, ...]) -> str:
    """SHA-256 of the names and contents of a package's files."""
    digest = hashlib.sha256()
    root = Path(str(package.__path__[0]))
    for path in sorted({path for pattern in patterns for path in root.glob(pattern)}):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def check_fits(manifest: Manifest, machine: Machine, preset: str | None = None) -> None:
    """Raises InvalidInputError with one sentence if a server of `machine` (and `preset`) cannot run the repository."""
    problem = _problem(manifest, machine, preset)
    if problem:
        raise InvalidInputError(f"The repository cannot be served here: {problem}.", field="manifest")


def _problem(manifest: Manifest, machine: Machine, preset: str | None) -> str | None:
    """The first reason against it."""
    ours = machine.packages.get("gen3c-triton")
    if preset is not None and preset != manifest.preset:
        return f"it was built for preset {manifest.preset}, and {preset} is asked for"
    if manifest.gen3c != ours:
        return f"it was built by gen3c-triton {manifest.gen3c}, and this is {ours}; {_AGAIN}"
    if manifest.code != code_digest():
        return f"it was built by other code of gen3c-triton {ours}; {_AGAIN}"
    if manifest.gpu is not None and (problem := _gpu_problem(manifest.gpu, machine.gpu)):
        return problem
    for artifact in manifest.artifacts.values():
        if problem := _artifact_problem(artifact, machine):
            return problem
    return None


def _gpu_problem(built: Gpu, here: Gpu | None) -> str | None:
    if here is None:
        return f"it was built for {_described(built)}, and there is no GPU here"
    if here.capability != built.capability:
        return f"it was built for {_described(built)}, and this is {_described(here)}; {_AGAIN}"
    return None


def _artifact_problem(artifact: Artifact, machine: Machine) -> str | None:
    name = artifact.program
    if name not in NETWORKS:
        return f"it holds {name!r}, which this version does not know; legal: {', '.join(NETWORKS)}"
    found = signature_problem(artifact, NETWORKS[name].signature) or _version_problem(artifact, machine)
    return f"{found}; {_AGAIN}" if found else None


def _described(gpu: Gpu) -> str:
    return f"{gpu.name} (compute capability {gpu.capability})"


def _version_problem(artifact: Artifact, machine: Machine) -> str | None:
    """Compiled code needs the very torch that it was compiled with; an ONNX Runtime reads the graphs of older ones."""
    runtime = RUNTIMES.get(artifact.kind)
    if runtime is None or artifact.platform != "python":
        return None
    built, here = artifact.packages.get(runtime), machine.packages.get(runtime)
    if here is None:
        return f"{artifact.program} needs {runtime}, which is not installed"
    if artifact.kind == "aoti":
        return None if built == here else f"{artifact.program} was compiled with torch {built}, and this is {here}"
    if built is not None and _numbers(here) < _numbers(built):
        return f"{artifact.program} was made for {runtime} {built}, and this is {here}"
    return None


def _numbers(text: str) -> tuple[int, ...]:
    """Major and minor version."""
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])
