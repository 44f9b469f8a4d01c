"""Cameras as nine numbers, there and back; rotations are compared with exponentials of their axes."""

import math

import pytest
import torch
from torch import Tensor

from gen3c.geometry.vggt.pose import decode_pose, encode_pose, matrix_to_quaternion, quaternion_to_matrix

SIZE = (294, 518)  # height, width

AXES = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, -1, 1), (1, 1, 1), (-3, 1, 2), (1, 1e-3, 0), (1e-7, 0, 1)]


def unit(*axis: float) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=0)


def rotation(axis: Tensor, angle: float) -> Tensor:
    """By the exponential of its generator, [3,3] float64."""
    x, y, z = axis.tolist()
    generator = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    R: Tensor = torch.linalg.matrix_exp(angle * generator)
    return R


def quaternion(axis: Tensor, angle: float) -> Tensor:
    return torch.cat((axis * math.sin(angle / 2), torch.tensor([math.cos(angle / 2)], dtype=torch.float64)))


def encodings(n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """[n,9] with quaternions of any length and sign, and fields of view of 0.2 to 2.8 rad."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(n, 9, generator=generator, dtype=torch.float64)
    numbers[:, 7:] = 0.2 + 2.6 * torch.rand(n, 2, generator=generator, dtype=torch.float64)
    return numbers.to(dtype)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("degrees", [0, 1e-3, 30, 90, 120, 179.99, 180, -180, -75])
def test_a_quaternion_turns_about_its_axis(axis: tuple[float, float, float], degrees: float) -> None:
    about, angle = unit(*axis), math.radians(degrees)
    R = rotation(about, angle)
    q = quaternion(about, angle)
    torch.testing.assert_close(quaternion_to_matrix(q), R, rtol=0, atol=1e-12)  # doubles, and an exponential's rounding
    back = matrix_to_quaternion(R)
    assert float(back[3]) >= 0
    # Near half a turn the sign is free: w is as good as 0. Elsewhere both are the quaternion with w >= 0.
    expected = q if float(q @ back) > 0 else -q
    torch.testing.assert_close(back, expected, rtol=0, atol=1e-9)
    assert abs(float(q[3])) < 1e-9 or float(expected[3]) > 0


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("degrees", [179.9, 180])
def test_half_turns_survive_in_single_precision(axis: tuple[float, float, float], degrees: float) -> None:
    R = rotation(unit(*axis), math.radians(degrees)).float()
    # A matrix of float32 is off by 1e-7, and the largest of four components, by which we divide, is 0.5 or more.
    torch.testing.assert_close(quaternion_to_matrix(matrix_to_quaternion(R)), R, rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [-1.0, 1e-3, 0.3, -40.0, 1e4])
def test_neither_length_nor_sign_of_a_quaternion_matters(factor: float) -> None:
    q = encodings(50)[:, 3:7]
    R = quaternion_to_matrix(q)
    torch.testing.assert_close(R @ R.mT, torch.eye(3, dtype=torch.float64).expand(50, 3, 3), rtol=0, atol=1e-12)
    torch.testing.assert_close(quaternion_to_matrix(factor * q), R, rtol=0, atol=1e-12)


def test_the_scalar_is_the_last_of_the_four() -> None:
    assert torch.equal(quaternion_to_matrix(torch.tensor([0.0, 0, 0, 1])), torch.eye(3))
    half_turn = quaternion_to_matrix(torch.tensor([1.0, 0, 0, 0]))
    assert torch.equal(half_turn, torch.diag(torch.tensor([1.0, -1, -1])))


def test_cameras_come_back_as_they_were() -> None:
    w2c, K = decode_pose(encodings(200), SIZE)
    again = decode_pose(encode_pose(w2c, K, SIZE), SIZE)
    torch.testing.assert_close(again[0], w2c, rtol=0, atol=1e-12)
    torch.testing.assert_close(again[1], K, rtol=1e-12, atol=0)


def test_encodings_come_back_with_unit_quaternions_and_w_not_below_zero() -> None:
    given = encodings(200)
    back = encode_pose(*decode_pose(given, SIZE), SIZE)
    unit_quaternions = given[:, 3:7] / given[:, 3:7].norm(dim=-1, keepdim=True)
    unit_quaternions *= unit_quaternions[:, 3:].sign()
    assert (given[:, 6] < 0).sum() > 50  # w: or the sign would not have been tested
    torch.testing.assert_close(back, torch.cat((given[:, :3], unit_quaternions, given[:, 7:]), dim=-1))


def test_the_translation_is_that_of_world_to_camera() -> None:
    encoding = torch.tensor([1.0, 2, 3, 0, 0, 1, 1, 0.8, 1.2])  # a quarter turn about z: x becomes y
    w2c, _ = decode_pose(encoding, SIZE)
    moved = w2c @ torch.tensor([10.0, 0, 0, 1])
    torch.testing.assert_close(moved, torch.tensor([1.0, 12, 3, 1]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(294, 518), (518, 294), (518, 518)])
def test_the_focal_length_is_what_the_picture_s_size_makes_of_the_field_of_view(size: tuple[int, int]) -> None:
    height, width = size
    vertical, horizontal = math.pi / 2, math.pi / 3
    _, K = decode_pose(torch.tensor([0.0, 0, 0, 0, 0, 0, 1, vertical, horizontal], dtype=torch.float64), size)
    # tan(45 degrees) is 1, tan(30 degrees) is 1/sqrt(3).
    expected = [[width / 2 * 3**0.5, 0, width / 2], [0, height / 2, height / 2], [0, 0, 1]]
    torch.testing.assert_close(K, torch.tensor(expected, dtype=torch.float64))
    fields = encode_pose(torch.eye(4, dtype=torch.float64), K, size)[7:]
    torch.testing.assert_close(fields, torch.tensor([vertical, horizontal], dtype=torch.float64))


def test_no_field_of_view_is_an_infinite_focal_length() -> None:
    encoding = torch.tensor([0.0, 0, 0, 0, 0, 0, 1, 0, 1])
    w2c, K = decode_pose(encoding, SIZE)
    assert float(K[1, 1]) == math.inf
    assert K[0].isfinite().all()
    assert torch.equal(w2c, torch.eye(4))
    assert torch.equal(encode_pose(w2c, K, SIZE)[7:], encoding[7:])


def test_any_number_of_axes_comes_before_the_nine() -> None:
    given = encodings(24, torch.float32)
    w2c, K = decode_pose(given, SIZE)
    several = decode_pose(given.view(2, 3, 4, 9), SIZE)
    assert torch.equal(several[0], w2c.view(2, 3, 4, 4, 4))
    assert torch.equal(several[1], K.view(2, 3, 4, 3, 3))
    back = encode_pose(*several, SIZE)
    assert back.dtype == torch.float32
    assert torch.equal(back, encode_pose(w2c, K, SIZE).view(2, 3, 4, 9))
