import math

import pytest
import torch
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.fit import Fit, FitMode, fit_view

SOURCES = [(360, 640), (640, 360), (101, 77), (200, 1000)]
TARGETS = [(192, 320), (704, 1280)]


def _plane(h: int, w: int, K: Tensor) -> Tensor:
    """Depth [h,w] of the slanted plane n.X = 1 seen by K."""
    y, x = torch.meshgrid(torch.arange(h).float(), torch.arange(w).float(), indexing="ij")
    ray = torch.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], torch.ones_like(x)])
    return 1 / (torch.tensor([0.05, -0.1, 0.4]) @ ray.view(3, -1)).view(h, w)


def _camera(h: int, w: int) -> Tensor:
    return torch.tensor([[0.9 * w, 0, 0.47 * w], [0, 0.95 * w, 0.52 * h], [0, 0, 1]])


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("mode", ["crop", "pad"])
def test_a_point_projects_where_its_pixel_went(source: tuple[int, int], target: tuple[int, int], mode: FitMode) -> None:
    K = _camera(*source)
    fit = Fit.of(source, target, mode)
    point = torch.tensor([0.3, -0.2, 2.0])
    before, after = K @ point, fit.intrinsics(K) @ point
    torch.testing.assert_close(after[:2] / after[2], fit.points(before[:2] / before[2]), atol=2e-3, rtol=0)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("mode", ["crop", "pad"])
def test_a_plane_stays_the_same_plane(source: tuple[int, int], mode: FitMode) -> None:
    K = _camera(*source)
    pixels = torch.zeros(*source, 3, dtype=torch.uint8)
    view = fit_view(pixels, _plane(*source, K), torch.ones(source), K, (192, 320), mode)
    inside = view.confidence > 0
    inner = inside.clone()  # half a source pixel at the rim has no neighbour to interpolate with
    rim = max(2, math.ceil(max(Fit.of(source, (192, 320), mode).scale)))
    top, left = (int(v) for v in inside.nonzero().amin(0))
    bottom, right = (int(v) for v in inside.nonzero().amax(0))
    inner[:] = False
    inner[top + rim : bottom + 1 - rim, left + rim : right + 1 - rim] = True
    expected = _plane(192, 320, view.K)
    # Interpolation in 1/depth is exact on planes: what remains is float32.
    torch.testing.assert_close(view.depth[inner], expected[inner], rtol=1e-4, atol=0)


def test_picture_and_depth_move_together() -> None:
    pixels = torch.zeros(300, 400, 3, dtype=torch.uint8)
    depth = torch.full((300, 400), 5.0)
    pixels[100:160, 150:250] = 255
    depth[100:160, 150:250] = 2.0
    for mode in ("crop", "pad", "stretch"):
        view = fit_view(pixels, depth, torch.ones(300, 400), _camera(300, 400), (192, 320), mode)
        bright, near = view.image[0] > 0, (view.depth - 2).abs() < 1e-5
        # The picture is filtered, depth is not: they may differ along the edge, about 250 px long.
        assert int((bright != near).sum()) < 125
        assert {round(d, 5) for d in set(view.depth.flatten().tolist())} <= {0.0, 2.0, 5.0}


def test_crop_keeps_the_centre_and_covers_all() -> None:
    view = fit_view(
        torch.full((400, 100, 3), 255, dtype=torch.uint8), torch.ones(400, 100), torch.ones(400, 100),
        torch.tensor([[100.0, 0, 49.5], [0, 100, 199.5], [0, 0, 1]]), (192, 320),
    )  # fmt: skip
    assert float(view.image.min()) == 1.0
    assert float(view.confidence.min()) == 1.0
    torch.testing.assert_close(view.K, torch.tensor([[320.0, 0, 159.5], [0, 320, 95.5], [0, 0, 1]]))


def test_pad_knows_nothing_outside_and_runs_on_in_the_colours_of_the_rim() -> None:
    pixels = torch.zeros(192, 192, 3, dtype=torch.uint8)
    pixels[:, :96, 0] = 255  # red left, blue right
    pixels[:, 96:, 2] = 255
    view = fit_view(pixels, torch.ones(192, 192), torch.ones(192, 192), torch.eye(3), (192, 320), "pad")
    assert int((view.confidence > 0).sum()) == 192 * 192
    assert torch.equal(view.confidence > 0, view.depth > 0)
    inside = view.image[:, :, 64:256]
    assert torch.equal(((inside + 1) * 127.5).round().byte(), pixels.permute(2, 0, 1))
    for bar, rim in ((view.image[:, :, :64], inside[:, :, :1]), (view.image[:, :, 256:], inside[:, :, -1:])):
        assert float((bar - rim).abs().max()) < 1e-5


def test_stretch_scales_the_intrinsics_plainly() -> None:
    K = torch.tensor([[500.0, 0, 319.5], [0, 500, 239.5], [0, 0, 1]])
    scaled = Fit.of((480, 640), (704, 1280), "stretch").intrinsics(K)
    torch.testing.assert_close(
        scaled, torch.tensor([[1000.0, 0, 639], [0, 500 * 704 / 480, 239.5 * 704 / 480], [0, 0, 1]])
    )


def test_unknown_depth_does_not_spread() -> None:
    depth = torch.full((120, 200), 3.0)
    depth[40:80, 50:100] = 0.0
    depth[10:20, 10:20] = float("nan")
    confidence = torch.full((120, 200), 0.7)
    confidence[100:110, 150:180] = 0.0
    view = fit_view(torch.zeros(120, 200, 3, dtype=torch.uint8), depth, confidence, torch.eye(3), (192, 320))
    assert {round(d, 5) for d in set(view.depth.flatten().tolist())} == {0.0, 3.0}
    assert {round(c, 5) for c in set(view.confidence.flatten().tolist())} == {0.0, 0.7}
    lost = float((view.depth == 0).float().mean())
    assert lost == pytest.approx((40 * 50 + 100 + 300) / (120 * 200), abs=0.01)


def test_the_same_raster_changes_nothing() -> None:
    pixels = torch.randint(0, 256, (192, 320, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    depth = torch.rand(192, 320, generator=torch.Generator().manual_seed(1)) + 0.5
    K = _camera(192, 320)
    for mode in ("crop", "pad", "stretch"):
        view = fit_view(pixels, depth, torch.ones(192, 320), K, (192, 320), mode)
        assert torch.equal(((view.image + 1) * 127.5).round().to(torch.uint8), pixels.permute(2, 0, 1))
        torch.testing.assert_close(view.depth, depth)
        torch.testing.assert_close(view.K, K)


def test_sizes_that_differ_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"\[10, 12\]"):
        fit_view(torch.zeros(10, 12, 3, dtype=torch.uint8), torch.ones(5, 6), torch.ones(10, 12), torch.eye(3), (8, 8))
