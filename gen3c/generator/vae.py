"""The causal video tokenizer as two tensor programs: Cosmos CV8x8x8, or our light one (gen3c/generator/light_vae.py).

Cosmos' network is diffusers' `AutoencoderKLCosmos`. Neither normalises; GEN3C's latents are (z - mean) / std * 0.5 with
statistics per channel and latent frame, which live beside the weights as buffers.
"""

import torch
from diffusers.models.autoencoders.autoencoder_kl_cosmos import AutoencoderKLCosmos
from torch import Tensor, nn

from gen3c.errors import InvalidInputError
from gen3c.generator.light_vae import LightVae
from gen3c.generator.scheduler import SIGMA_DATA
from gen3c.generator.signatures import LATENT_CHANNELS
from gen3c.generator.vae_layers import HaarPatch, HaarUnpatch, attend_frame_by_frame, flatten_convolutions
from gen3c.presets import LightVaeConfig, VaeConfig

FRAMES_PER_LATENT = 8
PIXELS_PER_LATENT = 8


class Vae(nn.Module):
    """Cosmos: both halves and the statistics. Its state dict, diffusers' plus those, is the layout of checkpoints."""

    latents_mean: Tensor  # [16,t]
    latents_std: Tensor  # [16,t], > 0

    def __init__(self, config: VaeConfig, latent_frames: int) -> None:
        super().__init__()
        autoencoder = AutoencoderKLCosmos(
            encoder_block_out_channels=config.encoder_channels,
            decode_block_out_channels=config.decoder_channels,
            num_layers=config.layers_per_block,
        )
        self.encoder = autoencoder.encoder
        self.encoder.patch_embed = HaarPatch()
        self.quant_conv = autoencoder.quant_conv
        self.post_quant_conv = autoencoder.post_quant_conv
        self.decoder = autoencoder.decoder
        self.decoder.unpatch_embed = HaarUnpatch()
        flatten_convolutions(self)
        attend_frame_by_frame(self)
        self.register_buffer("latents_mean", torch.zeros(LATENT_CHANNELS, latent_frames))
        self.register_buffer("latents_std", torch.ones(LATENT_CHANNELS, latent_frames))

    @property
    def encoding(self) -> nn.Module:
        """Video [b,3,T,H,W] to latent [b,16,t,h,w], neither normalised; with the weights of this one."""
        return nn.Sequential(self.encoder, self.quant_conv)

    @property
    def decoding(self) -> nn.Module:
        """Latent [b,16,t,h,w] to video [b,3,T,H,W]; with the weights of this one."""
        return nn.Sequential(self.post_quant_conv, self.decoder)


AnyVae = Vae | LightVae


def build_vae(config: VaeConfig | LightVaeConfig, latent_frames: int) -> AnyVae:
    """The video tokenizer of a preset, with whatever weights; `latent_frames` are those of a chunk."""
    return LightVae(config, latent_frames) if isinstance(config, LightVaeConfig) else Vae(config, latent_frames)


class VideoEncoder(nn.Module):
    """The program `video_encoder`. It shares the weights of `vae`, and holds no others."""

    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, vae: AnyVae) -> None:
        super().__init__()
        self.encoding = vae.encoding
        self.register_buffer("latents_mean", vae.latents_mean)
        self.register_buffer("latents_std", vae.latents_std)

    def forward(self, video: Tensor) -> Tensor:  # video: [b,3,T,H,W] in [-1,1]
        """The normalised latent [b,16,t,h,w] in the dtype of `video`: t = 1 + (T-1)/8, h = H/8, w = W/8.

        Latent frame i depends on frames 0..8i alone. Raises InvalidInputError unless T = 1 + 8k, and H and W are
        multiples of 8.
        """
        frames, height, width = video.shape[2:]
        if (frames - 1) % FRAMES_PER_LATENT or height % PIXELS_PER_LATENT or width % PIXELS_PER_LATENT:
            raise InvalidInputError(
                f"The video has {frames} frames of {height}x{width}; legal are 1 + 8k frames of multiples of 8 pixels."
            )
        z: Tensor = self.encoding(video.to(_dtype(self.encoding)))
        mean = _statistics(self.latents_mean, z)
        std = _statistics(self.latents_std, z)
        return ((z.float() - mean) / std * SIGMA_DATA).to(video.dtype)


class VideoDecoder(nn.Module):
    """The program `video_decoder`. It shares the weights of `vae`, and holds no others."""

    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, vae: AnyVae) -> None:
        super().__init__()
        self.decoding = vae.decoding
        self.register_buffer("latents_mean", vae.latents_mean)
        self.register_buffer("latents_std", vae.latents_std)

    def forward(self, latent: Tensor) -> Tensor:  # latent: [b,16,t,h,w] normalised
        """The video, [b,T,H,W,3] uint8."""
        return to_uint8(self.decode(latent))

    def decode(self, latent: Tensor) -> Tensor:  # latent: [b,16,t,h,w] normalised
        """The video before clamping, [b,3,T,H,W] float32 around [-1,1]."""
        mean = _statistics(self.latents_mean, latent)
        std = _statistics(self.latents_std, latent)
        z = latent.float() / SIGMA_DATA * std + mean
        video: Tensor = self.decoding(z.to(_dtype(self.decoding)))
        return video.float()


def to_uint8(video: Tensor) -> Tensor:  # video: [b,3,T,H,W] float
    """Pixels in [-1,1] to bytes, [b,T,H,W,3] uint8: clamped, then truncated as the reference does."""
    scaled = (1.0 + video.float()).clamp(0.0, 2.0) / 2.0 * 255.0
    return scaled.to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()


def _dtype(network: nn.Module) -> torch.dtype:
    """That of its weights."""
    return next(network.parameters()).dtype


def _statistics(table: Tensor, latent: Tensor) -> Tensor:
    """The columns of `table` [16,t] for the frames of `latent`, [1,16,t,1,1] float32."""
    frames = latent.shape[2]
    if frames > table.shape[1]:
        raise InvalidInputError(f"The latent has {frames} frames; legal are 1 to {table.shape[1]}, one chunk.")
    return table[:, :frames].float()[None, :, :, None, None]
