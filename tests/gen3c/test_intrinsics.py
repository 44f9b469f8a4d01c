import pytest
import torch

from gen3c.errors import InvalidInputError
from gen3c.intrinsics import (
    center_crop,
    crop_intrinsics,
    intrinsics_from_relative,
    resize_and_crop_intrinsics,
    resize_intrinsics,
)

K = torch.tensor([[1000.0, 2.0, 960.0], [0.0, 900.0, 540.0], [0.0, 0.0, 1.0]])


def test_a_resize_scales_each_row_by_its_own_side() -> None:
    half = resize_intrinsics(K, (1080, 1920), (540, 640))
    expected = torch.tensor([[1000 / 3, 2 / 3, 320.0], [0.0, 450.0, 270.0], [0.0, 0.0, 1.0]])
    assert torch.allclose(half, expected)
    assert torch.equal(resize_intrinsics(K.expand(4, 3, 3), (1080, 1920), (540, 640))[3], half)


def test_a_crop_shows_the_same_point_at_the_pixel_it_is_moved_to() -> None:
    point = torch.tensor([0.1, -0.2, 2.0])
    before = K @ point
    after = crop_intrinsics(K, (1080, 1920), (1001, 1900)) @ point
    moved = before[:2] / before[2] - after[:2] / after[2]
    # 79 rows go: 39 above, 40 below.
    assert torch.allclose(moved, torch.tensor([10.0, 39.0]))
    picture = torch.arange(1080.0)[:, None] + torch.zeros(1920)
    assert center_crop(picture, (1001, 1900))[0, 0] == 39


def test_a_crop_after_a_resize() -> None:
    both = resize_and_crop_intrinsics(K, (1080, 1920), (720, 1280), (704, 1280))
    assert torch.allclose(both[:2, 2], torch.tensor([640.0, 352.0]))


def test_a_crop_may_not_be_larger() -> None:
    with pytest.raises(InvalidInputError, match=r"705x1280 px does not fit into 704x1280 \(height x width\)"):
        crop_intrinsics(K, (704, 1280), (705, 1280))
    with pytest.raises(InvalidInputError, match="does not fit"):
        center_crop(torch.zeros(2, 3, 10, 10), (10, 11))


def test_a_relative_principal_point_is_scaled_by_the_size() -> None:
    built = intrinsics_from_relative(torch.tensor([[800.0, 700.0]]), torch.tensor([[0.5, 0.25]]), (704, 1280))
    assert built.tolist() == [[[800, 0, 640], [0, 700, 176], [0, 0, 1]]]
