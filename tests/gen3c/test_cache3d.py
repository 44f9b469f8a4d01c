import pytest
import torch

from gen3c.cache3d import (
    CachedView,
    bounded_depth,
    cache_view,
    center_depth,
    reliable_mask,
    render,
    render_all,
    render_each,
)
from gen3c.errors import InvalidInputError
from gen3c.fit import FitMode, fit_view

K = torch.tensor([[60.0, 0, 19.5], [0, 60, 11.5], [0, 0, 1]])


def test_reliability_rejects_jumps_and_nothing_else() -> None:
    depth = torch.full((1, 1, 20, 30), 1.0)
    depth[..., 15:] = 2.0
    mask = reliable_mask(depth)
    assert not mask[..., 13:17].any()
    assert mask[..., :13].all()  # the picture's edge included
    assert mask[..., 17:].all()


def test_unknown_depth_does_not_spoil_its_neighbours() -> None:
    depth = torch.full((1, 1, 20, 30), 1.5)
    depth[..., 10, 10] = 0
    mask = reliable_mask(depth)
    assert mask.sum() == 20 * 30 - 1
    assert reliable_mask(depth, reference=True).sum() < 20 * 30 - 20


def test_doubtful_points_stay_out() -> None:
    depth, confidence = torch.full((24, 40), 2.0), torch.ones(24, 40)
    depth[:, :5] = 0
    confidence[:, 5:10] = 0.05
    confidence[:, 10:15] = 0
    view = cache_view(torch.zeros(3, 24, 40), depth, confidence, torch.eye(4), K, min_confidence=0.1)
    assert not view.mask[..., :15].any()
    assert view.mask[..., 15:].all()
    lenient = cache_view(torch.zeros(3, 24, 40), depth, confidence, torch.eye(4), K, min_confidence=0.0)
    assert lenient.mask[..., 5:10].all()
    assert not lenient.mask[..., 10:15].any()  # confidence 0 means: do not use


def test_a_frame_does_not_depend_on_how_many_are_rendered_together() -> None:
    g = torch.Generator().manual_seed(0)
    depth = torch.rand(24, 40, generator=g) * 0.02 + 2
    view = cache_view(torch.rand(3, 24, 40, generator=g), depth, torch.ones(24, 40), torch.eye(4), K)
    w2c = torch.eye(4).repeat(9, 1, 1)
    w2c[:, 0, 3] = torch.linspace(0, 0.2, 9)
    for masking in (False, True):
        together = render(view, w2c, K.expand(9, 3, 3), (24, 40), foreground_masking=masking)
        alone = render(view, w2c[6:7], K[None], (24, 40), foreground_masking=masking)
        assert torch.equal(together.image[6:7], alone.image)
        assert together.image.shape == (9, 3, 24, 40)


