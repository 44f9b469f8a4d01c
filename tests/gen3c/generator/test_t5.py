import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, T5Config, T5EncoderModel, T5ForConditionalGeneration, T5Tokenizer

from gen3c.errors import InvalidInputError
from gen3c.generator.t5 import CACHE_FOLDER, HASHES_FILE, NETWORK_FOLDER, T5Text, load_text
from gen3c.generator.text import EmptyText
from gen3c.presets import TINY
from tests.tiny_t5 import write_encoder

CONFIG = TINY.dit  # 8 tokens of width 64
PROMPT = "a red barn by the sea"  # 7 tokens with </s>


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("t5") / NETWORK_FOLDER)


@pytest.fixture
def text(network: Path, tmp_path: Path) -> T5Text:
    return T5Text(CONFIG, network, tmp_path)


def forbid_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was loaded")

    monkeypatch.setattr(T5EncoderModel, "from_pretrained", refuse)


def as_gen3c_does(network: Path, prompt: str) -> Tensor:
    """Padded to the full length and masked, then zeroed past the text's length."""
    tokens = AutoTokenizer.from_pretrained(network)(
        prompt, padding="max_length", max_length=CONFIG.text_tokens, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        states: Tensor = T5EncoderModel.from_pretrained(network)(
            tokens.input_ids, attention_mask=tokens.attention_mask
        ).last_hidden_state
    states[0, int(tokens.attention_mask.sum()) :] = 0
    return states


@pytest.mark.parametrize("prompt", ["", "barn", PROMPT, "a red barn by the sea at night"])
def test_an_embedding_is_gen3c_s(text: T5Text, network: Path, prompt: str) -> None:
    """Up to the rounding to bfloat16, whose unit is 2^-8 of the value; the sums differ by 1e-6."""
    expected = as_gen3c_does(network, prompt)
    got = text(prompt)
    assert got.shape == (1, 8, 64)
    assert got.dtype == torch.float32
    assert torch.equal(got, got.bfloat16().float())
    assert ((got - expected).abs() <= expected.abs() * 2**-8 + 1e-5).all()


def test_rows_past_the_text_are_zero_and_the_empty_text_has_one_token(text: T5Text) -> None:
    for prompt, n in (("", 1), ("barn", 2), (PROMPT, 7)):
        embedding = text(prompt)[0]
        assert embedding[:n].abs().amin(1).amax() > 0
        assert not embedding[n:].any()


def test_a_text_that_is_cut_off_is_told_with_the_figures(text: T5Text) -> None:
    """10 words and </s>; the network reads 8 tokens. From the cache too."""
    prompt = "a red barn by the sea at night a house"
    for _ in range(2):
        told: list[str] = []
        text(prompt, told.append)
        text(prompt, told.append, "spec.negative_prompt")
        assert told == [
            "prompt has 11 tokens, of which the network reads 8.",
            "negative_prompt has 11 tokens, of which the network reads 8.",
        ]
    told = []
    text(PROMPT, told.append)
    assert told == []


def test_an_embedding_is_kept_and_the_network_not_needed_again(
    text: T5Text, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = text(PROMPT)
    kept = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert kept == {Path(HASHES_FILE), text._cache.path(PROMPT).relative_to(tmp_path)}
    forbid_networks(monkeypatch)
    assert torch.equal(text(PROMPT), first)
    assert torch.equal(T5Text(CONFIG, network, tmp_path)(PROMPT), first)
    with pytest.raises(AssertionError, match="the network was loaded"):
        T5Text(CONFIG, network, tmp_path)("barn")


def test_what_is_given_out_is_the_caller_s(text: T5Text) -> None:
    first = text(PROMPT)
    first.zero_()
    assert text(PROMPT).any()


def test_memory_holds_a_bounded_number_of_texts(text: T5Text) -> None:
    prompts = ["a " * i for i in range(1, 25)]
    embeddings = [text(prompt) for prompt in prompts]
    assert len(text._recent) < len(prompts)
    assert all(torch.equal(text(p), e) for p, e in zip(prompts, embeddings, strict=True))


def test_another_encoder_or_precision_has_its_own_entries(network: Path, tmp_path: Path) -> None:
    other = write_encoder(tmp_path / "other", seed=1)
    cache = tmp_path / "cache"
    plain = T5Text(CONFIG, network, cache)(PROMPT)
    assert not torch.equal(T5Text(CONFIG, other, cache)(PROMPT), plain)
    rounded = T5Text(CONFIG, network, cache, dtype=torch.bfloat16)
    assert rounded.identity != T5Text(CONFIG, network, cache).identity
    # Two layers in bfloat16 are a few times its unit off.
    assert 0 < (rounded(PROMPT) - plain).abs().max() < 0.1 * plain.abs().max()
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 3
    assert torch.equal(T5Text(CONFIG, network, cache)(PROMPT), plain)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "shape", "nan", "no metadata"])
