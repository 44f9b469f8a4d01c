"""A program that runs in this process."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gen3c.generator.signatures import Signature


class LocalProgram:
    """An `nn.Module` as a `gen3c.program.Program`: named tensors in, named tensors out, no gradients.

    Inputs may lie anywhere: they are moved to where the module's weights are. The outputs stay there; they are
    inference tensors: clone one before changing it in place.
    """

    def __init__(self, module: nn.Module, signature: Signature) -> None:
        self._module = module.eval()
        self._signature = signature
        self._device = next((p.device for p in module.parameters()), torch.device("cpu"))

    @torch.inference_mode()
    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run once. Raises InvalidInputError if `inputs` do not fit the signature."""
        arguments = (tensor.to(self._device) for tensor in self._signature.arguments(inputs))
        output: Tensor = self._module(*arguments)
        return {self._signature.outputs[0].name: output}
