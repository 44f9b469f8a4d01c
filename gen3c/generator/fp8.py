"""The diffusion transformer's large linear layers in float8, on GPUs of compute capability 8.9 and later.

Weights are rounded once, with a scale for each output channel; activations at every call, with a scale for each token
(as in Micikevicius et al., "FP8 Formats for Deep Learning", arXiv 2209.05433: E4M3 forward). Products accumulate in
float32. Norms, modulation, embeddings and the last projection stay as they are.
"""

import torch
from torch import Tensor, nn

from gen3c.errors import InvalidInputError
from gen3c.generator.dit import Dit

FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max  # 448
FIRST_CAPABILITY = (8, 9)
_QUANTISED = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")


class Fp8Linear(nn.Module):
    """A linear layer without bias whose product is one of float8 matrices."""

    weight: Tensor  # [out,in] float8
    weight_scale: Tensor  # [1,out] float32

    def __init__(self, linear: nn.Linear) -> None:
        """Raises ValueError for a layer with a bias, which would be lost."""
        super().__init__()
        if linear.bias is not None:
            raise ValueError("The layer has a bias; legal are layers without.")
        wide = linear.weight.detach().float()
        scale = wide.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / LARGEST
        self.register_buffer("weight", (wide / scale).to(FLOAT8))
        self.register_buffer("weight_scale", scale.t().contiguous())

    def forward(self, x: Tensor) -> Tensor:  # x: [...,in] bfloat16
        """The product, [...,out] in the type of `x`."""
        rows = x.flatten(0, -2)
        scale = rows.abs().amax(dim=1, keepdim=True).float().clamp(min=1e-12) / LARGEST  # [n,1]
        narrow = (rows.float() / scale).clamp(-LARGEST, LARGEST).to(FLOAT8)
        product: Tensor = torch._scaled_mm(
            narrow, self.weight.t(), scale_a=scale, scale_b=self.weight_scale, out_dtype=x.dtype, use_fast_accum=True
        )
        return product.view(*x.shape[:-1], -1)


def quantise(dit: Dit) -> Dit:
    """Replace the linear layers of all blocks' attention and feed-forward, in place.

    Keys and values of the text stay: 512 rows are no work. Raises InvalidInputError unless the network is in bfloat16
    on a GPU that multiplies float8.
    """
    weight = dit.transformer.proj_out.weight
    if weight.dtype != torch.bfloat16 or not weight.is_cuda:
        raise InvalidInputError(f"The network is {weight.dtype} on {weight.device}; fp8 needs bfloat16 on a GPU.")
    capability = torch.cuda.get_device_capability(weight.device)
    if capability < FIRST_CAPABILITY:
        raise InvalidInputError(
            f"This GPU has compute capability {capability[0]}.{capability[1]}; fp8 needs 8.9 or later."
        )
    for block in dit.transformer.transformer_blocks:
        for name, linear in list(block.named_modules()):
            if not isinstance(linear, nn.Linear) or not name.endswith(_QUANTISED):
                continue
            if name.startswith("attn2.") and name.endswith(("to_k", "to_v")):
                continue
            parent, _, leaf = name.rpartition(".")
            setattr(block.get_submodule(parent), leaf, Fp8Linear(linear))
    return dit
