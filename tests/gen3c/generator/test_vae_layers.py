import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_cosmos import (
    AutoencoderKLCosmos,
    CosmosCausalAttention,
    CosmosCausalConv3d,
    CosmosPatchEmbed3d,
    CosmosSpatialAttentionProcessor2_0,
    CosmosUnpatcher3d,
)

from gen3c.generator.vae import Vae
from gen3c.generator.vae_layers import FlatCausalConv, FrameAttention, HaarPatch, HaarUnpatch, attend_frame_by_frame
from gen3c.generator.weights import load_vae
from tests.cosmos import COSMOS_VAE, TINY_COSMOS


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("frames", [1, 9, 17])
def test_wavelets_equal_diffusers(frames):
    video = noise(2, 3, frames, 16, 24)
    bands = HaarPatch()(video)
    torch.testing.assert_close(bands, CosmosPatchEmbed3d(4, "haar")(video), atol=1e-6, rtol=0)
    torch.testing.assert_close(HaarUnpatch()(bands), CosmosUnpatcher3d(4, "haar")(bands), atol=1e-5, rtol=0)
    torch.testing.assert_close(HaarUnpatch()(bands), video, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((1, 3, 3), 1, 1), ((1, 3, 3), (1, 2, 2), 0), ((3, 1, 1), 1, 0), ((3, 1, 1), (2, 1, 1), 0), (1, 1, 0)],
)
def test_flat_convolutions_equal_diffusers(kernel, stride, padding):
    conv = CosmosCausalConv3d(6, 4, kernel_size=kernel, stride=stride, padding=padding)
    x = noise(2, 6, 5, 9, 11)
    torch.testing.assert_close(FlatCausalConv(conv)(x), conv(x), atol=1e-5, rtol=0)


def test_a_full_kernel_is_refused():
    with pytest.raises(ValueError, match=r"kernel_size is \(3, 3, 3\)"):
        FlatCausalConv(CosmosCausalConv3d(2, 2, kernel_size=3))


def test_the_whole_tokenizer_equals_diffusers_with_the_same_state_dict():
    vae, _ = load_vae(TINY_COSMOS, untrained_seed=0)
    assert isinstance(vae, Vae)
    twin = AutoencoderKLCosmos(
        encoder_block_out_channels=COSMOS_VAE.encoder_channels, decode_block_out_channels=COSMOS_VAE.decoder_channels
    )
    twin.load_state_dict({key: value for key, value in vae.state_dict().items() if not key.startswith("latents_")})
    video = noise(1, 3, 9, 32, 48)
    with torch.inference_mode():
        z = vae.quant_conv(vae.encoder(video))
        torch.testing.assert_close(z, twin.encode(video).latent_dist.mode(), atol=1e-5, rtol=0)
        torch.testing.assert_close(vae.decoder(vae.post_quant_conv(z)), twin.decode(z).sample, atol=1e-4, rtol=0)


def test_attention_a_frame_at_a_time_equals_diffusers():
    attention = CosmosCausalAttention(1, 16, processor=CosmosSpatialAttentionProcessor2_0()).eval()
    x = noise(2, 16, 3, 6, 10)
    with torch.inference_mode():
        together = attention(x)
        attend_frame_by_frame(attention)
        assert isinstance(attention.processor, FrameAttention)
        torch.testing.assert_close(attention(x), together, atol=1e-6, rtol=0)
