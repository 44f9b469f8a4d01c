from dataclasses import replace

import pytest
import torch
from diffusers.models.transformers.transformer_cosmos import CosmosAttnProcessor2_0

from gen3c.errors import InvalidInputError
from gen3c.generator.dit import Dit
from gen3c.generator.signatures import DIT, symbols
from gen3c.generator.weights import load_dit
from gen3c.presets import TINY
from tests.small_dit import reading_text

ROUNDING = 2e-5  # float32 sums in another order, through six blocks, on outputs up to 4


@pytest.fixture(scope="module")
def dit() -> Dit:
    return reading_text(load_dit(TINY, untrained_seed=0)[0])


def inputs(batch: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tensors = [torch.randn(spec.sizes(symbols(TINY, batch)), generator=generator) for spec in DIT.inputs]
    tensors[-1] = torch.full((batch, 1), 24.0)
    return tensors


def test_attention_equals_diffusers(dit):
    before = dit(*inputs())
    twin = reading_text(load_dit(TINY, untrained_seed=0)[0])
    for block in twin.transformer.transformer_blocks:
        block.attn1.set_processor(CosmosAttnProcessor2_0())
        block.attn2.set_processor(CosmosAttnProcessor2_0())
    torch.testing.assert_close(before, twin(*inputs()), atol=ROUNDING, rtol=0)


def test_rows_of_a_batch_do_not_mix(dit):
    tensors = inputs(batch=2)
    both = dit(*tensors)
    second = dit(*[x[1:] for x in tensors])
    torch.testing.assert_close(both[1:], second, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("index", range(6))
def test_every_input_matters(dit, index):
    tensors = inputs()
    before = dit(*tensors)
    tensors[index] = tensors[index] * 1.5
    assert (dit(*tensors) - before).abs().max() > 1e-3


def test_the_same_call_gives_the_same_bits(dit):
    assert torch.equal(dit(*inputs()), dit(*inputs()))


def test_narrow_weights_answer_in_the_dtype_of_the_latent():
    narrow, _ = load_dit(TINY, untrained_seed=0, dtype=torch.bfloat16)
    wide, _ = load_dit(TINY, untrained_seed=0)
    tensors = inputs()
    expected = wide(*tensors)
    out = narrow(*tensors)
    assert out.dtype == torch.float32
    assert narrow(tensors[0].bfloat16(), *tensors[1:]).dtype == torch.bfloat16
    # bfloat16 keeps 8 bits; a wrong cast (of the time step, say) would change the result by its own size.
    assert (out - expected).norm() / expected.norm() < 0.05


def test_sizes_beyond_the_embeddings_or_odd_are_refused(dit):
    for shape in ((1, 16, 4, 34, 40), (1, 16, 4, 23, 40), (1, 16, 17, 24, 40)):
        with pytest.raises(InvalidInputError, match=r"legal is at most \[16, 32, 48\] with even rows"):
            dit(torch.zeros(shape), *inputs()[1:])


def test_the_exported_program_takes_any_frame_rate():
    dit, _ = load_dit(replace(TINY, dit=replace(TINY.dit, layers=1)), untrained_seed=0)  # all blocks export alike
    exported = torch.export.export(dit, tuple(inputs())).module()
    tensors = inputs()
    tensors[-1] = torch.full((1, 1), 30.0)
    torch.testing.assert_close(exported(*tensors), dit(*tensors), atol=ROUNDING, rtol=0)
