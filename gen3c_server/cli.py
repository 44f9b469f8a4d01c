"""`gen3c serve`: the options of the launcher at the command line.

The client's Typer app loads this function through the entry point group `gen3c.commands`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gen3c_server.json_lines import LogFormat
from gen3c_server.launch import Wishes, plan
from gen3c_server.launcher import PreflightError, ServeOptions
from gen3c_server.launcher import serve as run_server
from gen3c_server.launcher.security import Security
from gen3c_server.launcher.serve import PREFLIGHT
from gen3c_server.launcher.server import to_stderr, to_stdout_as_json
from gen3c_server.launcher.stop_signals import ending_by_signal
from gen3c_server.traces import check_endpoint


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for every network of this machine.")
    ] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8001,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8002,
    health_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the launcher's own pages; 0 takes a free one.")
    ] = 8003,
    preset: Annotated[
        str | None,
        typer.Option(envvar="GEN3C_PRESET", help="Sizes and weights to serve; default: the repository's, else tiny."),
    ] = None,
    model_repository: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            exists=True,
            help="What `gen3c-export build` made, or a plain Triton model repository; default: that of the preset, "
            "which tiny exports at its first start.",
        ),
    ] = None,
    deployment: Annotated[
        Path | None,
        typer.Option(dir_okay=False, exists=True, envvar="GEN3C_DEPLOYMENT", help="YAML: limits and placement."),
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
        str | None,
        typer.Option(
            envvar="GEN3C_DEVICE",
            help="Where networks and renderings run: cpu, cuda or cuda:N; default: the repository's, else cpu.",
        ),
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(file_okay=False, help="Scratch folder; default: a temporary one.")
    ] = None,
    start_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds until the first inference must have succeeded.")
    ] = 300.0,
    exit_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds that a stop may take; running jobs get the first 60 %.")
    ] = 20.0,
    canary_interval: Annotated[
        float, typer.Option(min=0, help="Seconds between two inferences that prove the server's health; 0 makes none.")
    ] = 30.0,
    canary_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds that such an inference may take, unless jobs make progress.")
    ] = 60.0,
    stall_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds without progress of any job after which the server has failed.")
    ] = 900.0,
    restarts: Annotated[
        int, typer.Option(min=0, help="Restarts of a failed server within --restart-window at most.")
    ] = 3,
    restart_window: Annotated[
        float, typer.Option(min=1, help="Seconds of service in which restarts are counted.")
    ] = 600.0,
    restart_grace: Annotated[
        float, typer.Option(min=0, help="Seconds that running jobs have to end before a restart.")
    ] = 10.0,
    log_file: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Triton's log, appended to; default: in the run directory."),
    ] = None,
    log_format: Annotated[
        LogFormat,
        typer.Option(
            envvar="GEN3C_LOG_FORMAT",
            help="json: every message, and what happens to jobs, as a JSON object a line on standard output.",
        ),
    ] = "text",
    tls_certificate: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            envvar="GEN3C_TLS_CERTIFICATE",
            help="PEM: the server's certificate, and those between it and a known authority. gRPC then speaks TLS.",
        ),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(dir_okay=False, envvar="GEN3C_TLS_KEY", help="PEM: the certificate's private key.")
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            envvar="GEN3C_TLS_CLIENT_CA",
            help="PEM: authorities; clients must show a certificate that one of them has signed.",
        ),
    ] = None,
    access_key_file: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False, envvar="GEN3C_ACCESS_KEY_FILE", help="File with the key that every call must carry."
        ),
    ] = None,
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(
            envvar="GEN3C_OTLP_ENDPOINT",
            metavar="URL",
            help="Where traces of jobs go: OTLP over HTTP, such as http://collector:4318/v1/traces; default: nowhere.",
        ),
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

    A server that fails is restarted.

    Exit codes: 0 stopped as asked; 1 the server failed or died; 2 this machine or these options cannot run it.
    """
    say = to_stdout_as_json if log_format == "json" else to_stderr
    try:
        if otlp_endpoint:
            check_endpoint(otlp_endpoint)
        with ending_by_signal(say):  # it may export networks, for a minute
            chosen = plan(Wishes(preset, model_repository, deployment, checkpoints, vggt, threads, device), say)
    except (ValueError, PreflightError) as error:
        say(str(error))
        raise typer.Exit(PREFLIGHT) from None
    try:
        security = Security.load(tls_certificate, tls_key, tls_client_ca, access_key_file)
        options = ServeOptions(
            model_repository=chosen.models,
            host=host,
            http_port=http_port or None,
            grpc_port=grpc_port or None,
            metrics_port=metrics_port or None,
            health_port=health_port or None,
            run_dir=run_dir,
            environment={
                **chosen.environment,
                "GEN3C_LOG_FORMAT": log_format,
                **({"GEN3C_OTLP_ENDPOINT": otlp_endpoint} if otlp_endpoint else {}),
            },
            exit_timeout_s=exit_timeout,
            start_timeout_s=start_timeout,
            log_path=log_file,
            verbose=verbose,
            log_format=log_format,
            canary_interval_s=canary_interval,
            canary_timeout_s=canary_timeout,
            stall_timeout_s=stall_timeout,
            restarts=restarts,
            restart_window_s=restart_window,
            restart_grace_s=restart_grace,
            security=security,
            triton=triton,
            triton_flags=(*chosen.flags, *(triton_flag or ())),
        )
    except PreflightError as error:
        say(str(error))
        raise typer.Exit(PREFLIGHT) from None

    def canary(url: str, timeout_s: float) -> None:
        # Imports the client's stack, which a refused start should not wait for.
        from gen3c_server.canary import check

        check(url, timeout_s, security.access())

    raise typer.Exit(run_server(options, canary, note=chosen.note, say=say))
