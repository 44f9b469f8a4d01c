"""T5's encoder as a program: transformers' own numbers, from a checkpoint directory that has one."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import T5EncoderModel
from transformers.models.t5.modeling_t5 import T5Attention

from gen3c.errors import InvalidInputError
from gen3c.generator.t5_folder import CACHE_FOLDER, HASHES_FILE, NETWORK_FOLDER
from gen3c.generator.text_program import (
    TEXT_ENCODER,
    TextProgram,
    far_starts,
    find_text_encoder,
    load_text_encoder,
    read_network,
    text_encoder_provenance,
)
from gen3c.presets import GEN3C_7B, TINY
from gen3c.program import LocalProgram
from tests.tiny_t5 import WORDS, write_encoder

VOCABULARY = len(WORDS) + 3  # padding, end and unknown word


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    write_encoder(folder / NETWORK_FOLDER)
    return folder


@pytest.fixture(scope="module")
def network(checkpoints: Path) -> TextProgram:
    return load_text_encoder(TINY, checkpoints)


def tokens(n: int, rows: int = 1) -> torch.Tensor:
    return torch.randint(VOCABULARY, (rows, n), generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_states_are_transformers_own(dtype: torch.dtype, checkpoints: Path) -> None:
    """To the last bit: the same operations on the same bias. The longest text has pairs of tokens beyond any bucket."""
    program = LocalProgram(load_text_encoder(TINY, checkpoints, dtype=dtype), TEXT_ENCODER)
    released = T5EncoderModel.from_pretrained(checkpoints / NETWORK_FOLDER, dtype=dtype).eval()
    for n in (1, 2, 8, 40, 300):
        with torch.no_grad():
            expected = released(tokens(n, rows=2)).last_hidden_state
        got = program({"TOKENS": tokens(n, rows=2)})["STATES"]
        assert got.dtype == dtype
        assert torch.equal(got, expected)


@pytest.mark.parametrize(("buckets", "reach"), [(32, 128), (16, 64), (32, 200), (64, 1000)])
def test_buckets_begin_where_transformers_logarithm_has_them(buckets: int, reach: int) -> None:
    """The first case is that of every T5; there the bounds 16, 32 and 64 are exact and fall where a rounding would."""
    side, near = buckets // 2, buckets // 4
    distance = torch.arange(3 * reach)
    bucket = distance.clamp(max=near) + sum((distance >= start).long() for start in far_starts(side, reach))
    expected = T5Attention._relative_position_bucket(-distance, num_buckets=buckets, max_distance=reach)
    assert torch.equal(bucket, expected)


def test_the_order_of_words_is_read(network: TextProgram) -> None:
    ahead, behind = network(torch.tensor([[4, 5, 6]])), network(torch.tensor([[6, 5, 4]]))
    assert (ahead - behind.flip(1)).abs().max() > 1e-2


@pytest.mark.parametrize("token", [-1, VOCABULARY, 2**40])
def test_a_token_that_is_none_makes_its_row_nan_and_no_other(token: int, network: TextProgram) -> None:
    good = tokens(5, rows=2)
    bad = good.clone()
    bad[0, 3] = token
    states = network(bad)
    assert states[0].isnan().all()
    assert torch.allclose(states[1], network(good)[1], atol=1e-5)


def test_tokens_are_of_one_type(network: TextProgram) -> None:
    with pytest.raises(InvalidInputError, match=r"TOKENS is torch\.int32, legal is torch\.int64"):
        LocalProgram(network, TEXT_ENCODER)({"TOKENS": tokens(3).int()})


def test_it_is_loaded_to_run_alone(checkpoints: Path) -> None:
    """Without gradients or dropout, and all of it in the type that is asked for."""
    narrow = load_text_encoder(TINY, checkpoints, dtype=torch.bfloat16)
    assert {(p.dtype, p.requires_grad) for p in narrow.parameters()} == {(torch.bfloat16, False)}
    assert not any(module.training for module in narrow.modules())


def test_a_deployment_may_have_none(tmp_path: Path) -> None:
    for directory in (tmp_path, None):
        assert find_text_encoder(TINY, directory) is None
        assert text_encoder_provenance(TINY, directory) is None
        with pytest.raises(InvalidInputError, match=r"There is no text_encoder in .* of width 64 there") as error:
            load_text_encoder(TINY, directory)
        assert error.value.field == "checkpoint"


def test_the_provenance_is_the_files_and_weights_are_hashed_once(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / NETWORK_FOLDER)
    found = text_encoder_provenance(TINY, tmp_path)
    lines = (f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in sorted(folder.iterdir()))
    assert found is not None
    assert str(found) == f"text_encoder (sha256 {hashlib.sha256(''.join(lines).encode()).hexdigest()})"
    kept = tmp_path / CACHE_FOLDER / HASHES_FILE
    before = kept.stat()
    assert text_encoder_provenance(TINY, tmp_path) == found
    assert kept.stat().st_mtime_ns == before.st_mtime_ns
    write_encoder(folder, seed=1)
    assert text_encoder_provenance(TINY, tmp_path) != found


def test_another_width_is_refused_before_any_weight_is_read(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(T5EncoderModel, "from_pretrained", lambda *_, **__: pytest.fail("the network was loaded"))
    for refused in (load_text_encoder, find_text_encoder, text_encoder_provenance):
        with pytest.raises(InvalidInputError, match="width 64; legal is 't5' of width 1024"):
            refused(GEN3C_7B, checkpoints)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [("missing", "not hold the whole network:\n  encoder.block.0.layer.0.S"), ("shape", "cannot be loaded")],
)
def test_weights_are_never_made_up(damage: str, sentence: str, tmp_path: Path) -> None:
    weights = write_encoder(tmp_path) / "model.safetensors"
    tensors, key = load_file(weights), "encoder.block.0.layer.0.SelfAttention.q.weight"
    if damage == "missing":
        tensors["query"] = tensors.pop(key)
    else:
        tensors[key] = tensors[key][:-1].contiguous()
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(InvalidInputError, match=sentence) as error:
        read_network(tmp_path)
    assert error.value.field == "checkpoint"
