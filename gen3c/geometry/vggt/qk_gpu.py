"""Norm and rotation of queries or keys on a GPU in one pass; twin of `block.Attention`'s plain way.

PyTorch's LayerNorm is slow on rows as short as a head, and the plain rotation writes every intermediate: together a
third of the aggregator's time on a Hopper GPU.
"""

from contextlib import nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

from gen3c.geometry.vggt.rope import Tables

_ROWS = 16  # tokens a program


def normalise_and_rotate(
    x: Tensor,  # [b,heads,n,d], channels next to each other
    weight: Tensor,  # [d] float32
    bias: Tensor,  # [d] float32
    eps: float,
    tables: Tables,  # [n,2,d/4] float32 each
) -> Tensor:
    """LayerNorm over the channels, then `rope.rotate`, in float32; [b,heads,n,d] in the type of x."""
    b, heads, n, d = x.shape
    if x.stride(3) != 1:
        raise ValueError(f"the channels of x lie {x.stride(3)} elements apart, not next to each other")
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    cos, sin = (table.contiguous() for table in tables)
    grid = (triton.cdiv(n, _ROWS), b * heads)
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():  # kernels start on the current GPU
        _kernel[grid](
            x, out, weight, bias, cos, sin, n, heads, *x.stride()[:3], eps,
            D=d, BLOCK=triton.next_power_of_2(d), ROWS=_ROWS,
        )  # fmt: skip
    return out


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(  # type: ignore[no-untyped-def]
    x,
    out,
    weight,
    bias,
    cos,
    sin,
    n,
    heads,
    stride_batch,
    stride_head,
    stride_token,
    eps,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    head = tl.program_id(1).to(tl.int64)
    token = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    channel = tl.arange(0, BLOCK)[None, :]
    inside = (token < n) & (channel < D)
    # A channel turns with the one a quarter of the head away: the first of a pair with the next, the second back.
    second = (channel // (D // 4)) % 2
    partner = channel + (1 - 2 * second) * (D // 4)
    row = x + (head // heads) * stride_batch + (head % heads) * stride_head + token.to(tl.int64) * stride_token
    own = tl.load(row + channel, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(row + partner, mask=inside, other=0.0).to(tl.float32)

    mean = tl.sum(own, axis=1)[:, None] / D
    centred = tl.where(inside, own - mean, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, axis=1)[:, None] / D + eps)
    here = channel < D
    own = centred * scale * tl.load(weight + channel, mask=here, other=0.0)
    own += tl.load(bias + channel, mask=here, other=0.0)
    other = (other - mean) * scale * tl.load(weight + partner, mask=here, other=0.0)
    other += tl.load(bias + partner, mask=here, other=0.0)

    angle = token * (D // 2) + (channel // (D // 2)) * (D // 4) + channel % (D // 4)
    c = tl.load(cos + angle, mask=inside, other=0.0)
    s = tl.load(sin + angle, mask=inside, other=0.0)
    turned = own * c + (2 * second - 1).to(tl.float32) * other * s
    target = out + (head * n + token) * D + channel
    tl.store(target, turned.to(out.dtype.element_ty), mask=inside)
