import json
from pathlib import Path

import pytest
import torch
from checkpoint_files import change_config, save_transformer, save_vae
from safetensors.torch import load_file, save_file

from gen3c.errors import InvalidInputError
from gen3c.generator import weights
from gen3c.generator.checkpoint import INDEX, STATISTICS, WEIGHTS, config_problems, transformer_config
from gen3c.generator.dit import Dit
from gen3c.generator.vae import Vae, VideoDecoder, VideoEncoder
from gen3c.generator.weights import load_dit, load_vae
from gen3c.presets import GEN3C_7B, TINY, Preset
from tests.cosmos import TINY_COSMOS


@pytest.fixture(autouse=True)
def nothing_packaged(monkeypatch, tmp_path):
    """Whether the package ships checkpoints must not decide these tests."""
    monkeypatch.setattr(weights, "PACKAGED", tmp_path / "package")


def vae_state(seed: int = 0, preset: Preset = TINY) -> dict[str, torch.Tensor]:
    return load_vae(preset, untrained_seed=seed)[0].state_dict()


def dit_state() -> dict[str, torch.Tensor]:
    return load_dit(TINY, untrained_seed=0)[0].transformer.state_dict()


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
    vae, dit = vae_state(), dit_state()
    vae["latents_mean"] = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    save_vae(tmp_path, TINY, {key: value if key in STATISTICS else value.half() for key, value in vae.items()})
    save_transformer(tmp_path, TINY, dit)
    loaded, provenance = load_vae(TINY, tmp_path)
    for key, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, vae[key] if key in STATISTICS else vae[key].half().float())
    assert provenance.source == "vae"
    assert provenance.sha256 in str(provenance)
    assert len(provenance.sha256) == 64
    reloaded = load_dit(TINY, tmp_path)[0].transformer.state_dict()
    assert all(torch.equal(reloaded[key], value) for key, value in dit.items())


def test_shards_are_as_good_as_one_file(tmp_path):
    dit = dit_state()
    folder = save_transformer(tmp_path, TINY, dit, shards=3)
    reloaded = load_dit(TINY, tmp_path)[0].transformer.state_dict()
    assert all(torch.equal(reloaded[key], value) for key, value in dit.items())
    # What was loaded does not hang on the files.
    for path in folder.glob("*.safetensors"):
        path.write_bytes(b"")
    assert all(torch.equal(reloaded[key], value) for key, value in dit.items())


def test_narrow_weights_keep_the_statistics_in_float32():
    state = load_vae(TINY, untrained_seed=0, dtype=torch.bfloat16)[0].state_dict()
    assert state["latents_std"].dtype == torch.float32
    assert state["encoder.stem.weight"].dtype == torch.bfloat16


def test_all_problems_of_a_component_are_listed(tmp_path):
    state = vae_state(preset=TINY_COSMOS)
    del state["quant_conv.bias"]
    state["extra"] = torch.zeros(1)
    state["latents_mean"] = torch.zeros(16, 16)
    state["latents_std"] = torch.zeros(16, 4)
    state["post_quant_conv.bias"] = torch.full((16,), torch.nan)
    state["post_quant_conv.weight"] = torch.full((16, 16, 1, 1), -torch.inf)
    state["decoder.norm_out.norm.bias"] = torch.zeros(32, dtype=torch.int32)
    change_config(save_vae(tmp_path, TINY_COSMOS, state), num_layers=3)
    with pytest.raises(InvalidInputError) as error:
        load_vae(TINY_COSMOS, tmp_path)
    for part in (
        "does not fit tiny (9 problems)",
        "config.json: num_layers is 3, legal is 2",
        "quant_conv.bias is missing",
        "extra is unknown",
        "latents_mean has 256 values, legal are 64 (16x4)",
        "latents_std has values that are not positive",
        "post_quant_conv.bias has values that are not finite",
        "post_quant_conv.weight has shape [16, 16, 1, 1], legal is [16, 16, 1, 1, 1]",
        "post_quant_conv.weight has values that are not finite",
        "decoder.norm_out.norm.bias is I32, legal are F32, F16, BF16",
    ):
        assert part in str(error.value)


def test_another_kind_of_tokenizer_is_named(tmp_path):
    save_vae(tmp_path, TINY_COSMOS, vae_state(preset=TINY_COSMOS))
    with pytest.raises(InvalidInputError) as error:
        load_vae(TINY, tmp_path)
    assert 'config.json: _class_name is null, legal is "LightVae"' in str(error.value)
    assert "config.json: decoder_blocks is null, legal is [4, 3]" in str(error.value)


def test_other_sizes_of_the_light_tokenizer_are_named(tmp_path):
    change_config(save_vae(tmp_path, TINY, vae_state()), encoder_channels=[32, 64])
    with pytest.raises(InvalidInputError, match=r"encoder_channels is \[32, 64\], legal is \[64, 112\]"):
        load_vae(TINY, tmp_path)


