"""The splat on a GPU: one Triton kernel a pass, twin of `gen3c.splat.splat`.

Atomic additions of floats come in any order, and so would the last bits of every picture. Here the largest corner
weight of each target pixel is found first (a maximum does not depend on the order), and every corner is added relative
to it in 64-bit fixed point, where addition is exact. The same points give the same picture, bit for bit.
"""

from contextlib import nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 256
_ONE = 1 << 40  # fixed point: the largest weight of a pixel. Leaves room for 2**21 points on one pixel


def splat(
    values: Tensor,  # [b,c,h,w]
    pixels: Tensor,  # [b,h,w,2] target x, y
    weight: Tensor,  # [b,h,w] >= 0; 0 = the point takes no part
    size: tuple[int, int],  # target height, width
) -> tuple[Tensor, Tensor]:
    """See `gen3c.splat.splat`; all tensors on one GPU."""
    b, c, h, w = values.shape
    padded_h, padded_w = size[0] + 2, size[1] + 2
    points, cells = h * w, padded_h * padded_w
    values, weight = values.float().contiguous(), weight.float().contiguous()
    pixels = torch.nan_to_num(pixels, nan=-1.0, posinf=1e6, neginf=-1e6).contiguous()
    largest = torch.zeros(b, cells, dtype=torch.int32, device=values.device)  # bits of a float >= 0, which sort alike
    total = torch.zeros(b, c + 1, cells, dtype=torch.int64, device=values.device)
    # To 1 at most, each channel of each picture by itself: neither a far depth nor another picture costs colours bits.
    unit = values.abs().amax(dim=(2, 3), keepdim=True).clamp(min=1.0)
    values = values / unit
    grid = (triton.cdiv(points, _BLOCK), b)
    geometry = (points, cells, padded_w, padded_h)
    with torch.cuda.device(values.device) if values.is_cuda else nullcontext():  # kernels start on the current GPU
        _find_largest[grid](pixels, weight, largest, *geometry, BLOCK=_BLOCK)
        _accumulate[grid](pixels, weight, values, largest, total, *geometry, CHANNELS=c, ONE=float(_ONE), BLOCK=_BLOCK)

    total = total.view(b, c + 1, padded_h, padded_w)[:, :, 1:-1, 1:-1]
    peak = largest.view(torch.float32).view(b, 1, padded_h, padded_w)[:, :, 1:-1, 1:-1]
    covered = peak > 0
    relative = total[:, -1:].double() / _ONE
    mean = total[:, :-1].double() / _ONE * unit / torch.where(covered, relative, torch.ones_like(relative))
    return torch.where(covered, mean, torch.zeros_like(mean)).float(), (relative * peak).float()


@triton.jit
def _corners(pixels, weight, batch, point, inside, points, padded_w, padded_h):  # type: ignore[no-untyped-def]
    """Both indices and weights along each axis, and the point's weight: what all four corners are made of."""
    at = batch * points + point
    x = tl.load(pixels + 2 * at, mask=inside, other=-1.0)
    y = tl.load(pixels + 2 * at + 1, mask=inside, other=-1.0)
    point_weight = tl.load(weight + at, mask=inside, other=0.0)
    x, y = x + 1.0, y + 1.0
    x0, x1, y0, y1 = tl.floor(x), tl.ceil(x), tl.floor(y), tl.ceil(y)
    wx0, wx1, wy0, wy1 = 1.0 - (x - x0), 1.0 - (x1 - x), 1.0 - (y - y0), 1.0 - (y1 - y)
    x0 = tl.minimum(tl.maximum(x0, 0.0), padded_w - 1.0).to(tl.int32)
    x1 = tl.minimum(tl.maximum(x1, 0.0), padded_w - 1.0).to(tl.int32)
    y0 = tl.minimum(tl.maximum(y0, 0.0), padded_h - 1.0).to(tl.int32)
    y1 = tl.minimum(tl.maximum(y1, 0.0), padded_h - 1.0).to(tl.int32)
    return x0, x1, y0, y1, wx0, wx1, wy0, wy1, point_weight


@triton.jit  # type: ignore[untyped-decorator]
def _find_largest(pixels, weight, largest, points, cells, padded_w, padded_h, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    batch = tl.program_id(1).to(tl.int64)
    point = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = point < points
    x0, x1, y0, y1, wx0, wx1, wy0, wy1, w = _corners(pixels, weight, batch, point, inside, points, padded_w, padded_h)
    for corner in tl.static_range(4):
        x = x1 if corner % 2 else x0
        y = y1 if corner // 2 else y0
        share = (wx1 if corner % 2 else wx0) * (wy1 if corner // 2 else wy0) * w
        cell = batch * cells + y * padded_w + x
        tl.atomic_max(largest + cell, share.to(tl.int32, bitcast=True), mask=inside & (share > 0))


@triton.jit  # type: ignore[untyped-decorator]
def _accumulate(  # type: ignore[no-untyped-def]
    pixels,
    weight,
    values,
    largest,
    total,
    points,
    cells,
    padded_w,
    padded_h,
    CHANNELS: tl.constexpr,
    ONE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    batch = tl.program_id(1).to(tl.int64)
    point = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = point < points
    x0, x1, y0, y1, wx0, wx1, wy0, wy1, w = _corners(pixels, weight, batch, point, inside, points, padded_w, padded_h)
    for corner in tl.static_range(4):
        x = x1 if corner % 2 else x0
        y = y1 if corner // 2 else y0
        share = (wx1 if corner % 2 else wx0) * (wy1 if corner // 2 else wy0) * w
        cell = y * padded_w + x
        taken = inside & (share > 0)
        peak = tl.load(largest + batch * cells + cell, mask=taken, other=1).to(tl.float32, bitcast=True)
        relative = (share / peak).to(tl.float64)
        sums = total + batch * (CHANNELS + 1) * cells + cell
        tl.atomic_add(sums + CHANNELS * cells, (relative * ONE).to(tl.int64), mask=taken)
        for channel in tl.static_range(CHANNELS):
            value = tl.load(values + (batch * CHANNELS + channel) * points + point, mask=taken, other=0.0)
            amount = (relative * value * ONE).to(tl.int64)
            tl.atomic_add(sums + channel * cells, amount, mask=taken)
