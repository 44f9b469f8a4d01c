"""How a launch can fail. Every message is one or two sentences for the person at the terminal."""

from typing import Literal

Cause = Literal["process_died", "canary_failed", "jobs_stalled", "server_died"]
"""What ended a server: a model's process, an inference that failed, jobs that did not get on, or Triton itself."""


class PreflightError(Exception):
    """This machine or this configuration cannot run the server; nothing was started. Exit code 2."""


class ServerError(Exception):
    """The server did not start, or ended by itself. Exit code 1, unless it may be restarted."""

    def __init__(self, message: str, cause: Cause = "server_died") -> None:
        super().__init__(message)
        self.cause = cause


class StartInterruptedError(Exception):
    """A stop was asked for before the server was ready."""
