"""Layers of the video tokenizer in a form that is fast, small in memory and easy to export.

They have the parameters and the arithmetic of diffusers' layers, which run depthwise 3-D convolutions for the wavelets
and 3-D kernels for convolutions that are flat in time or in space. On two cores these halve the time of the encoder.
"""

import torch
from diffusers.models.autoencoders.autoencoder_kl_cosmos import (
    CosmosCausalAttention,
    CosmosCausalConv3d,
    CosmosSpatialAttentionProcessor2_0,
    CosmosTemporalAttentionProcessor2_0,
    CosmosUpsample3d,
)
from torch import Tensor, nn
from torch.nn import functional as F

_SIDE = 4  # a patch is 4 frames of 4x4 pixels: two levels, the second over all bands of the first
_WIDEST_FUSED_HEAD = 256  # for which PyTorch has kernels that keep no scores


class HaarPatch(nn.Module):
    """Pixels to wavelet bands: [b,c,T,H,W] -> [b,64c,(T+3)/4,H/4,W/4], the first frame taken four times."""

    def forward(self, video: Tensor) -> Tensor:
        b, c, _, height, width = video.shape
        first = video[:, :, :1].expand(-1, -1, _SIDE - 1, -1, -1)
        frames = torch.cat([first, video], dim=2).reshape(-1, _SIDE, height, width)
        bands = F.conv2d(frames, _haar_signs(video) / _SIDE**3, stride=_SIDE)  # [b*c*t,64,h,w]
        # Frame by frame in memory, as the convolution that follows takes them.
        return bands.reshape(b, c, -1, *bands.shape[1:]).permute(0, 2, 3, 1, 4, 5).flatten(2, 3).transpose(1, 2)


class HaarUnpatch(nn.Module):
    """The inverse of HaarPatch."""

    def forward(self, x: Tensor) -> Tensor:
        b, bands, t, h, w = x.shape
        c = bands // _SIDE**3
        patches = x.reshape(b, -1, c, t, h, w).permute(0, 2, 3, 1, 4, 5).reshape(b * c * t, -1, h, w)
        video = F.conv_transpose2d(patches, _haar_signs(x), stride=_SIDE)  # [b*c*t,4,H,W]
        return video.reshape(b, c, _SIDE * t, _SIDE * h, _SIDE * w)[:, :, _SIDE - 1 :]


def _haar_signs(like: Tensor) -> Tensor:
    """Both levels of all 64 bands over a patch, [64,4,4,4] of 1 and -1 in the dtype of `like`.

    Bands are low then high along time, height and width of the second level, then of the first: LLL LLL, LLL LLH ...
    Computed, so that exporters see where the numbers come from even where tensors have none.
    """
    index = torch.arange(2, device=like.device, dtype=like.dtype)
    pair = 1 - 2 * index[:, None] * index  # low [1,1], high [1,-1]
    axis = pair[:, None, :, None] * pair[:, None, :]  # [second level, first level, pixel of 4, as two digits]
    time = axis.reshape(2, 1, 1, 2, 1, 1, _SIDE, 1, 1)
    height = axis.reshape(2, 1, 1, 2, 1, 1, _SIDE, 1)
    width = axis.reshape(2, 1, 1, 2, 1, 1, _SIDE)
    return (time * height * width).reshape(_SIDE**3, _SIDE, _SIDE, _SIDE)


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


class Upsample(nn.Module):
    """diffusers' layer with the convolutions of `layer`; rows and columns are doubled by one kernel for both."""

    def __init__(self, layer: CosmosUpsample3d) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = layer.conv1, layer.conv2, layer.conv3
        self.temporal: bool = layer.temporal_upsample
        self.spatial: bool = layer.spatial_upsample

    def forward(self, x: Tensor) -> Tensor:  # [b,c,t,h,w]
        if self.temporal:
            if x.shape[2] > 1:
                x = x.repeat_interleave(2, dim=2)[:, :, 1:]
            x = self.conv1(x) + x
        if self.spatial:
            batch, _, frames = x.shape[:3]
            images = F.interpolate(x.transpose(1, 2).flatten(0, 1), scale_factor=2.0, mode="nearest")
            x = images.reshape(batch, frames, *images.shape[1:]).transpose(1, 2)
            x = self.conv2(x) + x
        result: Tensor = self.conv3(x)
        return result


