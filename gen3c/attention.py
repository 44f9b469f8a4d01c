"""Attention by the fastest kernel that PyTorch carries for where the tensors are."""

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

# On Hopper cuDNN's is the fastest of them.
_ON_GPU = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def fastest_attention() -> AbstractContextManager[None]:
    """While entered, PyTorch takes the fastest kernel of a GPU; a compiler decides for it when it compiles."""
    context: AbstractContextManager[None] = sdpa_kernel(_ON_GPU, set_priority=True)
    return context


def attend(
    query: Tensor,  # [b,heads,n,d]
    key: Tensor,  # [b,heads,m,d]
    value: Tensor,  # [b,heads,m,d]
    mask: Tensor | None = None,
) -> Tensor:
    """softmax(query key^T / sqrt(d) + mask) value, [b,heads,n,d]."""
    with fastest_attention() if query.is_cuda else nullcontext():
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
