import pytest
import torch
from torch import Tensor

from gen3c.holes import fill_holes
from tests import walls


def colour(height: int, width: int, value: float = 0.8) -> Tensor:
    return torch.tensor([value, -value, 0.1]).view(1, 3, 1, 1).expand(1, 3, height, width)


@pytest.mark.parametrize(("height", "width"), [(32, 48), (192, 320), (33, 47), (16, 200), (200, 16)])
@pytest.mark.parametrize("share", [0.9, 0.3, 0.02])
def test_one_colour_fills_every_hole_however_large(height: int, width: int, share: float) -> None:
    covered = torch.zeros(1, 1, height, width, dtype=torch.bool)
    covered[..., : max(1, int(width * share))] = True
    image = torch.where(covered, colour(height, width), -1.0)
    assert (fill_holes(image, covered) - colour(height, width)).abs().max() < 1e-5


def test_a_picture_without_holes_stays_as_it_is() -> None:
    image = walls.view(0).image[None]
    covered = torch.ones(1, 1, *image.shape[2:], dtype=torch.bool)
    assert torch.equal(fill_holes(image, covered), image)


def test_a_picture_of_holes_becomes_grey() -> None:
    image = torch.full((1, 3, 33, 47), -1.0)
    assert (fill_holes(image, torch.zeros(1, 1, 33, 47, dtype=torch.bool)) == 0).all()


def test_covered_pixels_are_kept_and_holes_take_the_near_side() -> None:
    """Red left, blue right, a gap of 4 columns between: each side of the gap leans to its neighbour."""
    image = torch.full((1, 3, 32, 48), -1.0)
    image[:, 0, :, :24] = 1.0
    image[:, 2, :, 24:] = 1.0
    covered = torch.ones(1, 1, 32, 48, dtype=torch.bool)
    covered[..., 22:26] = False
    holed = torch.where(covered, image, -1.0)
    filled = fill_holes(holed, covered)
    assert torch.equal(filled[..., :22], image[..., :22])
    assert torch.equal(filled[..., 26:], image[..., 26:])
    assert (filled[0, 0, :, 22] > filled[0, 0, :, 25]).all()
    assert (filled[0, 2, :, 22] < filled[0, 2, :, 25]).all()


@pytest.mark.parametrize("left", [64, 63, 40, 5])
def test_a_hole_takes_from_its_own_side_wherever_the_pyramid_begins(left: int) -> None:
    """A picture, red and blue by halves, between two bars: the left one is red, the right one blue."""
    image = torch.full((1, 3, 60, 160), -1.0)
    image[:, 0, :, : left + 10] = 1.0
    image[:, 2, :, left + 10 :] = 1.0
    covered = torch.zeros(1, 1, 60, 160, dtype=torch.bool)
    covered[..., left : left + 20] = True
    filled = fill_holes(image, covered)
    near = slice(max(0, left - 10), left), slice(left + 20, left + 30)  # as far as the picture's halves are wide
    assert (filled[:, 0, :, near[0]] > filled[:, 2, :, near[0]]).all()
    assert (filled[:, 2, :, near[1]] > filled[:, 0, :, near[1]]).all()
