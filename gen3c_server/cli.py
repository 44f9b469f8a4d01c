"""`gen3c serve`: the options of the launcher at the command line.

The client's Typer app loads this function through the entry point group `gen3c.commands`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gen3c.errors import InvalidInputError
from gen3c.presets import get_preset
from gen3c_server.launcher import PreflightError, ServeOptions
from gen3c_server.launcher import serve as run_server
from gen3c_server.launcher.serve import PREFLIGHT
from gen3c_server.launcher.server import to_stderr
from gen3c_server.repository import default_model_repository


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for every network of this machine.")
    ] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8001,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8002,
    preset: Annotated[str, typer.Option(envvar="GEN3C_PRESET", help="Sizes and weights to serve.")] = "tiny",
    model_repository: Annotated[
        Path | None,
        typer.Option(file_okay=False, exists=True, help="Triton model repository; default: the one shipped."),
    ] = None,
    deployment: Annotated[
        Path | None,
        typer.Option(dir_okay=False, exists=True, envvar="GEN3C_DEPLOYMENT", help="YAML file with the limits."),
    ] = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, exists=True, envvar="GEN3C_CHECKPOINTS", help="Folder of the preset's checkpoints."
        ),
    ] = None,
    vggt: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            envvar="GEN3C_VGGT",
            help="VGGT's weights: model.pt or model.safetensors as published, or the folder of one; default: vggt/ of "
            "--checkpoints.",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, envvar="GEN3C_THREADS", help="CPU threads of a model; default: every core."),
    ] = None,
    device: Annotated[
        str, typer.Option(envvar="GEN3C_DEVICE", help="Where networks and renderings run: cpu, cuda or cuda:N.")
    ] = "cpu",
    run_dir: Annotated[
        Path | None, typer.Option(file_okay=False, help="Scratch folder; default: a temporary one.")
    ] = None,
    start_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds until the first inference must have succeeded.")
    ] = 300.0,
    exit_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds that a stop may take; running jobs get the first 60 %.")
    ] = 20.0,
    log_file: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Triton's log, appended to; default: in the run directory."),
    ] = None,
    triton: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            exists=True,
            help="Triton installation; default: /opt/tritonserver, else the wheel's.",
        ),
    ] = None,
    triton_flag: Annotated[
        list[str] | None,
        typer.Option(help="Further flag of tritonserver, such as --cuda-memory-pool-byte-size=0:4294967296."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the whole log of Triton.")] = False,
) -> None:
    """Run the models on this machine in a Triton server, until Ctrl-C or SIGTERM; a second one stops at once.

    Exit codes: 0 stopped as asked; 1 the server failed or died; 2 this machine or these options cannot run it.
    """
    try:
        _check(preset, deployment, checkpoints, vggt, device)
    except ValueError as error:
        to_stderr(str(error))
        raise typer.Exit(PREFLIGHT) from None
    environment = {"GEN3C_PRESET": preset, "GEN3C_DEVICE": device}
    if deployment is not None:
        environment["GEN3C_DEPLOYMENT"] = str(deployment.resolve())
    if checkpoints is not None:
        environment["GEN3C_CHECKPOINTS"] = str(checkpoints.resolve())
    if vggt is not None:
        environment["GEN3C_VGGT"] = str(vggt.absolute())  # not where a link leads: the name tells the format
    if threads is not None:
        environment["GEN3C_THREADS"] = str(threads)
    try:
        options = ServeOptions(
            model_repository=model_repository or default_model_repository(),
            host=host,
            http_port=http_port or None,
            grpc_port=grpc_port or None,
            metrics_port=metrics_port or None,
            run_dir=run_dir,
            environment=environment,
            exit_timeout_s=exit_timeout,
            start_timeout_s=start_timeout,
            log_path=log_file,
            verbose=verbose,
            triton=triton,
            triton_flags=tuple(triton_flag or ()),
        )
    except PreflightError as error:
        to_stderr(str(error))
        raise typer.Exit(PREFLIGHT) from None

    def canary(url: str) -> None:
        # Imports the client's stack, which a refused start should not wait for.
        from gen3c_server.canary import check

        check(url, start_timeout)

    raise typer.Exit(run_server(options, canary, note=f"preset {preset}"))


def _check(preset: str, deployment: Path | None, checkpoints: Path | None, vggt: Path | None, device: str) -> None:
    """Refuse here what the models would refuse once Triton has started; raises ValueError with a sentence.

    What needs torch, which takes a second to import, is looked at only if it is given.
    """
    sizes = get_preset(preset)
    if checkpoints is None and not sizes.may_be_untrained:
        raise InvalidInputError(f"Preset {preset!r} needs its weights: name their folder with --checkpoints.")
    if deployment is not None:
        from gen3c_server.settings import Deployment

        Deployment.load(deployment)
    if device != "cpu":
        from gen3c_server.settings import find_device

        find_device(device)
    if checkpoints is not None:
        from gen3c.generator.weights import require_component

        require_component(sizes, "transformer", checkpoints)
        require_component(sizes, "vae", checkpoints)
    if checkpoints is not None or vggt is not None:
        from gen3c.geometry.vggt.weights import find_vggt

        find_vggt(vggt, checkpoints)
