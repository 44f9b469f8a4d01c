"""The plane sweep against scenes of known depth, and its parts against plain versions of themselves."""

import threading
import time

import pytest
import torch
from scenes import Shot, camera, shoot, sparse_scene

from gen3c.errors import CancelledError, InvalidInputError
from gen3c.geometry.consistency import cross_check
from gen3c.geometry.matching import View, box_mean, scale_intrinsics
from gen3c.geometry.parallel import for_each_view
from gen3c.geometry.plane_sweep import FILLED, SweepOptions, choose_neighbours, sweep
from gen3c.geometry.sgm import DIRECTIONS, aggregate, choose
from gen3c.geometry.smooth import complete, enlarge
from gen3c.geometry.types import Watch

OPTIONS = SweepOptions(long_side=160, planes=48, offsets=12)


@pytest.fixture(scope="module")
def shot() -> Shot:
    poses = [camera(x, y, 4 * x) for x, y in ((0, 0), (-0.5, 0.1), (0.5, 0.0), (1.0, -0.1), (-1.0, 0.0))]
    return shoot(poses, (120, 160), 140.0)


@pytest.fixture(scope="module")
def swept(shot: Shot) -> tuple[torch.Tensor, torch.Tensor]:
    return sweep(shot.frames, sparse_scene(shot), Watch(), OPTIONS)


def test_depth_is_true_where_it_is_confident(shot: Shot, swept: tuple[torch.Tensor, torch.Tensor]) -> None:
    depth, confidence = swept
    error = (depth - shot.depth).abs() / shot.depth
    sure = confidence > FILLED
    assert sure.float().mean() > 0.75  # the rest: borders that one view alone sees, and occlusions
    # One pixel of motion between neighbours (0.5 apart, focal length 140) is 5 / 70 = 7% of the wall's depth.
    assert error[sure].median() < 0.005
    assert (error[sure] < 0.03).float().mean() > 0.95


def test_confidence_is_higher_where_depth_is_better(shot: Shot, swept: tuple[torch.Tensor, torch.Tensor]) -> None:
    depth, confidence = swept
    wrong = ((depth - shot.depth).abs() / shot.depth > 0.03).float()
    assert confidence.min() >= 0
    assert confidence.max() <= 1
    assert wrong[confidence > 0.8].mean() < 0.5 * wrong[confidence < 0.5].mean()


def test_pixels_that_no_other_view_sees_have_no_confidence() -> None:
    pair = shoot([camera(0), camera(1.5)], (120, 160), 140.0)
    _, confidence = sweep(pair.frames, sparse_scene(pair), Watch(), OPTIONS)
    # The wall at x < 1.5 - 80/140 * 5 lies left of view 1's picture: the first 20 columns of view 0 at least.
    assert (confidence[0, :, :15] == 0).float().mean() > 0.95
    assert (confidence[0, :, 80:] > FILLED).float().mean() > 0.6


