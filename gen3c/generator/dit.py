"""GEN3C's diffusion transformer as a tensor program.

The network is diffusers' `CosmosTransformer3DModel`, whose arithmetic equals GEN3C's. This module adds what GEN3C feeds
it: the channels noisy latent 16 | condition mask 1 | cache 64 | padding mask 1, 82 in all.
"""

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.normalization import RMSNorm
from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional as F

from gen3c.attention import attend
from gen3c.errors import InvalidInputError
from gen3c.generator.learned_positions import LearnedPositions
from gen3c.generator.modulation import BlockNorm, FinalNorm
from gen3c.generator.rope import RotaryAngles
from gen3c.generator.signatures import CACHE_CHANNELS, LATENT_CHANNELS
from gen3c.presets import DitConfig


class Dit(nn.Module):
    """The program `dit`. `transformer` has diffusers' state dict, which is the layout of checkpoints."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = CosmosTransformer3DModel(
            # The padding mask is ours to append: diffusers' own path needs torchvision for one nearest resize.
            in_channels=LATENT_CHANNELS + 1 + CACHE_CHANNELS + 1,
            concat_padding_mask=False,
            out_channels=LATENT_CHANNELS,
            num_attention_heads=config.heads,
            attention_head_dim=config.head_dim,
            num_layers=config.layers,
            mlp_ratio=4.0,
            text_embed_dim=config.text_dim,
            adaln_lora_dim=config.adaln_lora_dim,
            max_size=config.max_size,
            patch_size=(1, 2, 2),
            rope_scale=(2.0, 1.0, 1.0),
            extra_pos_embed_type="learnable",
        )
        self.transformer.rope = RotaryAngles(config.head_dim, precision=config.rope)
        width = config.heads * config.head_dim
        self.transformer.learnable_pos_embed = LearnedPositions(
            width, config.max_size, self.transformer.config.patch_size
        )
        self.transformer.norm_out = FinalNorm(width, config.adaln_lora_dim)
        for block in self.transformer.transformer_blocks:
            block.norm1, block.norm2, block.norm3 = (BlockNorm(width, config.adaln_lora_dim) for _ in range(3))
            block.attn1.set_processor(AttentionProcessor())
            block.attn2.set_processor(AttentionProcessor())

    def forward(
        self,
        latent: Tensor,  # [b,16,t,h,w] noisy latent times c_in
        timestep: Tensor,  # [b,1] float32, 0.25 ln(sigma)
        condition_mask: Tensor,  # [b,1,t,h,w] 1 where the latent is given
        cache: Tensor,  # [b,64,t,h,w]
        text: Tensor,  # [b,tokens,text_dim]
        fps: Tensor,  # [b,1] float32, frames per second, equal rows; enters through the rotary angles alone
        padding_mask: Tensor | None = None,  # [1,1,H,W] 1 where a pixel is padding; None: nowhere
    ) -> Tensor:
        """The network's output F, [b,16,t,h,w] in the dtype of `latent`.

        Raises InvalidInputError if the latent is larger than the position embeddings, or odd in rows or columns.
        """
        self._check_size(latent)
        dtype = self.transformer.proj_out.weight.dtype
        padding = _padding_channel(padding_mask, latent)
        out: Tensor = self.transformer(
            hidden_states=latent.to(dtype),
            timestep=timestep[:, 0],
            encoder_hidden_states=text.to(dtype),
            fps=fps[0],
            condition_mask=torch.cat([condition_mask.to(dtype), cache.to(dtype), padding.to(dtype)], dim=1),
            return_dict=False,
        )[0]
        return out.to(latent.dtype)

    def _check_size(self, latent: Tensor) -> None:
        size = tuple(latent.shape[2:])
        if any(n > limit for n, limit in zip(size, self.config.max_size, strict=True)) or size[1] % 2 or size[2] % 2:
            raise InvalidInputError(
                f"The latent is {list(size)} (frames, rows, columns); legal is at most {list(self.config.max_size)} "
                "with even rows and columns."
            )


class AttentionProcessor:
    """Attention with per-head RMS norms, and rotary embedding when angles are given.

    The same arithmetic as diffusers' processor for this network without its grouped-query step, which copies keys and
    values for nothing here and makes the head size data-dependent for exporters.
    """

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,  # [b,n,c]
        encoder_hidden_states: Tensor | None = None,  # [b,m,d]; None: self-attention
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,  # cos and sin, [n,head_dim] each
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (  # [b,n,heads,head_dim]
            project(x).unflatten(2, (attn.heads, -1))
            for project, x in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        )
        query, key = _normalise(query, attn.norm_q), _normalise(key, attn.norm_k)
        if image_rotary_emb is not None:
            query, key = _rotate(query, *image_rotary_emb), _rotate(key, *image_rotary_emb)
        out = attend(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attention_mask)
        projected: Tensor = attn.to_out[0](out.transpose(1, 2).flatten(2))
        return projected


def _normalise(x: Tensor, norm: RMSNorm) -> Tensor:
    """One fused pass over x [b,n,heads,head_dim] for the five of diffusers' own forward."""
    return F.rms_norm(x, norm.dim, norm.weight, norm.eps)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + head_dim/2) of x, [b,n,heads,head_dim], in float32."""
    first, second = x.chunk(2, dim=-1)
    half = first.shape[-1]
    c, s = cos[:, None, :half], sin[:, None, :half]  # the angles come twice, once for each half
    return torch.cat([first * c - second * s, second * c + first * s], dim=-1).to(x.dtype)


def _padding_channel(padding_mask: Tensor | None, latent: Tensor) -> Tensor:
    """The padding mask on the latent's grid, [b,1,t,h,w]."""
    b, _, t, h, w = latent.shape
    if padding_mask is None:
        return latent.new_zeros(b, 1, t, h, w)
    return F.interpolate(padding_mask, size=(h, w), mode="nearest").unsqueeze(2).expand(b, 1, t, h, w)
