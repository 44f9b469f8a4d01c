from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gen3c.errors import InvalidInputError
from gen3c.generator import weights
from gen3c.generator.dit import Dit
from gen3c.generator.vae import Vae, VideoDecoder, VideoEncoder
from gen3c.generator.weights import load_dit, load_vae
from gen3c.presets import GEN3C_7B, TINY


@pytest.fixture(autouse=True)
def nothing_packaged(monkeypatch, tmp_path):
    """Whether the package ships checkpoints must not decide these tests."""
    monkeypatch.setattr(weights, "PACKAGED", tmp_path / "package")


def vae_state(seed: int = 0) -> dict[str, torch.Tensor]:
    return load_vae(TINY, untrained_seed=seed)[0].state_dict()


def test_a_seed_decides_untrained_weights_whatever_ran_before():
    first, provenance = load_dit(TINY, untrained_seed=7)
    torch.manual_seed(123)
    state = torch.random.get_rng_state()
    second, _ = load_dit(TINY, untrained_seed=7)
    other, _ = load_dit(TINY, untrained_seed=8)
    assert str(provenance) == "untrained weights (seed 7)"
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.transformer.proj_out.weight, other.transformer.proj_out.weight)
    assert not any(p.requires_grad for p in first.parameters())


def test_a_checkpoint_returns_as_it_was_saved(tmp_path):
    vae, dit = vae_state(), load_dit(TINY, untrained_seed=0)[0].transformer.state_dict()
    save_file({key: value.half() for key, value in vae.items()}, tmp_path / "vae.safetensors")
    save_file(dit, tmp_path / "dit.safetensors")
    loaded, provenance = load_vae(TINY, tmp_path)
    for key, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, vae[key].half().float())
    assert provenance.source == "vae.safetensors"
    assert provenance.sha256 in str(provenance)
    assert len(provenance.sha256) == 64
    reloaded = load_dit(TINY, tmp_path)[0].transformer.state_dict()
    assert all(torch.equal(reloaded[key], value) for key, value in dit.items())


def test_narrow_weights_keep_the_statistics_in_float32():
    state = load_vae(TINY, untrained_seed=0, dtype=torch.bfloat16)[0].state_dict()
    assert state["latents_std"].dtype == torch.float32
    assert state["quant_conv.weight"].dtype == torch.bfloat16


def test_all_problems_of_a_file_are_listed(tmp_path):
    state = vae_state()
    del state["quant_conv.bias"]
    state["extra"] = torch.zeros(1)
    state["latents_mean"] = torch.zeros(16, 16)
    state["latents_std"] = torch.zeros(16, 4)
    state["post_quant_conv.bias"] = torch.full((16,), torch.nan)
    state["decoder.norm_out.norm.bias"] = torch.zeros(32, dtype=torch.int32)
    save_file(state, tmp_path / "vae.safetensors")
    with pytest.raises(InvalidInputError) as error:
        load_vae(TINY, tmp_path)
    for part in (
        "(6 problems)",
        "quant_conv.bias is missing",
        "extra is unknown",
        "latents_mean has shape [16, 16], legal is [16, 4]",
        "latents_std has values that are not positive",
        "post_quant_conv.bias has values that are not finite",
        "decoder.norm_out.norm.bias is torch.int32",
    ):
        assert part in str(error.value)


def test_a_broken_file_is_refused(tmp_path):
    (tmp_path / "vae.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(InvalidInputError, match="cannot be read as safetensors"):
        load_vae(TINY, tmp_path)


def test_a_named_directory_without_the_file_never_falls_back(tmp_path):
    with pytest.raises(InvalidInputError, match="There is no vae"):
        load_vae(TINY, tmp_path, untrained_seed=0)
    with pytest.raises(InvalidInputError, match="There is no dit"):
        load_dit(TINY)


def test_packaged_weights_come_before_untrained_ones(tmp_path: Path):
    state = vae_state(seed=5)
    folder = tmp_path / "package" / "tiny"
    folder.mkdir(parents=True)
    save_file(state, folder / "vae.safetensors")
    loaded, provenance = load_vae(TINY, untrained_seed=0)
    assert provenance.source == "vae.safetensors"
    assert torch.equal(loaded.quant_conv.weight, state["quant_conv.weight"])
    assert load_dit(TINY, untrained_seed=0)[1].source == "untrained weights (seed 0)"


def test_untrained_networks_are_sane():
    vae, _ = load_vae(TINY, untrained_seed=0)
    video = torch.rand(1, 3, 9, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        z = vae.quant_conv(vae.encoder(video))
        decoded = vae.decoder(vae.post_quant_conv(z))
    assert 0.1 < z.std() < 3
    assert 0.1 < decoded.std() < 3


def test_the_7b_preset_has_the_size_of_the_released_networks():
    with torch.device("meta"):
        state = Dit(GEN3C_7B.dit).transformer.state_dict()
        vae = Vae(GEN3C_7B.vae, GEN3C_7B.latent_shape[0])
    # The released file counts 571 tensors and 7,237,257,344 elements with pos_embedder.seq, 128 numbers never read.
    assert len(state) == 571 - 1
    assert sum(tensor.numel() for tensor in state.values()) == 7_237_257_344 - 128
    assert sum(p.numel() for p in VideoEncoder(vae).parameters()) == 42_914_864
    assert sum(p.numel() for p in VideoDecoder(vae).parameters()) == 62_738_832
