"""What the autoencoder is trained on, and that it learns; the worlds are replaced by noise that moves."""

import argparse
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gen3c.generator.light_vae import LightVae, initialise
from training import vae as training
from training.linear_code import LinearCode
from training.motion import unsteadiness
from training.run import Run
from training.scenes import as_float
from training.vae_data import HOLED, MASKS, Samples, seen_masks, training_videos


def clips(n: int, seed: int = 0) -> Tensor:
    """[n,9,48,64,3] uint8: smooth noise that moves two pixels a frame."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 12, 20, generator=generator)
    wide = torch.nn.functional.interpolate(coarse, (48, 80), mode="bilinear")
    frames = torch.stack([wide[..., 2 * i : 2 * i + 64] for i in range(9)], dim=1)
    return (frames * 255).to(torch.uint8).permute(0, 1, 3, 4, 2).contiguous()


def moving(n: int) -> dict[str, torch.Tensor]:
    """Clips and their shifts: the pictures move to the left by two pixels a frame."""
    shift = torch.tensor([-2.0, 0.0]).expand(n, 8, 48, 64, 2)
    return {"rgb": clips(n), "shift": shift.half()}


def test_samples_are_pictures_pictures_with_holes_and_masks() -> None:
    n = 50
    samples = training_videos(moving(n), (32, 40), torch.Generator().manual_seed(0))
    video, shift = samples.video, samples.shift
    assert video.shape == (n, 3, 9, 32, 40)
    assert -1 <= video.min() <= video.max() <= 1
    holed, masks = round(n * HOLED), round(n * MASKS)
    assert (video[:holed] == -1).all(1).any((1, 2, 3)).float().mean() > 0.5
    grey = video[holed : holed + masks]
    assert (grey.abs() == 1).all()
    assert (grey == grey[:, :1]).all()
    # Without their holes they are whole, and cells count as covered where nothing is missing in any frame.
    hole = (video[:holed] != samples.whole).any(1)  # [m,T,h,w]
    assert samples.whole.shape[0] == holed
    frames = torch.cat((hole[:, :1].expand(-1, 7, -1, -1), hole), dim=1)
    missing = frames.unflatten(1, (2, 8)).unflatten(3, (4, 8)).unflatten(5, (5, 8)).any((2, 4, 6))  # [m,t,h/8,w/8]
    assert torch.equal(samples.covered, ~missing)
    assert 0.1 < samples.covered.float().mean() < 0.99
    whole, shift = video[holed + masks :], shift[holed + masks :]
    assert whole.std() > 0.1
    # Whichever way a window is mirrored, a point keeps its colour where its shift says that it goes.
    backwards = shift[:, :, 0, 0, 0].isnan().all(1)
    assert 0.25 < backwards.float().mean() < 0.75
    assert unsteadiness(whole[~backwards], shift[~backwards]) < 0.01
    assert unsteadiness(whole[~backwards], -shift[~backwards]) > 0.05


def test_a_generator_decides_the_samples() -> None:
    first, second, other = (
        training_videos(moving(8), (32, 40), torch.Generator().manual_seed(s)).video for s in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_masks_show_much_and_hide_something() -> None:
    seen = seen_masks(64, (25, 64, 96), torch.Generator().manual_seed(0)).float().mean((1, 2, 3, 4))
    assert 0.6 < seen.mean() < 0.95
    assert seen.min() < 0.5


def test_holes_shall_not_change_covered_cells() -> None:
    vae = LightVae(training.TINY.vae, 4)  # type: ignore[arg-type]
    initialise(vae, torch.Generator().manual_seed(0))
    whole = as_float(clips(2))[..., :32, :32]
    covered = torch.ones(2, 2, 4, 4, dtype=torch.bool)
    unseen = whole.clone()
    unseen[:1, :, :, :8, :8] = -1  # the first cell of the first sample
    covered[0, :, 0, 0] = False
    for keep_it in (whole, unseen):
        samples = Samples(keep_it, torch.full((2, 8, 32, 32, 2), torch.nan), whole, covered)
        # The silent network is the linear code, in which cells do not know of each other.
        assert float(training.disturbance(vae, vae.encoder(keep_it), samples).detach()) < 1e-8
    torch.nn.init.normal_(vae.encoder.head.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    found = training.disturbance(vae, vae.encoder(unseen), samples)
    assert float(found.detach()) > 1e-8
    found.backward()  # type: ignore[no-untyped-call]
    assert vae.encoder.head.weight.grad.any()  # type: ignore[union-attr]
    uncovered = samples._replace(covered=torch.zeros_like(covered))
    assert float(training.disturbance(vae, vae.encoder(unseen), uncovered).detach()) == 0


def test_it_gets_better_than_the_linear_code_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda _: None)
    video = as_float(clips(2))[..., :32, :32]
    samples = Samples(video, torch.zeros(2, 8, 32, 32, 2), video[:0], torch.ones(0, 2, 4, 4, dtype=torch.bool))
    vae = LightVae(training.TINY.vae, 4)  # type: ignore[arg-type]
    initialise(vae, torch.Generator().manual_seed(0))
    basis = torch.linalg.qr(torch.randn(1536, 16, generator=torch.Generator().manual_seed(0)))[0].T
    code = LinearCode(torch.zeros(1536), basis, torch.ones(16))
    vae.set_linear_code(code.mean, code.basis, code.std)
    vae.encoder.linear.requires_grad_(False)
    vae.decoder.linear.requires_grad_(False)
    args = argparse.Namespace(directory=tmp_path, minutes=5, part_minutes=5, seed=0)
    run = Run("vae", vae, args, lr=1e-3, warmup=3)
    before = training.psnr(vae.decoder(vae.encoder(video)), video).mean()
    torch.testing.assert_close(before, training.psnr(code.decode(code.encode(video)), video).mean(), atol=0.01, rtol=0)
    for _ in range(12):
        noise = training.latent_noise((2, 16, 2, 4, 4), run.generator)
        loss, logged = training.loss_of(vae, samples, noise, steady=0.1, keep=0.1)
        run.optimise(loss, **logged)
    with torch.no_grad():
        after = training.psnr(vae.decoder(vae.encoder(video)), video).mean()
    assert after > before + 0.1
    vae.latents_std.fill_(0.5)
    run.save()
    loaded = training.load_trained(tmp_path)
    assert (loaded.latents_std == 0.5).all()
    assert torch.equal(loaded.encoder.linear.weight, vae.encoder.linear.weight.half().float())
    assert not any(p.requires_grad for p in loaded.parameters())
