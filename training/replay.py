"""A ring of training samples on the device: drawing a world costs more than learning from it once."""

import torch
from torch import Tensor


class Replay:
    """The newest `capacity` samples. Names, shapes and types are those of the first batch that is added."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._rings: dict[str, Tensor] = {}
        self._next = 0
        self._filled = 0

    def __len__(self) -> int:
        return self._filled

    def add(self, batch: dict[str, Tensor]) -> None:  # each [n,...], n at most the capacity
        """Put n samples in the place of the oldest. Raises ValueError for other names, or more than fit."""
        n = len(next(iter(batch.values())))
        if n > self.capacity:
            raise ValueError(f"{n} samples were added at once; legal is at most {self.capacity}.")
        if not self._rings:
            self._rings = {name: x.new_empty(self.capacity, *x.shape[1:]) for name, x in batch.items()}
        if batch.keys() != self._rings.keys():
            raise ValueError(f"samples have {sorted(batch)}; legal are {sorted(self._rings)}.")
        first = next(iter(batch.values()))
        place = (torch.arange(n, device=first.device) + self._next) % self.capacity
        for name, ring in self._rings.items():
            ring[place] = batch[name]
        self._next = (self._next + n) % self.capacity
        self._filled = min(self._filled + n, self.capacity)

    def sample(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        """n samples, uniformly and with repetition; `generator` is on the device of the samples."""
        if not self._filled:
            raise ValueError("the ring is empty; add samples first.")
        place = torch.randint(self._filled, (n,), generator=generator, device=generator.device)
        return {name: ring[place] for name, ring in self._rings.items()}