class FrameAttention:
    """Attention within each frame; the arithmetic of diffusers' spatial processor.

    No fused kernel takes a head of 512, so its scores are real tensors: 25 GB for all frames of 704x1280 together.
    Frames go one after the other there.
    """

    def __call__(
        self,
        attn: CosmosCausalAttention,
        hidden_states: Tensor,  # [b,c,t,h,w]
        attention_mask: Tensor | None = None,  # noqa: ARG002 (diffusers' interface; within a frame there is none)
    ) -> Tensor:
        query, key, value = _queries_keys_values(attn, hidden_states)  # [b,t,h*w,c]
        frames, channels = query.shape[1], query.shape[3]
        at_once = frames if channels <= _WIDEST_FUSED_HEAD else 1
        pieces = [  # frames stand where other networks have heads: the ONNX exporter knows no other form
            F.scaled_dot_product_attention(query[:, i:end], key[:, i:end], value[:, i:end])
            for i, end in ((i, i + at_once) for i in range(0, frames, at_once))
        ]
        return _projected(attn, torch.cat(pieces, dim=1) if len(pieces) > 1 else pieces[0], hidden_states)


class TimeAttention:
    """Attention of each pixel to its own past; the arithmetic of diffusers' temporal processor."""

    def __call__(
        self,
        attn: CosmosCausalAttention,
        hidden_states: Tensor,  # [b,c,t,h,w]
        attention_mask: Tensor | None = None,  # [t,t]
    ) -> Tensor:
        query, key, value = (x.transpose(1, 2) for x in _queries_keys_values(attn, hidden_states))  # [b,h*w,t,c]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        return _projected(attn, mixed.transpose(1, 2), hidden_states)


def _queries_keys_values(attn: CosmosCausalAttention, x: Tensor) -> list[Tensor]:
    """Of x [b,c,t,h,w], each [b,t,h*w,c]: channels are moved last once for all three."""
    tokens = attn.norm(x).flatten(3).permute(0, 2, 3, 1).contiguous()
    return [_pointwise(project, tokens) for project in (attn.to_q, attn.to_k, attn.to_v)]


def _projected(attn: CosmosCausalAttention, mixed: Tensor, residual: Tensor) -> Tensor:
    """From [b,t,h*w,c] to [b,c,t,h,w]."""
    return _pointwise(attn.to_out[0], mixed).permute(0, 3, 1, 2).reshape(residual.shape) + residual


def _pointwise(conv: FlatCausalConv | CosmosCausalConv3d, tokens: Tensor) -> Tensor:
    """A convolution with kernel 1x1x1 over the last axis of `tokens`."""
    weight: Tensor = conv.weight  # [out,in,1,1,1]
    return F.linear(tokens, weight.flatten(1), conv.bias)


def attend_frame_by_frame(module: nn.Module) -> None:
    """Give every attention inside `module` one of the two processors above."""
    ours = {CosmosSpatialAttentionProcessor2_0: FrameAttention, CosmosTemporalAttentionProcessor2_0: TimeAttention}
    for child in module.modules():
        if isinstance(child, CosmosCausalAttention) and type(child.processor) in ours:
            child.processor = ours[type(child.processor)]()


def flatten_convolutions(module: nn.Module) -> None:
    """Replace every causal convolution and upsampling layer inside `module`; the state dict stays the same."""
    for name, child in module.named_children():
        if isinstance(child, CosmosCausalConv3d):
            setattr(module, name, FlatCausalConv(child))
        else:
            flatten_convolutions(child)
        if isinstance(child, CosmosUpsample3d) and (child.spatial_upsample or child.temporal_upsample):
            setattr(module, name, Upsample(child))
