"""Worlds drawn ahead by other processes, while the device learns: drawing is many small steps of one core."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor

import torch

from training.scenes import Worlds, draw_worlds

AT_ONCE = 64  # worlds: fewer take nearly as long


class WorldStream:
    """Batches of `n` worlds of the seeds that `seeds` gives, in order. `workers` = 0 draws when asked."""

    def __init__(
        self, seeds: Callable[[int], list[int]], n: int, device: torch.device, *, workers: int = 3, ahead: int = 6
    ) -> None:
        self._seeds, self._n, self._device = seeds, n, device
        self._group = max(1, AT_ONCE // n) if workers else 1  # batches that are drawn together
        self._pool = None
        if workers:
            context = multiprocessing.get_context("spawn")  # a fork would share the device's state
            self._pool = ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,))
        self._ahead = ahead
        self._coming: deque[tuple[list[int], Future[Worlds]]] = deque()
        self._ready: deque[tuple[list[int], Worlds]] = deque()

    def next(self) -> tuple[list[int], Worlds]:
        """The seeds of the next batch, and its worlds on the device."""
        if not self._ready:
            seeds, worlds = self._drawn()
            for first in range(0, len(seeds), self._n):
                part = slice(first, first + self._n)
                self._ready.append((seeds[part], worlds[part]))
        seeds, worlds = self._ready.popleft()
        return seeds, worlds.to(self._device)

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _drawn(self) -> tuple[list[int], Worlds]:
        if self._pool is None:
            seeds = self._seeds(self._n)
            return seeds, _draw(seeds)
        while len(self._coming) < self._ahead:
            seeds = self._seeds(self._n * self._group)
            self._coming.append((seeds, self._pool.submit(_draw, seeds)))
        seeds, future = self._coming.popleft()
        return seeds, future.result()


def _draw(seeds: Sequence[int]) -> Worlds:
    return draw_worlds(seeds, torch.device("cpu"))
