"""Prompts by a text encoder that runs somewhere else: tokens go out, states come back."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import T5EncoderModel

from gen3c.errors import InvalidInputError
from gen3c.generator.t5 import CACHE_FOLDER, NETWORK_FOLDER, T5Text, load_text
from gen3c.generator.text_program import TEXT_ENCODER, load_text_encoder
from gen3c.presets import TINY
from gen3c.program import LocalProgram, Program
from tests.tiny_t5 import write_encoder

PROMPT = "a red barn by the sea"  # 7 tokens with </s>; the network reads 8


class Elsewhere:
    """A program with a note of what it was given."""

    def __init__(self, program: Program) -> None:
        self.answer: Callable[[Tensor], Tensor] = lambda states: states
        self.given: list[Tensor] = []
        self._program = program

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.given.append(inputs["TOKENS"])
        return {"STATES": self.answer(self._program(inputs)["STATES"])}


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    write_encoder(tmp_path / NETWORK_FOLDER)
    return tmp_path


@pytest.fixture
def elsewhere(checkpoints: Path) -> Elsewhere:
    return Elsewhere(LocalProgram(load_text_encoder(TINY, checkpoints), TEXT_ENCODER))


def kept(checkpoints: Path) -> int:
    return len(list((checkpoints / CACHE_FOLDER).rglob("*.safetensors")))


def test_an_embedding_is_that_of_a_network_in_this_process(
    checkpoints: Path, elsewhere: Elsewhere, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = T5Text(TINY.dit, checkpoints / NETWORK_FOLDER, tmp_path_factory.mktemp("cache"))
    expected = {prompt: here(prompt) for prompt in ("", PROMPT)}
    monkeypatch.setattr(T5EncoderModel, "from_pretrained", lambda *_, **__: pytest.fail("the network was loaded"))
    text = load_text(TINY, checkpoints, network=elsewhere)
    assert isinstance(text, T5Text)
    assert (text.identity, text.source) == (here.identity, here.source)
    for prompt, embedding in expected.items():
        assert torch.equal(text(prompt), embedding)


def test_the_program_reads_the_tokens_alone_and_each_text_once(checkpoints: Path, elsewhere: Elsewhere) -> None:
    text = load_text(TINY, checkpoints, network=elsewhere)
    for prompt in ("", PROMPT, "a red barn by the sea at night a house", PROMPT):  # 1, 7 and 11 tokens
        text(prompt)
    assert [given.shape for given in elsewhere.given] == [(1, 1), (1, 7), (1, 8)]
    assert all(given.dtype == torch.int64 and given[0, -1] == 1 for given in elsewhere.given)  # </s> is kept
    load_text(TINY, checkpoints, network=elsewhere)(PROMPT)
    assert len(elsewhere.given) == kept(checkpoints) == 3


def test_a_check_asks_neither_program_nor_tokenizer(checkpoints: Path, elsewhere: Elsewhere) -> None:
    load_text(TINY, checkpoints, network=elsewhere).check(PROMPT)
    assert elsewhere.given == []


def test_states_may_be_bfloat16_and_stay_the_program_s(checkpoints: Path, elsewhere: Elsewhere) -> None:
    text = load_text(TINY, checkpoints, dtype=torch.bfloat16, network=elsewhere)
    buffer = torch.zeros(1, 7, 64, dtype=torch.bfloat16)

    def reused(states: Tensor) -> Tensor:
        return buffer.copy_(states)

    elsewhere.answer = reused
    first = text(PROMPT)
    buffer.zero_()
    assert first.any()
    assert torch.equal(text(PROMPT), first)


def test_a_program_that_fails_is_told_of_and_asked_again(checkpoints: Path, elsewhere: Elsewhere) -> None:
    def fail(_: Tensor) -> Tensor:
        raise ConnectionError("The model 'text_encoder' of the server has died.")

    text = load_text(TINY, checkpoints, network=elsewhere)
    elsewhere.answer = fail
    with pytest.raises(ConnectionError, match="has died"):
        text(PROMPT)
    assert kept(checkpoints) == 0
    elsewhere.answer = lambda states: states
    assert text(PROMPT).any()
    assert kept(checkpoints) == 1


def test_what_a_program_refuses_is_not_the_author_s_fault(checkpoints: Path, elsewhere: Elsewhere) -> None:
    def refuse(_: Tensor) -> Tensor:
        raise InvalidInputError("Program text_encoder was called with tokens=7; it was built for tokens=1..4.")

    elsewhere.answer = refuse
    with pytest.raises(RuntimeError, match=r"The text encoder cannot run: .* built for tokens=1\.\.4"):
        load_text(TINY, checkpoints, network=elsewhere)(PROMPT)


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        (lambda states: states.index_fill(1, torch.tensor([3]), torch.nan), FloatingPointError, "not finite"),
        (lambda states: states / 0, FloatingPointError, "not finite"),
        (lambda states: states[:, :-1], RuntimeError, r"states of shape \[1, 6, 64\]; legal is \[1, 7, 64\]"),
        (lambda states: states[0], RuntimeError, r"states of shape \[7, 64\]"),
        (lambda states: states.repeat(1, 1, 2), RuntimeError, r"states of shape \[1, 7, 128\]"),
    ],
)
def test_states_that_are_none_are_not_kept(
    answer: Callable[[Tensor], Tensor],
    error: type[Exception],
    sentence: str,
    checkpoints: Path,
    elsewhere: Elsewhere,
) -> None:
    text = load_text(TINY, checkpoints, network=elsewhere)
    elsewhere.answer = answer
    for _ in range(2):
        with pytest.raises(error, match=sentence):
            text(PROMPT)
    assert kept(checkpoints) == 0


def test_the_tokenizer_is_checked_here(checkpoints: Path, elsewhere: Elsewhere) -> None:
    path = checkpoints / NETWORK_FOLDER / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"post_processor": None}))
    with pytest.raises(RuntimeError, match=r"turns the empty text into \[\]; legal are up to 13, and \[1\]"):
        load_text(TINY, checkpoints, network=elsewhere)(PROMPT)
    assert elsewhere.given == []


def test_a_program_alone_has_no_tokenizer(tmp_path: Path, elsewhere: Elsewhere) -> None:
    with pytest.raises(InvalidInputError, match=r"There is no text_encoder in .*needs the tokenizer") as error:
        load_text(TINY, tmp_path / "empty", network=elsewhere)
    assert error.value.field == "checkpoint"
