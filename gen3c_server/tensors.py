"""Tensors and bytes between Triton's python backend and torch. Imported inside the server only."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack


def to_torch(tensor: "pb_utils.Tensor") -> Tensor:
    """A numeric tensor, copied out of the server's shared memory when it lies there."""
    if not tensor.is_cpu():
        return from_dlpack(tensor.to_dlpack())
    array = _array(tensor)
    # NumPy has no bfloat16.
    return from_dlpack(tensor.to_dlpack()).clone() if array is None else torch.from_numpy(np.array(array, copy=True))


def to_bytes(tensor: "pb_utils.Tensor") -> list[bytes]:
    """The elements of a BYTES tensor."""
    return [bytes(element) for element in tensor.as_numpy().reshape(-1)]


def from_value(name: str, value: Tensor | Sequence[bytes]) -> "pb_utils.Tensor":
    """A tensor for the wire; a sequence of bytes becomes BYTES [n]."""
    if not isinstance(value, Tensor):
        return pb_utils.Tensor(name, np.array(list(value), dtype=np.object_))
    if value.is_cuda:
        value = value.contiguous()
        torch.cuda.current_stream(value.device).synchronize()  # another process reads it, on a stream of its own
        return pb_utils.Tensor.from_dlpack(name, value)
    if value.dtype == torch.bfloat16:
        return pb_utils.Tensor.from_dlpack(name, value.contiguous())
    return pb_utils.Tensor(name, value.contiguous().numpy())


def request_values(request: "pb_utils.InferenceRequest") -> dict[str, Tensor | list[bytes]]:
    """All inputs of a request by name; BYTES as lists of bytes."""
    return {t.name(): _value(t) for t in request.inputs()}


def response_values(response: "pb_utils.InferenceResponse") -> dict[str, Tensor | list[bytes]]:
    """All outputs of a BLS response by name."""
    return {t.name(): _value(t) for t in response.output_tensors()}


def _value(tensor: "pb_utils.Tensor") -> Tensor | list[bytes]:
    if tensor.is_cpu():
        array = _array(tensor)
        if array is not None and array.dtype == np.object_:
            return to_bytes(tensor)
    return to_torch(tensor)


def _array(tensor: "pb_utils.Tensor") -> NDArray[Any] | None:
    """A tensor of the CPU as NumPy sees it; None for a type that it does not know."""
    try:
        array: NDArray[Any] = tensor.as_numpy()
    except pb_utils.TritonModelException:
        return None
    return array
