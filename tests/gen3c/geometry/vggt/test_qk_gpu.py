"""The fused norm and rotation against the plain ones: on a GPU, or in Triton's interpreter (TRITON_INTERPRET=1)."""

import os

import pytest
import torch
from torch import nn

from gen3c.geometry.vggt.rope import patch_positions, rope_tables, rotate

if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a GPU, or Triton's interpreter", allow_module_level=True)

from gen3c.geometry.vggt.qk_gpu import normalise_and_rotate

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("head_dim", [64, 24, 16])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2**-7)])
def test_it_is_the_plain_way(head_dim: int, dtype: torch.dtype, tolerance: float) -> None:
    """Queries as they come out of one linear layer: strided; more tokens than a program takes, and not a multiple."""
    generator = torch.Generator().manual_seed(head_dim)
    b, heads, rows, columns, special = 2, 3, 5, 7, 5
    tables = rope_tables(patch_positions(rows, columns, special), head_dim, 100.0)
    n = rows * columns + special
    qkv = torch.randn(b, n, 3, heads, head_dim, generator=generator) * 3 + 1
    norm = nn.LayerNorm(head_dim)
    nn.init.normal_(norm.weight, 1, 0.3, generator=generator)
    nn.init.normal_(norm.bias, 0, 0.3, generator=generator)
    x = qkv.to(DEVICE, dtype).permute(2, 0, 3, 1, 4)[1]  # [b,heads,n,d]
    norm, tables = norm.to(DEVICE).requires_grad_(False), tuple(table.to(DEVICE) for table in tables)
    expected = rotate(norm(x.float()), tables)
    fused = normalise_and_rotate(x, norm.weight, norm.bias, norm.eps, tables)
    assert fused.dtype == dtype
    assert fused.is_contiguous()
    # Float32 rounds a few times, bfloat16 once more at the end: by a step of its 8 bits where it cuts off.
    torch.testing.assert_close(fused.float(), expected, rtol=tolerance, atol=tolerance)


def test_channels_must_lie_together() -> None:
    x = torch.zeros(1, 1, 16, 4, device=DEVICE).transpose(2, 3)
    tables = rope_tables(patch_positions(2, 2, 0), 16, 100.0)
    with pytest.raises(ValueError, match="the channels of x lie 4 elements apart"):
        normalise_and_rotate(x, torch.ones(16), torch.zeros(16), 1e-5, tables)
