"""The transformer block of all parts of VGGT.

Linear layers may be of a narrower type than the rest: what flows past them, norms and gains stay float32, as under
PyTorch's autocast, which the released network runs in.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gen3c.attention import attend
from gen3c.geometry.vggt.rope import Tables, rotate


class Attention(nn.Module):
    """Multi-head self-attention, optionally with normalised and rotated queries and keys."""

    def __init__(self, width: int, heads: int, *, qk_norm: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, tables: Tables | None = None) -> Tensor:
        """Tokens [b,n,c] of the linear layers' type, and the same out; `tables` [n,2,d/4]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)  # [b,heads,n,d]
        out = attend(_prepared(q, self.q_norm, tables), _prepared(k, self.k_norm, tables), v)
        mixed: Tensor = self.proj(out.transpose(1, 2).flatten(2))
        return mixed


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, out or width)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return projected


class LayerScale(nn.Module):
    """A gain a channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Attention and MLP, each behind a norm and with a scaled residual."""

    def __init__(self, width: int, heads: int, mlp_ratio: int = 4, *, eps: float = 1e-5, qk_norm: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads, qk_norm=qk_norm)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, mlp_ratio * width)
        self.ls2 = LayerScale(width)

    def forward(self, x: Tensor, tables: Tables | None = None) -> Tensor:
        """Tokens [b,n,c] float32, and the same out."""
        dtype = self.attn.qkv.weight.dtype
        x = x + self.ls1(self.attn(self.norm1(x).to(dtype), tables))
        out: Tensor = x + self.ls2(self.mlp(self.norm2(x).to(dtype)))
        return out


def _prepared(x: Tensor, norm: nn.Module, tables: Tables | None) -> Tensor:
    """Queries or keys [b,heads,n,d], normalised and turned in float32 where the block does so; their own type out."""
    if isinstance(norm, nn.LayerNorm) and tables is not None and x.is_cuda and not torch.compiler.is_compiling():
        from gen3c.geometry.vggt.qk_gpu import normalise_and_rotate  # needs a compiler that CPU builds do not bring

        return normalise_and_rotate(x, norm.weight, norm.bias, norm.eps, tables)
    prepared = norm(x.float()) if isinstance(norm, nn.LayerNorm) else x
    if tables is not None:
        prepared = rotate(prepared, tables)
    out: Tensor = prepared.to(x.dtype)
    return out
