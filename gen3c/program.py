"""How a network is called: named tensors in, named tensors out.

A program runs in this process (`LocalProgram`) or behind a server (`gen3c_server.bls`); whoever calls one cannot tell.
That is the whole seam between the model library and what serves it. A signature says what one takes and gives; its
shapes are written in symbols, and equal symbols are equal sizes within one call.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from gen3c.errors import InvalidInputError


class Program(Protocol):
    """A stateless tensor program, for example `dit`: its input and output names are in its signature."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor of a program. Float tensors may be narrower on a GPU; the program casts inside."""

    name: str
    shape: tuple[int | str, ...]
    cpu_dtype: torch.dtype = torch.float32
    gpu_dtype: torch.dtype = torch.bfloat16

    def sizes(self, symbols: Mapping[str, int]) -> tuple[int, ...]:
        """The shape with every symbol replaced, for example by `symbols(preset)`."""
        return tuple(size if isinstance(size, int) else symbols[size] for size in self.shape)


@dataclass(frozen=True)
class Signature:
    """The inputs of a program in calling order, and its outputs."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def arguments(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The tensors of `inputs` in calling order.

        Raises InvalidInputError with every missing or unknown name, wrong kind of dtype and wrong size.
        """
        legal = {spec.name for spec in self.inputs}
        problems = [f"{name} is not an input" for name in sorted(set(inputs) - legal)]
        symbols: dict[str, int] = {}
        for spec in self.inputs:
            if spec.name in inputs:
                problems += _mismatches(spec, inputs[spec.name], symbols)
            else:
                problems.append(f"{spec.name} is missing")
        if problems:
            raise InvalidInputError(f"Program {self.name} cannot run: {'; '.join(problems)}.")
        return tuple(inputs[spec.name] for spec in self.inputs)


class LocalProgram:
    """An `nn.Module` as a `Program`, without gradients.

    The module takes the signature's inputs in order and returns its outputs in order, a single one without a tuple.
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
        result: Tensor | tuple[Tensor, ...] = self._module(*arguments)
        outputs = (result,) if isinstance(result, Tensor) else result
        return {spec.name: output for spec, output in zip(self._signature.outputs, outputs, strict=True)}


def _mismatches(spec: TensorSpec, tensor: Tensor, symbols: dict[str, int]) -> list[str]:
    """What is wrong with `tensor`; sizes of symbols seen for the first time are added to `symbols`."""
    problems = []
    if tensor.is_floating_point() != spec.cpu_dtype.is_floating_point or (
        not spec.cpu_dtype.is_floating_point and tensor.dtype != spec.cpu_dtype
    ):
        problems.append(f"{spec.name} is {tensor.dtype}, legal is {spec.cpu_dtype}")
    if tensor.ndim != len(spec.shape):
        return [*problems, f"{spec.name} has shape {list(tensor.shape)}, legal is {_shape_text(spec)}"]
    for size, wanted in zip(tensor.shape, spec.shape, strict=True):
        expected = wanted if isinstance(wanted, int) else symbols.setdefault(wanted, size)
        if size == 0:
            return [*problems, f"{spec.name} has shape {list(tensor.shape)}, every size must be at least 1"]
        if size != expected:
            where = "" if isinstance(wanted, int) else f" with {wanted} = {expected}"
            return [*problems, f"{spec.name} has shape {list(tensor.shape)}, legal is {_shape_text(spec)}{where}"]
    return problems


def _shape_text(spec: TensorSpec) -> str:
    return f"[{', '.join(str(size) for size in spec.shape)}]"
