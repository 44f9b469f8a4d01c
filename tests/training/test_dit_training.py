"""The training of the diffusion transformer: its loss, its start, and how it is measured."""

import math
from dataclasses import replace

import pytest
import torch

from gen3c.generator.condition import ChunkCondition
from gen3c.generator.dit import Dit
from gen3c.generator.sampler import sample_chunk
from gen3c.generator.signatures import DIT
from gen3c.presets import TINY
from gen3c.program import LocalProgram
from training.dit import ReadsNothing, channel_weights, denoising_loss, draw_sigmas, initialise
from training.dit_validation import psnr, sample

LATENT = (4, 3, 5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def small_dit():
    dit = Dit(replace(TINY.dit, layers=1))
    initialise(dit, generator())
    return dit


def test_the_loss_asks_for_the_latent_behind_the_noise(small_dit):
    """What the sampler makes of the wanted output is the target: a network that gives it has loss 0."""
    target, noise = torch.randn(2, 3, 16, *LATENT, generator=generator()).unbind(0)
    sigma = torch.tensor([0.05, 1.0, 40.0])

    class Oracle(torch.nn.Module):
        def forward(self, latent, timestep, mask, *others):
            level = (4 * timestep).exp().view(-1, 1, 1, 1, 1)
            x = latent * (level**2 + 0.25).sqrt()
            out = (target - 0.25 / (level**2 + 0.25) * x) * (level**2 + 0.25).sqrt() / (0.5 * level)
            assert torch.equal(mask[:, 0, :, 0, 0], torch.eye(LATENT[0])[:1].expand(3, -1))
            assert others[1].shape == (3, TINY.dit.text_tokens, TINY.dit.text_dim)
            return out

    args = (target, target[:, :, :1], torch.zeros(3, 64, *LATENT), sigma, noise, torch.full((3, 1), 24.0))
    loss, _ = denoising_loss(Oracle(), *args, torch.ones(16, 1, 1, 1))
    assert float(loss) < 1e-4
    at_start, _ = denoising_loss(small_dit, *_even(args), torch.ones(16, 1, 1, 1))
    assert float(at_start.detach()) > 0.5


def _even(args):
    """The same on a grid that the network takes."""
    return tuple(torch.nn.functional.pad(x, (0, 1, 0, 1)) if x.ndim == 5 else x for x in args)


def test_an_initialised_network_says_nothing_and_learns(small_dit):
    latent = torch.randn(1, 16, 4, 4, 6, generator=generator())
    cache = torch.randn(1, 64, 4, 4, 6, generator=generator(1))
    inputs = (torch.zeros(1, 1), latent[:, :1], cache, torch.zeros(1, 8, 64), torch.full((1, 1), 24.0))
    out = small_dit(latent, *inputs)
    assert not out.any()
    (out - latent).square().mean().backward()
    assert small_dit.transformer.proj_out.weight.grad.any()
    small_dit.zero_grad()


def test_without_text_cross_attention_is_zero(small_dit):
    torch.nn.init.normal_(small_dit.transformer.proj_out.weight, generator=generator())
    block = small_dit.transformer.transformer_blocks[0]
    tokens = torch.randn(1, 6, 192, generator=generator())
    assert not block.attn2(tokens, encoder_hidden_states=torch.zeros(1, 8, 64)).any()
    assert not ReadsNothing()(block.attn2, tokens).any()


def test_chunks_sampled_together_are_those_of_the_sampler(small_dit):
    torch.nn.init.normal_(small_dit.transformer.proj_out.weight, std=0.05, generator=generator())
    small_dit.eval()
    shape = (4, 4, 6)
    seed, cache = torch.randn(2, 16, 1, 4, 6, generator=generator()), torch.randn(2, 64, *shape, generator=generator(1))
    noise = torch.randn(2, 16, *shape, generator=generator(2))
    together = sample(small_dit, seed, cache, noise, steps=3)
    text = torch.zeros(1, 8, 64)
    for i in range(2):
        condition = ChunkCondition(seed[i : i + 1], cache[i : i + 1], text, text, 24.0)
        alone = sample_chunk(
            LocalProgram(small_dit, DIT), condition, noise[i : i + 1], steps=3, guidance=0.0, augment_seed=0
        )
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-4, rtol=1e-4)


def test_noise_levels_cover_where_sampling_goes():
    sigmas = draw_sigmas(4000, generator(), torch.device("cpu"))
    assert sigmas.max() <= 80.01
    assert (sigmas > 40).float().mean() > 0.04
    assert (sigmas < 0.3).float().mean() > 0.1


def test_channels_weigh_by_what_they_do():
    class Maker:
        class decoder:  # noqa: N801
            @staticmethod
            def decode(latent):
                return latent * torch.arange(1, 17).view(1, 16, 1, 1, 1)

    weights = channel_weights(Maker, torch.randn(2, 16, *LATENT, generator=generator()), generator()).flatten()
    assert float(weights.mean()) == pytest.approx(1)
    assert float(weights[15] / weights[0]) == pytest.approx(16, rel=0.3)


def test_psnr_of_a_known_error():
    truth = torch.full((2, 4, 4, 3), 100, dtype=torch.uint8)
    where = torch.zeros(2, 4, 4, dtype=torch.bool)
    where[0] = True
    video = truth.clone()
    video[0] += 10
    assert float(psnr(video, truth, where)) == pytest.approx(20 * math.log10(255 / 10), abs=1e-3)
    assert float(psnr(video, truth)) == pytest.approx(20 * math.log10(255 / 10) + 10 * math.log10(2), abs=1e-3)
