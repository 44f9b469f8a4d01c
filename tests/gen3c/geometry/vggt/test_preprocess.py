"""Pictures on the network's raster: ours keeps their aspect, the released loaders are the released loaders."""

import math
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.fit import Fit
from gen3c.geometry.types import Frames
from gen3c.geometry.vggt.preprocess import on_canvas, released, released_size, released_square

Size = tuple[int, int]  # height, width
Colour = tuple[int, int, int]
SIDE, PATCH = 518, 14
BACKGROUND, MARK = 190, 60  # both far from 0 and 255, where a cubic filter's overshoot would be cut off

MIXES = [
    [(480, 640)],
    [(360, 640), (360, 640)],
    [(480, 640), (640, 480)],
    [(300, 300), (720, 1280), (1000, 700)],
    [(16, 1000), (1000, 16)],
    [(16, 1000), (77, 101)],
    [(1080, 1920), (90, 160)],
    [(518, 518), (517, 518)],
]


def frames(sizes: list[Size], fill: int = BACKGROUND) -> Frames:
    """Plain pictures of these sizes; the canvas beyond each of them is black, as everywhere."""
    pixels = torch.zeros(len(sizes), max(h for h, _ in sizes), max(w for _, w in sizes), 3, dtype=torch.uint8)
    for picture, (h, w) in zip(pixels, sizes, strict=True):
        picture[:h, :w] = fill
    names = tuple(f"{h}x{w}.png" for h, w in sizes)
    return Frames(pixels, torch.tensor(sizes, dtype=torch.int32), names)


def marked(sizes: list[Size]) -> tuple[Frames, list[int]]:
    """Pictures with a square in the middle of each, and its side in px: half of the shorter side of the picture."""
    made, sides = frames(sizes), []
    for picture, (h, w) in zip(made.pixels, sizes, strict=True):
        side = min(h, w) // 2
        top, left = (h - side) // 2, (w - side) // 2
        picture[top : top + side, left : left + side] = MARK
        sides.append(side)
    return made, sides


