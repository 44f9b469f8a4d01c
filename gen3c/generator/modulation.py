"""The diffusion transformer's norms, so that its narrow types meet what flows past its blocks in float32.

In bfloat16 throughout, as released, each of the 84 additions of gen3c-7b rounds the sum to 8 bits, which alone puts the
result 1 % away from that in float32. Kept in float32 the sum costs half a percent of the time.
"""

import torch
from diffusers.models.transformers.transformer_cosmos import CosmosAdaLayerNorm, CosmosAdaLayerNormZero
from torch import Tensor, nn


class BlockNorm(CosmosAdaLayerNormZero):  # type: ignore[misc]
    """diffusers' norm before attention or feed-forward; what it gives them has the type of their weights."""

    def forward(
        self,
        hidden_states: Tensor,  # [b,n,c] float32
        embedded_timestep: Tensor,  # [b,c]
        temb: Tensor | None = None,  # [b,3c]
    ) -> tuple[Tensor, Tensor]:
        """Normalised and modulated [b,n,c], and the gate of the result [b,1,c]."""
        normalised, gate = super().forward(hidden_states, embedded_timestep, temb)
        return normalised.to(_weight_type(self)), gate


class FinalNorm(CosmosAdaLayerNorm):  # type: ignore[misc]
    """diffusers' norm before the last projection, in the type of its weights."""

    def forward(self, hidden_states: Tensor, embedded_timestep: Tensor, temb: Tensor | None = None) -> Tensor:
        """Normalised and modulated, [b,n,c]."""
        normalised: Tensor = super().forward(hidden_states, embedded_timestep, temb)
        return normalised.to(_weight_type(self))


def _weight_type(norm: nn.Module) -> torch.dtype:
    linear = norm.get_submodule("linear_2")
    return next(linear.parameters()).dtype