def test_a_damaged_entry_is_made_again(text: T5Text, network: Path, tmp_path: Path, damage: str) -> None:
    expected = text(PROMPT)
    (path,) = tmp_path.rglob("*.safetensors")
    whole = path.read_bytes()
    rows = load_file(path)["embedding"]
    match damage:
        case "truncated":
            path.write_bytes(whole[:-10])
        case "garbage":
            path.write_bytes(b"\xff" * 100)
        case "shape":
            save_file({"embedding": rows[:, :32].contiguous()}, path, {"tokens": "7"})
        case "nan":
            save_file({"embedding": rows * torch.nan}, path, {"tokens": "7"})
        case _:
            save_file({"embedding": rows}, path)
    assert torch.equal(T5Text(CONFIG, network, tmp_path)(PROMPT), expected)
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_costs_a_warning_only(
    network: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("not a folder")
    assert T5Text(CONFIG, network, tmp_path / "cache")(PROMPT).any()
    assert "hashes of the text encoder are not kept" in caplog.text
    assert "is not kept" in caplog.text


def test_embeddings_may_come_without_the_network(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = T5Text(CONFIG, network, tmp_path / CACHE_FOLDER)
    expected = made(PROMPT)
    forbid_networks(monkeypatch)
    shipped = load_text(TINY, tmp_path)
    assert isinstance(shipped, T5Text)
    assert shipped.identity == made.identity
    shipped.check(PROMPT)
    assert torch.equal(shipped(PROMPT), expected)
    for refused in (shipped.check, shipped):
        with pytest.raises(InvalidInputError, match=r"prompt is 'a blue barn', but .* only the embeddings") as error:
            refused("a blue barn")
        assert error.value.field == "spec.prompt"
    with pytest.raises(InvalidInputError, match=r"^negative_prompt is ''") as error:
        shipped.check("", "spec.negative_prompt")
    assert error.value.field == "spec.negative_prompt"


def test_embeddings_of_several_encoders_are_ambiguous(network: Path, tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        T5Text(CONFIG, network, tmp_path / CACHE_FOLDER, dtype=dtype)(PROMPT)
    with pytest.raises(InvalidInputError, match="embeddings of 2 text encoders"):
        load_text(TINY, tmp_path)


def test_a_checkpoint_directory_without_text_means_zeros(tmp_path: Path) -> None:
    for directory in (tmp_path, None):
        text = load_text(TINY, directory)
        assert isinstance(text, EmptyText)
        assert text.source == "zeros"


def test_a_checkpoint_directory_with_a_text_encoder_has_its_cache_beside_it(tmp_path: Path) -> None:
    write_encoder(tmp_path / NETWORK_FOLDER)
    text = load_text(TINY, tmp_path)
    assert text(PROMPT).any()
    assert isinstance(text, T5Text)
    assert text.source == f"text_encoder (sha256 {text.identity})"
    assert len(list((tmp_path / CACHE_FOLDER / text.identity).iterdir())) == 1


def test_a_check_runs_no_network(text: T5Text, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_networks(monkeypatch)
    text.check("a prompt that was never encoded")


def test_a_half_precision_that_overflows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"dtype is torch\.float16; legal: float32, bfloat16"):
        T5Text(CONFIG, write_encoder(tmp_path / "t5"), tmp_path, dtype=torch.float16)


@pytest.mark.parametrize(
    ("damage", "error", "sentence"),
    [
        ("missing", RuntimeError, "does not hold the whole network:\n  encoder.block.0.layer.0.SelfAttention.q"),
        ("shape", RuntimeError, "cannot be loaded"),
        ("nan", FloatingPointError, "not finite"),
    ],
)
def test_weights_are_never_made_up(tmp_path: Path, damage: str, error: type[Exception], sentence: str) -> None:
    """transformers draws what a file lacks at random. Here the file is replaced after the start, which compares it."""
    weights = write_encoder(tmp_path / "t5") / "model.safetensors"
    tensors = load_file(weights)
    key = "encoder.block.0.layer.0.SelfAttention.q.weight"
    match damage:
        case "missing":
            tensors["query"] = tensors.pop(key)
        case "shape":
            tensors[key] = tensors[key][:-1].contiguous()
        case _:
            tensors[key][0, 0] = torch.nan
    text = T5Text(CONFIG, tmp_path / "t5", tmp_path)
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(error, match=sentence):
        text(PROMPT)


@pytest.mark.parametrize("pickled", [False, True])
def test_a_whole_t5_is_read_as_it_is_published(tmp_path: Path, pickled: bool) -> None:
    """With its decoder, and without safetensors. The answer is that of its encoder."""
    folder = write_encoder(tmp_path / "t5")
    expected = T5Text(CONFIG, folder, tmp_path)(PROMPT)
    encoder = T5EncoderModel.from_pretrained(folder)
    whole = T5ForConditionalGeneration(T5Config.from_pretrained(folder))
    whole.shared, whole.encoder = encoder.shared, encoder.encoder
    (folder / "model.safetensors").unlink()
    if pickled:
        whole.config.save_pretrained(folder)
        torch.save(whole.state_dict(), folder / "pytorch_model.bin")
    else:
        whole.save_pretrained(folder)
    assert torch.equal(T5Text(CONFIG, folder, tmp_path)(PROMPT), expected)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "t5")
    (folder / "model.safetensors").unlink()
    torch.save({"shared.weight": tmp_path.joinpath}, folder / "pytorch_model.bin")
    with pytest.raises(InvalidInputError, match=r"pytorch_model\.bin cannot be read"):
        T5Text(CONFIG, folder, tmp_path)


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path: Path) -> None:
    path = write_encoder(tmp_path / "t5") / "tokenizer.json"
    described = json.loads(path.read_text())
    described["post_processor"] = None
    path.write_text(json.dumps(described))
    with pytest.raises(RuntimeError, match=r"turns the empty text into \[\]; legal are up to 13, and \[1\]"):
        T5Text(CONFIG, tmp_path / "t5", tmp_path)(PROMPT)


def test_t5_s_own_tokenizer_is_read(tmp_path: Path) -> None:
    """The class that google-t5/t5-11b names, over a small vocabulary."""
    folder = write_encoder(tmp_path / "t5")
    before = T5Text(CONFIG, folder, tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁red", -1.0), ("▁barn", -1.0)]
    T5Tokenizer(vocab=vocabulary, extra_ids=0).save_pretrained(folder)
    text = T5Text(CONFIG, folder, tmp_path)
    assert text.identity != before.identity
    assert int(text("red barn")[0].any(1).sum()) == 3
    assert torch.equal(text(""), before(""))  # one token, </s>, for both


def test_transformers_is_an_extra(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gen3c.generator.t5_folder.find_spec", lambda name: None)
    with pytest.raises(InvalidInputError, match=r"install gen3c-triton\[text\]"):
        T5Text(CONFIG, network, tmp_path)


def test_the_default_negative_prompt_is_cosmos_own(text: T5Text) -> None:
    assert len(text.default_negative_prompt) == 538
    digest = hashlib.sha256(text.default_negative_prompt.encode()).hexdigest()
    assert digest == "6d7ca93077e7e4a8417947ab03266c97dd44c9ec0d7b97fa4272ed956895239f"