def renamed(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    save_file({key.replace("proj_out", "proj_in"): tensor for key, tensor in state.items()}, folder / WEIGHTS)


def reshaped(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    save_file(state | {"time_embed.norm.weight": torch.ones(191)}, folder / WEIGHTS)


def not_a_number(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    state["transformer_blocks.2.ff.net.2.weight"][5, 7] = torch.nan
    save_file(state, folder / WEIGHTS)


def truncated(folder: Path) -> None:
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate((folder / WEIGHTS).stat().st_size - 1)


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (renamed, ["proj_out.weight is missing", "proj_in.weight is unknown"]),
        (reshaped, ["time_embed.norm.weight has shape [191], legal is [192]"]),
        (not_a_number, ["transformer_blocks.2.ff.net.2.weight has values that are not finite"]),
        (truncated, ["is truncated, or no safetensors file"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_bad_checkpoint_is_refused_before_the_gpu_is_touched(tmp_path, monkeypatch, spoil, parts):
    spoil(save_transformer(tmp_path, TINY, dit_state()))
    touched = []
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: touched.append(True))  # what every use of CUDA starts with
    with pytest.raises(InvalidInputError) as error:
        load_dit(TINY, tmp_path, device="cuda")
    assert all(part in str(error.value) for part in parts)
    assert not touched


@pytest.mark.skipif(torch.cuda.is_available(), reason="a good checkpoint gets as far as CUDA, which is there")
def test_a_good_checkpoint_gets_as_far_as_the_gpu(tmp_path):
    save_transformer(tmp_path, TINY, dit_state())
    with pytest.raises((AssertionError, RuntimeError), match=r"CUDA|NVIDIA"):
        load_dit(TINY, tmp_path, device="cuda")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "is not a JSON object"),
        ('{"weight_map": 3}', "has no weight_map"),
        ('{"weight_map": {"a": "../vae/x.safetensors"}}', "names '../vae/x.safetensors'"),
        ('{"weight_map": {"a": "absent.safetensors"}}', "names 'absent.safetensors'"),
        ('{"weight_map": {"a": "config.json"}}', "names 'config.json'; legal are safetensors files"),
    ],
)
def test_a_broken_index_is_refused(tmp_path, content, message):
    folder = save_transformer(tmp_path, TINY, {"a": torch.zeros(1), "b": torch.zeros(1)}, shards=2)
    (folder / INDEX).write_text(content)
    with pytest.raises(InvalidInputError, match=message):
        load_dit(TINY, tmp_path)


def test_shards_that_contradict_their_index_are_refused(tmp_path):
    dit = dit_state()
    folder = save_transformer(tmp_path, TINY, dit, shards=2)
    first, second = sorted(folder.glob("*-of-*"))
    moved = next(iter(load_file(first)))
    save_file(load_file(second) | {moved: dit[moved]}, second)
    with pytest.raises(InvalidInputError, match=f"{moved} is in {first.name} and in {second.name}"):
        load_dit(TINY, tmp_path)
    save_file({key: tensor for key, tensor in load_file(first).items() if key != moved}, first)
    with pytest.raises(InvalidInputError, match=f"{moved} is in {second.name}, but the index says {first.name}"):
        load_dit(TINY, tmp_path)


def test_all_broken_shards_are_named(tmp_path):
    folder = save_transformer(tmp_path, TINY, dit_state(), shards=3)
    shards = sorted(folder.glob("*-of-*"))
    truncated_shards = [shards[0], shards[2]]
    for shard in truncated_shards:
        shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InvalidInputError) as error:
        load_dit(TINY, tmp_path)
    assert "(2 problems)" in str(error.value)
    assert all(f"{shard} is truncated, or no safetensors file" in str(error.value) for shard in truncated_shards)


def test_a_component_without_its_parts_is_refused(tmp_path):
    folder = save_vae(tmp_path, TINY, vae_state())
    (folder / WEIGHTS).unlink()
    with pytest.raises(InvalidInputError, match="holds neither"):
        load_vae(TINY, tmp_path)
    (folder / "config.json").unlink()
    with pytest.raises(InvalidInputError, match=r"has no config\.json"):
        load_vae(TINY, tmp_path)


def manifest(**changes: object) -> str:
    output = {"name": f"vae/{WEIGHTS}", "sha256": "ab" * 32, "size": 7, "tensors": 1}
    content = {"version": 1, "preset": "gen3c-7b", "sources": [], "outputs": [output], "packages": {}}
    return json.dumps(content | changes)


