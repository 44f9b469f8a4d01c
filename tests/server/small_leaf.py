"""Small models for tests/server/test_deployment.py, which copies this file into their folders."""

import os
import time

import torch
from torch import Tensor, nn

from gen3c.errors import InvalidInputError
from gen3c.program import Signature, TensorSpec

CALL_S = 0.1
SAID = ("pid", "rows", "started_ms", "ended_ms", "calls")  # of INFO; the clock is one for all processes


def signature(name: str) -> Signature:
    """X times FPS, and how the call went."""
    return Signature(
        name,
        (TensorSpec("X", ("batch", 1)), TensorSpec("FPS", ("batch", 1))),
        (TensorSpec("OUT", ("batch", 1)), TensorSpec("INFO", ("batch", len(SAID)), torch.int64, torch.int64)),
    )


class Slow(nn.Module):
    """Takes its time, and cannot take a negative X."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor, fps: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        started = time.monotonic_ns() // 1_000_000
        time.sleep(CALL_S)
        if (x < 0).any():
            raise InvalidInputError(f"X is {x.min():g}; legal: from 0.")
        said = (os.getpid(), len(x), started, time.monotonic_ns() // 1_000_000, self.calls)
        return x * fps[0], torch.tensor([said] * len(x))
