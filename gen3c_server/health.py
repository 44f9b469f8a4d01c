"""`gen3c health`: whether a server makes inferences, for health checks of containers. Needs no torch."""

from __future__ import annotations

from typing import Annotated

import typer
from gen3c_client.connection import Access, read_access_key, tls_of_options
from gen3c_client.options import AccessKeyFile, TlsCa, TlsCertificate, TlsKey, TlsName, UseTls

UNHEALTHY = 1


def health(
    url: Annotated[str, typer.Option(envvar="GEN3C_URL", help="HOST:PORT of the server's gRPC.")] = "127.0.0.1:8001",
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds until the answer; it waits for the calls under way in each model.")
    ] = 60.0,
    tls: UseTls = False,
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_name: TlsName = None,
    access_key_file: AccessKeyFile = None,
) -> None:
    """Have the server run every model once, past the queue of jobs.

    Exit codes: 0 all answered; 1 one did not, or no server is there; 2 a file for TLS or the access key is not usable.
    """
    # Imports the client's stack, which `--help` should not wait for.
    from gen3c_server.canary import check

    chosen = tls_of_options(tls=tls, ca=tls_ca, certificate=tls_certificate, key=tls_key, name=tls_name)
    access = Access.of(chosen, read_access_key(access_key_file) if access_key_file is not None else None)
    try:
        check(url, timeout, access)
    except RuntimeError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(UNHEALTHY) from None
    typer.echo(f"The server at {url} is healthy: every model answered.")
