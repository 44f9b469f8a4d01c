"""The cameras of procedural scenes: where they stand, what eight of them leave unseen, and seeds that never meet."""

import pytest
import torch

from gen3c.cameras import check_cameras
from training.scenes import draw_worlds, render_depth
from training.shots import (
    ALONG,
    FAR,
    FIRST_TRAINING_SEED,
    PATHS,
    SHORTER,
    TEST_SEEDS,
    VALIDATION_SEEDS,
    Shots,
    _first_good,
    draw_shots,
    seen,
)

CPU = torch.device("cpu")
SIZE = (36, 60)
SEEDS = list(range(2000, 2012))


@pytest.fixture(scope="module")
def shots() -> Shots:
    return draw_shots(draw_worlds(SEEDS, CPU), SEEDS, SIZE)


def test_splits_share_no_seed() -> None:
    assert not set(TEST_SEEDS) & set(VALIDATION_SEEDS)
    assert max(*TEST_SEEDS, *VALIDATION_SEEDS) < FIRST_TRAINING_SEED


def test_cameras_are_rigid_and_the_path_starts_at_the_reference(shots: Shots) -> None:
    assert shots.views.shape == (12, 8, 4, 4)
    assert shots.targets.shape == (12, 25, 4, 4)
    assert len(shots.paths) == 12
    for i in range(12):
        check_cameras(torch.cat([shots.views[i], shots.targets[i]]), shots.K[i].expand(33, 3, 3), "shots")
    assert torch.equal(shots.views[:, 0], shots.targets[:, 0])


def test_a_seed_gives_the_same_cameras_in_any_company(shots: Shots) -> None:
    again = draw_shots(draw_worlds(SEEDS[5:7], CPU), SEEDS[5:7], SIZE)
    torch.testing.assert_close(again.views, shots.views[5:7], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again.targets, shots.targets[5:7], rtol=1e-5, atol=1e-5)
    assert again.paths == shots.paths[5:7]


def test_cameras_keep_to_the_documented_distribution(shots: Shots) -> None:
    along = shots.targets[:, : round(ALONG * 24) + 1]
    views, path = (-(w2c[..., :3, :3] * w2c[..., :3, 3:]).sum(-2) for w2c in (shots.views, along))
    apart = (views[:, 1:, None] - path[:, None]).norm(dim=-1) / shots.unit[:, None, None]  # [b,7,f]
    assert apart.amin(2).max() < 1.12 * FAR
    beside = along[:, :, :3, :3].gather(1, apart.argmin(2)[..., None, None].expand(-1, -1, 3, 3))
    turn = shots.views[:, 1:, :3, :3] @ beside.transpose(-1, -2)
    degrees = ((turn.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1).acos().rad2deg()
    assert degrees.max() < 35  # they look at a point one unit ahead
    for name in shots.paths:
        kind, distance = name.split()
        _, low, high = PATHS[kind]  # type: ignore[index]
        assert SHORTER[-1] * low <= float(distance) <= high
    field = (SIZE[1] / 2 / shots.K[:, 0, 0]).atan().rad2deg() * 2
    assert bool(((field > 49.9) & (field < 70.1)).all())


def test_eight_views_see_much_more_than_one_and_not_all(shots: Shots) -> None:
    worlds = draw_worlds(SEEDS, CPU)
    targets = shots.targets[:, ::3]
    depth = render_depth(worlds, targets, shots.K, SIZE)
    view_depth = render_depth(worlds, shots.views, shots.K, SIZE)
    assert not bool(worlds.solids.contain(-(shots.targets[..., :3, :3] * shots.targets[..., :3, 3:]).sum(-2)).any())
    visible = seen(depth, targets, shots.K, view_depth, shots.views)
    assert bool(visible[:, 0, 0].all())  # a view sees all of itself
    by_one = 1 - visible[:, :, 0].float().flatten(1).mean(1)
    by_eight = 1 - visible.any(2).float().flatten(1).mean(1)
    assert 0.1 < float(by_eight.median()) < 0.3
    assert float(by_one.median()) > float(by_eight.median()) + 0.2


def test_the_first_good_candidate_is_taken_or_else_the_freest() -> None:
    free = torch.tensor([[[0.2, 1.5, 0.0], [1.1, 3.0, 0.4], [5.0, 0.0, 0.3]]])  # three candidates of three cameras
    assert _first_good(free).tolist() == [[1, 0, 1]]
    assert _first_good(torch.zeros(1, 3, 1)).tolist() == [[2]]  # all stand in solids: the shortest


def test_seen_knows_occlusion_and_the_edge_of_the_picture() -> None:
    """A wall 4 m away with a post 2 m away before columns 10 to 13; the view stands 0.5 m aside."""
    depth = torch.full((1, 1, 8, 24), 4.0)
    K = torch.tensor([[[16.0, 0, 11.5], [0, 16, 3.5], [0, 0, 1]]])
    target, view = torch.eye(4)[None, None], torch.eye(4)[None, None].clone()
    view[..., 0, 3] = -0.5  # the wall moves left by 2 pixels in it, the post by 4
    view_depth = depth.clone()
    view_depth[..., 10:14] = 2.0
    visible = seen(depth, target, K, view_depth, view)
    assert visible.shape == (1, 1, 1, 8, 24)
    # Columns 0 and 1 leave the picture, 12 to 15 fall on the post.
    hidden = (~visible[0, 0, 0]).all(0).nonzero().flatten().tolist()
    assert set(hidden) <= {0, 1, 12, 13, 14, 15}
    assert {0, 1, 13, 14} <= set(hidden)
    assert bool((visible[0, 0, 0] == visible[0, 0, 0, :1]).all())
