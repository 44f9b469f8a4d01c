"""The signals that ask for a stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self


@contextmanager
def ending_by_signal(say: Callable[[str], None]) -> Generator[None]:
    """While entered, SIGTERM and SIGHUP end this process with exit code 0.

    Without a handler process 1 of a container would not even notice.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        say("Stopped before the server was started.")
        raise SystemExit(0)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StopSignals:
    """Counts SIGTERM, SIGINT and SIGHUP while entered. One asks for a stop, a second for a stop at once.

    A counter and polling, not an Event: setting an Event in a handler can deadlock with a wait on it.
    Outside the main thread Python has no signal handlers, and nothing is counted.
    """

    NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._received) for number in self.NUMBERS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def stop(self) -> bool:
        return self.count >= 1

    def at_once(self) -> bool:
        return self.count >= 2

    def _received(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
