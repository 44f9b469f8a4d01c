"""The diffusion transformer's learned positions, which every block adds to its input."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LearnedPositions(nn.Module):
    """Drop-in for the `learnable_pos_embed` of diffusers' `CosmosTransformer3DModel`: its parameters and arithmetic.

    Computed once for all rows of a batch, whose number an exporter may therefore leave open.
    """

    def __init__(self, width: int, max_size: Sequence[int], patch_size: Sequence[int], eps: float = 1e-6) -> None:
        super().__init__()
        self.patch_size = tuple(patch_size)
        self.eps = eps
        longest = [size // patch for size, patch in zip(max_size, patch_size, strict=True)]
        self.pos_emb_t, self.pos_emb_h, self.pos_emb_w = (nn.Parameter(torch.zeros(n, width)) for n in longest)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """A vector of unit mean square for each of the n = t*h*w patches of hidden_states [b,c,t,h,w]: [1,n,width].

        In float32, which makes the sum that it is added to one, too (gen3c.generator.modulation).
        """
        t, h, w = (size // patch for size, patch in zip(hidden_states.shape[2:], self.patch_size, strict=True))
        position = (
            self.pos_emb_t[:t, None, None] + self.pos_emb_h[None, :h, None] + self.pos_emb_w[None, None, :w]
        ).flatten(0, 2)[None]
        norm = torch.linalg.vector_norm(position, dim=-1, keepdim=True, dtype=torch.float32)
        root_mean_square = self.eps + norm * math.sqrt(1 / position.shape[-1])
        unit: Tensor = position / root_mean_square  # float32, whatever the parameters are
        return unit
