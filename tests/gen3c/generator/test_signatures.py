import inspect

import pytest
import torch

from gen3c.errors import InvalidInputError
from gen3c.generator.dit import Dit
from gen3c.generator.signatures import DIT, SIGNATURES, VIDEO_DECODER, VIDEO_ENCODER, symbols
from gen3c.generator.vae import VideoDecoder, VideoEncoder
from gen3c.presets import GEN3C_7B, TINY
from gen3c.program import LocalProgram


def dit_inputs() -> dict[str, torch.Tensor]:
    sizes = symbols(TINY)
    return {spec.name: torch.zeros(spec.sizes(sizes)) for spec in DIT.inputs}


def test_sizes_of_the_7b_preset():
    sizes = symbols(GEN3C_7B)
    assert DIT.inputs[0].sizes(sizes) == (1, 16, 16, 88, 160)
    assert DIT.inputs[4].sizes(sizes) == (1, 512, 1024)
    assert VIDEO_DECODER.outputs[0].sizes(sizes) == (1, 121, 704, 1280, 3)


@pytest.mark.parametrize(
    ("module", "signature"), [(Dit, DIT), (VideoEncoder, VIDEO_ENCODER), (VideoDecoder, VIDEO_DECODER)]
)
def test_modules_take_their_inputs_in_the_order_of_the_signature(module, signature):
    names = list(inspect.signature(module.forward).parameters)[1:]
    assert names[: len(signature.inputs)] == [spec.name.lower() for spec in signature.inputs]
    assert SIGNATURES[signature.name] is signature


def test_arguments_follow_the_calling_order_whatever_the_order_of_the_dict():
    inputs = dict(reversed(dit_inputs().items()))
    assert [id(x) for x in DIT.arguments(inputs)] == [id(inputs[spec.name]) for spec in DIT.inputs]


def test_every_problem_is_named_at_once():
    inputs = dit_inputs() | {
        "CACHE": torch.zeros(1, 32, 4, 24, 40),
        "TEXT": torch.zeros(2, 8, 64),
        "TIMESTEP": torch.zeros(1, 1, dtype=torch.int64),
        "SIGMA": torch.zeros(1),
    }
    del inputs["FPS"]
    with pytest.raises(InvalidInputError) as error:
        DIT.arguments(inputs)
    for part in (
        "CACHE has shape [1, 32, 4, 24, 40], legal is [batch, 64, t, h, w]",
        "TEXT has shape [2, 8, 64], legal is [batch, text_tokens, text_dim] with batch = 1",
        "TIMESTEP is torch.int64",
        "SIGMA is not an input",
        "FPS is missing",
    ):
        assert part in str(error.value)


def test_a_local_program_names_its_output_and_keeps_no_graph():
    class Doubled(torch.nn.Module):
        def forward(self, video: torch.Tensor) -> torch.Tensor:
            return video * 2

    video = torch.ones(1, 3, 1, 8, 8, requires_grad=True)
    latent = LocalProgram(Doubled(), VIDEO_ENCODER)({"VIDEO": video})["LATENT"]
    assert not latent.requires_grad
    assert latent.unique() == 2
