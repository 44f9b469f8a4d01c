import itertools

import pytest
import torch

from gen3c.errors import InvalidInputError
from gen3c.fusion import COVERED, FUSION_MODES, Pool, ViewLatents, camera_nearness, cell_coverage, choose_views, fold

SHAPE = (3, 4, 6)


def views(n: int, seed: int = 0) -> list[ViewLatents]:
    g = torch.Generator().manual_seed(seed)
    return [
        # Coverage and nearness on coarse grids, so that ties happen.
        ViewLatents(
            torch.randn(32, *SHAPE, generator=g),
            torch.randint(0, 5, SHAPE, generator=g) / 4,
            torch.randint(1, 4, SHAPE, generator=g) / 4,
        )
        for _ in range(n)
    ]


def fold_all(some: list[ViewLatents], mode: str) -> torch.Tensor:
    pool = Pool.empty(SHAPE)
    for view in some:
        pool = fold(pool, view, mode)
    return pool.condition()[0]


def ranked_by_hand(some: list[ViewLatents], cell: tuple[int, int, int]) -> list[int]:
    """Best first: coverage, then norm, then index."""
    key = [(-float(v.coverage[cell]), -float(v.norm[cell]), i) for i, v in enumerate(some)]
    return [k[2] for k in sorted(key)]


def cells() -> itertools.product:
    return itertools.product(*(range(s) for s in SHAPE))


def test_vector_max_takes_the_whole_vector_of_the_largest_norm() -> None:
    some = views(5)
    got = fold_all(some, "vector_max")
    for cell in cells():
        winner = max(range(5), key=lambda i: float(some[i].norm[cell]))
        assert torch.equal(got[(slice(0, 32), *cell)], some[winner].latents[(slice(None), *cell)])
    assert (got[32:] == 0).all()


def test_coverage_max_ignores_views_that_do_not_see_the_cell() -> None:
    some = views(5)
    got = fold_all(some, "coverage_max")
    for cell in cells():
        seen = [i for i in range(5) if some[i].coverage[cell] >= COVERED]
        winner = max(seen, key=lambda i: float(some[i].norm[cell])) if seen else ranked_by_hand(some, cell)[0]
        assert torch.equal(got[(slice(0, 32), *cell)], some[winner].latents[(slice(None), *cell)])


def test_ranked_concat_holds_the_best_two() -> None:
    some = views(6)
    got = fold_all(some, "ranked_concat")
    for cell in cells():
        key = [(-float(v.coverage[cell]), -float(v.nearness[cell]), i) for i, v in enumerate(some)]
        first, second = [i for *_, i in sorted(key)[:2]]
        assert torch.equal(got[(slice(0, 32), *cell)], some[first].latents[(slice(None), *cell)])
        assert torch.equal(got[(slice(32, 64), *cell)], some[second].latents[(slice(None), *cell)])


def test_a_crack_in_a_near_view_is_no_reason_to_prefer_a_far_one() -> None:
    near, far = views(2)
    full = torch.ones(SHAPE)
    near = ViewLatents(near.latents, full * 500 / 512, full * 0.9)  # in the same eighth as the next
    far = ViewLatents(10 * far.latents, full * 501 / 512, full * 0.5)
    for order in ([near, far], [far, near]):
        got = fold_all(order, "ranked_concat")
        assert torch.equal(got[:32], near.latents)
        assert torch.equal(got[32:], far.latents)
    fuller = ViewLatents(far.latents, full, far.nearness)
    assert torch.equal(fold_all([near, fuller], "ranked_concat")[:32], far.latents)


def test_nearness_is_of_camera_centres_and_of_the_frames_of_a_latent_frame() -> None:
    targets = torch.eye(4).repeat(17, 1, 1)
    targets[:, 0, 3] = -torch.arange(17.0)  # centres at x = 0, 1, 2 ...
    turned = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    view = torch.eye(4)
    view[:3, :3] = turned
    view[:3, 3] = -turned @ torch.tensor([2.0, 0, 0])  # a camera at x = 2, looking elsewhere
    expected = torch.tensor([2.0, torch.tensor([1.0, 0, 1, 2, 3, 4, 5, 6]).mean(), torch.arange(7.0, 15).mean()])
    torch.testing.assert_close(camera_nearness(view, targets), (1 / (1 + expected))[:, None, None])


def test_topk_concat_holds_two_whole_views_in_order() -> None:
    some = views(2)
    got = fold_all(some, "topk_concat")
    assert torch.equal(got[:32], some[0].latents)
    assert torch.equal(got[32:], some[1].latents)
    with pytest.raises(ValueError, match="folds 2 views"):
        fold_all(views(3), "topk_concat")


@pytest.mark.parametrize("mode", FUSION_MODES)
def test_one_view_is_the_official_encoding(mode: str) -> None:
    (view,) = views(1)
    got = fold_all([view], mode)
    assert torch.equal(got[:32], view.latents)
    assert (got[32:] == 0).all()


@pytest.mark.parametrize("mode", FUSION_MODES)
def test_equal_views_leave_the_first_in_place(mode: str) -> None:
    (view,) = views(1)
    other = ViewLatents(torch.cat((view.latents[:16], -view.latents[16:])), view.coverage, view.nearness)
    assert torch.equal(fold_all([view, other], mode)[:32], view.latents)


def test_unknown_mode() -> None:
    with pytest.raises(InvalidInputError, match="legal: vector_max"):
        fold_all(views(1), "mean")


def test_cell_coverage_counts_one_frame_first_and_eight_later() -> None:
    mask = torch.zeros(17, 1, 16, 24)
    mask[0, :, :8, :4] = 1  # half of cell (0,0,0)
    mask[1:5, :, 8:, 8:16] = 1  # four of the eight frames of cell (1,1,1)
    mask[16, :, :8, 16:] = 1  # one of the eight frames of cell (2,0,2)
    coverage = cell_coverage(mask)
    assert coverage.shape == (3, 2, 3)
    expected = torch.zeros(3, 2, 3)
    expected[0, 0, 0], expected[1, 1, 1], expected[2, 0, 2] = 0.5, 0.5, 0.125
    assert torch.equal(coverage, expected)


def test_choose_views_follows_upstream() -> None:
    coverage = torch.tensor([[0.5, 0.5, 0.95], [0.2, 0.1, 0.1], [0.7, 0.93, 0.92]])
    choice = choose_views(coverage)
    assert choice.views == (2, 0)
    assert choice.keep.tolist() == [[True, True, True], [True, False, False]]
    assert choose_views(coverage[:1]).views == (0,)
    assert choose_views(torch.tensor([[0.1], [0.6]])).views == (0, 1)  # nothing to choose: they stay in their order
    assert choose_views(torch.tensor([[0.5], [0.5], [0.5]])).views == (0, 1)  # ties go to the lower index
