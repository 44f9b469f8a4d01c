"""TensorRT plans run on PyTorch's tensors, for comparing them: who serves them is Triton's own backend.

This has never been run with TensorRT: no machine that it was written on had both the package and a GPU. Its test has a
stand-in for the package, made after the documentation of TensorRT 10.
"""

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.exported.program import Runner
from gen3c.program import Signature
from gen3c_export.tensorrt_flavours import load_tensorrt, process_logger

_TYPES = {  # TensorRT's names
    torch.float32: "FLOAT",
    torch.bfloat16: "BF16",
    torch.float16: "HALF",
    torch.uint8: "UINT8",
    torch.int32: "INT32",
    torch.int64: "INT64",
}


def tensorrt_runner(path: Path, device: torch.device, signature: Signature, trt: Any = None) -> Runner:
    """A plan on the GPU `device`; `trt` is the package, None: `tensorrt`.

    Raises InvalidInputError if there is no TensorRT, with its own words if it refuses the plan (of another version or
    GPU), and for a plan whose tensors are not the signature's. So does a call with sizes that the plan was not made
    for, or that fails.
    """
    trt = load_tensorrt() if trt is None else trt
    log = process_logger(trt)
    log.errors.clear()
    runtime = trt.Runtime(log)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan:
        engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise InvalidInputError(f"TensorRT refuses {path.name}: {_told(log.errors)}.", field="artifact")
    _check_tensors(trt, engine, signature, path.name)
    context = engine.create_execution_context()
    if context is None:
        raise InvalidInputError(f"TensorRT cannot run {path.name}: {_told(log.errors)}.", field="artifact")

    def run(arguments: Sequence[Tensor]) -> list[Tensor]:
        log.errors.clear()
        inputs = [
            tensor.to(device, spec.gpu_dtype).contiguous()
            for spec, tensor in zip(signature.inputs, arguments, strict=True)
        ]
        right = [
            context.set_input_shape(spec.name, tuple(tensor.shape))
            for spec, tensor in zip(signature.inputs, inputs, strict=True)
        ]
        if not all(right):
            shapes = ", ".join(f"{s.name} {list(t.shape)}" for s, t in zip(signature.inputs, inputs, strict=True))
            raise InvalidInputError(f"{path.name} was not made for {shapes}: {_told(log.errors)}.", field="artifact")
        outputs = [
            torch.empty(tuple(context.get_tensor_shape(spec.name)), dtype=spec.gpu_dtype, device=device)
            for spec in signature.outputs
        ]
        for spec, tensor in zip((*signature.inputs, *signature.outputs), (*inputs, *outputs), strict=True):
            context.set_tensor_address(spec.name, tensor.data_ptr())
        # On PyTorch's own stream, so that it is done after the inputs and before whatever reads the outputs.
        if not context.execute_async_v3(torch.cuda.current_stream(device).cuda_stream):
            raise InvalidInputError(f"{path.name} failed: {_told(log.errors)}.", field="artifact")
        return outputs

    return run


def _check_tensors(trt: Any, engine: Any, signature: Signature, name: str) -> None:
    """Raise InvalidInputError unless the plan has the signature's tensors in their types."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    found = {tensor: engine.get_tensor_dtype(tensor) for tensor in names}
    specs = (*signature.inputs, *signature.outputs)
    legal = {spec.name: getattr(trt.DataType, _TYPES[spec.gpu_dtype]) for spec in specs}
    if found != legal:
        shown, wanted = (", ".join(f"{tensor} {dtype}" for tensor, dtype in t.items()) for t in (found, legal))
        raise InvalidInputError(f"{name} has {shown}; legal for {signature.name}: {wanted}.", field="artifact")


def _told(errors: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(" ".join(error.split()) for error in errors)) or "it does not tell why"
