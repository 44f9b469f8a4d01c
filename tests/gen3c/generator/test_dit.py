from dataclasses import replace

import pytest
import torch
from diffusers.models.transformers.transformer_cosmos import CosmosAttnProcessor2_0
from golden import golden_dit, read

from gen3c.errors import InvalidInputError
from gen3c.generator.dit import Dit
from gen3c.generator.signatures import DIT, symbols
from gen3c.generator.weights import load_dit
from gen3c.presets import TINY, DitConfig

ROUNDING = 2e-5  # float32 sums in another order, through six blocks, on outputs up to 4


@pytest.fixture(scope="module")
def dit() -> Dit:
    return load_dit(TINY, untrained_seed=0)[0]


def inputs(batch: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tensors = [torch.randn(spec.sizes(symbols(TINY, batch)), generator=generator) for spec in DIT.inputs]
    tensors[-1] = torch.tensor([24.0])
    return tensors


def test_attention_equals_diffusers(dit):
    before = dit(*inputs())
    twin, _ = load_dit(TINY, untrained_seed=0)
    for block in twin.transformer.transformer_blocks:
        block.attn1.set_processor(CosmosAttnProcessor2_0())
        block.attn2.set_processor(CosmosAttnProcessor2_0())
    torch.testing.assert_close(before, twin(*inputs()), atol=ROUNDING, rtol=0)


def test_rows_of_a_batch_do_not_mix(dit):
    tensors = inputs(batch=2)
    both = dit(*tensors)
    second = dit(*[x[1:] for x in tensors[:-1]], tensors[-1])
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
    tensors[-1] = torch.tensor([30.0])
    torch.testing.assert_close(exported(*tensors), dit(*tensors), atol=ROUNDING, rtol=0)


def test_golden_outputs():
    arrays, dit = read("dit_tiny"), golden_dit()
    x, t, mask = arrays["x"], arrays["timesteps"], arrays["condition_video_input_mask"]
    cache, text = arrays["condition_video_pose"], arrays["crossattn_emb"]
    slow, fast = torch.tensor([24.0]), torch.tensor([30.0])
    cases = {
        "out": dit(x, t, mask, cache, text, slow),
        "out_fps30": dit(x, t, mask, cache, text, fast),
        "out_randpad": dit(x, t, mask, cache, text, slow, arrays["padding_mask_random"]),
        "out_uncond": dit(x, t, mask, cache * 0, text * 0, slow),
    }
    for name, out in cases.items():
        torch.testing.assert_close(out, arrays[name], atol=1e-4, rtol=0)


def test_golden_position_angles():
    arrays, dit = read("rope_angles"), Dit(DitConfig(layers=0, heads=1, head_dim=128, adaln_lora_dim=1))
    latent = torch.zeros(1, 1, 16, 88, 160)
    cos, sin = dit.transformer.rope(latent, fps=arrays["fps"].reshape(1))
    t, h, w = (arrays[f"{axis}_fp32"] for axis in "thw")
    angles = torch.cat(
        [t[:, None, None].expand(-1, 44, 80, -1), h[:, None].expand(16, -1, 80, -1), w.expand(16, 44, -1, -1)], dim=-1
    ).flatten(0, 2)
    torch.testing.assert_close(cos, angles.cos().repeat(1, 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(sin, angles.sin().repeat(1, 2), atol=1e-4, rtol=0)


def test_golden_intermediates():
    arrays, dit = read("dit_tiny"), golden_dit()
    blocks: list[torch.Tensor] = []
    for block in dit.transformer.transformer_blocks:
        block.register_forward_hook(lambda _module, _inputs, output: blocks.append(output))
    mask, cache = arrays["condition_video_input_mask"], arrays["condition_video_pose"]
    dit(arrays["x"], arrays["timesteps"], mask, cache, arrays["crossattn_emb"], torch.tensor([24.0]))
    for index, block in enumerate(blocks):
        expected = arrays[f"mid_block{index}"]
        torch.testing.assert_close(block.view(expected.shape), expected, atol=1e-4, rtol=0)
