"""How a stream ended, as a `JobError` with a sentence for the user.

Three kinds of message arrive here: `CODE(field): ...` of our own models, Triton's own refusals, which come without a
code on a stream, and gRPC's.
"""

import re
from typing import TYPE_CHECKING, get_args

from gen3c_client.connection import Access
from gen3c_client.contract import ErrorCode
from gen3c_client.errors import JobError

if TYPE_CHECKING:
    import grpc

_OURS = re.compile(rf"\b(?P<code>{'|'.join(get_args(ErrorCode))})(?:\((?P<field>[^)]*)\))?: (?P<message>.+)", re.DOTALL)
# Triton 24.10 in its own words: what passes, or passes with a restart, so that another try makes sense.
_TRITON_UNAVAILABLE = (
    "Exceeds maximum queue size",
    "Request timeout expired",
    "Server exiting",
    "unavailable",
    "not ready",
    "is not healthy",
)
_LOST = ("Socket closed", "Connection reset", "GOAWAY", "Broken pipe", "keepalive", "Stream removed")
_OF_STATUS: dict[str, ErrorCode] = {
    "INVALID_ARGUMENT": "INVALID_ARG",
    "RESOURCE_EXHAUSTED": "INVALID_ARG",  # the server's own limit of a message
    "UNAVAILABLE": "UNAVAILABLE",
    "CANCELLED": "CANCELLED",
    "DEADLINE_EXCEEDED": "DEADLINE",
}


def error_of_message(message: str, url: str) -> JobError:
    """The meaning of the error message in a stream response."""
    found = _OURS.search(message)
    if found:
        codes: dict[str, ErrorCode] = {code: code for code in get_args(ErrorCode)}
        return JobError(_without_trace(found["message"]), codes[found["code"]], found["field"])
    if "unknown model" in message:
        return JobError(f"The server at {url} does not serve the model gen3c.", "UNAVAILABLE")
    busy = any(mark in message for mark in _TRITON_UNAVAILABLE)
    return JobError(f"The server at {url} failed: {_without_trace(message)}.", "UNAVAILABLE" if busy else "INTERNAL")


def error_of_rpc(error: "grpc.RpcError", url: str, *, access: Access, timeout: float | None, started: bool) -> JobError:
    """The meaning of a gRPC status.

    Args:
        error: the status.
        url, access, timeout: of the job.
        started: whether the server had answered before.
    """
    name, details = error.code().name, error.details() or ""
    if "protocol is restricted" in details:
        wants = "does not know our access key" if access.key is not None else "wants an access key"
        return JobError(
            f"The server at {url} {wants}; --access-key-file, or GEN3C_ACCESS_KEY_FILE, names the file that holds it.",
            "INVALID_ARG",
            "--access-key-file",
        )
    if name == "UNAVAILABLE" and (not started or any(mark in details for mark in _LOST)):
        return _lost_connection(url, tls=access.is_tls, started=started, why=details)
    if name == "DEADLINE_EXCEEDED":
        return JobError(f"The job did not end within the timeout of {timeout or 0:g} s and was cancelled.", "DEADLINE")
    return JobError(f"The server at {url} failed: {_without_trace(details) or name}.", _OF_STATUS.get(name, "INTERNAL"))


def _lost_connection(url: str, *, tls: bool, started: bool, why: str = "") -> JobError:
    """No connection, or none any more: the one failure after which the same command may just be given again."""
    if started:
        return JobError(
            f"The server at {url} went away while the job was running (stopped, or crashed). Nothing was saved; "
            "the same command can be given again.",
            "UNAVAILABLE",
        )
    reason = _without_trace(why).rpartition(":")[2].strip(" ]")  # the innermost clause: "Connection refused"
    hint = "" if tls else " A server that speaks TLS needs --tls."
    return JobError(
        f"No server can be reached at {url} ({reason or 'connection closed'}). Start one with `gen3c serve`, or "
        f"name another with --url or GEN3C_URL.{hint}",
        "UNAVAILABLE",
    )


def _without_trace(message: str) -> str:
    """A Triton message without the traceback that python models append to it."""
    return message.partition("\n\nAt:\n")[0].strip().rstrip(".")
