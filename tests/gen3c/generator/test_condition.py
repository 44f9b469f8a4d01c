import pytest
import torch

from gen3c.errors import InvalidInputError
from gen3c.generator.condition import ChunkCondition, concat_views, encode_seed, encode_view, seed_video
from gen3c.generator.signatures import VIDEO_ENCODER
from gen3c.generator.vae import VideoEncoder
from gen3c.generator.weights import load_vae
from gen3c.presets import TINY
from gen3c.program import LocalProgram


@pytest.fixture(scope="module")
def encoder() -> LocalProgram:
    return LocalProgram(VideoEncoder(load_vae(TINY, untrained_seed=0)[0]), VIDEO_ENCODER)


def rendering() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = (torch.rand(1, 1, 9, 32, 48, generator=generator) > 0.5).float()
    image = torch.rand(1, 3, 9, 32, 48, generator=generator) * 2 - 1
    return torch.where(mask > 0, image, -1.0), mask


def test_a_view_is_its_image_then_its_mask_as_grey_between_minus_one_and_one(encoder):
    image, mask = rendering()
    latents = encode_view(encoder, image, mask)
    assert latents.shape == (1, 32, 2, 4, 6)
    assert torch.equal(latents[:, :16], encoder({"VIDEO": image})["LATENT"])
    black_and_white = torch.where(mask > 0, 1.0, -1.0).expand(1, 3, 9, 32, 48)
    assert torch.equal(latents[:, 16:], encoder({"VIDEO": black_and_white.contiguous()})["LATENT"])


def test_a_mask_of_another_size_is_refused(encoder):
    image, mask = rendering()
    with pytest.raises(InvalidInputError, match=r"mask has shape \[1, 1, 8, 32, 48\]"):
        encode_view(encoder, image, mask[:, :, :8])


def test_a_missing_second_view_is_zero_latents():
    views = [torch.full((1, 32, 2, 4, 6), value) for value in (1.0, 2.0)]
    assert concat_views(views[:1])[:, 32:].abs().max() == 0
    assert concat_views(views).mean(dim=(0, 2, 3, 4)).tolist() == [1.0] * 32 + [2.0] * 32
    for count in (0, 3):
        with pytest.raises(InvalidInputError, match=f"{count} views cannot be concatenated"):
            concat_views(views[:1] * count)


def test_the_seed_is_followed_by_grey():
    video = seed_video(torch.ones(1, 3, 8, 8), 9)
    assert video.mean(dim=(0, 1, 3, 4)).tolist() == [1.0] + [0.0] * 8


def test_one_frame_gives_the_seed_latent_of_a_whole_chunk(encoder):
    frame = rendering()[0][:, :, 0]
    alone, whole = encode_seed(encoder, frame, 1), encode_seed(encoder, frame, 25)
    assert whole.shape == (1, 16, 1, 4, 6)
    torch.testing.assert_close(alone, whole, atol=1e-5, rtol=0)  # another batch size may sum in another order


def test_a_condition_knows_its_latent_and_marks_its_first_frame():
    condition = ChunkCondition(
        torch.zeros(1, 16, 1, 4, 6), torch.ones(1, 64, 3, 4, 6), torch.ones(1, 2, 8), torch.zeros(1, 2, 8), 24.0
    )
    assert condition.noise_shape == (1, 16, 3, 4, 6)
    inputs = condition.dit_inputs(conditional=True)
    assert inputs["CONDITION_MASK"][0, 0].mean(dim=(1, 2)).tolist() == [1.0, 0.0, 0.0]
    assert inputs["FPS"].tolist() == [[24.0]]
