"""Sources before a wall at depth 1, where every rendering can be written down (tests/walls.py)."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from tests import walls

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from compositing import Source, Target, composite

SIZE = (walls.SMALL.height, walls.SMALL.width)


def source(shift: int, depth: float = 1.0, seed: int = 0) -> Source:
    view = walls.view(shift, depth, seed)
    return Source((view.image + 1) / 2, view.depth, view.confidence, view.w2c, view.K)


def target(shift: float) -> Target:
    return Target(walls.pose(shift), walls.intrinsics(), SIZE)


def between(shift: int) -> torch.Tensor:
    """The wall in [0,1] as seen half a pixel to the right of `shift`."""
    wide = walls.texture().permute(2, 0, 1).float() / 255
    return (wide[:, :, shift : shift + 48] + wide[:, :, shift + 1 : shift + 49]) / 2


def test_two_sources_complete_each_other_and_agree() -> None:
    result = composite([source(0), source(20)], target(10.5), 0.1)
    assert result.covered.all()
    assert result.covered_by.sum((1, 2)).tolist() == [32 * 38, 32 * 39]
    error = (result.image - between(10)).abs().amax((0, 1))
    error[[9, 37]] = 0  # the last column of either source has one neighbour less to mix with
    assert error.max() < 1e-3


def test_what_no_source_sees_stays_empty() -> None:
    result = composite([source(0)], target(20.5), 0.1)
    assert result.covered[:, :28].all()
    assert not result.covered[:, 28:].any()
    assert (result.image[:, :, 28:] == 0).all()


def test_the_front_surface_hides_the_wall_behind() -> None:
    front = source(0, depth=0.5, seed=1)
    result = composite([source(0), front], target(0), 0.1)
    assert (result.image - front.image).abs().max() < 1e-3
    assert result.covered_by.all()


def test_a_weak_surface_in_front_does_not_hide_what_others_agree_on() -> None:
    """A tenth of the confidence is below TRUSTED_SHARE."""
    ghost = source(0, depth=0.5, seed=1)
    ghost = replace(ghost, confidence=ghost.confidence * 0.1)
    wall = source(0)
    result = composite([wall, ghost], target(0), 0.05)
    assert (result.image - wall.image).abs().max() < 1e-3


def test_doubtful_points_are_left_out() -> None:
    doubtful = replace(source(0), confidence=torch.full(SIZE, 0.2))
    assert not composite([doubtful], target(0), 0.3).covered.any()
    assert composite([doubtful], target(0), 0.1).covered.all()


def test_the_source_nearest_in_angle_counts_most() -> None:
    """Two paintings of one wall: the source at the target's own pose outweighs the one 20 px aside (27 degrees)."""
    near, far = source(0), source(20, seed=1)
    result = composite([near, far], target(0), 0.1)
    own = (result.image - near.image).abs().mean()
    assert own < 0.01
    assert own > 0, "both sources take part"
