"""`gen3c drain`: have a server end its jobs before it is stopped. Needs no torch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

FAILED = 1
_POLL_S = 0.2


def drain(
    run_dir: Annotated[
        Path,
        typer.Option(envvar="GEN3C_RUN_DIR", file_okay=False, exists=True, help="--run-dir of the server."),
    ],
    timeout: Annotated[float, typer.Option(min=0, help="Seconds that the jobs at work have.")] = 600.0,
    at_least: Annotated[
        float, typer.Option(min=0, help="Seconds that it takes in any case, for clients to learn of it.")
    ] = 0.0,
) -> None:
    """Have the server on this machine refuse new jobs and those that wait, and wait for those at work.

    It goes on refusing until it is stopped. What is at work after the time goes on, until SIGTERM cancels it.

    Exit codes: 0 no job is left; 1 some are, or the folder is no server's.
    """
    # The launcher's stack, which `--help` should not wait for.
    from gen3c_server.launcher.run_dir import close_to_jobs, running_jobs

    started = time.monotonic()
    # The queue looks for the token a few times a second; a job that came just before is among them after that.
    least = max(at_least, 5 * _POLL_S)
    while True:
        # Again and again, for a server that is restarted meanwhile opens with the next one.
        if not close_to_jobs(run_dir):
            typer.echo(f"The folder {run_dir} is not the run directory of a server.", err=True)
            raise typer.Exit(FAILED)
        passed = time.monotonic() - started
        if passed >= least and not running_jobs(run_dir):
            break
        if passed >= max(timeout, least):
            typer.echo(f"{running_jobs(run_dir)} job(s) did not end within {timeout:g} seconds.", err=True)
            raise typer.Exit(FAILED)
        time.sleep(_POLL_S)
    typer.echo("No job is left.")
