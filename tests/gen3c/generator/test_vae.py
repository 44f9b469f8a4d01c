import pytest
import torch

from gen3c.errors import InvalidInputError
from gen3c.generator.vae import AnyVae, VideoDecoder, VideoEncoder, to_uint8
from gen3c.generator.weights import load_vae
from gen3c.presets import TINY, Preset
from tests.cosmos import TINY_COSMOS


@pytest.fixture(scope="module", params=[TINY, TINY_COSMOS], ids=["light", "cosmos"])
def preset(request: pytest.FixtureRequest) -> Preset:
    return request.param


@pytest.fixture(scope="module")
def vae(preset: Preset) -> AnyVae:
    return load_vae(preset, untrained_seed=0)[0]


def video(frames: int = 25) -> torch.Tensor:
    return torch.rand(1, 3, frames, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_a_latent_depends_on_no_later_frame(vae):
    encoder = VideoEncoder(vae)
    changed = video()
    changed[:, :, 9:] = 0
    before, after = encoder(video()), encoder(changed)
    torch.testing.assert_close(before[:, :, :2], after[:, :, :2], atol=1e-5, rtol=0)
    assert (before[:, :, 2] - after[:, :, 2]).abs().max() > 0.01


def test_statistics_are_per_channel_and_latent_frame(vae, preset):
    plain = VideoEncoder(vae)(video())
    shifted, _ = load_vae(preset, untrained_seed=0)
    shifted.latents_mean[3, 1], shifted.latents_std[3, 1] = 0.5, 2.0
    latent = VideoEncoder(shifted)(video())
    expected = plain.clone()
    raw = plain[:, 3, 1] / 0.5 * vae.latents_std[3, 1] + vae.latents_mean[3, 1]
    expected[:, 3, 1] = (raw - 0.5) / 2.0 * 0.5
    torch.testing.assert_close(latent, expected)
    decoded, again = VideoDecoder(vae).decode(plain), VideoDecoder(shifted).decode(latent)
    torch.testing.assert_close(decoded, again, atol=1e-4, rtol=0)


def test_programs_hold_their_own_half_alone(vae):
    whole = sum(p.numel() for p in vae.parameters())
    halves = [sum(p.numel() for p in half(vae).parameters()) for half in (VideoEncoder, VideoDecoder)]
    assert sum(halves) == whole
    assert max(halves) < whole


def test_bytes_are_clamped_then_truncated():
    levels = torch.tensor([-7.0, -1.0, -0.995, 0.0, 0.999, 1.0, 40.0])
    pixels = to_uint8(levels.view(1, 1, 1, 1, -1).expand(1, 3, 2, 1, -1))
    assert pixels.shape == (1, 2, 1, 7, 3)
    assert pixels[0, 1, 0, :, 2].tolist() == [0, 0, 0, 127, 254, 255, 255]


def test_the_decoder_gives_bytes_of_the_float_video(vae):
    latent = VideoEncoder(vae)(video(9))
    decoder = VideoDecoder(vae)
    assert torch.equal(decoder(latent), to_uint8(decoder.decode(latent)))
    assert decoder(latent).shape == (1, 9, 32, 48, 3)


@pytest.mark.parametrize("shape", [(1, 3, 8, 32, 48), (1, 3, 9, 30, 48), (1, 3, 9, 32, 44)])
def test_sizes_off_the_latent_grid_are_refused(vae, shape):
    with pytest.raises(InvalidInputError, match="legal are 1 \\+ 8k frames of multiples of 8 pixels"):
        VideoEncoder(vae)(torch.zeros(shape))


def test_more_latent_frames_than_statistics_are_refused(vae):
    with pytest.raises(InvalidInputError, match="5 frames; legal are 1 to 4"):
        VideoDecoder(vae).decode(torch.zeros(1, 16, 5, 4, 6))


def test_exported_programs_equal_the_modules(vae):
    latent = VideoEncoder(vae)(video(9))
    encoder = torch.export.export(VideoEncoder(vae), (video(9),)).module()
    decoder = torch.export.export(VideoDecoder(vae), (latent,)).module()
    torch.testing.assert_close(encoder(video(9)), latent, atol=1e-5, rtol=0)
    assert torch.equal(decoder(latent), VideoDecoder(vae)(latent))
