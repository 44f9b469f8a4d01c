"""What benchmarks/h200.py measures: a preset's networks with random weights, their peer, and a scene to film."""

import io
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_cosmos import AutoencoderKLCosmos
from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from gen3c.generator import checkpoint
from gen3c.generator.dit import Dit
from gen3c.generator.vae import AnyVae, build_vae
from gen3c.presets import Preset, VaeConfig
from gen3c.scene import SourceView

FOCAL = 0.7  # of the picture's width
ROOM = torch.tensor([4.0, 2.5, 5.0])  # half sizes in metres


@dataclass(frozen=True)
class Networks:
    """Our modules."""

    dit: Dit
    vae: AnyVae


@dataclass(frozen=True)
class Peer:
    """The same weights, the same storage, in diffusers' own modules."""

    transformer: CosmosTransformer3DModel
    autoencoder: AutoencoderKLCosmos


def with_peer(preset: Preset) -> Preset:
    """The preset, with a tokenizer that diffusers has too in the place of one of our own."""
    small = VaeConfig(encoder_channels=(32, 32, 64, 64), decoder_channels=(32, 64, 64, 64))
    return preset if isinstance(preset.vae, VaeConfig) else replace(preset, vae=small)


def random_networks(preset: Preset, device: torch.device, seed: int = 0) -> Networks:
    """Weights that keep activations near unit variance, drawn on the device."""
    with torch.device("meta"):
        networks = Networks(Dit(preset.dit), build_vae(preset.vae, preset.latent_shape[0]))
    generator = torch.Generator(device).manual_seed(seed)
    for module in (networks.dit.transformer, networks.vae):
        module.load_state_dict(
            {key: _draw(key, tensor.shape, generator) for key, tensor in module.state_dict().items()}, assign=True
        )
    return Networks(networks.dit.eval().requires_grad_(False), networks.vae.eval().requires_grad_(False))


def _draw(key: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    device = generator.device
    dtype = torch.float32 if key.startswith("latents_") else _dtype(device)
    if key == "latents_mean" or key.endswith(".bias"):
        return torch.zeros(shape, device=device, dtype=dtype)
    if key == "latents_std" or len(shape) == 1:  # the weights of norms
        return torch.ones(shape, device=device, dtype=dtype)
    drawn = torch.randn(shape, generator=generator, device=device, dtype=dtype)
    return drawn / math.sqrt(math.prod(shape[1:]))


def _dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def peer_of(networks: Networks, preset: Preset) -> Peer:
    """diffusers' eager modules on the tensors of ours; `preset` is one of `with_peer`."""
    with torch.device("meta"):
        # With a padding mask of its own diffusers asks torchvision to resize it; so it is one more channel, as ours.
        config = checkpoint.transformer_config(preset.dit)
        config |= {"in_channels": config["in_channels"] + 1, "concat_padding_mask": False}
        transformer = CosmosTransformer3DModel(**config)
        autoencoder = AutoencoderKLCosmos(**checkpoint.vae_config(preset.vae))
    transformer.load_state_dict(networks.dit.transformer.state_dict(), assign=True)
    weights = {key: t for key, t in networks.vae.state_dict().items() if key not in checkpoint.STATISTICS}
    missing, unexpected = autoencoder.load_state_dict(weights, assign=True, strict=False)
    if unexpected or any("wavelet" not in key and "_arange" not in key for key in missing):
        raise RuntimeError(f"The peer has other keys: {missing} missing, {unexpected} unexpected.")
    _make_wavelets(autoencoder, networks.vae.latents_mean.device)
    return Peer(transformer.eval(), autoencoder.eval())


def _make_wavelets(autoencoder: AutoencoderKLCosmos, device: torch.device) -> None:
    """The constants of diffusers' wavelet layers, which were made on the meta device with the rest."""
    fresh = AutoencoderKLCosmos(encoder_block_out_channels=(8, 8, 8, 8), decode_block_out_channels=(8, 8, 8, 8))
    for path in ("encoder.patch_embed", "decoder.unpatch_embed"):
        for name, buffer in fresh.get_submodule(path).named_buffers():
            autoencoder.get_submodule(path).register_buffer(name, buffer.to(device), persistent=False)


def save_checkpoint(networks: Networks, directory: Path, preset: Preset) -> None:
    """A checkpoint directory as `gen3c-export convert` writes it, but for the manifest."""
    vae = networks.vae.state_dict()
    statistics = checkpoint.statistics_config(*(vae.pop(key).cpu() for key in checkpoint.STATISTICS))
    for name, state, config in (
        ("transformer", networks.dit.transformer.state_dict(), checkpoint.transformer_config(preset.dit)),
        ("vae", vae, checkpoint.vae_config(preset.vae) | statistics),
    ):
        (directory / name).mkdir(parents=True)
        (directory / name / checkpoint.CONFIG).write_text(json.dumps(config))
        save_file({key: t.cpu().contiguous() for key, t in state.items()}, directory / name / checkpoint.WEIGHTS)


def intrinsics(preset: Preset) -> Tensor:
    """K [3,3] of every view."""
    focal = FOCAL * preset.width
    return torch.tensor([[focal, 0, (preset.width - 1) / 2], [0, focal, (preset.height - 1) / 2], [0, 0, 1]])


def source_views(n: int, preset: Preset) -> list[SourceView]:
    """n views of a painted room with exact depth, from an arc of a metre; the unit is the metre."""
    views = []
    for i in range(n):
        angle = 0.4 * (i / max(n - 1, 1) - 0.5) if i else 0.0
        w2c = torch.eye(4)
        w2c[0, 0] = w2c[2, 2] = math.cos(angle)
        w2c[0, 2], w2c[2, 0] = -math.sin(angle), math.sin(angle)
        w2c[:3, 3] = -w2c[:3, :3] @ torch.tensor([2.5 * math.sin(angle), 0.05 * i, 0.0])
        views.append(_view(w2c, preset))
    return views


def _view(w2c: Tensor, preset: Preset) -> SourceView:
    K = intrinsics(preset)
    y, x = torch.meshgrid(torch.arange(preset.height), torch.arange(preset.width), indexing="ij")
    rays = torch.stack(((x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], torch.ones(x.shape)), dim=-1) @ w2c[:3, :3]
    eye = -w2c[:3, :3].T @ w2c[:3, 3]
    depth = ((torch.sign(rays) * ROOM - eye) / torch.where(rays == 0, 1e-9, rays)).amin(-1)  # rays have camera z = 1
    points = eye + depth[..., None] * rays
    waves = torch.sin(points * 7) * 0.4 + torch.sin(points.roll(1, -1) * 31) * 0.3
    return SourceView(waves.permute(2, 0, 1), depth, torch.ones_like(depth), w2c, K)


def photos(views: list[SourceView]) -> list[bytes]:
    """The views as PNG files."""
    files = []
    for view in views:
        buffer = io.BytesIO()
        pixels = ((view.image + 1) * 127.5).round().byte().permute(1, 2, 0)
        Image.fromarray(pixels.numpy()).save(buffer, "PNG", compress_level=1)
        files.append(buffer.getvalue())
    return files


def geometry_file(views: list[SourceView]) -> bytes:
    """Depth and cameras of the views as GEOMETRY (docs/contract.md)."""
    buffer = io.BytesIO()
    arrays = {name: np.stack([getattr(view, name).numpy() for view in views]) for name in ("depth", "w2c", "K")}
    np.savez(buffer, **arrays)
    return buffer.getvalue()