def rough_views(count: int) -> list[CachedView]:
    """Walls at depth 2, 3, 4 ... of random colours, seen from the identity."""
    g = torch.Generator().manual_seed(0)
    return [
        cache_view(
            torch.rand(3, 24, 40, generator=g),
            torch.rand(24, 40, generator=g) + 2 + i,
            torch.ones(24, 40),
            torch.eye(4),
            K,
            reliability=None,
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("masking", [False, True])
def test_all_views_are_rendered_camera_by_camera(masking: bool) -> None:
    views = rough_views(3)
    w2c = torch.eye(4).repeat(2, 1, 1)
    w2c[:, 0, 3] = torch.tensor([0.03, 0.07])
    everything = render_all(views, w2c, K.expand(2, 3, 3), (24, 40), foreground_masking=masking)
    assert len(everything.image) == 6
    for t in range(2):
        for n, view in enumerate(views):
            alone = render(view, w2c[t : t + 1], K[None], (24, 40), foreground_masking=masking)
            assert torch.equal(everything.image[3 * t + n], alone.image[0])


def test_pictures_of_one_call_of_the_reference_share_their_normaliser() -> None:
    near, _, far = rough_views(3)
    w2c = torch.eye(4).repeat(3, 1, 1)
    w2c[:, 0, 3] = 0.05
    intrinsics = K.expand(3, 3, 3)
    plain = render_each([near, near, far], w2c, intrinsics, (24, 40))
    pairs = render_each([near, near, far], w2c, intrinsics, (24, 40), call_size=2)
    assert (pairs.image[0] - plain.image[0]).abs().max() < 1e-5  # its mate is the same picture
    assert (pairs.image[2] - plain.image[2]).abs().max() < 1e-5  # it is alone in its call
    mixed = render_each([near, far], w2c[:2], intrinsics[:2], (24, 40), call_size=2)
    assert (mixed.image[0] - plain.image[0]).abs().max() > 1e-3


def test_the_reference_takes_every_depth_for_known() -> None:
    depth = torch.linspace(1, 2, 40).expand(24, 40).clone()
    depth[10, 10] = 0
    view = cache_view(
        torch.zeros(3, 24, 40), depth, torch.ones(24, 40), torch.eye(4), K, reliability=None, reference=True
    )
    assert view.mask.all()
    assert view.known.all()
    assert (view.points[10, 10] == 0).all()
    assert torch.equal(view.boundary, ~reliable_mask(depth[None, None], reference=True)[0, 0])


def test_depth_is_bounded() -> None:
    depth = torch.tensor([-1.0, 0.0, 50.0, 5e3, torch.inf, torch.nan])
    assert bounded_depth(depth).tolist() == [0, 0, 50, 100, 100, 0]
    assert bounded_depth(depth, reference=True).tolist() == [0, 0, 50, 100, 100, 100]


def flat_wall(hole: bool, fit: FitMode) -> tuple[CachedView, torch.Tensor]:
    """A wall at depth 1 in a 4:3 photo, on a 16:9 raster; it may lack depth in places."""
    depth = torch.ones(96, 128)
    if hole:
        depth[40:57, 31:50] = 0
        depth[10, 90] = 0
        depth[:, 127] = 0
    pixels = torch.full((96, 128, 3), 180, dtype=torch.uint8)
    intrinsics = torch.tensor([[100.0, 0, 63.5], [0, 100, 47.5], [0, 0, 1]])
    view = fit_view(pixels, depth, torch.ones(96, 128), intrinsics, (108, 192), fit)
    return cache_view(view.image, view.depth, view.confidence, torch.eye(4), view.K), view.K


@pytest.mark.parametrize(("hole", "fit"), [(True, "crop"), (False, "pad"), (True, "pad")])
@pytest.mark.parametrize("aside", [-0.15, 0.15])
def test_unknown_depth_hides_nothing(hole: bool, fit: FitMode, aside: float) -> None:
    """One surface without jumps: no foreground, so masking must hide nothing."""
    view, intrinsics = flat_wall(hole, fit)
    w2c = torch.eye(4)[None].clone()
    w2c[0, 0, 3] = aside
    w2c[0, 2, 3] = 0.05
    plain, masked = (
        render(view, w2c, intrinsics[None], (108, 192), foreground_masking=masking) for masking in (False, True)
    )
    assert plain.coverage.mean() > 0.5
    assert torch.equal(masked.coverage, plain.coverage)
    assert torch.equal(masked.image, plain.image)


def test_center_depth_is_the_median_of_the_confident_half() -> None:
    depth = torch.tensor([[1.0, 2.0, 3.0, 50.0, 60.0, 0.0]])
    confidence = torch.tensor([[0.9, 0.9, 0.9, 0.2, 0.2, 1.0]])
    assert center_depth(depth, confidence) == 2.0


@pytest.mark.parametrize(
    ("depth", "confidence", "reason"),
    [
        (0.0, 1.0, "no pixel of known depth"),
        (0.0, 0.0, "no pixel of known depth"),
        (1.0, 0.0, "known depth, but none of it with a confidence above 0"),
    ],
)
def test_without_confident_depth_there_is_no_unit(depth: float, confidence: float, reason: str) -> None:
    sentence = rf"View 0 has {reason}, .* put another view first, or take views that overlap more"
    with pytest.raises(InvalidInputError, match=sentence):
        center_depth(torch.full((2, 2), depth), torch.full((2, 2), confidence))


def test_slanted_planes_are_reliable() -> None:
    """Ground seen at a grazing angle: the reference filter drops most of it, and more on a smaller raster."""
    rows = torch.arange(96.0) + 14  # below the horizon
    depth = (150 / rows)[None, None, :, None].expand(1, 1, 96, 160)
    assert reliable_mask(depth).all()
    assert reliable_mask(depth, reference=True).float().mean() < 0.5


def test_a_steep_ramp_is_no_surface() -> None:
    depth = torch.linspace(1, 4, 8).expand(1, 1, 20, 8)  # a jump, smeared over 8 px by some resampling
    assert not reliable_mask(depth)[..., 2:6].any()
