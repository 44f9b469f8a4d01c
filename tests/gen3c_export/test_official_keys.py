"""The published names and shapes at full size against our modules."""

import math

import pytest
import torch
from official_files import LEFTOVER_BYTES, LEFTOVERS, Shapes, dit_shapes, vae_shapes

from gen3c.generator.checkpoint import STATISTICS
from gen3c.generator.dit import Dit
from gen3c.generator.vae import Vae
from gen3c.presets import GEN3C_7B, TINY, Preset, VaeConfig
from gen3c_export.official_keys import dit_key, official_dit_key, official_vae_key, vae_key
from tests.cosmos import COSMOS_VAE


def module_shapes(module: torch.nn.Module) -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in module.state_dict().items() if key not in STATISTICS}


def elements(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


@pytest.mark.parametrize("preset", [GEN3C_7B, TINY], ids=lambda preset: preset.name)
def test_the_published_transformer_is_ours_key_by_key(preset: Preset) -> None:
    with torch.device("meta"):
        ours = module_shapes(Dit(preset.dit).transformer)
    published = dit_shapes(preset.dit)
    renamed = {key: shape for name, shape in published.items() if (key := dit_key(f"net.{name}")) is not None}
    assert renamed == ours
    assert len(renamed) == len(published) - 1  # pos_embedder.seq
    assert {f"net.{name}" for name in published if dit_key(name)} == {official_dit_key(key) for key in ours}


@pytest.mark.parametrize("config", [GEN3C_7B.vae, COSMOS_VAE], ids=["gen3c-7b", "small"])
def test_the_published_tokenizer_is_ours_key_by_key(config: VaeConfig) -> None:
    with torch.device("meta"):
        ours = module_shapes(Vae(config, 4))
    published = vae_shapes(config)
    renamed = {key: shape for name, shape in published.items() if (key := vae_key(name)) is not None}
    assert renamed == ours
    assert len(renamed) == len(published)
    assert set(published) == {official_vae_key(key) for key in ours}


def test_the_full_size_has_the_published_counts() -> None:
    dit, vae = dit_shapes(GEN3C_7B.dit), vae_shapes(GEN3C_7B.vae)
    assert (len(dit), elements(dit)) == (571, 7_237_257_344)
    encoder = {key: shape for key, shape in vae.items() if key.startswith(("encoder.", "quant_conv."))}
    decoder = {key: shape for key, shape in vae.items() if key not in encoder}
    assert (elements(encoder), elements(decoder)) == (42_914_864, 62_738_832)


def test_training_leftovers_and_constants_are_dropped() -> None:
    assert all(dit_key(name) is None for name in (*LEFTOVERS, *LEFTOVER_BYTES))
    for name in ("encoder.patcher3d.wavelets", "decoder.unpatcher3d._arange", "encoder.patcher3d.patch_size_buffer"):
        assert vae_key(name) is None
