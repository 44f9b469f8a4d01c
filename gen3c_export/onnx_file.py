"""Networks as ONNX files, by PyTorch's exporter that goes through `torch.export`. Needs the optional extra `serve`."""

import gc
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from onnxscript import FLOAT, ir, opset20
from torch import Tensor, nn

from gen3c.errors import InvalidInputError
from gen3c.program import Signature, TensorSpec
from gen3c_export.onnx_fusions import fuse, group_norm
from gen3c_export.tensorrt_rewrites import rewrite

# It tells of every operator that torchvision, which is not needed, would bring.
logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)

OPSET = 20  # from 23 on attention is one node, which TensorRT for RTX builds in 16-bit types alone
FUSED_OPSET = 23  # attention, RMS norms and rotary embeddings as one node each, which ONNX Runtime has kernels for


def export_onnx(
    module: nn.Module,
    signature: Signature,
    example: Mapping[str, Tensor],
    path: Path,
    *,
    dynamic: Collection[str] = (),
    runtime: Literal["onnxruntime", "tensorrt"] = "tensorrt",
) -> None:
    """Write `module` as an ONNX graph to `path`, with its weights in a file beside it: that name and `.data`.

    Both runtimes get the standard's operators: `tensorrt` those of opset 20, as far as it has them for their types
    (gen3c_export.tensorrt_rewrites), `onnxruntime` the larger ones of opset 23 (gen3c_export.onnx_fusions), which are
    faster there and sooner exported.

    The module takes the signature's inputs in order and returns its outputs in order, a single one without a tuple; it
    is put into evaluation mode. `example` has every input, on the module's device and in the type that the file is to
    take. Sizes of the symbols in `dynamic` stay open, all others become those of the example.

    Raises InvalidInputError if `example` does not fit the signature, if a symbol of `dynamic` is no size of an input or
    is 1 in the example, or if the module's outputs are not the signature's. A module that fixes a size which is to be
    dynamic fails with torch's own error.
    """
    arguments = signature.arguments(example)
    sizes = _checked_sizes(signature, arguments, dynamic)
    dims = {symbol: torch.export.Dim(symbol) for symbol in dynamic}
    translations: dict[Callable[..., Any], Callable[..., Any]] = {
        torch.ops.aten._upsample_bicubic2d_aa.default: _resized
    }
    if runtime == "onnxruntime":
        translations[torch.ops.aten.group_norm.default] = group_norm
    with _without_collector():
        program = torch.onnx.export(
            module.eval(),
            arguments,
            input_names=[spec.name for spec in signature.inputs],
            output_names=[spec.name for spec in signature.outputs],
            dynamic_shapes=tuple(
                {axis: dims[size] for axis, size in enumerate(spec.shape) if size in dims} for spec in signature.inputs
            ),
            opset_version=OPSET if runtime == "tensorrt" else FUSED_OPSET,
            custom_translation_table=translations,
            dynamo=True,
            optimize=runtime
            == "tensorrt",  # a third of the time, for what ONNX Runtime does itself when it loads a file
            verbose=False,
        )
    assert program is not None  # only the other exporter returns None
    if runtime == "onnxruntime":
        fuse(program.model)
    else:
        rewrite(program.model)
    _check_fits(signature, program.model.graph, sizes | {symbol: symbol for symbol in dynamic})
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces, with this machine's paths
    program.save(path, external_data=True)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Python's garbage collector stands still: tracing makes objects that stay, and it would pass over them for long.

    A fifth of an export's time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _checked_sizes(signature: Signature, arguments: Sequence[Tensor], dynamic: Collection[str]) -> dict[str, str]:
    """The sizes of the inputs' symbols; raises InvalidInputError for what the signature itself does not check."""
    sizes: dict[str, int] = {}
    for spec, tensor in zip(signature.inputs, arguments, strict=True):
        if tensor.dtype not in _dtypes(spec):
            legal = " or ".join(str(dtype) for dtype in _dtypes(spec))
            raise InvalidInputError(f"The example's {spec.name} is {tensor.dtype}; legal: {legal}.")
        sizes |= {size: n for size, n in zip(spec.shape, tensor.shape, strict=True) if isinstance(size, str)}
    for symbol in dynamic:
        if symbol not in sizes:
            legal = ", ".join(sizes) or "none"
            raise InvalidInputError(f"No input of {signature.name} has the dynamic size {symbol!r}; legal: {legal}.")
        if sizes[symbol] == 1:  # torch.export takes a size of 1 for a constant
            raise InvalidInputError(f"The example's {symbol} is 1; a dynamic size must be 2 or more there.")
    return {symbol: str(n) for symbol, n in sizes.items()}


def _check_fits(signature: Signature, graph: Any, sizes: Mapping[str, str]) -> None:
    """Compare a graph with its signature; `sizes` tells the symbols of the inputs, outputs may have others."""
    for specs, values in ((signature.inputs, graph.inputs), (signature.outputs, graph.outputs)):
        if len(values) != len(specs) or not all(_fits(*pair, sizes) for pair in zip(specs, values, strict=True)):
            found = (f"{v.name} {v.dtype.numpy()} [{', '.join(map(str, v.shape))}]" for v in values)
            legal = (f"{s.name} {s.cpu_dtype} [{', '.join(sizes.get(str(n), str(n)) for n in s.shape)}]" for s in specs)
            raise InvalidInputError(
                f"The network has {', '.join(found)}; legal for {signature.name}: {', '.join(legal)}."
            )


def _fits(spec: TensorSpec, value: Any, sizes: Mapping[str, str]) -> bool:
    if value.name != spec.name or len(value.shape) != len(spec.shape):
        return False
    shape = zip(spec.shape, map(str, value.shape), strict=True)
    right = all(n == (sizes.get(size, n) if isinstance(size, str) else str(size)) for size, n in shape)
    return right and f"torch.{value.dtype.numpy()}" in map(str, _dtypes(spec))


def _dtypes(spec: TensorSpec) -> list[torch.dtype]:
    return list(dict.fromkeys((spec.cpu_dtype, spec.gpu_dtype)))


def _resized(
    image: FLOAT,  # [n,c,h,w], h and w fixed
    output_size: Sequence[int],
    align_corners: bool,
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> FLOAT:
    """PyTorch's antialiased cubic resize as two matrix products: TensorRT does not know the ONNX operator's.

    It is linear and separable, and what PyTorch makes of identity matrices are its factors.
    """

    def factor(side: int, target: int, scale: float | None) -> Tensor:  # [target,side]
        identity = torch.eye(side, dtype=torch.float64)[None, None]
        resize = torch.ops.aten._upsample_bicubic2d_aa.default
        weights: Tensor = resize(identity, [target, side], align_corners, scale, None)[0, 0]
        return weights.float()

    down = factor(image.shape[2], output_size[0], scales_h)
    across = factor(image.shape[3], output_size[1], scales_w).T.contiguous()
    rows = opset20.MatMul(opset20.Constant(value=ir.tensor(down.numpy())), image)
    return opset20.MatMul(rows, opset20.Constant(value=ir.tensor(across.numpy())))
