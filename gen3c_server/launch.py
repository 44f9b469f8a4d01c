"""What `gen3c serve` serves, given its options: the repository, what the models are told, and Triton's flags.

Refuses what the models would refuse once Triton has started. What needs torch, which takes a second to import, is
looked at only where it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gen3c.errors import InvalidInputError
from gen3c.presets import Preset, get_preset
from gen3c_server.launcher.errors import PreflightError
from gen3c_server.repository import BUILT_PRESET, Build, build_folder, build_now, default_model_repository, find_build


@dataclass(frozen=True)
class Wishes:
    """The options that decide what is served; None is the default."""

    preset: str | None
    repository: Path | None
    deployment: Path | None
    checkpoints: Path | None
    vggt: Path | None
    threads: int | None
    device: str | None


@dataclass(frozen=True)
class Plan:
    """What to start."""

    models: Path
    environment: dict[str, str]
    flags: tuple[str, ...]  # of tritonserver
    note: str  # for the line that says that the server is ready


def plan(wishes: Wishes, say: Callable[[str], None]) -> Plan:
    """Decide and check. Raises ValueError (InvalidInputError) or PreflightError with a sentence."""
    build = find_build(wishes.repository) if wishes.repository is not None else None
    flags: tuple[str, ...] = ()
    if build is not None:
        preset, device = _check_build(build, wishes)
    else:
        preset, device = get_preset(wishes.preset or BUILT_PRESET), wishes.device or "cpu"
        _check_checkpoints(preset, wishes)
        if device != "cpu":
            _check_device(device)
        if wishes.repository is None and preset.name == BUILT_PRESET and device == "cpu":
            if wishes.deployment is not None:
                _deployment_flags(wishes.deployment)  # refused here, not after a minute of exporting
            build = build_now(
                build_folder(),
                checkpoints=wishes.checkpoints,
                vggt=wishes.vggt,
                deployment=wishes.deployment,
                say=say,
            )
    environment = {"GEN3C_PRESET": preset.name, "GEN3C_DEVICE": device}
    if build is not None:
        flags = _deployment_flags(build.deployment)
        models, how = build.models, "networks exported"
        environment["GEN3C_DEPLOYMENT"] = str((wishes.deployment or build.deployment).resolve())
    else:
        models, how = wishes.repository or default_model_repository(), "networks in PyTorch"
        if wishes.deployment is not None:
            _refuse_placement(wishes.deployment)
            environment["GEN3C_DEPLOYMENT"] = str(wishes.deployment.resolve())
    if wishes.checkpoints is not None:
        environment["GEN3C_CHECKPOINTS"] = str(wishes.checkpoints.resolve())
    if wishes.vggt is not None:
        environment["GEN3C_VGGT"] = str(wishes.vggt.absolute())  # not where a link leads: the name tells the format
    if wishes.threads is not None:
        environment["GEN3C_THREADS"] = str(wishes.threads)
    return Plan(models, environment, flags, f"preset {preset.name}, {how}")


def _check_build(build: Build, wishes: Wishes) -> tuple[Preset, str]:
    """Preset and device of a build. Raises InvalidInputError if it does not fit this machine or the wishes."""
    from gen3c.exported.machine import Machine, check_fits
    from gen3c.exported.manifest import Manifest

    manifest = Manifest.read(build.folder)
    check_fits(manifest, Machine.here(), wishes.preset)
    usual = "cpu" if manifest.target == "cpu" else "cuda"
    device = wishes.device or usual
    if device.partition(":")[0] != usual:
        raise InvalidInputError(f"The repository was built for {manifest.target}, and the device is {device!r}.")
    if ":" in device:
        raise InvalidInputError(
            f"The device is {device!r}; a built repository names its GPUs in its deployment file, under gpus."
        )
    if device != "cpu":
        _check_device(device)
    if wishes.deployment is not None:
        _check_same_placement(build, wishes.deployment)
    preset = get_preset(manifest.preset)
    _check_named(preset, wishes)
    return preset, device


def _check_same_placement(build: Build, deployment: Path) -> None:
    from gen3c_server.deployment import Deployment

    given, built = Deployment.load(deployment), Deployment.load(build.deployment)
    if (given.models, given.resources, given.gpu_resources) != (built.models, built.resources, built.gpu_resources):
        raise PreflightError(
            f"{deployment.name} places the models otherwise than {build.folder} was built for: run `gen3c-export "
            "build` with --deployment again, which takes seconds. Limits alone may differ."
        )


def _refuse_placement(deployment: Path) -> None:
    from gen3c_server.deployment import Deployment

    given = Deployment.load(deployment)
    if given.models or given.resources or given.gpu_resources:
        raise PreflightError(
            f"{deployment.name} places models, and this repository was not built: run `gen3c-export build` with "
            "--deployment, and serve what it makes with --model-repository."
        )


def _deployment_flags(deployment: Path) -> tuple[str, ...]:
    from gen3c_server.deployment import Deployment, launch_flags

    return launch_flags(Deployment.load(deployment))


def _check_device(device: str) -> None:
    from gen3c_server.settings import find_device

    find_device(device)


def _check_checkpoints(preset: Preset, wishes: Wishes) -> None:
    if wishes.checkpoints is None and not preset.may_be_untrained:
        raise InvalidInputError(f"Preset {preset.name!r} needs its weights: name their folder with --checkpoints.")
    _check_named(preset, wishes)


def _check_named(preset: Preset, wishes: Wishes) -> None:
    """Weights that are named are there."""
    checkpoints, vggt = wishes.checkpoints, wishes.vggt
    if checkpoints is not None:
        from gen3c.generator.weights import require_component

        require_component(preset, "transformer", checkpoints)
        require_component(preset, "vae", checkpoints)
    if checkpoints is not None or vggt is not None:
        from gen3c.geometry.vggt.weights import find_vggt

        find_vggt(vggt, checkpoints)
