"""The GPU's splat against the PyTorch reference. Needs a GPU: skipped where there is none."""

import pytest
import torch
from torch import Tensor

from gen3c.splat import splat

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

from gen3c import splat_gpu

SIZE = (96, 160)


def points(b: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Colours with a depth, pixels that also miss the picture, and weights over 50 orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(b, 4, *SIZE, generator=generator) * 2 - 1
    values[:, 3] = values[:, 3] * 40 + 50
    pixels = torch.rand(b, *SIZE, 2, generator=generator) * torch.tensor([SIZE[1] + 6.0, SIZE[0] + 6.0]) - 3
    pixels[0, :20] = pixels[0, :20].round()  # all four corners in one place
    pixels[1, 0, :3, 0] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    weight = torch.exp(-torch.rand(b, *SIZE, generator=generator) * 80) * (pixels[..., 0] > 5)
    return values, pixels, weight


def test_it_is_the_reference() -> None:
    given = points()
    mean, weight = splat(*given, SIZE)
    on_gpu, gpu_weight = splat_gpu.splat(*(tensor.cuda() for tensor in given), SIZE)
    # Both round in float32: the reference with every addition, this one once.
    torch.testing.assert_close(on_gpu.cpu(), mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gpu_weight.cpu(), weight, rtol=1e-5, atol=0)
    assert torch.equal(gpu_weight.cpu() > 0, weight > 0)


def test_the_same_points_give_the_same_bits() -> None:
    given = [tensor.cuda() for tensor in points(8)]
    first = splat_gpu.splat(*given, SIZE)
    for _ in range(5):
        again = splat_gpu.splat(*given, SIZE)
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])


def test_the_order_of_the_points_does_not_matter() -> None:
    values, pixels, weight = (tensor.cuda() for tensor in points())
    first = splat_gpu.splat(values, pixels, weight, SIZE)
    turned = splat_gpu.splat(values.flip(2, 3), pixels.flip(1, 2), weight.flip(1, 2), SIZE)
    assert torch.equal(first[0], turned[0])


def test_no_point_at_all() -> None:
    values, pixels, weight = (tensor.cuda() for tensor in points())
    mean, summed = splat_gpu.splat(values, pixels, weight * 0, SIZE)
    assert not mean.any()
    assert not summed.any()


def test_a_far_depth_does_not_cost_colours_their_bits() -> None:
    values, pixels, weight = points()
    plain = splat_gpu.splat(values.cuda(), pixels.cuda(), weight.cuda(), SIZE)[0]
    values[:, 3] *= 1e8
    far = splat_gpu.splat(values.cuda(), pixels.cuda(), weight.cuda(), SIZE)[0]
    assert torch.equal(far[:, :3], plain[:, :3])


def test_a_picture_does_not_depend_on_its_neighbours() -> None:
    given = [tensor.cuda() for tensor in points()]
    given[0][1, 3] *= 7
    together = splat_gpu.splat(*given, SIZE)[0]
    alone = splat_gpu.splat(*(tensor[:1] for tensor in given), SIZE)[0]
    assert torch.equal(together[:1], alone)
