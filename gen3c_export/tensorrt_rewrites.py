"""Graphs in operators that TensorRT has for their types; the numbers stay.

- Bytes are types of inputs and outputs alone, so nothing is done to them: what moves pixels goes before the cast.
- TensorRT for RTX 1.7.1 has no transposed convolution in bfloat16 ("Could not infer output types for operation:
  deconv"), in float16 and float32 it has. One whose patches do not overlap is a product for each patch.
"""

from collections.abc import Callable
from typing import Any

from onnxscript import ir, optimizer
from onnxscript.rewriter import RewriteRule, RewriteRuleSet

_BYTES = ir.DataType.UINT8


def rewrite(model: ir.Model, no_deconvolution: ir.DataType = ir.DataType.BFLOAT16) -> None:
    """Rewrite `model` in place; `no_deconvolution` is the type without transposed convolutions."""
    rules = [
        RewriteRule(_moved_bytes, _moved_numbers),
        RewriteRule(_deconvolution, _product_of_patches, _has_patches(no_deconvolution)),
    ]
    RewriteRuleSet(rules).apply_to_model(model)
    optimizer.fold_constants(model)
    optimizer.remove_unused_nodes(model)


def _moved_bytes(op: Any, x: Any) -> Any:
    return op.Transpose(op.Cast(x, to=_BYTES), _allow_other_attributes=True, _outputs=["moved"])


def _moved_numbers(op: Any, x: ir.Value, moved: ir.Value) -> Any:
    node = moved.producer()
    assert node is not None
    return op.Cast(op.Transpose(x, **{name: entry.value for name, entry in node.attributes.items()}), to=_BYTES)


def _deconvolution(op: Any, x: Any, kernel: Any) -> Any:
    return op.ConvTranspose(x, kernel, _allow_other_attributes=True, _outputs=["image"])


def _has_patches(dtype: ir.DataType) -> Callable[..., bool]:
    """Whether `image` is made of squares beside each other, from numbers of `dtype`."""

    def check(context: Any, kernel: ir.Value, image: ir.Value, **_: Any) -> bool:  # noqa: ARG001 (the rewriter's)
        node = image.producer()
        if node is None or kernel.shape is None or len(kernel.shape) != 4 or kernel.dtype != dtype:
            return False
        side = kernel.shape[3]
        wanted = {"strides": [side] * 2, "pads": [0] * 4, "output_padding": [0] * 2, "dilations": [1] * 2}
        found = {name: list(node.attributes[name].as_ints()) for name in wanted if name in node.attributes}
        plain = found.items() <= wanted.items() and node.attributes.get_int("group", 1) == 1
        return plain and "strides" in found and kernel.shape[2] == side

    return check


def _product_of_patches(op: Any, x: ir.Value, kernel: ir.Value, **_: Any) -> Any:
    assert kernel.shape is not None
    bands, channels, side, _ = kernel.shape
    rows = op.Reshape(
        op.Transpose(kernel, perm=[1, 2, 3, 0]), op.Constant(value_ints=[channels * side * side, bands, 1, 1])
    )
    return op.DepthToSpace(op.Conv(x, rows, kernel_shape=[1, 1]), blocksize=side, mode="CRD")
