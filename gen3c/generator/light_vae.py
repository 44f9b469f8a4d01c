"""A light causal video autoencoder: 8x8 pixels and 8 frames a cell, the first frame alone, 16 numbers a cell.

Frame 0 is taken eight times, so that a video of 1 + 8k frames makes t = 1 + k groups of eight; latent frame i depends
on groups 0..i, and group i of the decoded video on latent frames 0..i. Both halves are a linear code (initialised with
principal components, training/linear_code.py) plus a residual network without norms: 2-D convolutions over the frames
of a group as channels, and a look at the group before. Small and quick on two cores, in the manner of TAEHV.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gen3c.generator.signatures import LATENT_CHANNELS
from gen3c.presets import LightVaeConfig

FRAMES = 8  # of a group
CELL = 8  # px, side
PATCH = 4  # px, side of the squares that the networks' finer level works on
_HALF = 3 * FRAMES // 2 * PATCH**2  # numbers in half a group of a patch: 4 frames of 4x4 pixels


class LightVae(nn.Module):
    """Both halves and the statistics. Its state dict is the layout of checkpoints."""

    latents_mean: Tensor  # [16,t]
    latents_std: Tensor  # [16,t], > 0

    def __init__(self, config: LightVaeConfig, latent_frames: int) -> None:
        super().__init__()
        self.encoder = LightEncoder(config)
        self.decoder = LightDecoder(config)
        self.register_buffer("latents_mean", torch.zeros(LATENT_CHANNELS, latent_frames))
        self.register_buffer("latents_std", torch.ones(LATENT_CHANNELS, latent_frames))

    @property
    def encoding(self) -> nn.Module:
        """Video [b,3,T,H,W] to latent [b,16,t,h,w], neither normalised."""
        return self.encoder

    @property
    def decoding(self) -> nn.Module:
        """Latent [b,16,t,h,w] to video [b,3,T,H,W]."""
        return self.decoder

    @torch.no_grad()
    def set_linear_code(self, mean: Tensor, basis: Tensor, std: Tensor) -> None:
        """Make the linear paths project on `basis` and back, and silence the residual networks.

        Args:
            mean: [1536], of a cell: 8 frames x 3 colours x 8 rows x 8 columns.
            basis: [16,1536], orthonormal rows.
            std: [16], of the projections, by which they are divided.
        """
        rows = basis.reshape(LATENT_CHANNELS, FRAMES * 3, 2, PATCH, 2, PATCH)  # the cell as 2x2 patches
        patches = rows.permute(0, 1, 3, 5, 2, 4).reshape(LATENT_CHANNELS, -1, 2, 2)  # [16,384,2,2]
        cell = mean.reshape(FRAMES * 3, 2, PATCH, 2, PATCH).permute(0, 2, 4, 1, 3)
        self.encoder.linear.weight.copy_(patches / std[:, None, None, None])
        _bias(self.encoder.linear).copy_(-(basis @ mean) / std)
        self.decoder.linear.weight.copy_((patches.flatten(1) * std[:, None]).T[..., None, None])
        _bias(self.decoder.linear).copy_(cell.flatten())
        for conv in (self.encoder.head, self.decoder.head):
            conv.weight.zero_()
            _bias(conv).zero_()


class LightEncoder(nn.Module):
    """Video [b,3,T,H,W] around [-1,1] to latent [b,16,t,h,w]."""

    def __init__(self, config: LightVaeConfig) -> None:
        super().__init__()
        fine, coarse = config.encoder_channels
        self.linear = nn.Conv2d(2 * _HALF, LATENT_CHANNELS, 2, stride=2)
        self.stem = nn.Conv2d(2 * _HALF, fine, 1)
        self.fine = nn.Sequential(*(Block(fine) for _ in range(config.encoder_blocks[0])))
        self.down = nn.Conv2d(fine, coarse, 2, stride=2)
        self.coarse = nn.ModuleList(CausalBlock(coarse) for _ in range(config.encoder_blocks[1]))
        self.head = nn.Conv2d(coarse, LATENT_CHANNELS, 3, padding=1)

    def forward(self, video: Tensor) -> Tensor:  # [b,3,T,H,W]
        """The latent; T = 1 + 8k, H and W are multiples of 8."""
        frames = video.transpose(1, 2)
        frames = torch.cat([frames[:, :1].expand(-1, FRAMES - 1, -1, -1, -1), frames], dim=1)
        groups = frames.shape[1] // FRAMES
        patches = F.pixel_unshuffle(frames.reshape(-1, FRAMES * 3, *video.shape[3:]), PATCH)  # [b*t,384,H/4,W/4]
        x = self.down(self.fine(self.stem(patches)))  # [b*t,coarse,h,w]
        for block in self.coarse:
            x = block(x, groups)
        z: Tensor = self.linear(patches) + self.head(F.silu(x))
        return z.reshape(-1, groups, *z.shape[1:]).transpose(1, 2)


class LightDecoder(nn.Module):
    """Latent [b,16,t,h,w] to video [b,3,T,H,W] around [-1,1]."""

    def __init__(self, config: LightVaeConfig) -> None:
        super().__init__()
        coarse, fine = config.decoder_channels
        self.linear = nn.Conv2d(LATENT_CHANNELS, 2 * _HALF * 4, 1)
        self.stem = nn.Conv2d(LATENT_CHANNELS, coarse, 3, padding=1)
        self.coarse = nn.ModuleList(CausalBlock(coarse) for _ in range(config.decoder_blocks[0]))
        self.up = nn.Conv2d(coarse, 2 * fine * 4, 1)
        self.fine = nn.Sequential(*(Block(fine) for _ in range(config.decoder_blocks[1])))
        self.head = nn.Conv2d(fine, _HALF, 1)

    def forward(self, z: Tensor) -> Tensor:  # [b,16,t,h,w]
        """The video of 1 + 8 (t-1) frames."""
        groups = z.shape[2]
        images = z.transpose(1, 2).flatten(0, 1)  # [b*t,16,h,w]
        x = self.stem(images)
        for block in self.coarse:
            x = block(x, groups)
        x = self.fine(_halves(F.pixel_shuffle(self.up(F.silu(x)), 2), groups))  # [b*(2t-1),fine,H/4,W/4]
        patches = _halves(F.pixel_shuffle(self.linear(images), 2), groups) + self.head(F.silu(x))
        frames = F.pixel_shuffle(patches, PATCH)  # [b*(2t-1),4*3,H,W]
        frames = frames.reshape(z.shape[0], -1, 3, *frames.shape[2:])[:, FRAMES // 2 - 1 :]
        return frames.transpose(1, 2)


class Block(nn.Module):
    """A residual block of two 3x3 convolutions, [n,c,h,w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.conv2(F.silu(self.conv1(F.silu(x)))))


