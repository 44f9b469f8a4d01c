"""Whole operators of ONNX in place of the small ones that a network is exported as.

On a CPU ONNX Runtime runs most of the small ones on one core, each with a pass over memory. The arithmetic stays.
"""

from typing import Any

import numpy as np
from onnxscript import FLOAT, ir, opset23, optimizer
from onnxscript.rewriter import RewriteRule, RewriteRuleSet

_HEADS_AND_TOKENS = [0, 2, 1, 3]  # swaps the axes of [b,n,heads,d]


def fuse(model: ir.Model) -> None:
    """Rewrite `model`, of opset 23 or later, in place."""
    optimizer.fold_constants(model)
    RewriteRuleSet(
        [
            RewriteRule(_modulated_norm, _layer_normalization, _is_plain),
            RewriteRule(_rotated, _rotary_embedding, _has_tokens_and_heads, remove_nodes=False),
            RewriteRule(_attention_of_heads, _attention_of_tokens, _have_sizes),
        ],
        commute=True,
    ).apply_to_model(model)
    optimizer.remove_unused_nodes(model)


def group_norm(
    x: FLOAT,  # [n,c,...]
    num_groups: int,
    weight: FLOAT | None = None,
    bias: FLOAT | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,  # noqa: ARG001 (PyTorch's own)
) -> FLOAT:
    """PyTorch's operator by the one norm of its kind that has a kernel on a CPU.

    ONNX Runtime computes GroupNormalization by nine operators.
    """
    gain = opset23.Constant(value=ir.tensor(np.ones(num_groups, np.float32)))
    shift = opset23.Constant(value=ir.tensor(np.zeros(num_groups, np.float32)))
    grouped = opset23.Reshape(x, opset23.Constant(value_ints=[0, num_groups, -1]))
    normed = opset23.Reshape(opset23.InstanceNormalization(grouped, gain, shift, epsilon=eps), opset23.Shape(x))
    channels = opset23.Constant(value_ints=[-1] + [1] * (len(x.shape) - 2))
    if weight is not None:
        normed = opset23.Mul(normed, opset23.Reshape(weight, channels))
    return normed if bias is None else opset23.Add(normed, opset23.Reshape(bias, channels))


def _modulated_norm(op: Any, x: Any, ones: Any, scale: Any, shift: Any) -> Any:
    normed = op.LayerNormalization(x, ones, _allow_other_attributes=True, _outputs=["normed"])
    return op.Add(op.Mul(normed, scale), shift)


def _is_plain(_context: Any, ones: ir.Value, scale: ir.Value, shift: ir.Value, normed: ir.Value, **_: Any) -> bool:
    """Whether the norm has no gain of its own, and gain and shift are [b,1,c]."""
    gain = ir.convenience.get_const_tensor(ones)
    return gain is not None and bool((gain.numpy() == 1).all()) and _is_row(scale, normed) and _is_row(shift, normed)


def _is_row(value: ir.Value, like: ir.Value) -> bool:
    shapes = value.shape, like.shape
    if shapes[0] is None or shapes[1] is None or len(shapes[0]) != 3 or len(shapes[1]) != 3:
        return False
    return bool(shapes[0][0] == shapes[1][0] and shapes[0][1] == 1 and shapes[0][2] == shapes[1][2])


def _layer_normalization(op: Any, x: ir.Value, scale: ir.Value, shift: ir.Value, normed: ir.Value, **_: Any) -> Any:
    attributes = normed.producer().attributes
    return op.LayerNormalization(x, scale, shift, **{name: value.value for name, value in attributes.items()})


def _rotated(op: Any, x: Any, cos: Any, sin: Any) -> Any:
    first, second = op.Split(x, _allow_other_attributes=True, _outputs=2)
    return op.Concat(
        op.Sub(op.Mul(first, cos), op.Mul(second, sin)), op.Add(op.Mul(second, cos), op.Mul(first, sin)), axis=-1
    )


def _has_tokens_and_heads(_context: Any, x: ir.Value, cos: ir.Value, sin: ir.Value, **_: Any) -> bool:
    """Whether x is [b,n,heads,d], and both angles are [n,1,d/2]."""
    if x.shape is None or len(x.shape) != 4:
        return False
    wanted = (x.shape[1], 1, x.shape[3] // 2 if isinstance(x.shape[3], int) else None)
    return all(angle.shape is not None and tuple(angle.shape) == wanted for angle in (cos, sin))


def _rotary_embedding(op: Any, x: ir.Value, cos: ir.Value, sin: ir.Value, **_: Any) -> Any:
    assert x.shape is not None
    _, tokens, heads, size = x.shape
    rows = op.Concat(op.Shape(x, start=0, end=1), op.Constant(value_ints=[1, 1]), axis=0)
    cache = (op.Expand(op.Reshape(angle, op.Constant(value_ints=[1, tokens, size // 2])), rows) for angle in (cos, sin))
    rotated = op.RotaryEmbedding(op.Reshape(x, op.Constant(value_ints=[0, 0, -1])), *cache, num_heads=heads)
    return op.Reshape(rotated, op.Constant(value_ints=[0, 0, heads, size]))


def _attention_of_heads(op: Any, query: Any, key: Any, value: Any) -> Any:
    swapped = (op.Transpose(x, perm=_HEADS_AND_TOKENS) for x in (query, key, value))
    mixed = op.Attention(*swapped, _allow_other_attributes=True, _outputs=["mixed"])
    return op.Transpose(mixed, perm=_HEADS_AND_TOKENS)


def _have_sizes(_context: Any, query: ir.Value, key: ir.Value, value: ir.Value, **_: Any) -> bool:
    """Whether heads and their size are known."""
    return all(x.shape is not None and all(isinstance(n, int) for n in x.shape[2:]) for x in (query, key, value))


def _attention_of_tokens(op: Any, query: ir.Value, key: ir.Value, value: ir.Value, mixed: ir.Value, **_: Any) -> Any:
    """The same node with its heads side by side, which takes and gives tokens as linear layers do."""
    assert query.shape is not None
    assert value.shape is not None
    heads, size = query.shape[2], value.shape[3]
    attributes = {name: entry.value for name, entry in mixed.producer().attributes.items()}
    flat = [op.Reshape(x, op.Constant(value_ints=[0, 0, -1])) for x in (query, key, value)]
    out = op.Attention(*flat, **attributes, q_num_heads=heads, kv_num_heads=heads)
    return op.Reshape(out, op.Constant(value_ints=[0, 0, heads, size]))
