"""Errors on the wire: a code, a sentence, the field at fault. Never a path or a traceback of this server."""

import logging
import re
import secrets
from dataclasses import dataclass
from typing import Literal

import torch
from gen3c_client.contract import ErrorCode
from pydantic import ValidationError

from gen3c.errors import CancelledError, InvalidInputError

logger = logging.getLogger("gen3c")

_WIRE = re.compile(
    r"(?P<code>INVALID_ARG|UNAVAILABLE|CANCELLED|DEADLINE|INTERNAL)(?:\((?P<field>[^)]*)\))?: ", re.DOTALL
)


@dataclass
class JobError(Exception):
    """A failure as the caller sees it."""

    code: ErrorCode
    message: str
    field: str | None = None
    # Where the code alone does not tell; for the operator, not on the wire.
    reason: Literal["queue_full", "shutdown"] | None = None

    def __str__(self) -> str:
        """`CODE(field): message`, the form in which errors cross a model border (see `from_wire`)."""
        where = f"({self.field})" if self.field else ""
        return f"{self.code}{where}: {self.message}"

    @classmethod
    def from_wire(cls, message: str) -> "JobError":
        """The error that an inner model sent; a message of another form is that of a failed server."""
        found = _WIRE.search(message)
        if found is None:
            return cls("INTERNAL", _log_and_hide(f"inner model failed: {message}"))
        return cls(found["code"], message[found.end() :], found["field"])  # type: ignore[arg-type]

    @classmethod
    def of(cls, error: BaseException) -> "JobError":
        """Any exception as an error for the caller; what is not the caller's business goes to the log alone."""
        match error:
            case JobError():
                return error
            case ValidationError():
                return _of_validation(error)
            case InvalidInputError():
                return cls("INVALID_ARG", str(error), error.field)
            case CancelledError():
                return cls("CANCELLED", str(error))
            case MemoryError() | torch.OutOfMemoryError():
                return cls("UNAVAILABLE", "The server ran out of memory on this job; try fewer views or frames.")
            case _:
                return cls("INTERNAL", _log_and_hide("unexpected failure", error))


def _of_validation(error: ValidationError) -> JobError:
    """The first problems of a spec, each with its field and value."""
    problems = error.errors(include_url=False)
    first = ".".join(str(part) for part in problems[0]["loc"])
    said = []
    for problem in problems[:5]:
        where = ".".join(str(part) for part in problem["loc"]) or "spec"
        value = problem.get("input")
        shown = "" if problem["type"] == "missing" or isinstance(value, dict | list) else f" (got {value!r:.80})"
        said.append(f"{where}: {problem['msg']}{shown}")
    more = f"; and {len(problems) - 5} more problems" if len(problems) > 5 else ""
    return JobError("INVALID_ARG", "; ".join(said) + more + ".", f"spec.{first}" if first else "spec")


def _log_and_hide(what: str, error: BaseException | None = None) -> str:
    reference = secrets.token_hex(4)
    logger.error("[%s] %s", reference, what, exc_info=error)
    return f"Internal error; the server's log has the details under {reference}."
