"""Starts, watches and stops the Triton server that `gen3c serve` runs. Knows nothing of what the models do."""

from gen3c_server.launcher.errors import PreflightError, ServerError
from gen3c_server.launcher.options import ServeOptions
from gen3c_server.launcher.serve import serve
from gen3c_server.launcher.server import EmbeddedServer

__all__ = ["EmbeddedServer", "PreflightError", "ServeOptions", "ServerError", "serve"]
