"""What can go wrong, as seen from the client, and the exit code that each kind ends in."""

from pydantic import ValidationError

from gen3c_client.contract import ErrorCode

EXIT_OUTPUT_EXISTS = 6
EXIT_INTERRUPTED = 130
EXIT_CODES: dict[ErrorCode, int] = {
    "INTERNAL": 1,
    "INVALID_ARG": 2,
    "UNAVAILABLE": 3,
    "CANCELLED": 4,
    "DEADLINE": 5,
}


class ClientError(Exception):
    """A sentence for the user. `field` names the input at fault (a flag or a field of `JobSpec`), where there is one.

    Args:
        message: what is wrong, the offending value and what is legal.
        code: `UNAVAILABLE` alone is worth another try with the same arguments.
        field: the input at fault.
    """

    def __init__(self, message: str, code: ErrorCode = "INTERNAL", field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.field = field

    @property
    def exit_code(self) -> int:
        """The process exit code of the command line (docs/cli.md)."""
        return EXIT_CODES[self.code]


class InputError(ClientError):
    """An input that cannot work, found before anything was sent."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message, "INVALID_ARG", field)


class OutputExistsError(ClientError):
    """A result would overwrite a file."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "INVALID_ARG", "--force")

    @property
    def exit_code(self) -> int:
        """6, so that a script can tell "done before" from "wrong"."""
        return EXIT_OUTPUT_EXISTS


class JobError(ClientError):
    """The job failed at the server or on the way to it."""


class InterruptedJobError(ClientError):
    """The user ended the job."""

    def __init__(self) -> None:
        super().__init__("Interrupted; the job was cancelled.", "CANCELLED")

    @property
    def exit_code(self) -> int:
        """130, as a shell would say it."""
        return EXIT_INTERRUPTED


def describe(error: ValidationError) -> str:
    """The first fault that pydantic found, as `field: what is wrong (got value)`."""
    fault = error.errors(include_url=False)[0]
    message = fault["msg"].removeprefix("Value error, ")
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]).lstrip(".")
    got = f" (got {fault['input']!r})" if where and isinstance(fault["input"], str | int | float | None) else ""
    more = f", and {error.error_count() - 1} more" if error.error_count() > 1 else ""
    return f"{where + ': ' if where else ''}{message}{got}{more}"
