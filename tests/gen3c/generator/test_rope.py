import pytest
import torch
from diffusers.models.transformers.transformer_cosmos import CosmosRotaryPosEmbed

from gen3c.generator.rope import RotaryAngles


@pytest.mark.parametrize("head_dim", [32, 48, 128])
@pytest.mark.parametrize("scale", [(2.0, 1.0, 1.0), (1.0, 3.0, 2.0)])
@pytest.mark.parametrize("fps", [None, 24, 30, torch.tensor([12.5])])
def test_float32_equals_diffusers_bit_for_bit(head_dim, scale, fps):
    latent = torch.zeros(1, 1, 5, 8, 12)
    expected = CosmosRotaryPosEmbed(head_dim, rope_scale=scale)(latent, fps)
    got = RotaryAngles(head_dim, scale=scale)(latent, fps)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_bfloat16_angles_are_on_its_grid_and_as_far_off_as_in_the_released_network():
    grid = (16, 44, 80)  # 121 frames of 704x1280
    exact, rounded = RotaryAngles(128).axes(grid, 24.0), RotaryAngles(128, precision="bfloat16").axes(grid, 24.0)
    assert all(torch.equal(axis.bfloat16().float(), axis) for axis in rounded)
    largest = [float((a - b).abs().max()) for a, b in zip(exact, rounded, strict=True)]
    # Measured on the released code at 24 fps: time 0.026 to 0.037, height 0.074, width 0.148.
    assert 0.02 < largest[0] < 0.04
    assert largest[1] == pytest.approx(0.074, abs=1e-3)
    assert largest[2] == pytest.approx(0.148, abs=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_cosine_and_sine_are_those_of_the_angles_in_float32(precision):
    rope = RotaryAngles(48, precision=precision)
    cos, sin = rope(torch.zeros(1, 1, 3, 4, 6), torch.tensor([30.0]))
    angles = rope.angles((3, 2, 3), 30.0)
    assert cos.dtype == sin.dtype == torch.float32
    assert torch.equal(cos, angles.cos())
    assert torch.equal(sin, angles.sin())
    assert angles.shape == (18, 48)
    assert torch.equal(angles[:, :24], angles[:, 24:])


def test_the_frame_rate_sets_the_speed_of_the_time_axis_alone():
    slow, fast = RotaryAngles(48).axes((4, 2, 3), 12.0), RotaryAngles(48).axes((4, 2, 3), 24.0)
    torch.testing.assert_close(slow[0], fast[0] * 2)
    assert torch.equal(slow[1], fast[1])
    assert torch.equal(slow[2], fast[2])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_exports(precision):
    rope = RotaryAngles(48, precision=precision)
    arguments = (torch.zeros(1, 1, 3, 4, 6), torch.tensor([30.0]))
    exported = torch.export.export(rope, arguments).module()
    assert all(torch.equal(a, b) for a, b in zip(exported(*arguments), rope(*arguments), strict=True))
