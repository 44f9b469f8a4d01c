"""What a canary raises that was not answered. Apart from the launcher, whose packages a client does not have."""


class UnansweredError(RuntimeError):
    """A canary was not answered in time, or was put off: no proof of a fault as long as jobs make progress."""
