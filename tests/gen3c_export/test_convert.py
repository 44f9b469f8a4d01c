import hashlib
import json
import logging
import math
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLCosmos, CosmosTransformer3DModel
from official_files import Published, save_jit, save_official
from safetensors.torch import load_file

from gen3c.errors import InvalidInputError
from gen3c.generator.checkpoint import Manifest, open_component
from gen3c.generator.dit import Dit
from gen3c.generator.vae import Vae, VideoDecoder, VideoEncoder
from gen3c.generator.weights import find_weights, load_dit, load_vae
from gen3c.presets import TINY
from gen3c_export import writer
from gen3c_export.convert import Sources, convert
from gen3c_export.official_keys import dit_key, vae_key
from gen3c_export.published import PUBLISHED_MD5
from tests.cosmos import COSMOS_VAE, TINY_COSMOS

FRAMES = TINY_COSMOS.latent_shape[0]


def run(folder: Path, output: Path, **options: object) -> Manifest:
    return convert(Sources.find(folder / "model.pt", [folder]), output, TINY_COSMOS, **options)


def fails(folder: Path, output: Path, **options: object) -> str:
    """The message of a conversion that must write nothing."""
    before = sorted(output.parent.iterdir())
    with pytest.raises(InvalidInputError) as error:
        run(folder, output, **options)
    assert sorted(output.parent.iterdir()) == before
    return str(error.value)


@pytest.fixture
def copy(published: Published, tmp_path: Path) -> Path:
    """The published files, to be spoilt."""
    return shutil.copytree(published.folder, tmp_path / "copy")


