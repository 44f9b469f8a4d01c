"""What a text encoder's folder may hold: the files that are hashed are those that transformers loads."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import T5Config, T5EncoderModel

from gen3c.errors import InvalidInputError
from gen3c.generator.t5_folder import ADAPTER, CONFIG, INDEX, PICKLED, WEIGHTS, open_folder
from gen3c.weight_files import sha256_of
from tests.tiny_t5 import WIDTH, shard_encoder, write_encoder

KEY = "encoder.block.0.layer.0.SelfAttention.q.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_encoder(tmp_path / "t5")


def identity(folder: Path) -> str:
    return open_folder(folder, WIDTH).identity("float32", folder.parent / "hashes.json")


def pickle_weights(folder: Path, scale: float = 1.0) -> None:
    """pytorch_model.bin in the place of model.safetensors."""
    weights = folder / (WEIGHTS if (folder / WEIGHTS).exists() else "unrelated.safetensors")
    torch.save({key: tensor * scale for key, tensor in load_file(weights).items()}, folder / PICKLED)
    weights.unlink()


def scale_weights(path: Path) -> None:
    save_file({key: tensor * 2 for key, tensor in load_file(path).items()}, path, {"format": "pt"})


def loaded(folder: Path) -> Tensor:
    weight: Tensor = T5EncoderModel.from_pretrained(folder).state_dict()[KEY]
    return weight.clone()  # it may be a view of the file


def test_pickled_weights_beside_unrelated_safetensors_are_hashed(folder: Path) -> None:
    """The .bin is what transformers loads, so the identity is its."""
    shutil.copy(folder / WEIGHTS, folder / "unrelated.safetensors")
    torch.save(load_file(folder / WEIGHTS), folder / PICKLED)
    (folder / WEIGHTS).unlink()
    before, weight = identity(folder), loaded(folder)
    scale_weights(folder / "unrelated.safetensors")
    assert identity(folder) == before
    assert torch.equal(loaded(folder), weight)
    pickle_weights(folder, 3.0)
    assert identity(folder) != before
    assert not torch.equal(loaded(folder), weight)


def test_safetensors_come_before_pickled_weights(folder: Path) -> None:
    before, weight = identity(folder), loaded(folder)
    (folder / PICKLED).write_bytes(b"abc")
    assert identity(folder) == before
    assert torch.equal(loaded(folder), weight)


def test_every_shard_is_hashed(folder: Path) -> None:
    weight = loaded(folder)
    shards = shard_encoder(folder)
    (folder / PICKLED).write_bytes(b"abc")
    assert torch.equal(loaded(folder), weight)
    seen = {identity(folder)}
    for shard in shards:
        scale_weights(shard)
        seen.add(identity(folder))
    assert len(seen) == 1 + len(shards)


@pytest.mark.parametrize("place", ["../outside/secret.safetensors", "/etc/passwd", "..", "absent.safetensors", "x.bin"])
def test_an_index_names_files_of_its_folder(folder: Path, place: str) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    shutil.copy(folder / WEIGHTS, outside / "secret.safetensors")
    shutil.copy(folder / WEIGHTS, folder / "x.bin")
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": {KEY: place}}))
    with pytest.raises(InvalidInputError, match=f"names '{place}'; legal are ") as error:
        open_folder(folder, WIDTH)
    assert error.value.field == "checkpoint"


@pytest.mark.parametrize("index", [{}, {"metadata": {}, "weight_map": [1]}, {"weight_map": {KEY: "x.safetensors"}}])
def test_an_index_of_another_form_is_refused(folder: Path, index: object) -> None:
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(InvalidInputError, match="is no index"):
        open_folder(folder, WIDTH)


@pytest.mark.parametrize("by", [CONFIG, ADAPTER])
def test_weights_by_another_name_are_refused(folder: Path, by: str) -> None:
    path = folder / by
    described = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(described | {"transformers_weights": "other.safetensors"}))
    with pytest.raises(InvalidInputError, match="names further weights"):
        open_folder(folder, WIDTH)


def test_an_unrelated_safetensors_file_alone_is_no_network(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "unrelated.safetensors")
    with pytest.raises(InvalidInputError, match=r"no weights in .* legal: model\.safetensors"):
        open_folder(folder, WIDTH)


def test_an_encoder_of_another_width_is_refused(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "wide", width=96)
    with pytest.raises(InvalidInputError, match="type 't5' and width 96; legal is 't5' of width 64"):
        open_folder(folder, WIDTH)


@pytest.mark.parametrize("config", [None, "[]", "{", '{"model_type": "bert", "d_model": 64}'])
def test_a_folder_that_is_no_text_encoder_is_refused(folder: Path, config: str | None) -> None:
    (folder / CONFIG).unlink()
    if config is not None:
        (folder / CONFIG).write_text(config)
    with pytest.raises(InvalidInputError, match=r"config\.json|type 'bert'"):
        open_folder(folder, WIDTH)


@pytest.mark.parametrize("wrong", [{"num_layers": "two"}, {"dense_act_fn": "none"}])
def test_a_config_that_no_network_has_is_refused(folder: Path, wrong: dict[str, object]) -> None:
    (folder / CONFIG).write_text(json.dumps(json.loads((folder / CONFIG).read_text()) | wrong))
    with pytest.raises(InvalidInputError, match="describes no T5 encoder"):
        open_folder(folder, WIDTH)


def test_truncated_weights_are_refused(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-100])
    with pytest.raises(InvalidInputError, match=r"model\.safetensors cannot be read"):
        open_folder(folder, WIDTH)
    (folder / WEIGHTS).write_bytes(whole)
    pickle_weights(folder)
    pickled = (folder / PICKLED).read_bytes()
    for part in (pickled[:3], pickled[:-100]):
        (folder / PICKLED).write_bytes(part)
        with pytest.raises(InvalidInputError, match=r"pytorch_model\.bin is no whole zip file"):
            open_folder(folder, WIDTH)


def test_pickled_weights_are_tensors_by_name(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save([torch.zeros(1)], folder / PICKLED)
    with pytest.raises(InvalidInputError, match="does not hold tensors by name"):
        open_folder(folder, WIDTH)


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("missing", rf"does not hold the whole network .*; 1 tensors are unfit, such as\n  {KEY} is missing$"),
        ("shape", rf"{KEY} has the shape \[63, 64\], legal is \[64, 64\]"),
        ("other", r"; 19 tensors are unfit, such as(\n  .* is missing){10}$"),
    ],
)
def test_weights_fit_the_config(folder: Path, damage: str, sentence: str, pickled: bool) -> None:
    tensors = load_file(folder / WEIGHTS)
    match damage:
        case "missing":
            tensors["query"] = tensors.pop(KEY)
        case "shape":
            tensors[KEY] = tensors[KEY][:-1].contiguous()
        case _:
            tensors = {"something": torch.zeros(1)}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    if pickled:
        pickle_weights(folder)
    with pytest.raises(InvalidInputError, match=sentence):
        open_folder(folder, WIDTH)


def test_the_embedding_may_have_either_of_its_names(folder: Path) -> None:
    before = T5EncoderModel.from_pretrained(folder).shared.weight
    tensors = load_file(folder / WEIGHTS)
    tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    open_folder(folder, WIDTH)
    assert torch.equal(T5EncoderModel.from_pretrained(folder).shared.weight, before)
    tensors.pop("encoder.embed_tokens.weight")
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(InvalidInputError, match=r"shared\.weight is missing"):
        open_folder(folder, WIDTH)


def test_weights_are_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again when the file is another, even one of the same size and times of modification."""
    read: list[str] = []

    def noted(path: Path) -> str:
        read.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr("gen3c.generator.t5_folder.sha256_of", noted)
    first = identity(folder)
    assert WEIGHTS in read
    read.clear()
    assert identity(folder) == first
    assert WEIGHTS not in read
    assert CONFIG in read

    before = (folder / WEIGHTS).stat()
    scale_weights(folder / WEIGHTS)
    os.utime(folder / WEIGHTS, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = (folder / WEIGHTS).stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert identity(folder) != first


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"model.safetensors": 1}', '{"model.safetensors": {"state": 1}}'])
def test_damaged_notes_of_hashes_are_made_again(folder: Path, content: str) -> None:
    first = identity(folder)
    notes = folder.parent / "hashes.json"
    whole = notes.read_text()
    notes.write_text(content)
    assert identity(folder) == first
    assert notes.read_text() == whole


def test_the_released_network_is_compared_without_memory_for_it(tmp_path: Path) -> None:
    """19 GB in float32: config.json of google-t5/t5-11b, and a file that is not it."""
    T5Config(d_model=1024, d_kv=128, d_ff=65536, num_layers=24, num_heads=128).save_pretrained(tmp_path)
    save_file({"shared.weight": torch.zeros(1, 1)}, tmp_path / WEIGHTS)
    with pytest.raises(InvalidInputError, match=r"has the shape \[1, 1\], legal is \[32128, 1024\]"):
        open_folder(tmp_path, 1024)
