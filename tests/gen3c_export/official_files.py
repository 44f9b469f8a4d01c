"""Small files with the names and formats of the published checkpoints."""

import io
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from gen3c.presets import DitConfig, Preset, VaeConfig

Shapes = dict[str, tuple[int, ...]]

# What model.pt holds beside the network's weights.
LEFTOVERS: Shapes = {
    "logvar.0.freqs": (8,),
    "logvar.0.phases": (8,),
    "logvar.1.weight": (1, 8),
    "net.pos_embedder.seq": (16,),
    "net.blocks.block0.blocks.0.block.attn._extra_state": (0,),
    "net.accum_iteration": (1,),
}
# Transformer Engine 1.x keeps its state in BytesIO instead of a tensor.
LEFTOVER_BYTES = ("net.blocks.block0.blocks.1.block.attn._extra_state",)


def dit_shapes(config: DitConfig) -> Shapes:
    """The published transformer's tensors: names without `net.`, shapes."""
    width, text, rank = config.heads * config.head_dim, config.text_dim, config.adaln_lora_dim
    frames, rows, columns = config.max_size
    shapes: Shapes = {
        "x_embedder.proj.1.weight": (width, 82 * 4),
        "pos_embedder.seq": (max(frames, rows // 2, columns // 2),),
        "extra_pos_embedder.pos_emb_h": (rows // 2, width),
        "extra_pos_embedder.pos_emb_w": (columns // 2, width),
        "extra_pos_embedder.pos_emb_t": (frames, width),
        "t_embedder.1.linear_1.weight": (width, width),
        "t_embedder.1.linear_2.weight": (3 * width, width),
        "affline_norm.weight": (width,),
        "final_layer.linear.weight": (64, width),
        "final_layer.adaLN_modulation.1.weight": (rank, width),
        "final_layer.adaLN_modulation.2.weight": (2 * width, rank),
    }
    for i in range(config.layers):
        block = f"blocks.block{i}.blocks."
        for part, source in ((0, width), (1, text)):
            attention = f"{block}{part}.block.attn."
            shapes |= {f"{attention}{name}.0.weight": (width, width) for name in ("to_q", "to_out")}
            shapes |= {f"{attention}{name}.0.weight": (width, source) for name in ("to_k", "to_v")}
            shapes |= {f"{attention}{name}.1.weight": (config.head_dim,) for name in ("to_q", "to_k")}
        shapes[f"{block}2.block.layer1.weight"] = (4 * width, width)
        shapes[f"{block}2.block.layer2.weight"] = (width, 4 * width)
        for part in range(3):
            shapes[f"{block}{part}.adaLN_modulation.1.weight"] = (rank, width)
            shapes[f"{block}{part}.adaLN_modulation.2.weight"] = (3 * width, rank)
    return shapes


def vae_shapes(config: VaeConfig) -> Shapes:
    """The published tokenizer's parameters."""
    enc, dec = config.encoder_channels, config.decoder_channels
    shapes: Shapes = _pair("encoder.conv_in", 192, enc[0]) | _middle("encoder.mid", enc[3])
    for level in range(3):
        for block in range(2):
            source = enc[level] if block == 0 else enc[level + 1]
            shapes |= _block(f"encoder.down.{level}.block.{block}", source, enc[level + 1])
    for i, kernel in enumerate(((1, 3, 3), (3, 1, 1), (1, 1, 1)), start=1):
        shapes |= _conv(f"encoder.down.0.downsample.conv{i}", enc[1], enc[1], kernel)
    shapes |= _norm("encoder.norm_out", enc[3]) | _pair("encoder.conv_out", enc[3], 16)
    shapes |= _conv("quant_conv", 16, 16) | _conv("post_quant_conv", 16, 16)
    shapes |= _pair("decoder.conv_in", 16, dec[3]) | _middle("decoder.mid", dec[3])
    for level in range(3):
        for block in range(3):
            source = dec[level + 1] if block == 0 else dec[level]
            shapes |= _block(f"decoder.up.{level}.block.{block}", source, dec[level])
    for i, kernel in enumerate(((3, 1, 1), (1, 3, 3), (1, 1, 1)), start=1):
        shapes |= _conv(f"decoder.up.1.upsample.conv{i}", dec[1], dec[1], kernel)
    return shapes | _norm("decoder.norm_out", dec[0]) | _pair("decoder.conv_out", dec[0], 192)


def _conv(name: str, source: int, target: int, kernel: tuple[int, ...] = (1, 1, 1)) -> Shapes:
    return {f"{name}.conv3d.weight": (target, source, *kernel), f"{name}.conv3d.bias": (target,)}


def _pair(name: str, source: int, target: int) -> Shapes:
    return _conv(f"{name}.0", source, target, (1, 3, 3)) | _conv(f"{name}.1", target, target, (3, 1, 1))


def _norm(name: str, channels: int) -> Shapes:
    return {f"{name}.norm.weight": (channels,), f"{name}.norm.bias": (channels,)}


def _block(name: str, source: int, target: int) -> Shapes:
    shapes = _norm(f"{name}.norm1", source) | _pair(f"{name}.conv1", source, target)
    shapes |= _norm(f"{name}.norm2", target) | _pair(f"{name}.conv2", target, target)
    return shapes if source == target else shapes | _conv(f"{name}.nin_shortcut", source, target)


def _middle(name: str, channels: int) -> Shapes:
    shapes = _block(f"{name}.block_1", channels, channels) | _block(f"{name}.block_2", channels, channels)
    for part in range(2):
        shapes |= _norm(f"{name}.attn_1.{part}.norm", channels)
        for projection in ("q", "k", "v", "proj_out"):
            shapes |= _conv(f"{name}.attn_1.{part}.{projection}", channels, channels)
    return shapes


def random_tensors(shapes: Shapes, seed: int) -> dict[str, Tensor]:
    """Values of a size that keeps activations near one."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for key, shape in shapes.items():
        fan_in = math.prod(shape[1:])
        noise = torch.randn(shape, generator=generator)
        # The weights of norms are near one; one-dimensional tensors else are biases.
        tensors[key] = noise / fan_in**0.5 if len(shape) > 1 else 0.1 * noise + float(key.endswith(".weight"))
    return tensors


@dataclass(frozen=True)
class Published:
    """Files as published, and what is in them by the published names."""

    folder: Path
    dit: dict[str, Tensor]
    vae: dict[str, Tensor]


class Node(nn.Module):
    """A module of which only the names of its parameters matter."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def save_jit(path: Path, tensors: Mapping[str, Tensor], constants: Mapping[str, Tensor] | None = None) -> None:
    """Trace a module whose parameters have these dotted names, and whose buffers are `constants`, to an archive."""
    root = Node()
    for name, tensor in {**tensors, **(constants or {})}.items():
        *folders, last = name.split(".")
        node: nn.Module = root
        for folder in folders:
            if folder not in node._modules:
                node.add_module(folder, Node())
            node = node.get_submodule(folder)
        if name in tensors:
            node.register_parameter(last, nn.Parameter(tensor, requires_grad=False))
        else:
            node.register_buffer(last, tensor)
    with warnings.catch_warnings(category=DeprecationWarning, action="ignore"):  # TorchScript is what was published
        torch.jit.trace(root, torch.zeros(1)).save(str(path))


def save_official(folder: Path, preset: Preset, seed: int = 0, halves: bool = True) -> Published:
    """Write model.pt and the tokenizer's files with random weights; the tokenizer is two archives if `halves`."""
    folder.mkdir(parents=True, exist_ok=True)
    leftovers: dict[str, object] = {key: torch.zeros(shape) for key, shape in LEFTOVERS.items()}
    leftovers |= {key: io.BytesIO(b"state") for key in LEFTOVER_BYTES}
    dit = {f"net.{key}": tensor for key, tensor in random_tensors(dit_shapes(preset.dit), seed).items()}
    torch.save({"model": dit | leftovers}, folder / "model.pt")
    vae = random_tensors(vae_shapes(preset.vae), seed + 1)
    for key in vae:
        if key.startswith("decoder.conv_out.1"):
            vae[key] = vae[key] / 8  # the inverse wavelets multiply by 8
    haar = {"wavelets": torch.full((2,), 0.7071), "_arange": torch.arange(2), "patch_size_buffer": torch.tensor([4])}
    patch = {f"encoder.patcher3d.{name}": tensor for name, tensor in haar.items()}
    unpatch = {f"decoder.unpatcher3d.{name}": tensor for name, tensor in haar.items()}
    encoder = {key: tensor for key, tensor in vae.items() if key.startswith(("encoder.", "quant_conv."))}
    decoder = {key: tensor for key, tensor in vae.items() if key not in encoder}
    if halves:
        save_jit(folder / "encoder.jit", encoder, patch)
        save_jit(folder / "decoder.jit", decoder, unpatch)
    else:
        save_jit(folder / "autoencoder.jit", vae, patch | unpatch)
    save_statistics(folder / "mean_std.pt", seed + 2)
    return Published(folder, dit, vae)


def save_statistics(path: Path, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Write mean_std.pt, 16 channels x 16 latent frames as a flat pair; returns both as [16,16]."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(256, generator=generator)
    std = torch.rand(256, generator=generator) + 0.5
    torch.save((mean, std), path)
    return mean.view(16, 16), std.view(16, 16)
