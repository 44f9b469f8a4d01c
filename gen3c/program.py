"""How a network is called: named tensors in, named tensors out.

A program runs in this process (`gen3c.generator`) or behind a server (`gen3c_server.bls`); whoever calls one cannot
tell. That is the whole seam between the model library and what serves it.
"""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class Program(Protocol):
    """A stateless tensor program, for example `dit`: its input and output names are in gen3c.generator.signatures."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
