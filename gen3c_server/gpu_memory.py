"""What several models on one GPU owe each other."""

from collections.abc import Mapping

import torch
from torch import Tensor

from gen3c.program import Program


def release(device: torch.device) -> None:
    """Give back the GPU memory that torch keeps for this process's next call: other models' turn comes first."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def answering_on_cpu(program: Program) -> Program:
    """`program` with its outputs on the CPU, for callers that have no business on a GPU."""
    return lambda inputs: {name: tensor.cpu() for name, tensor in program(inputs).items()}


def releasing(program: Program, device: torch.device) -> Program:
    """`program`, which releases after every call, also one that fails: most of all where memory ran out."""

    def call(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        try:
            return program(inputs)
        finally:
            release(device)

    return call
