"""What several models on one GPU owe each other."""

from collections.abc import Mapping

import torch
from torch import Tensor

from gen3c.program import Program


def release(device: torch.device) -> None:
    """Give back the GPU memory that torch keeps for this process's next call: other models' turn comes first."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def releasing(program: Program, device: torch.device) -> Program:
    """`program`, which releases after every call."""

    def call(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = program(inputs)
        release(device)
        return outputs

    return call
