"""Rotary position codes in two dimensions: the first half of a head's channels turns with the row, the other with the
column (Heo et al., "Rotary Position Embedding for Vision Transformer", ECCV 2024).

Tables are float32 whatever the network's type: the released code builds them in the type of the queries, which in
bfloat16 loses angles.
"""

import torch
from torch import Tensor

Tables = tuple[Tensor, Tensor]  # cosines and sines, [...,n,2,d/4] float32


def patch_positions(rows: int, columns: int, special: int, device: torch.device | None = None) -> Tensor:
    """(row, column) of every token of a frame, [special + rows*columns,2] int64.

    Patches count from 1; special tokens stand at (0,0), where nothing is turned.
    """
    y, x = torch.meshgrid(
        torch.arange(1, rows + 1, device=device), torch.arange(1, columns + 1, device=device), indexing="ij"
    )
    patches = torch.stack((y, x), dim=-1).reshape(-1, 2)
    return torch.cat((patches.new_zeros(special, 2), patches))


def rope_tables(positions: Tensor, head_dim: int, base: float) -> Tables:
    """Tables for positions [...,n,2] (row, column) and heads of `head_dim` channels, a multiple of 4."""
    quarter = head_dim // 4
    exponent = torch.arange(quarter, dtype=torch.float32, device=positions.device) / quarter
    angles = positions[..., None].float() * base**-exponent  # [...,n,2,d/4]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, tables: Tables) -> Tensor:
    """Queries or keys [...,n,d], turned; float32 out."""
    cos, sin = tables
    # Row or column, first or second of a pair, frequency.
    half = x.float().reshape(*x.shape[:-1], 2, 2, x.shape[-1] // 4)
    a, b = half.unbind(-2)
    return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-2).flatten(-3)