class CausalBlock(Block):
    """The same, which also sees the group before; the first group sees nothing there."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.past = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, groups: int) -> Tensor:  # type: ignore[override]  # x: [b*groups,c,h,w]
        active = F.silu(x)
        inner = self.conv1(active)
        if groups > 1:
            past = self.past(active).unflatten(0, (-1, groups))[:, :-1]
            past = torch.cat([torch.zeros_like(past[:, :1]), past], dim=1)
            inner = inner + past.flatten(0, 1)
        return x + cast(Tensor, self.conv2(F.silu(inner)))


@torch.no_grad()
def initialise(vae: LightVae, generator: torch.Generator) -> None:
    """Random weights to train from: signals keep their size, residual branches start small, the networks silent."""
    for name, parameter in vae.named_parameters():
        if name.endswith(".bias") or ".head." in name:
            parameter.zero_()
            continue
        std = (2.0 / parameter[0].numel()) ** 0.5
        if name.endswith(("conv2.weight", "past.weight")):
            std *= 0.1
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)


def _halves(x: Tensor, groups: int) -> Tensor:
    """[b*t,2c,h,w] to the halves of the groups, [b*(2t-1),c,h,w]: the first group's first half is never shown."""
    halves = x.reshape(-1, 2 * groups, x.shape[1] // 2, *x.shape[2:])
    return halves[:, 1:].flatten(0, 1)


def _bias(conv: nn.Conv2d) -> Tensor:
    if conv.bias is None:
        raise ValueError("The convolution has no bias.")
    return conv.bias
