"""Layers of the video tokenizer in a form that is fast, small in memory and easy to export.

They have the parameters and the arithmetic of diffusers' layers, which run depthwise 3-D convolutions for the wavelets
and 3-D kernels for convolutions that are flat in time or in space. On two cores these halve the time of the encoder.
"""

import torch
from diffusers.models.autoencoders.autoencoder_kl_cosmos import (
    CosmosCausalAttention,
    CosmosCausalConv3d,
    CosmosSpatialAttentionProcessor2_0,
)
from torch import Tensor, nn
from torch.nn import functional as F

HAAR_LEVELS = 2  # a patch is 4 frames of 4x4 pixels
_HAAR_SCALE = 1 / 8  # each level: three axes of 1/sqrt(2), then 1/(2*sqrt(2)) for the unit mean of the low band


class HaarPatch(nn.Module):
    """Pixels to wavelet bands: [b,c,T,H,W] -> [b,64c,(T+3)/4,H/4,W/4], the first frame taken four times."""

    def forward(self, video: Tensor) -> Tensor:
        first = video[:, :, :1].expand(-1, -1, 2**HAAR_LEVELS - 1, -1, -1)
        x = torch.cat([first, video], dim=2)
        for _ in range(HAAR_LEVELS):
            bands = [x]
            for dim in (2, 3, 4):  # low then high along time, height, width: LLL, LLH, LHL ... HHH
                halves = [_pairs(band, dim).unbind(dim + 1) for band in bands]
                bands = [band for even, odd in halves for band in (even + odd, even - odd)]
            x = torch.cat(bands, dim=1) * _HAAR_SCALE
        return x


class HaarUnpatch(nn.Module):
    """The inverse of HaarPatch."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(HAAR_LEVELS):
            bands = list(x.chunk(8, dim=1))
            for dim in (4, 3, 2):
                pairs = zip(bands[::2], bands[1::2], strict=True)
                bands = [torch.stack([low + high, low - high], dim + 1).flatten(dim, dim + 1) for low, high in pairs]
            x = bands[0]
        return x[:, :, 2**HAAR_LEVELS - 1 :]


class FlatCausalConv(nn.Module):
    """A causal convolution with kernel 1x3x3, 3x1x1 or 1x1x1, run as a 2-D one; in time it repeats the first frame."""

    def __init__(self, conv: CosmosCausalConv3d) -> None:
        super().__init__()
        if conv.kernel_size not in ((1, 3, 3), (3, 1, 1), (1, 1, 1)):
            raise ValueError(f"kernel_size is {conv.kernel_size}; legal are 1x3x3, 3x1x1 and 1x1x1.")
        self.weight = conv.weight  # [out,in,kt,kh,kw]
        self.bias = conv.bias
        self.stride: tuple[int, int, int] = conv.stride
        self.pad_time: int = conv.temporal_pad
        self.pad_space: int = conv.spatial_pad[0]

    def forward(self, x: Tensor) -> Tensor:  # [b,c,t,h,w]
        batch, _, frames, height, width = x.shape
        if self.weight.shape[2] == 1 and self.weight.shape[3] == 3:
            images = x.transpose(1, 2).flatten(0, 1)
            y = F.conv2d(images, self.weight[:, :, 0], self.bias, self.stride[1:], self.pad_space)
            return y.reshape(batch, frames, *y.shape[1:]).transpose(1, 2)
        if self.pad_time:
            x = torch.cat([x[:, :, :1].expand(-1, -1, self.pad_time, -1, -1), x], dim=2)
        y = F.conv2d(x.flatten(3), self.weight[..., 0], self.bias, (self.stride[0], 1))
        return y.reshape(*y.shape[:3], height, width)


class FrameAttention:
    """Attention within each frame, one frame after the other; the arithmetic of diffusers' spatial processor.

    No fused kernel takes a head of 512, so the scores are real tensors: 25 GB for all frames of 704x1280 together.
    """

    def __call__(
        self,
        attn: CosmosCausalAttention,
        hidden_states: Tensor,  # [b,c,t,h,w]
        attention_mask: Tensor | None = None,  # noqa: ARG002 (diffusers' interface; within a frame there is none)
    ) -> Tensor:
        normed = attn.norm(hidden_states)
        query, key, value = (  # [b,t,h*w,c]
            project(normed).permute(0, 2, 3, 4, 1).flatten(2, 3) for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        frames = [
            F.scaled_dot_product_attention(query[:, i], key[:, i], value[:, i]) for i in range(hidden_states.shape[2])
        ]
        batch, _, t, height, width = hidden_states.shape
        mixed = torch.stack(frames, dim=1).view(batch, t, height, width, -1).permute(0, 4, 1, 2, 3)
        result: Tensor = attn.to_out[0](mixed) + hidden_states
        return result


def attend_frame_by_frame(module: nn.Module) -> None:
    """Give every spatial attention inside `module` the processor above."""
    for child in module.modules():
        if isinstance(child, CosmosCausalAttention) and isinstance(child.processor, CosmosSpatialAttentionProcessor2_0):
            child.processor = FrameAttention()


def flatten_convolutions(module: nn.Module) -> None:
    """Replace every causal convolution inside `module` by its FlatCausalConv; the state dict stays the same."""
    for name, child in module.named_children():
        if isinstance(child, CosmosCausalConv3d):
            setattr(module, name, FlatCausalConv(child))
        else:
            flatten_convolutions(child)


def _pairs(x: Tensor, dim: int) -> Tensor:
    """Split axis `dim` of even size n into n/2 neighbours and 2."""
    return x.reshape(*x.shape[:dim], x.shape[dim] // 2, 2, *x.shape[dim + 1 :])
