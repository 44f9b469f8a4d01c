"""Do views agree about depth: on exact scenes they do, and each way of being wrong shows or is excused."""

from dataclasses import dataclass

import pytest
import torch
from scenes import Shot, camera, shoot
from torch import Tensor

from gen3c.geometry.agreement import agreement

POSES = [camera(-0.6, 0.0, -6), camera(-0.2, 0.1, -2), camera(0.2, 0.0, 2), camera(0.6, -0.1, 6)]


@pytest.fixture(scope="module")
def shot() -> Shot:
    """A slanted wall and, before it, a square; four views."""
    return shoot(POSES, (120, 160), 150.0)


@dataclass(frozen=True)
class Found:
    """All comparisons together."""

    share: float
    difference: float
    compared: int


def compare(depth: Tensor, w2c: Tensor, K: Tensor) -> Found:
    found = agreement(depth, w2c.float(), K.float())
    assert found.share is not None
    return Found(found.share, found.difference, int(found.compared.sum()) // 2)  # each counts for both views


def views_from_one_place(depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Depth [n,h,w] seen by cameras that all stand in one place: every pixel falls on itself."""
    n, height, width = depth.shape
    K = torch.tensor([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
    return depth, torch.eye(4).repeat(n, 1, 1), K.repeat(n, 1, 1)


def test_views_of_an_exact_scene_agree(shot: Shot) -> None:
    found = compare(shot.depth, shot.w2c, shot.K)
    # What is left: points at the square's outline that round onto the wall, and depth read half a pixel aside.
    assert found.share > 0.95
    assert found.difference < 0.01
    # Twelve pairs, and every other pixel in both directions. Less than a fourth is out of sight or hidden.
    points = len(range(0, 120, 2)) * len(range(0, 160, 2))
    assert 0.75 * 12 * points < found.compared <= 12 * points


def test_a_wrong_scale_of_one_of_two_views_is_seen_by_the_other(shot: Shot) -> None:
    depth = shot.depth[:2].clone()
    assert compare(depth, shot.w2c[:2], shot.K[:2]).share > 0.95
    depth[1] *= 1.3
    wrong = compare(depth, shot.w2c[:2], shot.K[:2])
    # View 1 now says that it looks through what view 0 sees; its own points are behind that, which excuses them.
    assert wrong.share < 0.05
    # 1 - 1/1.3 = 23 %, less what the shift between the cameras changes.
    assert wrong.difference == pytest.approx(1 - 1 / 1.3, abs=0.05)


def test_one_wrong_view_of_four_lowers_the_share(shot: Shot) -> None:
    right = compare(shot.depth, shot.w2c, shot.K)
    for factor in (1.3, 1 / 1.3):
        depth = shot.depth.clone()
        depth[2] *= factor
        # Of twelve pairs six are with the wrong view, of which three count and disagree: 6/9.
        wrong = compare(depth, shot.w2c, shot.K)
        assert wrong.share == pytest.approx(6 / 9, abs=0.06)
        assert wrong.compared < 0.85 * right.compared


def test_a_wrong_pose_shows_as_wrong_depth_does(shot: Shot) -> None:
    w2c = shot.w2c.clone()
    w2c[1, 2, 3] += 1.0  # it says that it stands a unit further back from a scene five units away
    assert compare(shot.depth, w2c, shot.K).share < 0.75


def test_the_unit_of_the_scene_does_not_matter(shot: Shot) -> None:
    w2c = shot.w2c.clone()
    w2c[:, :3, 3] *= 1000
    ours, expected = compare(shot.depth * 1000, w2c, shot.K), compare(shot.depth, shot.w2c, shot.K)
    # A point on the border of two pixels may fall on the other one.
    assert ours.share == pytest.approx(expected.share, abs=1e-3)
    assert ours.difference == pytest.approx(expected.difference, rel=1e-2)
    assert ours.compared == pytest.approx(expected.compared, rel=1e-3)


@pytest.mark.parametrize(("error", "share"), [(0.04, 1.0), (0.06, 0.0)])
def test_five_per_cent_is_the_border(error: float, share: float) -> None:
    """One of two views of a plane says that it is nearer: its points count, the other's are hidden by them."""
    depth, w2c, K = views_from_one_place(torch.tensor([2.0, 2.0 * (1 - error)]).view(2, 1, 1).expand(2, 8, 8))
    found = compare(depth, w2c, K)
    assert found.share == share
    # From the one, 1 - error against 1; from the other, 1/(1 - error), which is beyond the border with 6 %.
    assert found.compared == (128 if error < 0.05 else 64)


def test_points_that_are_hidden_in_the_other_view_do_not_count() -> None:
    depth = torch.full((2, 8, 8), 5.0)
    depth[1, :, :4] = 3.0  # something stands before half of the wall, which view 0 does not know of
    found = compare(*views_from_one_place(depth))
    # View 0's points: 32 agree and 32 are hidden. View 1's: 32 agree, and 32 are where view 0 looks through.
    assert found.compared == 96
    assert found.share == pytest.approx(64 / 96)
    assert found.difference == 0


def test_hidden_parts_of_an_exact_scene_are_no_disagreement() -> None:
    """Two cameras so far apart that the square hides another part of the wall from each."""
    shot = shoot([camera(-1.2, 0, -12), camera(1.2, 0, 12)], (120, 160), 150.0)
    found = compare(shot.depth, shot.w2c, shot.K)
    on_square = shot.depth < 4
    assert 0.1 < float(on_square.float().mean()) < 0.3  # or there would be little to hide
    assert found.share > 0.95


def test_unknown_depth_does_not_count_in_either_view() -> None:
    depth = torch.full((2, 8, 8), 5.0)
    depth[0, :2] = 0.0
    depth[1, :, :4] = 0.0
    found = compare(*views_from_one_place(depth))
    assert found == Found(share=1.0, difference=0.0, compared=2 * 6 * 4)


def test_unknown_pixels_are_no_points_at_the_world_s_origin() -> None:
    depth, w2c, K = views_from_one_place(torch.full((2, 8, 8), 5.0))
    w2c[1, 2, 3] = 2.0  # it stands two units back, so the origin is before it, in the middle of its picture
    depth[1] = 7.0
    depth[0, 4:] = 0.0
    # View 0's upper half lands on 4 rows and 8 columns of view 1, all within; of view 1's points the half that lands on
    # known pixels of view 0 does, 7/5 times as far apart: 3 rows of 6.
    assert compare(depth, w2c, K) == Found(share=1.0, difference=0.0, compared=4 * 8 + 3 * 6)


def test_views_that_see_nothing_of_each_other_cannot_be_compared() -> None:
    back_to_back = shoot([camera(0, 0, 0)], (24, 32), 30.0)
    depth = back_to_back.depth.repeat(2, 1, 1)
    turned = torch.stack([camera(0, 0, 0), camera(0, 0, 180)]).float()
    assert agreement(depth, turned, back_to_back.K.repeat(2, 1, 1).float()).share is None
    aside = torch.stack([camera(0, 0, 0), camera(100, 0, 0)]).float()
    assert agreement(depth, aside, back_to_back.K.repeat(2, 1, 1).float()).share is None


def test_views_without_depth_cannot_be_compared() -> None:
    depth = torch.full((2, 8, 8), 5.0)
    depth[1] = 0.0
    assert agreement(*views_from_one_place(depth)).share is None


def test_one_view_cannot_be_compared() -> None:
    assert agreement(*views_from_one_place(torch.full((1, 8, 8), 5.0))).share is None


@pytest.mark.parametrize("n", [2, 5, 9, 12, 40])
def test_a_view_is_compared_with_four_to_eight_others(n: int) -> None:
    found = agreement(*views_from_one_place(torch.full((n, 8, 8), 5.0)))
    assert found.share == 1.0
    assert found.difference == 0.0
    pairs = int(found.compared.sum()) // 2 // 64
    assert n * min(n - 1, 4) <= pairs <= n * min(n - 1, 8)


def test_the_views_beside_it_are_among_those_that_a_view_is_compared_with() -> None:
    """A long walk along a wall, where views far apart share nothing, and every third is wrong."""
    n = 60
    depth = torch.full((n, 8, 8), 5.0)
    K = torch.tensor([[8, 0, 4], [0, 8, 4], [0, 0, 1.0]]).repeat(n, 1, 1)
    w2c = torch.stack([camera(0.7 * i) for i in range(n)]).float()
    right = agreement(depth, w2c, K)
    assert all(share == 1.0 for share in right.shares())
    wrong = torch.arange(n) % 3 == 1
    depth[wrong] *= 0.8
    shares = agreement(depth, w2c, K).shares()
    assert all(share is not None and share < 0.5 for share, bad in zip(shares, wrong, strict=True) if bad)


def test_the_view_that_does_not_fit_has_the_lowest_share() -> None:
    depth = torch.full((5, 16, 16), 5.0)
    for factor in (1.3, 0.7):
        spoilt = depth.clone()
        spoilt[3] *= factor
        shares = agreement(*views_from_one_place(spoilt)).shares()
        assert shares[3] == 0.0
        assert all(share is not None and share > 0.7 for i, share in enumerate(shares) if i != 3)


def test_a_handful_of_points_says_nothing() -> None:
    depth = torch.zeros(2, 8, 8)
    depth[:, 0, :4] = 5.0
    found = agreement(*views_from_one_place(depth))
    assert int(found.compared.sum()) == 16
    assert found.share is None
    assert found.shares() == [None, None]


def test_partners_come_from_all_of_the_sequence() -> None:
    """The second half of the views, in another place, is of another scale: neighbours alone would not see it."""
    depth, w2c, K = views_from_one_place(torch.full((24, 8, 8), 5.0))
    w2c[12:, 0, 3] = 0.5
    assert compare(depth, w2c, K).share == 1.0
    depth[12:] = 3.0
    # Of a view's eight comparisons two are with the other half, and one direction of those is excused.
    assert compare(depth, w2c, K).share < 0.9


@pytest.mark.parametrize("size", [(64, 64), (480, 640), (100, 1000)])
def test_large_views_are_compared_by_about_four_thousand_points_each(size: tuple[int, int]) -> None:
    found = compare(*views_from_one_place(torch.full((2, *size), 5.0)))
    assert found.share == 1
    # The stride is rounded: to 9 where 8.66 were right, and to 5 for 4.94.
    assert 0.9 * 4096 < found.compared / 2 < 1.1 * 4096
