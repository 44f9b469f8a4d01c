"""One view a thread: the parallelism of the plane sweep."""

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

from gen3c.errors import CancelledError
from gen3c.geometry.types import Watch

T = TypeVar("T")
POLL_SECONDS = 0.1


def for_each_view(work: Callable[[int, Callable[[], None]], T], count: int, watch: Watch, stage: str) -> list[T]:
    """The results of work(i, poll) for i < count, computed by as many threads as torch may use.

    Each call computes with one thread, so results do not depend on how many there are, and threads do not wait for
    each other after every operation, which on a busy machine takes several times the work itself. `work` calls
    `poll` at least every half second; it raises when the rest should stop. `watch` is called from this thread only.

    Raises:
        CancelledError: `watch` said so.
    """
    stopping = threading.Event()

    def poll() -> None:
        if stopping.is_set():
            raise CancelledError(f"cancelled during {stage}")

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # counts for the threads that start from here on, and for this one until below
    try:
        with ThreadPoolExecutor(max(1, min(threads, count))) as pool:
            futures = [pool.submit(work, i, poll) for i in range(count)]
            try:
                pending = set(futures)
                while pending:
                    watch.step(stage, count - len(pending), count)
                    done, pending = wait(pending, POLL_SECONDS, FIRST_EXCEPTION)
                    for future in done:
                        future.result()
            except BaseException:
                stopping.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
            return [future.result() for future in futures]
    finally:
        torch.set_num_threads(threads)
