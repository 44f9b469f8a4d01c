"""The errors that a caller can act on. Everything else that the library raises is a bug."""


class InvalidInputError(ValueError):
    """The input cannot be used. The message is one or two sentences: what, the offending value, what is legal.

    `field` names the input the way the caller knows it (`spec.steps`, `MEDIA[3]`), when there is one.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class CancelledError(Exception):
    """The work was stopped on request, between two steps."""
