"""The training of the diffusion transformer: its loss, its start, and how it is measured."""

import math
from dataclasses import replace

import pytest
import torch

from gen3c.generator.condition import ChunkCondition
from gen3c.generator.dit import Dit
from gen3c.generator.sampler import sample_chunk
from gen3c.generator.scheduler import Preconditioning
from gen3c.generator.signatures import DIT
from gen3c.presets import TINY
from gen3c.program import LocalProgram
from gen3c.splat import Warp
from training.conditions import VIEWS
from training.dit import ReadsNothing, initialise
from training.dit_loss import PIXELS_FLOOR, channel_weights, denoising_loss, draw_sigmas, pixel_loss
from training.dit_validation import _distances, composite, psnr, sample

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
    loss, denoised, _ = denoising_loss(Oracle(), *args, torch.ones(16, 1, 1, 1))
    assert float(loss) < 1e-4
    torch.testing.assert_close(denoised, target, atol=1e-3, rtol=1e-3)
    at_start, _, _ = denoising_loss(small_dit, *_even(args), torch.ones(16, 1, 1, 1))
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


def test_the_denoised_latent_is_that_of_the_sampler(small_dit):
    torch.nn.init.normal_(small_dit.transformer.proj_out.weight, std=0.05, generator=generator())
    target, noise = torch.randn(2, 2, 16, 4, 4, 6, generator=generator()).unbind(0)
    sigma, cache = torch.tensor([0.7, 30.0]), torch.randn(2, 64, 4, 4, 6, generator=generator(1))
    outs = []

    def network(*inputs):
        outs.append(small_dit(*inputs))
        return outs[-1]

    args = (target, target[:, :, :1], cache, sigma, noise, torch.full((2, 1), 24.0))
    with torch.no_grad():
        _, denoised, _ = denoising_loss(network, *args, torch.ones(16, 1, 1, 1))
    at = Preconditioning.at(sigma.view(-1, 1, 1, 1, 1))
    expected = at.c_skip * (target + sigma.view(-1, 1, 1, 1, 1) * noise) + at.c_out * outs[0]
    torch.testing.assert_close(denoised[:, :, 1:], expected[:, :, 1:], atol=1e-4, rtol=1e-4)
    assert torch.equal(denoised[:, :, :1], target[:, :, :1])


def decode(latent):
    """Videos of which only channel 0 can be seen; one frame a latent frame, one pixel a cell."""
    return 2 * latent[:, :1].expand(-1, 3, -1, -1, -1)


def test_pixels_count_where_there_is_much_noise():
    target = torch.randn(8, 16, 4, 14, 22, generator=generator())
    denoised = target.clone()
    denoised[:, 0, 1:] += 0.1
    denoised[:, 1:, 1:] += 9.0  # which no pixel shows
    denoised[1:4] += 9.0  # which are not decoded
    denoised.requires_grad_()
    sigma = torch.tensor([0.5, 30, 30, 30, 2.0, 0.1, 0.1, 0.1])
    loss = pixel_loss(decode, denoised, target, sigma, generator())
    assert float(loss.detach()) == pytest.approx(
        (0 + math.log(0.04 + PIXELS_FLOOR)) / 2, rel=1e-4
    )  # of samples 0 and 4
    (gradient,) = torch.autograd.grad(loss, denoised)
    touched = gradient != 0
    assert touched.flatten(1).any(1).tolist() == [i == 4 for i in range(8)]
    assert touched[4, 0, 1:].sum() == 3 * 12 * 20
    assert not touched[4, :, 0].any()


def test_text_changes_nothing(small_dit):
    """No text is ever trained with, so what ships must not depend on one."""
    network = small_dit.transformer
    torch.nn.init.normal_(network.proj_out.weight, generator=generator())
    for block in network.transformer_blocks:
        torch.nn.init.normal_(block.norm2.linear_2.weight, std=0.1, generator=generator())
    latent, cache = torch.randn(1, 16, 4, 4, 6, generator=generator()), torch.zeros(1, 64, 4, 4, 6)
    text = torch.randn(1, TINY.dit.text_tokens, TINY.dit.text_dim, generator=generator(1))

    def output(text):
        with torch.no_grad():
            return small_dit(latent, torch.zeros(1, 1), latent[:, :1], cache, text, torch.full((1, 1), 24.0))

    without = output(torch.zeros_like(text))
    assert torch.equal(output(text), without)
    block = network.transformer_blocks[0]
    processor = block.attn2.processor
    block.attn2.set_processor(ReadsNothing())
    assert torch.equal(output(text), without)
    block.attn2.set_processor(processor)


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
    share = [float(((sigmas >= low) & (sigmas < high)).float().mean()) for low, high in ((20, 81), (4, 20), (0, 1))]
    assert share == pytest.approx([0.66, 0.16, 0.12], abs=0.03)
    assert (sigmas < 0.3).float().mean() > 0.03


def test_channels_weigh_by_what_they_do():
    latents = torch.randn(2, 16, *LATENT, generator=generator())
    scale = torch.arange(1, 17).view(1, 16, 1, 1, 1)
    weights = channel_weights(lambda latent: latent * scale, latents, generator()).flatten()
    assert float(weights.mean()) == pytest.approx(1)
    assert float(weights[15] / weights[0]) == pytest.approx(16**2, rel=0.3)


def test_a_composite_shows_the_nearest_camera_that_covers():
    v, f, h, w = VIEWS, 1, 8, 8
    image = torch.linspace(-1, 1, v).view(v, 1, 1, 1).expand(v, 3, h, w)
    coverage = torch.ones(v, 1, h, w)
    coverage[2, ..., :4] = 0
    depth = torch.full((v, 1, h, w), 5.0)
    depth[1] = 1.0  # the nearest surface
    distance = torch.tensor([2.0, 3, 1, 4, 4, 4, 0, 4])[:, None]
    video = composite(Warp(image, coverage, depth, coverage), distance, 3)  # view 6 is none of the three
    expected = ((image[:, 0, 0, 0] + 1) / 2 * 255).to(torch.uint8)
    assert (video[..., :4, :] == expected[0]).all()
    assert (video[..., 4:, :] == expected[2]).all()
    assert video.shape == (f, h, w, 3)


def test_distances_between_cameras():
    turn = torch.linalg.matrix_exp(torch.tensor([[0, -0.2, 0.1], [0.2, 0, 0.3], [-0.1, -0.3, 0]]))
    places = torch.tensor([[0.0, 0, 0], [3.0, 4, 0], [1.0, 2, 2]])
    w2c = torch.eye(4).repeat(3, 1, 1)
    w2c[:, :3, :3], w2c[:, :3, 3] = turn, -places @ turn.T
    torch.testing.assert_close(_distances(w2c[:1], w2c), torch.tensor([[0.0, 5, 3]]), atol=1e-5, rtol=1e-5)


def test_psnr_of_a_known_error():
    truth = torch.full((2, 4, 4, 3), 100, dtype=torch.uint8)
    where = torch.zeros(2, 4, 4, dtype=torch.bool)
    where[0] = True
    video = truth.clone()
    video[0] += 10
    assert float(psnr(video, truth, where)) == pytest.approx(20 * math.log10(255 / 10), abs=1e-3)
    assert float(psnr(video, truth)) == pytest.approx(20 * math.log10(255 / 10) + 10 * math.log10(2), abs=1e-3)
