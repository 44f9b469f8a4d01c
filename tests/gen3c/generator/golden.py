"""Reading of the reference's golden vectors, which do not ship with the repository."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gen3c.generator.dit import Dit
from gen3c.generator.vae import Vae
from gen3c.presets import DitConfig, VaeConfig
from gen3c_export.official_keys import dit_key, vae_key

FOLDER = Path(__file__).parents[4] / "shared" / "golden" / "gen3c"


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
    weights = {key: value for key, value in arrays.items() if not key.startswith("cfg_")}
    dit.transformer.load_state_dict(_renamed(weights, dit_key))
    return dit.eval().requires_grad_(False)


def golden_vae(latent_frames: int) -> Vae:
    """The reference's tiny tokenizer with its weights and statistics."""
    arrays, wrapper = read("vae_tiny_weights"), read("vae_wrapper")
    base = int(arrays.pop("cfg_channels"))
    vae = Vae(VaeConfig((base, 2 * base, 4 * base, 4 * base), (2 * base, 4 * base, 4 * base, 4 * base)), latent_frames)
    weights = _renamed(arrays, vae_key)
    for name in ("mean", "std"):
        weights[f"latents_{name}"] = wrapper[f"{name}_flat"].view(16, -1)[:, :latent_frames]
    vae.load_state_dict(weights)
    return vae.eval().requires_grad_(False)


def _renamed(weights: dict[str, Tensor], name: Callable[[str], str | None]) -> dict[str, Tensor]:
    return {key: tensor for original, tensor in weights.items() if (key := name(original))}