def test_files_that_contradict_the_manifest_are_refused(tmp_path):
    size = (save_vae(tmp_path, TINY, vae_state()) / WEIGHTS).stat().st_size
    (tmp_path / "manifest.json").write_text(manifest())
    with pytest.raises(InvalidInputError) as error:
        load_vae(TINY, tmp_path)
    assert "manifest.json is of preset gen3c-7b" in str(error.value)
    assert f"{WEIGHTS} has {size} bytes, manifest.json says 7" in str(error.value)
    (tmp_path / "manifest.json").write_text(manifest(preset="tiny", outputs=[]))
    with pytest.raises(InvalidInputError, match=f"{WEIGHTS} is not in manifest"):
        load_vae(TINY, tmp_path)
    (tmp_path / "manifest.json").write_text(manifest(version=2))
    with pytest.raises(InvalidInputError, match="is not a manifest: version"):
        load_vae(TINY, tmp_path)


def test_a_named_directory_without_the_component_never_falls_back(tmp_path):
    with pytest.raises(InvalidInputError, match="There is no vae"):
        load_vae(TINY, tmp_path, untrained_seed=0)
    with pytest.raises(InvalidInputError, match="There is no transformer"):
        load_dit(TINY)


def test_packaged_weights_come_before_untrained_ones(tmp_path):
    state = vae_state(seed=5)
    save_vae(tmp_path / "package" / "tiny", TINY, state)
    loaded, provenance = load_vae(TINY, untrained_seed=0)
    assert provenance.source == "vae"
    assert torch.equal(loaded.state_dict()["encoder.stem.weight"], state["encoder.stem.weight"])
    assert load_dit(TINY, untrained_seed=0)[1].source == "untrained weights (seed 0)"


@pytest.mark.parametrize("preset", [TINY, TINY_COSMOS], ids=["light", "cosmos"])
def test_untrained_networks_are_sane(preset):
    vae, _ = load_vae(preset, untrained_seed=0)
    video = torch.rand(1, 3, 9, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        z = vae.encoding(video)
        decoded = vae.decoding(z)
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


@pytest.mark.parametrize("name", ["config.json", INDEX, "../manifest.json"])
def test_json_that_is_nested_too_deeply_is_refused(tmp_path, name):
    folder = save_transformer(tmp_path, TINY, dit_state(), shards=2)
    (folder / name).write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(InvalidInputError, match="cannot be read as JSON: it is nested too deeply"):
        load_dit(TINY, tmp_path)


def test_an_entry_of_any_depth_or_length_is_a_short_sentence():
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    expected = transformer_config(TINY.dit)
    for value, shown in ((deep, "nested too deeply"), ("a" * 10**6, f'"{"a" * 199}...')):
        problems = config_problems(expected | {"num_layers": value}, expected)
        assert problems == [f"config.json: num_layers is {shown}, legal is {TINY.dit.layers}"]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (10**400, "has values beyond the range of float32"),
        (10**39, "has values that are not finite"),
        (1e39, "has values that are not finite"),
        (True, "is not a list of numbers"),
        ([1], "is not a list of numbers"),
    ],
    ids=["401 digits", "40 digits", "a double", "a truth", "a list"],
)
@pytest.mark.parametrize("key", STATISTICS)
def test_statistics_that_are_no_float32_are_refused(tmp_path, key, value, problem):
    change_config(save_vae(tmp_path, TINY, vae_state()), **{key: [value] * 64})
    with pytest.raises(InvalidInputError, match=f"{key} {problem}"):
        load_vae(TINY, tmp_path)


def test_large_integers_are_numbers(tmp_path):
    change_config(save_vae(tmp_path, TINY, vae_state()), latents_mean=[10**30] * 64)
    assert (load_vae(TINY, tmp_path)[0].latents_mean == torch.tensor(1e30)).all()


@pytest.mark.parametrize(
    ("value", "stored", "dtype"),
    [
        (3.4e38, torch.float32, torch.bfloat16),
        (-3.4e38, torch.float32, torch.bfloat16),
        (1e5, torch.float32, torch.float16),
        (1e5, torch.bfloat16, torch.float16),
    ],
)
def test_values_that_the_type_in_use_cannot_hold_are_refused(tmp_path, value, stored, dtype):
    dit, vae = dit_state(), vae_state()
    dit["time_embed.norm.weight"] = dit["time_embed.norm.weight"].index_fill(0, torch.tensor([7]), value).to(stored)
    vae["encoder.head.bias"] = vae["encoder.head.bias"].index_fill(0, torch.tensor([7]), value).to(stored)
    save_transformer(tmp_path, TINY, dit)
    save_vae(tmp_path, TINY, vae)
    for load, key in ((load_dit, "time_embed.norm.weight"), (load_vae, "encoder.head.bias")):
        with pytest.raises(InvalidInputError) as error:
            load(TINY, tmp_path, dtype=dtype)
        assert f"{key} has values beyond the range of {str(dtype).removeprefix('torch.')}" in str(error.value)
        assert "(1 problem)" in str(error.value)
        load(TINY, tmp_path)
