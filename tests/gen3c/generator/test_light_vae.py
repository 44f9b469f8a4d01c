import dataclasses

import pytest
import torch
from torch import Tensor

from gen3c.generator.light_vae import LightVae, initialise
from gen3c.presets import TINY, LightVaeConfig
from training.linear_code import LinearCode, cells, fit, from_cells

SMALL = LightVaeConfig(encoder_channels=(8, 16), encoder_blocks=(1, 2), decoder_channels=(16, 8), decoder_blocks=(2, 1))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


@pytest.fixture(scope="module")
def vae() -> LightVae:
    """With weights everywhere, of the residual branches too."""
    vae = LightVae(SMALL, 4)
    for i, parameter in enumerate(vae.parameters()):
        parameter.data = noise(*parameter.shape, seed=i) * 0.1
    return vae.requires_grad_(False)


@pytest.fixture(scope="module")
def code() -> LinearCode:
    return fit([noise(2, 3, 17, 32, 48, seed=seed).cumsum(2).clamp(-9, 9) / 9 for seed in range(2)])


@pytest.mark.parametrize("frames", [1, 9, 25])
def test_cells_are_put_together_again(frames: int) -> None:
    video = noise(2, 3, frames, 16, 24)
    assert cells(video).shape == (2, 1 + frames // 8, 2, 3, 1536)
    assert torch.equal(from_cells(cells(video)), video)


def test_the_linear_code_is_the_best_of_its_size(code: LinearCode) -> None:
    video = noise(2, 3, 17, 32, 48, seed=0).cumsum(2).clamp(-9, 9) / 9  # one that it was fitted to
    torch.testing.assert_close(code.basis @ code.basis.T, torch.eye(16), atol=1e-5, rtol=0)
    losses = [(c.decode(c.encode(video)) - video).square().mean() for c in (code, code.first(8), code.first(1))]
    assert losses == sorted(losses)
    other = dataclasses.replace(code, basis=torch.linalg.qr(noise(1536, 16))[0].T)
    assert (other.decode(other.encode(video)) - video).square().mean() > losses[1]
    spread = code.encode(video)[:, :, 1:].std((0, 2, 3, 4))
    torch.testing.assert_close(spread, code.std, atol=0, rtol=0.5)


@torch.no_grad()
def test_silent_networks_leave_the_linear_code(code: LinearCode) -> None:
    vae = LightVae(SMALL, 4)
    initialise(vae, generator())
    vae.set_linear_code(code.mean, code.basis, code.std)
    video = noise(2, 3, 17, 32, 48, seed=1).clamp(-1, 1)
    z = vae.encoder(video)
    torch.testing.assert_close(z * code.std.view(-1, 1, 1, 1), code.encode(video), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(vae.decoder(z), code.decode(code.encode(video)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kept", [1, 2])
def test_no_frame_depends_on_a_later_latent(vae: LightVae, kept: int) -> None:
    z = noise(1, 16, 3, 4, 6)
    shown = 1 + 8 * (kept - 1)
    whole, part = vae.decoder(z), vae.decoder(z[:, :, :kept])
    assert part.shape == (1, 3, shown, 32, 48)
    torch.testing.assert_close(whole[:, :, :shown], part, atol=1e-5, rtol=0)


def test_a_frame_depends_on_earlier_latents(vae: LightVae) -> None:
    z = noise(1, 16, 3, 4, 6)
    changed = z.clone()
    changed[:, :, 0] += 1
    assert (vae.decoder(z) - vae.decoder(changed))[:, :, 9:].abs().max() > 1e-4


def test_rows_of_a_batch_do_not_meet(vae: LightVae) -> None:
    video = noise(3, 3, 9, 16, 24).clamp(-1, 1)
    z = vae.encoder(video)
    torch.testing.assert_close(z[1:2], vae.encoder(video[1:2]), atol=1e-5, rtol=0)
    torch.testing.assert_close(vae.decoder(z)[2:], vae.decoder(z[2:]), atol=1e-5, rtol=0)


def test_the_network_is_small() -> None:
    with torch.device("meta"):
        vae = LightVae(TINY.vae, TINY.latent_shape[0])  # type: ignore[arg-type]
    assert sum(p.numel() for p in vae.parameters()) < 3_000_000
