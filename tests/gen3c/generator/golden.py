"""Reading of the reference's golden vectors, which do not ship with the repository."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gen3c.generator.dit import Dit
from gen3c.generator.vae import Vae
from gen3c.presets import DitConfig, VaeConfig

FOLDER = Path(__file__).parents[4] / "shared" / "golden" / "gen3c"

_DIT_RENAMES = (
    (r"^x_embedder\.proj\.1", "patch_embed.proj"),
    (r"^t_embedder\.1", "time_embed.t_embedder"),
    (r"^affline_norm", "time_embed.norm"),
    (r"^extra_pos_embedder", "learnable_pos_embed"),
    (r"^final_layer\.linear", "proj_out"),
    (r"^final_layer\.adaLN_modulation\.", "norm_out.linear_"),
    (r"^blocks\.block(\d+)\.blocks\.", r"transformer_blocks.\1."),
    (r"(\d)\.adaLN_modulation\.", lambda m: f"norm{int(m[1]) + 1}.linear_"),
    (r"\.0\.block\.attn", ".attn1"),
    (r"\.1\.block\.attn", ".attn2"),
    (r"\.2\.block\.layer1", ".ff.net.0.proj"),
    (r"\.2\.block\.layer2", ".ff.net.2"),
    (r"to_([qkv])\.0", r"to_\1"),
    (r"to_([qk])\.1", r"norm_\1"),
)

_VAE_RENAMES = (
    (r"\.conv3d", ""),
    (r"\.down\.(\d)", r".down_blocks.\1"),
    (r"\.up\.(\d)", lambda m: f".up_blocks.{2 - int(m[1])}"),
    (r"mid\.block_(\d)", lambda m: f"mid_block.resnets.{int(m[1]) - 1}"),
    (r"mid\.attn_1\.0", "mid_block.attentions.0"),
    (r"mid\.attn_1\.1", "mid_block.temp_attentions.0"),
    (r"\.([qkv])\.(weight|bias)", r".to_\1.\2"),
    (r"proj_out", "to_out.0"),
    (r"\.block\.", ".resnets."),
    (r"(conv\d|conv_in|conv_out)\.0\.", r"\1.conv_s."),
    (r"(conv\d|conv_in|conv_out)\.1\.", r"\1.conv_t."),
    (r"nin_shortcut", "conv_shortcut"),
    (r"\.(down|up)sample\.", r".\1samplers.0."),
)


def read(name: str) -> dict[str, Tensor]:
    """The arrays of one file; skips the test where the vectors are absent."""
    path = FOLDER / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"the golden vectors are not on this machine ({name}.npz)")
    with np.load(path) as arrays:
        return {key: torch.from_numpy(np.array(arrays[key])) for key in arrays.files}


def golden_dit() -> Dit:
    """The reference's tiny network with its weights."""
    arrays = read("dit_tiny_weights")
    sizes = {key.removeprefix("cfg_"): int(value) for key, value in arrays.items() if key.startswith("cfg_")}
    dit = Dit(
        DitConfig(
            layers=sizes["num_blocks"],
            heads=sizes["num_heads"],
            head_dim=sizes["model_channels"] // sizes["num_heads"],
            adaln_lora_dim=sizes["adaln_lora_dim"],
            text_dim=sizes["crossattn_emb_channels"],
            max_size=(sizes["max_frames"], sizes["max_img_h"], sizes["max_img_w"]),
        )
    )
    weights = {key: value for key, value in arrays.items() if not key.startswith(("cfg_", "pos_embedder"))}
    dit.transformer.load_state_dict(_renamed(weights, _DIT_RENAMES))
    return dit.eval().requires_grad_(False)


def golden_vae(latent_frames: int) -> Vae:
    """The reference's tiny tokenizer with its weights and statistics."""
    arrays, wrapper = read("vae_tiny_weights"), read("vae_wrapper")
    base = int(arrays.pop("cfg_channels"))
    arrays = {key: value for key, value in arrays.items() if "patcher3d" not in key}  # constants of the wavelets
    vae = Vae(VaeConfig((base, 2 * base, 4 * base, 4 * base), (2 * base, 4 * base, 4 * base, 4 * base)), latent_frames)
    weights = _renamed(arrays, _VAE_RENAMES)
    for name in ("mean", "std"):
        weights[f"latents_{name}"] = wrapper[f"{name}_flat"].view(16, -1)[:, :latent_frames]
    vae.load_state_dict(weights)
    return vae.eval().requires_grad_(False)


def _renamed(weights: dict[str, Tensor], renames: tuple) -> dict[str, Tensor]:
    result = {}
    for original, tensor in weights.items():
        key = original
        for pattern, replacement in renames:
            key = re.sub(pattern, replacement, key)
        result[key] = tensor
    return result
