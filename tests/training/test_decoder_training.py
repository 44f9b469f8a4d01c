"""The decoder's own training: what it is given belongs together, and the latents stay what they are."""

import argparse
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from gen3c.generator.dit import Dit
from gen3c.generator.light_vae import LightVae, initialise
from gen3c.generator.vae import VideoEncoder
from gen3c.presets import TINY, LightVaeConfig
from training import decoder as training
from training.conditions import VIEWS
from training.dit import initialise as initialise_dit
from training.dit_loss import WINDOW
from training.run import Run, load_weights

SMALL = LightVaeConfig(encoder_channels=(8, 8), encoder_blocks=(1, 1), decoder_channels=(8, 8), decoder_blocks=(1, 1))
FRAMES, CELLS = 2, (14, 23)  # of latents


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def vae() -> LightVae:
    vae = LightVae(SMALL, FRAMES)
    initialise(vae, generator())
    vae.latents_mean.normal_(generator=generator(1))
    vae.latents_std.uniform_(0.5, 2, generator=generator(2))
    return vae


def batch(n: int) -> dict[str, Tensor]:
    """Samples whose latents, colours and shifts say which cell they are of: row in channel 0, column in channel 1."""
    rows, columns = torch.meshgrid(*(torch.arange(float(side)) for side in CELLS), indexing="ij")
    target = torch.zeros(n, 16, FRAMES, *CELLS)
    target[:, 0], target[:, 1] = rows, columns
    pixels = torch.stack((rows, columns, 0 * rows), dim=-1).repeat_interleave(8, 0).repeat_interleave(8, 1)
    frames = 1 + 8 * (FRAMES - 1)
    return {
        "target": target,
        "rgb": pixels.to(torch.uint8).expand(n, frames, -1, -1, -1),
        "shift": pixels[..., :2].half().expand(n, frames - 1, -1, -1, -1),
    }


def test_latents_pixels_and_motion_are_of_the_same_window(vae: LightVae, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "denoised", lambda batch, _network, _generator: batch["target"] + 100)
    monkeypatch.setattr(
        training.vae_training,
        "latent_noise",
        lambda shape, generator: torch.zeros(tuple(shape)),
    )
    run = cast(Run, SimpleNamespace(model=vae, generator=generator(3), cpu_generator=generator(4)))
    seen = set()
    for _ in range(6):
        latents, video, shift = training.draw_inputs(batch(4), cast(Dit, None), run)
        assert latents.shape == (4, 16, FRAMES, *WINDOW)
        assert video.shape == (4, 3, 9, 8 * WINDOW[0], 8 * WINDOW[1])
        mean, std = (x[:, :, None, None] for x in (vae.latents_mean, vae.latents_std))
        cells = ((latents - mean) / std * 0.5)[:, :2, 0]  # [n,2,h,w]: GEN3C's normalised latents again
        colours = (video[:, :2, 0, ::8, ::8] + 1) * 127.5
        made = torch.tensor([100.0, 100, 0, 0]).view(-1, 1, 1, 1)  # by the transformer: the first half
        torch.testing.assert_close(cells, colours + made, atol=1e-3, rtol=0)
        torch.testing.assert_close(shift[:, 0, ::8, ::8].permute(0, 3, 1, 2).float(), colours, atol=1e-3, rtol=0)
        seen.add((round(float(colours[0, 0, 0, 0])), round(float(colours[0, 1, 0, 0]))))
    assert len(seen) > 2  # anywhere


def test_the_transformer_denoises_from_the_conditions_of_its_training() -> None:
    dit = Dit(replace(TINY.dit, layers=1))
    initialise_dit(dit, generator())
    torch.nn.init.normal_(dit.transformer.proj_out.weight, std=0.05, generator=generator(1))
    n, shape = 6, (FRAMES, 4, 6)
    samples = {
        "target": torch.randn(n, 16, *shape, generator=generator(2)),
        "seed": torch.randn(n, 2, 16, 1, *shape[1:], generator=generator(3)),
        "views": torch.randn(n, VIEWS, 32, *shape, generator=generator(4)),
        "coverage": torch.rand(n, VIEWS, *shape, generator=generator(5)),
        "nearness": torch.rand(n, VIEWS, FRAMES, 1, 1, generator=generator(6)),
        "whole": torch.randn(n, 2, 64, *shape, generator=generator(7)),
    }
    with torch.no_grad():
        made = training.denoised(samples, dit.eval(), generator(8))
        other = training.denoised(samples | {"views": 2 * samples["views"]}, dit, generator(8))
    assert made.shape == samples["target"].shape
    torch.testing.assert_close(made[:, :, :1], samples["seed"][:, 0], atol=1e-2, rtol=0)  # the frame that is given
    assert float((other - made)[:, :, 1:].abs().max()) > 1e-3


def test_it_decodes_what_the_encoder_normalises(vae: LightVae) -> None:
    video = torch.rand(1, 3, 9, 16, 24, generator=generator(5)) * 2 - 1
    with torch.no_grad():
        latents = VideoEncoder(vae)(video)
        torch.testing.assert_close(training._unnormalised(vae, latents), vae.encoder(video), atol=1e-4, rtol=1e-4)


def test_only_the_decoder_learns(vae: LightVae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda _: None)
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    training.learn_decoder(vae)
    run = Run("vae", vae, argparse.Namespace(directory=tmp_path, minutes=5, part_minutes=5, seed=0), lr=1e-3, warmup=1)
    latents = torch.randn(2, 16, FRAMES, 4, 6, generator=generator(6))
    video = torch.rand(2, 3, 9, 32, 48, generator=generator(7)) * 2 - 1
    losses = []
    for _ in range(8):
        loss, logged = training.loss_of(vae, latents, video, torch.zeros(2, 8, 32, 48, 2), steady=1.0)
        run.optimise(loss, **logged)
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    run.save()
    changed = {
        name for name, tensor in load_weights(tmp_path).items() if not torch.equal(tensor, before[name].half().float())
    }
    assert changed
    assert all(name.startswith("decoder.") and not name.startswith("decoder.linear") for name in changed)


def test_it_needs_the_autoencoder_that_it_goes_on_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arguments: list[Any] = ["decoder", "--directory", str(tmp_path / "run"), "--dit", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit, match="--initial is missing"):
        training.main()
