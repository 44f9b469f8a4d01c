"""Ctrl-C and SIGTERM: the first ends the job in good order, the second leaves at once."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from gen3c_client.errors import EXIT_INTERRUPTED, InterruptedJobError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible(last_words: Callable[[], None]) -> Iterator[None]:
    """The first SIGINT or SIGTERM unwinds the block; another one meanwhile ends the process at once, with 130.

    Args:
        last_words: quick clean-up before the process is left at once.

    Raises:
        InterruptedJobError: after the block has been unwound.
    """
    seen = False

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            try:
                last_words()
            finally:
                os._exit(EXIT_INTERRUPTED)
        seen = True
        raise KeyboardInterrupt

    before = [signal.signal(number, on_signal) for number in _SIGNALS]
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedJobError from None
    finally:
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)