def extent(picture: Tensor) -> tuple[float, float]:
    """Height and width of the mark in a picture [h,w], to a part of a pixel: how much of its middle line is dark."""
    dark = (BACKGROUND - picture.float()) / (BACKGROUND - MARK)
    h, w = picture.shape
    return float(dark[:, w // 2].sum()), float(dark[h // 2].sum())


def shown(canvas: Tensor, fit: Fit) -> Tensor:
    left, top, right, bottom = fit.tile
    return canvas[top:bottom, left:right]


def mean_colour(pixels: Tensor) -> list[float]:
    """Of [3,h,w]."""
    return [float(v) for v in pixels.float().mean((1, 2))]


def coloured(width: int, height: int, mode: str = "RGB", colour: int | tuple[int, ...] = (200, 30, 90)) -> Image.Image:
    return Image.new(mode, (width, height), colour)


@pytest.mark.parametrize("sizes", MIXES)
def test_a_square_stays_a_square(sizes: list[Size]) -> None:
    pictures, sides = marked(sizes)
    canvas, fits = on_canvas(pictures, SIDE, PATCH)
    for picture, fit, side, size in zip(canvas, fits, sides, sizes, strict=True):
        height, width = extent(shown(picture, fit)[..., 0])
        # The tile's shorter side is rounded to whole pixels: by half a pixel over all of it, so by a quarter over the
        # mark. The filter's rounding to bytes adds less than a tenth.
        assert abs(height - width) < 0.35
        assert abs(width - side * SIDE / max(size)) < 0.35


def test_the_released_loaders_do_not_keep_a_square() -> None:
    """Why there is a loader of ours: they round to whole patches. Or the test above could not fail."""
    pictures, (side,) = marked([(35, 500)])  # 2.6 patches
    loaded = released([Image.fromarray(pictures.frame(0).numpy())], "crop", SIDE, PATCH)[0]
    height, width = extent(loaded[0])
    assert abs(height - width) > 0.05 * side


@pytest.mark.parametrize("sizes", MIXES)
@pytest.mark.parametrize(("side", "patch"), [(518, 14), (280, 14), (70, 14), (96, 16)])
def test_the_canvas_is_the_smallest_of_whole_patches_that_holds_them_all(
    sizes: list[Size], side: int, patch: int
) -> None:
    canvas, fits = on_canvas(frames(sizes), side, patch)
    height, width = canvas.shape[1:3]
    tiles = [(fit.tile[3] - fit.tile[1], fit.tile[2] - fit.tile[0]) for fit in fits]  # height, width
    assert canvas.dtype == torch.uint8
    assert canvas.shape == (len(sizes), height, width, 3)
    assert [max(tile) for tile in tiles] == [side] * len(sizes)
    for (h, w), tile in zip(sizes, tiles, strict=True):
        assert abs(min(tile) - min(h, w) * side / max(h, w)) <= 0.5
        assert (tile[0] - tile[1]) * (h - w) >= 0  # a portrait stays one
    assert height % patch == width % patch == 0
    assert 0 <= height - max(h for h, _ in tiles) < patch
    assert 0 <= width - max(w for _, w in tiles) < patch
    assert max(height, width) == patch * math.ceil(side / patch)
    if len(set(sizes)) == 1:
        assert height * width - tiles[0][0] * tiles[0][1] < patch * max(height, width)


@pytest.mark.parametrize("sizes", MIXES)
def test_what_is_around_a_frame_is_white_and_even(sizes: list[Size]) -> None:
    canvas, fits = on_canvas(frames(sizes), 280, PATCH)
    height, width = canvas.shape[1:3]
    for picture, fit in zip(canvas, fits, strict=True):
        left, top, right, bottom = fit.tile
        inside = torch.zeros(height, width, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        # Neither white nor the black beyond a small frame on the canvas of its Frames is mixed in at the rim.
        assert (picture[inside] == BACKGROUND).all()
        assert (picture[~inside] == 255).all()
        assert 0 <= (width - right) - left <= 1
        assert 0 <= (height - bottom) - top <= 1


def test_each_frame_is_in_its_tile_and_the_right_way_up() -> None:
    generator = torch.Generator().manual_seed(0)
    made = frames([(60, 90), (100, 40)])
    for picture, (h, w) in zip(made.pixels, [(60, 90), (100, 40)], strict=True):
        coarse = torch.randint(0, 256, (3, h // 10, w // 10), generator=generator).to(torch.uint8)
        picture[:h, :w] = coarse.repeat_interleave(10, 1).repeat_interleave(10, 2).permute(1, 2, 0)
    canvas, fits = on_canvas(made, 280, PATCH)
    for i, fit in enumerate(fits):
        given = torch.nn.functional.adaptive_avg_pool2d(made.frame(i).permute(2, 0, 1).double(), (5, 4))
        tile = torch.nn.functional.adaptive_avg_pool2d(shown(canvas[i], fit).permute(2, 0, 1).double(), (5, 4))
        # Means over large areas, whose borders are off by a part of a pixel; the patches differ by 74 in the mean.
        assert float((given - tile).abs().mean()) < 4


@pytest.mark.parametrize("sizes", MIXES)
def test_a_fit_leads_the_corners_of_a_frame_to_those_of_its_tile_and_back(sizes: list[Size]) -> None:
    _, fits = on_canvas(frames(sizes), SIDE, PATCH)
    for fit, (h, w) in zip(fits, sizes, strict=True):
        left, top, right, bottom = fit.tile
        corners = torch.tensor([[0, 0], [w, 0], [0, h], [w, h]], dtype=torch.float64)
        places = torch.tensor([[left, top], [right, top], [left, bottom], [right, bottom]], dtype=torch.float64)
        # Edges of pixels are half a pixel before their centres, which are at integers.
        torch.testing.assert_close(fit.points(corners - 0.5), places - 0.5, rtol=0, atol=1e-9)
        back = fit.inverse()
        torch.testing.assert_close(back.points(places - 0.5), corners - 0.5, rtol=0, atol=1e-9)
        assert (back.source, back.target) == (fit.target, fit.source)
        points = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 700 - 100
        torch.testing.assert_close(back.points(fit.points(points)), points, rtol=0, atol=1e-9)
        torch.testing.assert_close(fit.points(back.points(points)), points, rtol=0, atol=1e-9)


@pytest.mark.parametrize("sizes", MIXES)
def test_intrinsics_go_there_and_back_with_the_points(sizes: list[Size]) -> None:
    _, fits = on_canvas(frames(sizes), SIDE, PATCH)
    point = torch.tensor([0.3, -0.2, 2.0], dtype=torch.float64)
    for fit, (h, w) in zip(fits, sizes, strict=True):
        K = torch.tensor([[0.9 * w, 0.5, 0.47 * w], [0, 0.95 * w, 0.52 * h], [0, 0, 1]], dtype=torch.float64)
        on_raster = fit.intrinsics(K)
        seen, seen_on_raster = K @ point, on_raster @ point
        expected = fit.points(seen[:2] / seen[2])
        torch.testing.assert_close(seen_on_raster[:2] / seen_on_raster[2], expected, rtol=0, atol=1e-9)
        torch.testing.assert_close(fit.inverse().intrinsics(on_raster), K, rtol=0, atol=1e-9)


def test_depth_comes_back_to_the_frame_it_is_of() -> None:
    """A step of depth on the canvas is where the step of colours is in the picture."""
    sizes = [(300, 400), (400, 300)]
    made = frames(sizes)
    for picture in made.pixels:
        picture[100:, :170] = 0
    canvas, fits = on_canvas(made, 280, PATCH)
    for i, (fit, size) in enumerate(zip(fits, sizes, strict=True)):
        depth = torch.where(canvas[i, ..., 0] < BACKGROUND / 2, 2.0, 5.0)
        back, confidence = fit.inverse().depth(depth, torch.ones_like(depth))
        assert back.shape == size
        assert (confidence == 1).all()
        expected = torch.full(size, 5.0)
        expected[100:, :170] = 2.0
        wrong = ((back - expected).abs() > 1e-3).nonzero()
        # A pixel of the canvas is 1.43 of the picture, by half of which the step may be off: at most the pixels on
        # either side of it are wrong.
        assert all(abs(int(y) - 99.5) < 1 or abs(int(x) - 169.5) < 1 for y, x in wrong)


def test_a_canvas_is_not_undone_by_what_a_crop_has_lost() -> None:
    with pytest.raises(ValueError, match="does not show all of it"):
        Fit.of((480, 640), (280, 280), "crop").inverse()


@pytest.mark.parametrize(
    ("size", "mode", "expected"),
    [
        ((640, 480), "crop", (392, 518)),  # 388.5 px are 27.75 patches
        ((480, 640), "crop", (518, 518)),  # 690.7 px, of which the middle is kept
        ((1280, 720), "crop", (294, 518)),  # 291.4 px are 20.8 patches
        ((1000, 16), "crop", (14, 518)),  # 8.3 px are 0.6 patches
        ((640, 480), "pad", (518, 518)),
        ((480, 640), "pad", (518, 518)),
    ],
)
def test_the_released_loader_gives_the_released_sizes(
    size: tuple[int, int], mode: Literal["crop", "pad"], expected: Size
) -> None:
    loaded = released([coloured(*size)], mode)
    assert loaded.shape == (1, 3, *expected)
    assert loaded.dtype == torch.uint8


def test_half_a_patch_is_rounded_to_even_as_python_does() -> None:
    assert released_size(518, 35, "crop", SIDE, PATCH) == (518, 28)  # 2.5 patches
    assert released_size(518, 49, "crop", SIDE, PATCH) == (518, 56)  # 3.5


def test_the_released_crop_keeps_the_middle() -> None:
    ramp = np.linspace(0, 255, 264).round().astype(np.uint8)[:, None, None]
    loaded = released([Image.fromarray(np.broadcast_to(ramp, (264, 200, 3)).copy())], "crop")[0, 0].float()
    height = released_size(200, 264, "crop", SIDE, PATCH)[1]
    assert height == 686
    cut = (height - SIDE) // 2 / height
    # What a ramp is at the first and the last row that is kept, which is one number for half a row of 686 and a byte.
    assert float(loaded[0].mean()) == pytest.approx(255 * cut, abs=1)
    assert float(loaded[-1].mean()) == pytest.approx(255 * (1 - cut), abs=1)


def test_the_released_padding_is_white_with_its_smaller_half_first() -> None:
    (loaded,) = released([coloured(640, 480)], "pad")
    rows = (loaded != 255).all(0).all(1).nonzero()[:, 0]
    assert (int(rows[0]), int(rows[-1])) == (63, 63 + 392 - 1)  # 518 - 392 = 126
    (narrow,) = released([coloured(205, 400)], "pad", side=29, patch=2)
    columns = (narrow != 255).all(0).all(0).nonzero()[:, 0]
    assert (int(columns[0]), int(columns[-1])) == (7, 20)  # 29 - 14 = 15: 7 and 8
    assert (narrow[:, :, :7] == 255).all()


def test_released_pictures_of_several_sizes_are_centred_on_the_largest() -> None:
    high, low = released([coloured(640, 480), coloured(1280, 720)], "crop")
    assert high.shape == low.shape == (3, 392, 518)
    assert not (high == 255).any()
    assert (low[:, :49] == 255).all()  # 392 - 294 = 98
    assert (low[:, -49:] == 255).all()
    assert mean_colour(low[:, 49:-49]) == [200, 30, 90]


def test_only_rgba_is_laid_over_white() -> None:
    half = (200, 30, 90, 128)
    over_white = [v * 128 / 255 + 255 * 127 / 255 for v in half[:3]]
    rgba = released([coloured(64, 64, "RGBA", half)], "crop", 56)[0]
    assert mean_colour(rgba) == pytest.approx(over_white, abs=1)  # a byte
    square, _ = released_square([coloured(64, 64, "RGBA", half)], 56)
    assert mean_colour(square[0]) == pytest.approx(over_white, abs=1)
    # Alpha of other modes is dropped, as in the released code.
    grey = released([coloured(64, 64, "LA", (70, 0))], "crop", 56)[0]
    assert mean_colour(grey) == [70, 70, 70]
    palette = coloured(64, 64, "P", 1)
    palette.putpalette([0, 0, 0, 200, 30, 90])
    palette.info["transparency"] = 1
    assert palette.convert("RGBA").getpixel((0, 0)) == (200, 30, 90, 0)
    assert mean_colour(released([palette], "crop", 56)[0]) == [200, 30, 90]


def test_the_square_loader_centres_on_black_and_says_where() -> None:
    loaded, places = released_square([coloured(400, 200), coloured(100, 301)], 200)
    assert loaded.shape == (2, 3, 200, 200)
    scale = 200 / 301
    expected = [[0, 50, 200, 150, 400, 200], [100 * scale, 0, 200 * scale, 200, 100, 301]]  # (301 - 100) // 2 = 100
    torch.testing.assert_close(places, torch.tensor(expected))
    assert mean_colour(loaded[0, :, 55:145]) == [200, 30, 90]
    assert not loaded[0, :, :45].any()
    assert not loaded[0, :, 155:].any()
    assert mean_colour(loaded[1, :, :, 70:130]) == [200, 30, 90]
    assert not loaded[1, :, :, :63].any()
    assert not loaded[1, :, :, 137:].any()


@pytest.mark.parametrize(
    ("size", "mode", "becomes"),
    [((1000, 13), "crop", "518x0"), ((1000, 13), "pad", "518x0"), ((13, 1000), "pad", "0x518")],
)
def test_a_picture_too_elongated_for_the_released_loader_is_refused(
    size: tuple[int, int], mode: Literal["crop", "pad"], becomes: str
) -> None:
    with pytest.raises(InvalidInputError) as error:
        released([coloured(640, 480), coloured(*size)], mode)
    for part in (f"{size[0]}x{size[1]} px", f"would be {becomes} px", "by a factor of 74 at most"):
        assert part in str(error.value)
    # Ours takes it, and the limit is where the sentence says.
    on_canvas(frames([(size[1], size[0])]), SIDE, PATCH)
    released([coloured(74 * 13 - 1, 13)], mode)


def test_a_tall_picture_is_cropped_however_tall() -> None:
    assert released([coloured(13, 1000)], "crop").shape == (1, 3, 518, 518)
