import pytest
import torch

from gen3c.errors import InvalidInputError
from gen3c.ply import read_ply, write_ply


def test_points_survive_the_file() -> None:
    points = torch.randn(17, 3, generator=torch.Generator().manual_seed(0))
    colors = torch.arange(51, dtype=torch.uint8).view(17, 3)
    data = write_ply(points, colors)
    assert len(data.split(b"end_header\n", 1)[1]) == 17 * (3 * 4 + 3)
    back, back_colors = read_ply(data)
    assert torch.equal(back, points)
    assert torch.equal(back_colors, colors)


def test_the_header_says_what_viewers_expect() -> None:
    header = write_ply(torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.uint8)).split(b"end_header")[0].decode()
    assert header.splitlines()[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 1"]
    assert [line.split()[-1] for line in header.splitlines()[3:]] == ["x", "y", "z", "red", "green", "blue"]


def test_no_points_is_a_file_too() -> None:
    points, colors = read_ply(write_ply(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.uint8)))
    assert points.shape == colors.shape == (0, 3)


def test_colors_of_another_type_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"torch\.float32"):
        write_ply(torch.zeros(2, 3), torch.zeros(2, 3))


def test_a_cut_file_is_refused() -> None:
    data = write_ply(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.uint8))
    with pytest.raises(InvalidInputError, match="cut off"):
        read_ply(data[:-1])