def test_result_does_not_depend_on_the_number_of_threads(shot: Shot, swept: tuple[torch.Tensor, torch.Tensor]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        depth, confidence = sweep(shot.frames, sparse_scene(shot), Watch(), OPTIONS)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert torch.equal(depth, swept[0])
    assert torch.equal(confidence, swept[1])


def test_depth_of_large_frames_is_aligned_with_their_pixels() -> None:
    """A sweep at half of the frames' size must not shift depth: pixel centres move by the half-pixel rule."""
    big = shoot([camera(0), camera(-0.5), camera(0.5)], (240, 320), 280.0)
    depth, confidence = sweep(big.frames, sparse_scene(big), Watch(), OPTIONS)
    assert depth.shape == (3, 240, 320)
    error = (depth - big.depth) / big.depth
    assert error[confidence > FILLED].abs().median() < 0.005
    # A shift by half a pixel would bend the wall's depth by 0.3 * 0.5 / 280 of itself, too little to see; the
    # square's outline tells: its area must come out within two pixels of each side.
    near = depth[0] < 4
    side = 2 * 0.6 / 3.0 * 280
    assert abs(float(near.sum()) ** 0.5 - side) < 4
    v, u = near.nonzero().float().mean(0)
    assert abs(float(v) - 119.5) < 1.5
    assert abs(float(u) - 159.5) < 1.5


def test_frames_of_different_sizes_share_a_canvas(shot: Shot) -> None:
    small = shoot([camera(-0.5, 0.1, -2.0)], (96, 128), 112.0)
    pixels, sizes, K = shot.frames.pixels.clone(), shot.frames.sizes.clone(), shot.K.clone()
    pixels[1] = 0
    pixels[1, :96, :128] = small.frames.pixels[0]
    sizes[1] = torch.tensor([96, 128])
    K[1] = small.K[0]
    frames = type(shot.frames)(pixels, sizes, shot.frames.names)
    mixed = Shot(frames, shot.depth, shot.w2c, K)
    depth, confidence = sweep(frames, sparse_scene(mixed), Watch(), OPTIONS)
    assert (depth[1, 96:] == 0).all()
    assert (confidence[1, :, 128:] == 0).all()
    sure = confidence[1, :96, :128] > FILLED
    assert sure.float().mean() > 0.6
    error = (depth[1, :96, :128] - small.depth[0]).abs() / small.depth[0]
    assert error[sure].median() < 0.007


def test_cancelling_stops_within_half_a_second(shot: Shot) -> None:
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    asked: list[float] = []

    def is_cancelled() -> bool:
        if stop.is_set() and not asked:
            asked.append(time.perf_counter())
        return stop.is_set()

    options = SweepOptions(long_side=160, planes=4000)
    with pytest.raises(CancelledError):
        sweep(shot.frames, sparse_scene(shot), Watch(is_cancelled=is_cancelled), options)
    assert time.perf_counter() - asked[0] < 0.5


def test_an_error_in_one_view_stops_the_others() -> None:
    def work(i: int, poll: object) -> int:
        if i == 1:
            raise ValueError("view 1")
        assert callable(poll)
        for _ in range(100):
            time.sleep(0.01)
            poll()
        return i

    start = time.perf_counter()
    with pytest.raises(ValueError, match="view 1"):
        for_each_view(work, 8, Watch(), "test")
    assert time.perf_counter() - start < 1.0  # one view alone takes 1 s


def test_neighbours_share_points_and_have_parallax(shot: Shot) -> None:
    scene = sparse_scene(shot)
    # View 0 stands between 1 and 2 (6 degrees away at depth 5), then 4 and 3 (11 degrees): all are useful.
    assert sorted(choose_neighbours(scene, 0, 4)) == [1, 2, 3, 4]
    unseen = scene.seen.clone()
    unseen[:, 3] = False
    blind = type(scene)(scene.w2c, scene.K, scene.points, unseen, scene.error)
    assert 3 not in choose_neighbours(blind, 0, 4)


def test_a_view_without_points_of_its_own_takes_the_range_of_the_others(shot: Shot) -> None:
    scene = sparse_scene(shot)
    seen = scene.seen.clone()
    seen[:, 4] = False
    blind = type(scene)(scene.w2c, scene.K, scene.points, seen, scene.error)
    depth, confidence = sweep(shot.frames, blind, Watch(), OPTIONS)
    sure = confidence[4] > FILLED
    assert sure.float().mean() > 0.3
    assert ((depth[4] - shot.depth[4]).abs() / shot.depth[4])[sure].median() < 0.02


def test_a_view_that_looks_away_from_all_points_is_refused(shot: Shot) -> None:
    scene = sparse_scene(shot)
    w2c = scene.w2c.clone()
    w2c[2] = camera(0, 0, 180)
    with pytest.raises(InvalidInputError, match="before view 2"):
        sweep(shot.frames, type(scene)(w2c, scene.K, scene.points, scene.seen, scene.error), Watch(), OPTIONS)


def test_semi_global_matching_equals_the_recursion_written_out() -> None:
    generator = torch.Generator().manual_seed(0)
    h, w, p = 5, 6, 4
    cost = torch.rand(h, w, p, generator=generator)
    image = torch.rand(3, h, w, generator=generator)
    small, large = 0.05, 0.6
    expected = torch.zeros(h, w, p)
    for dy, dx in DIRECTIONS:
        paths = torch.zeros(h, w, p)
        for y in range(h) if dy >= 0 else range(h - 1, -1, -1):
            for x in range(w) if dx >= 0 else range(w - 1, -1, -1):
                py, px = y - dy, x - dx
                paths[y, x] = cost[y, x]
                if not (0 <= py < h and 0 <= px < w):
                    continue
                contrast = float((image[:, y, x] - image[:, py, px]).abs().max())
                jump = max(large / (1 + contrast / 0.04), 1.5 * small)
                least = float(paths[py, px].min())
                for k in range(p):
                    steps = [float(paths[py, px, k]), least + jump]
                    steps += [float(paths[py, px, j]) + small for j in (k - 1, k + 1) if 0 <= j < p]
                    paths[y, x, k] += min(steps) - least
        expected += paths / 8
    assert torch.allclose(aggregate(cost, image, small, large), expected, atol=1e-5)


def test_sub_plane_position_of_a_parabola() -> None:
    true = torch.tensor([[2.3, 4.0, 0.0]])
    cost = (torch.arange(8) - true[..., None]) ** 2
    assert torch.allclose(choose(cost), true, atol=1e-5)


def test_box_mean_equals_the_mean_of_each_window() -> None:
    maps = torch.rand(1, 2, 7, 9, generator=torch.Generator().manual_seed(1))
    result = box_mean(maps, 2)
    for y, x in ((0, 0), (3, 4), (6, 8), (1, 7)):
        window = maps[0, :, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        assert torch.allclose(result[0, :, y, x], window.mean((1, 2)), atol=1e-6)


def test_intrinsics_follow_the_half_pixel_rule() -> None:
    K = torch.tensor([[100.0, 0, 63.5], [0, 100, 47.5], [0, 0, 1]])
    half = scale_intrinsics(K, (96, 128), (48, 64))
    assert torch.allclose(half, torch.tensor([[50.0, 0, 31.5], [0, 50, 23.5], [0, 0, 1]]))


def test_cross_check_counts_views_that_agree() -> None:
    pair = shoot([camera(0), camera(0.5)], (60, 80), 70.0)
    views = [View(torch.zeros(3, 60, 80), pair.w2c[i], pair.K[i]) for i in range(2)]
    inverse = 1 / pair.depth
    support, fused = cross_check(views[0], inverse[0], [(views[1], inverse[1])])
    overlap = support[:, 20:70]
    assert overlap.median() > 0.99
    assert (support[:, :5] == 0).all()  # left of the other picture
    agree = support > 0.9
    assert torch.allclose(fused[agree], inverse[0][agree], rtol=0.02)
    contradicting, _ = cross_check(views[0], inverse[0], [(views[1], inverse[1] * 1.5)])
    assert contradicting.max() < 0.1  # 1.5 times the inverse depth moves the wall by 3.5 pixels, the square by 6


def test_completion_continues_a_slanted_plane_through_a_hole() -> None:
    v, u = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    plane = 1 + 0.01 * u + 0.02 * v
    weight = torch.ones(48, 64)
    weight[10:30, 20:45] = 0
    broken = torch.where(weight > 0, plane, 9.0)
    result = complete(broken, weight, torch.zeros(3, 48, 64))
    assert (result - plane).abs().max() < 0.01  # the plane spans 1 to 2.6


def test_enlarging_keeps_steps_at_picture_edges() -> None:
    image = torch.zeros(3, 16, 16)
    image[:, :, 7:] = 1
    small_image = torch.nn.functional.interpolate(image[None], (8, 8), mode="area")[0]
    values = torch.ones(8, 8)
    values[:, 4:] = 2.0
    result = enlarge(values, small_image, image)
    assert ((result == 1) | (result == 2)).all()  # nothing in between
    assert (result[:, 8:] == 2).all()
    assert (result[:, :6] == 1).all()