@pytest.fixture(scope="module")
def converted(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("converted") / "checkpoint"
    run(published.folder, output, dtype=torch.float32, shard_bytes=4_000_000)
    return output


def direct_dit(published: Published) -> Dit:
    """The network with the published weights put in by hand."""
    dit = Dit(TINY_COSMOS.dit)
    weights = {new: tensor for name, tensor in published.dit.items() if (new := dit_key(name))}
    dit.transformer.load_state_dict(weights)
    return dit.eval()


def direct_vae(published: Published) -> Vae:
    vae = Vae(COSMOS_VAE, FRAMES)
    weights = {new: tensor for name, tensor in published.vae.items() if (new := vae_key(name))}
    mean, std = torch.load(published.folder / "mean_std.pt")
    statistics = {"latents_mean": mean.view(16, -1)[:, :FRAMES], "latents_std": std.view(16, -1)[:, :FRAMES]}
    vae.load_state_dict(weights | statistics)
    return vae.eval()


def column_major(tensor: torch.Tensor) -> torch.Tensor:
    """The same values with the strides of the reversed shape."""
    order = tuple(reversed(range(tensor.ndim)))
    return tensor.permute(order).contiguous().permute(order)


def dit_inputs() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    latent, mask, cache = (torch.randn(1, c, 2, 8, 12, generator=generator) for c in (16, 1, 64))
    text = torch.randn(1, 8, TINY_COSMOS.dit.text_dim, generator=generator)
    return latent, torch.tensor([[0.3]]), mask, cache, text, torch.tensor([[24.0]])


@torch.inference_mode()
def test_the_loaded_transformer_computes_what_the_published_weights_do(published: Published, converted: Path) -> None:
    loaded, provenance = load_dit(TINY, converted)
    outputs = loaded(*dit_inputs())
    assert torch.equal(outputs, direct_dit(published)(*dit_inputs()))
    assert outputs.std() > 0.01
    assert provenance.source == "transformer"
    assert len(list((converted / "transformer").glob("*.safetensors"))) > 2


@torch.inference_mode()
def test_the_loaded_tokenizer_computes_what_the_published_weights_do(published: Published, converted: Path) -> None:
    loaded, direct = load_vae(TINY_COSMOS, converted)[0], direct_vae(published)
    video = torch.rand(1, 3, 9, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latent = VideoEncoder(loaded)(video)
    assert torch.equal(latent, VideoEncoder(direct)(video))
    assert torch.equal(VideoDecoder(loaded).decode(latent), VideoDecoder(direct).decode(latent))
    # Bit for bit, through the decimals of config.json.
    assert torch.equal(loaded.latents_mean, direct.latents_mean)
    assert torch.equal(loaded.latents_std, direct.latents_std)


def test_a_preset_with_another_tokenizer_is_refused(published: Published, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="Preset tiny has a video tokenizer of its own"):
        convert(Sources.find(published.folder / "model.pt", [published.folder]), tmp_path / "out", TINY)
    assert not (tmp_path / "out").exists()


@torch.inference_mode()
def test_diffusers_loads_the_transformer(converted: Path) -> None:
    pytest.importorskip("accelerate", reason="diffusers needs accelerate to load networks that keep parts in float32")
    model, report = CosmosTransformer3DModel.from_pretrained(converted / "transformer", output_loading_info=True)
    assert not any(report.values()), report
    ours = load_dit(TINY, converted)[0]
    state = model.state_dict()
    assert state.keys() == ours.transformer.state_dict().keys()
    assert all(torch.equal(state[key], tensor) for key, tensor in ours.transformer.state_dict().items())
    assert (model.config.in_channels, model.config.concat_padding_mask) == (81, True)


@torch.inference_mode()
def test_diffusers_network_of_this_configuration_and_these_files_computes_the_same(converted: Path) -> None:
    config = CosmosTransformer3DModel.load_config(converted / "transformer")
    # Its own padding channel needs torchvision; the weights are the same with the channel handed in.
    theirs = CosmosTransformer3DModel.from_config(config, in_channels=82, concat_padding_mask=False).eval()
    component = open_component(converted, "transformer")
    assert component.weight_map is not None
    theirs.load_state_dict({key: tensor for shard in component.shards for key, tensor in load_file(shard).items()})
    latent, timestep, mask, cache, text, fps = dit_inputs()
    condition = torch.cat([mask, cache, torch.zeros_like(mask)], dim=1)
    outputs = theirs(latent, timestep[:, 0], text, fps=int(fps), condition_mask=condition, return_dict=False)[0]
    # The same arithmetic in another order of operations, on outputs around 1.
    torch.testing.assert_close(load_dit(TINY, converted)[0](*dit_inputs()), outputs, atol=2e-5, rtol=0)


@torch.inference_mode()
def test_diffusers_loads_the_tokenizer(converted: Path) -> None:
    model, report = AutoencoderKLCosmos.from_pretrained(converted / "vae", output_loading_info=True)
    assert not any(report.values()), report
    ours = load_vae(TINY_COSMOS, converted)[0]
    video = torch.rand(1, 3, 9, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z = model.encode(video).latent_dist.mode()
    # As diffusers' pipelines take the statistics out of the configuration.
    mean, std = (
        torch.tensor(table).view(1, 16, -1, 1, 1)[:, :, : z.shape[2]]
        for table in (model.config.latents_mean, model.config.latents_std)
    )
    latent = (z - mean) / std * 0.5
    torch.testing.assert_close(VideoEncoder(ours)(video), latent, atol=1e-4, rtol=0)
    torch.testing.assert_close(VideoDecoder(ours).decode(latent), model.decode(z).sample, atol=1e-3, rtol=0)


def test_by_default_the_transformer_is_bfloat16_and_the_statistics_are_not(
    published: Published, tmp_path: Path
) -> None:
    run(published.folder, tmp_path / "out")
    narrow = direct_dit(published).to(torch.bfloat16).float().state_dict()
    assert all(torch.equal(t, narrow[key]) for key, t in load_dit(TINY, tmp_path / "out")[0].state_dict().items())
    wide = direct_vae(published).state_dict()
    assert all(torch.equal(t, wide[key]) for key, t in load_vae(TINY_COSMOS, tmp_path / "out")[0].state_dict().items())
    assert open_component(tmp_path / "out", "transformer").weight_map is None


def test_one_archive_is_as_good_as_two(converted: Path, tmp_path: Path) -> None:
    save_official(tmp_path / "whole", TINY_COSMOS, halves=False)
    manifest = run(tmp_path / "whole", tmp_path / "out", dtype=torch.float32)
    assert [source.name for source in manifest.sources] == ["model.pt", "autoencoder.jit", "mean_std.pt"]
    first, second = (load_vae(TINY_COSMOS, folder)[0].state_dict() for folder in (converted, tmp_path / "out"))
    assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())


def test_the_state_dict_may_be_bare(published: Published, copy: Path, tmp_path: Path) -> None:
    torch.save(
        {key.removeprefix("net."): column_major(tensor) for key, tensor in published.dit.items()}, copy / "model.pt"
    )
    run(copy, tmp_path / "out", dtype=torch.float32)
    expected = direct_dit(published).state_dict()
    assert all(torch.equal(t, expected[key]) for key, t in load_dit(TINY, tmp_path / "out")[0].state_dict().items())


def test_the_manifest_tells_what_went_in_and_what_came_out(published: Published, converted: Path) -> None:
    text = (converted / "manifest.json").read_text()
    manifest = Manifest.model_validate_json(text)
    assert str(published.folder) not in text
    assert manifest.preset == "tiny"
    assert manifest.packages["torch"] == torch.__version__
    for source in manifest.sources:
        content = (published.folder / source.name).read_bytes()
        assert (source.md5, source.size) == (hashlib.md5(content).hexdigest(), len(content))
        assert source.published is False
    on_disk = {path.relative_to(converted).as_posix(): path for path in converted.glob("*/*")}
    assert {output.name for output in manifest.outputs} == set(on_disk)
    for output in manifest.outputs:
        content = on_disk[output.name].read_bytes()
        assert (output.sha256, output.size) == (hashlib.sha256(content).hexdigest(), len(content))
    count = len(Dit(TINY_COSMOS.dit).transformer.state_dict())
    assert sum(output.tensors for output in manifest.outputs if output.name.startswith("transformer/")) == count
    assert max(output.size for output in manifest.outputs) < 4_100_000


def test_the_provenance_is_what_sha256sum_prints(converted: Path, tmp_path: Path) -> None:
    folder, provenance = find_weights(TINY_COSMOS, "transformer", converted)
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in sorted(folder.iterdir())]
    assert provenance.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    shutil.copytree(converted, tmp_path / "bare", ignore=shutil.ignore_patterns("manifest.json"))
    assert find_weights(TINY_COSMOS, "transformer", tmp_path / "bare")[1] == provenance


def test_unpublished_files_are_warned_of_and_refused_if_strict(
    copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level(logging.INFO):
        run(copy, tmp_path / "out")
    assert [record.levelname for record in caplog.records[:4]] == ["WARNING"] * 4
    assert "that of the published model.pt is 38644bf823aa5272acef60cfad8bc0f7" in caplog.text
    message = fails(copy, tmp_path / "strict", strict=True)
    assert all(f"{name} has md5" in message for name in ("model.pt", "encoder.jit", "decoder.jit", "mean_std.pt"))
    for name in ("model.pt", "encoder.jit", "decoder.jit", "mean_std.pt"):
        monkeypatch.setitem(PUBLISHED_MD5, name, hashlib.md5((copy / name).read_bytes()).hexdigest())
    manifest = run(copy, tmp_path / "strict", strict=True)
    assert all(source.published for source in manifest.sources)


def test_statistics_of_pictures_are_only_recorded(copy: Path, tmp_path: Path) -> None:
    (copy / "image_mean_std.pt").write_bytes(b"never opened")
    manifest = run(copy, tmp_path / "out")
    assert manifest.sources[-1].name == "image_mean_std.pt"
    assert manifest.sources[-1].size == 12


def test_everything_wrong_is_listed_at_once_by_its_published_name(
    published: Published, copy: Path, tmp_path: Path
) -> None:
    dit, vae = dict(published.dit), dict(published.vae)
    dit["net.renamed"] = dit.pop("net.affline_norm.weight")
    dit["net.final_layer.linear.weight"] = torch.zeros(64, 7)
    query = "net.blocks.block3.blocks.1.block.attn.to_q.0.weight"
    dit[query] = dit[query].index_fill(1, torch.tensor([5]), math.nan)
    dit["net.t_embedder.1.linear_1.weight"] = dit["net.t_embedder.1.linear_1.weight"].int()
    torch.save({"model": dit}, copy / "model.pt")
    decoder = {key: tensor for key, tensor in vae.items() if key.startswith(("decoder.", "post_quant_conv."))}
    del decoder["decoder.up.2.block.1.conv1.0.conv3d.weight"]
    decoder["decoder.norm_out.norm.bias"] = torch.full_like(decoder["decoder.norm_out.norm.bias"], math.inf)
    save_jit(copy / "decoder.jit", decoder)
    torch.save((torch.zeros(48), -torch.ones(48)), copy / "mean_std.pt")
    message = fails(copy, tmp_path / "out")
    assert "do not fit tiny (9 problems):" in message
    for part in (
        "model.pt: net.affline_norm.weight is missing",
        "model.pt: net.renamed is unknown",
        "model.pt: net.final_layer.linear.weight has shape [64, 7], legal is [64, 192]",
        f"model.pt: {query} has values that are not finite",
        "model.pt: net.t_embedder.1.linear_1.weight is int32, legal are bfloat16, float16, float32",
        "decoder.jit: decoder.up.2.block.1.conv1.0.conv3d.weight is missing",
        "decoder.jit: decoder.norm_out.norm.bias has values that are not finite",
        "mean_std.pt has 3 latent frames, legal are 4 or more",
        "mean_std.pt has standard deviations that are not positive",
    ):
        assert part in message


def test_values_that_the_type_cannot_hold_are_refused(published: Published, copy: Path, tmp_path: Path) -> None:
    torch.save(published.dit | {"net.affline_norm.weight": torch.full((192,), 1e5)}, copy / "model.pt")
    message = fails(copy, tmp_path / "out", dtype=torch.float16)
    assert "net.affline_norm.weight has values beyond the range of float16" in message
    run(copy, tmp_path / "out", dtype=torch.bfloat16)


@pytest.mark.parametrize("name", ["model.pt", "encoder.jit", "mean_std.pt"])
@pytest.mark.parametrize("spoil", ["truncated", "garbage", "empty", "a folder of bytes lost"])
def test_a_broken_file_is_a_sentence(copy: Path, tmp_path: Path, name: str, spoil: str) -> None:
    content = (copy / name).read_bytes()
    middle = len(content) // 2
    broken = {
        "truncated": content[: middle + 7],
        "garbage": bytes(range(256)) * 20,
        "empty": b"",
        "a folder of bytes lost": content[: middle - 300] + content[middle + 300 :],
    }
    (copy / name).write_bytes(broken[spoil])
    message = fails(copy, tmp_path / "out")
    assert "(1 problem):" in message
    assert name in message.splitlines()[1]
    assert any(word in message for word in ("truncated", "corrupt", "TorchScript"))


def test_values_of_stretched_tensors_are_checked(published: Published, copy: Path, tmp_path: Path) -> None:
    stretched = {
        "net.affline_norm.weight": torch.full((1,), math.nan).expand(192),
        "net.final_layer.linear.weight": torch.ones(1).expand(10**6, 10**6),  # 4 TB to whoever reads it
    }
    torch.save(published.dit | stretched, copy / "model.pt")
    message = fails(copy, tmp_path / "out")
    assert "(2 problems):" in message
    assert "net.affline_norm.weight has values that are not finite" in message
    assert "net.final_layer.linear.weight has shape [1000000, 1000000]" in message


@pytest.mark.filterwarnings("error")  # PyTorch's, about a file that looks like an archive of TorchScript
def test_one_archive_in_the_place_of_the_other_is_named(copy: Path, tmp_path: Path) -> None:
    shutil.copy(copy / "mean_std.pt", copy / "encoder.jit")
    shutil.copy(copy / "decoder.jit", copy / "model.pt")
    message = fails(copy, tmp_path / "out")
    assert "encoder.jit: encoder.conv_in.0.conv3d.weight is missing" in message
    assert "model.pt is truncated, corrupt or not a file of torch.save (it is a TorchScript archive)" in message


def test_the_output_is_neither_overwritten_nor_left_half_done(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "place" / "out"
    output.mkdir(parents=True)
    (output / "precious").write_text("mine")
    assert "--force to replace" in fails(copy, output)
    assert "is no checkpoint" in fails(copy, output, force=True)
    assert (output / "precious").read_text() == "mine"
    shutil.rmtree(output)
    run(copy, output)
    before = (output / "manifest.json").read_bytes()
    shards = []

    def interrupted_at_the_second(_tensors: object, path: Path, **_options: object) -> None:
        shards.append(path.write_bytes(b"half a shard"))
        if len(shards) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer, "save_file", interrupted_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            run(copy, output, force=True, shard_bytes=4_000_000)
    assert [path.name for path in output.parent.iterdir()] == ["out"]
    assert (output / "manifest.json").read_bytes() == before
    (output / "text_encoder").mkdir()
    (output / "text_encoder" / "config.json").write_text("kept")
    run(copy, output, force=True, dtype=torch.float32)
    assert (output / "text_encoder" / "config.json").read_text() == "kept"
    assert [path.name for path in output.parent.iterdir()] == ["out"]
    assert (output / "manifest.json").read_bytes() != before


def test_sources_inside_the_output_are_kept(copy: Path) -> None:
    (copy / "manifest.json").write_text(json.dumps({}))
    with pytest.raises(InvalidInputError, match=r"holds model\.pt, which is read"):
        run(copy, copy, force=True)
    assert (copy / "model.pt").is_file()


def test_a_full_disk_is_seen_first(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    assert "GB are free" in fails(copy, tmp_path / "out")


def test_the_tokenizer_may_be_named_file_by_file(copy: Path) -> None:
    names = ("encoder.jit", "decoder.jit", "mean_std.pt")
    sources = Sources.find(copy / "model.pt", [copy / name for name in names])
    assert sources == Sources.find(copy / "model.pt", [copy])
    with pytest.raises(InvalidInputError, match=r"legal are a folder, or files named encoder\.jit"):
        Sources.find(copy / "model.pt", [copy / "model.pt"])
    with pytest.raises(InvalidInputError, match=r"lacks encoder\.jit and decoder\.jit, or autoencoder\.jit; mean_std"):
        Sources.find(copy / "model.pt", [copy / "encoder.jit"])
