"""`gen3c health`: whether a server makes inferences, for health checks of containers. Needs no torch."""

from __future__ import annotations

from typing import Annotated

import typer

UNHEALTHY = 1


def health(
    url: Annotated[str, typer.Option(envvar="GEN3C_URL", help="HOST:PORT of the server's gRPC.")] = "127.0.0.1:8001",
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds until the answer; it waits for the calls under way in each model.")
    ] = 60.0,
) -> None:
    """Have the server run every model once, past the queue of jobs.

    Exit codes: 0 all answered; 1 one did not, or no server is there.
    """
    # Imports the client's stack, which `--help` should not wait for.
    from gen3c_server.canary import check

    try:
        check(url, timeout)
    except RuntimeError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(UNHEALTHY) from None
    typer.echo(f"The server at {url} is healthy: every model answered.")
