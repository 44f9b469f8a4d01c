"""Prompts in a whole job: what the network is given to read, and what is refused before it runs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gen3c_client.contract import JobSpec
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.generator.t5 import CACHE_FOLDER, NETWORK_FOLDER, T5Text, load_text
from gen3c.generator.text import EmptyText, TextEncoder
from gen3c.program import Program
from gen3c_server.pipeline import check_prompts
from tests.gen3c_server.test_pipeline import Outcome, programs, run
from tests.tiny_t5 import write_encoder
from tests.walls import SMALL

PROMPT = "a red barn by the sea"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> T5Text:
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    write_encoder(checkpoints / NETWORK_FOLDER)
    loaded = load_text(SMALL, checkpoints)
    assert isinstance(loaded, T5Text)
    return loaded


class Reader:
    """The diffusion network, with a note of every text that it reads."""

    def __init__(self, dit: Program) -> None:
        self._dit = dit
        self.texts: list[Tensor] = []

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.texts.append(inputs["TEXT"].cpu())
        return self._dit(inputs)


def job(text: TextEncoder, **spec: object) -> tuple[Outcome, list[Tensor]]:
    """A job of two steps; what came of it, and the texts of its passes."""
    reader = Reader(programs().dit)
    return run(spec, text=text, programs=replace(programs(), dit=reader)), reader.texts


def test_a_prompt_is_what_the_network_reads_and_changes_the_video(text: T5Text) -> None:
    with_prompt, texts = job(text, prompt=PROMPT)
    assert len(texts) == 2  # one pass a step, at the preset's guidance of 0
    assert all(torch.equal(read, text(PROMPT)) for read in texts)
    without, texts = job(text)
    assert all(torch.equal(read, text("")) and read.any() for read in texts)
    assert with_prompt.files["video.mp4"] != without.files["video.mp4"]
    assert with_prompt.done.provenance["text_encoder"] == f"text_encoder (sha256 {text.identity})"


def test_the_unconditional_pass_reads_the_negative_prompt(text: T5Text) -> None:
    for given, read in ((None, text.default_negative_prompt), ("", ""), ("a house at night", "a house at night")):
        outcome, texts = job(text, prompt=PROMPT, negative_prompt=given, guidance=1.0)
        assert len(texts) == 4
        assert all(torch.equal(a, text(PROMPT)) for a in texts[::2])
        assert all(torch.equal(b, text(read)) for b in texts[1::2])
        assert outcome.notices == ["the wall is flat."]


def test_at_guidance_0_the_negative_prompt_is_not_encoded(tmp_path: Path) -> None:
    write_encoder(tmp_path / NETWORK_FOLDER)
    alone = load_text(SMALL, tmp_path)
    outcome, _ = job(alone, prompt=PROMPT, negative_prompt="a house at night")
    assert len(list((tmp_path / CACHE_FOLDER).rglob("*.safetensors"))) == 1
    assert "the negative prompt has no effect at guidance 0." in outcome.notices


def test_a_prompt_that_is_cut_off_is_told(text: T5Text) -> None:
    outcome, _ = job(text, prompt="a red barn by the sea at night a house")
    assert "prompt has 11 tokens, of which the network reads 8." in outcome.notices


def test_of_negative_prompts_only_a_user_s_is_told_to_be_cut_off(text: T5Text) -> None:
    long = "a red barn by the sea at night a house"
    outcome, _ = job(text, prompt=PROMPT, negative_prompt=long, guidance=1.0)
    assert [notice for notice in outcome.notices if "tokens" in notice] == [
        "negative_prompt has 11 tokens, of which the network reads 8."
    ]
    outcome, _ = job(text, prompt=PROMPT, guidance=1.0)  # the deployment's own is cut off, too
    assert not any("tokens" in notice for notice in outcome.notices)


def test_without_a_text_encoder_both_passes_read_zeros() -> None:
    for negative in (None, ""):
        outcome, texts = job(EmptyText(SMALL.dit), negative_prompt=negative, guidance=1.0)
        assert len(texts) == 4
        assert not torch.cat(texts).any()
        assert outcome.done.provenance["text_encoder"] == "zeros"


def test_what_cannot_be_encoded_is_refused_at_admission() -> None:
    text = EmptyText(SMALL.dit)
    check_prompts(JobSpec(), SMALL, text)
    for field in ("prompt", "negative_prompt"):
        spec = JobSpec.model_validate({field: "blur"})
        with pytest.raises(InvalidInputError, match=f"^{field} is 'blur', but this deployment has no") as error:
            check_prompts(spec, SMALL, text)
        assert error.value.field == f"spec.{field}"


def test_only_texts_that_a_job_reads_need_an_embedding(text: T5Text, tmp_path: Path) -> None:
    """Embeddings of one prompt, shipped without the network: at guidance 0 nothing else is read."""
    T5Text(SMALL.dit, text._folder, tmp_path / CACHE_FOLDER)(PROMPT)
    shipped = load_text(SMALL, tmp_path)
    check_prompts(JobSpec(prompt=PROMPT), SMALL, shipped)
    assert job(shipped, prompt=PROMPT)[1][0].any()
    with pytest.raises(InvalidInputError, match="negative_prompt is 'The video captures"):
        check_prompts(JobSpec(prompt=PROMPT, guidance=1.0), SMALL, shipped)
