"""How a launch can fail. Every message is one or two sentences for the person at the terminal."""


class PreflightError(Exception):
    """This machine or this configuration cannot run the server; nothing was started. Exit code 2."""


class ServerError(Exception):
    """The server did not start, or ended by itself. Exit code 1."""


class StartInterruptedError(Exception):
    """A stop was asked for before the server was ready."""
