"""VGGT as a provider, with a network that is exactly right, or exactly wrong in one thing."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from gen3c.cameras import pixel_rays, unproject
from gen3c.errors import CancelledError, InvalidInputError
from gen3c.geometry.types import Frames, Geometry, Watch
from gen3c.geometry.vggt.pose import decode_pose, encode_pose
from gen3c.geometry.vggt.provider import VggtOptions, estimate
from gen3c.presets import VGGT_TINY
from tests.gen3c.geometry.scenes import camera

FOV = (0.9, 1.1)  # vertical, horizontal, radians, of what the network sees
NORMAL, OFFSET = torch.tensor([0.1, -0.2, 1.0], dtype=torch.float64), 4.0  # the scene: a plane in the world
FRAME_0_ELSEWHERE = camera(0.3, -0.1, 7.0)  # the network's own frame is not quite that of camera 0


def pictures(*sizes: tuple[int, int]) -> Frames:
    """Noise of the given sizes (height, width)."""
    h, w = (max(size[axis] for size in sizes) for axis in (0, 1))
    pixels = torch.zeros(len(sizes), h, w, 3, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    for canvas, (height, width) in zip(pixels, sizes, strict=True):
        canvas[:height, :width] = torch.randint(0, 255, (height, width, 3), generator=generator, dtype=torch.uint8)
    names = tuple(f"photo{i}.jpg" for i in range(len(sizes)))
    return Frames(pixels, torch.tensor(sizes, dtype=torch.int32), names)


def plane_depth(w2c: Tensor, K: Tensor, size: tuple[int, int]) -> Tensor:
    """The plane's depth [n,h,w] from cameras w2c [n,4,4]."""
    directions = torch.einsum("nji,nhwj->nhwi", w2c[:, :3, :3], pixel_rays(*size, K).double())
    centres = -torch.einsum("nji,nj->ni", w2c[:, :3, :3], w2c[:, :3, 3])
    distance = (OFFSET - centres @ NORMAL)[:, None, None] / (directions @ NORMAL)
    return distance.float()


@dataclass
class Oracle:
    """The program `vggt`, with a plane before its eyes; `change` spoils its answer."""

    change: Callable[[dict[str, Tensor]], None] = lambda answer: None
    seen: list[Tensor] = field(default_factory=list)

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        images = inputs["IMAGES"]
        self.seen.append(images)
        n, size = len(images), (images.shape[1], images.shape[2])
        w2c = torch.stack([camera(0.2 * i, 0.05 * i, 3.0 * i) @ FRAME_0_ELSEWHERE for i in range(n)])
        K = decode_pose(torch.tensor([0, 0, 0, 0, 0, 0, 1, *FOV], dtype=torch.float64), size)[1].expand(n, 3, 3)
        padding = (images == 255).all(-1)
        answer = {
            "POSE": encode_pose(w2c, K, size).float(),
            # Of padding the network says something sure and wrong.
            "DEPTH": torch.where(padding, 50.0, plane_depth(w2c, K, size)),
            "CONFIDENCE": torch.where(padding, 1000.0, 10.0),
        }
        self.change(answer)
        return answer


def run(frames: Frames, change: Callable[[dict[str, Tensor]], None] | None = None, **options: float) -> Geometry:
    return estimate(frames, Oracle(change) if change else Oracle(), VGGT_TINY, options=VggtOptions(**options))


def off_plane(geometry: Geometry, i: int, size: tuple[int, int]) -> Tensor:
    """How far the points of frame i [h,w] are from the plane, relative to the plane's offset."""
    height, width = size
    points = unproject(geometry.depth[i : i + 1, :height, :width], geometry.w2c[i : i + 1], geometry.K[i : i + 1])[0]
    # Frame 0's camera is the world: the oracle's own world is elsewhere.
    back = torch.linalg.inv(camera(0.0) @ FRAME_0_ELSEWHERE)
    world = points.double() @ back[:3, :3].T + back[:3, 3]
    return ((world @ NORMAL - OFFSET) / OFFSET).abs()


@pytest.mark.parametrize(
    "sizes",
    [
        [(192, 320), (192, 320), (192, 320)],
        [(480, 640), (640, 480), (300, 300)],
        [(97, 401), (720, 1280)],
        [(640, 100), (33, 32)],
    ],
)
def test_points_lie_where_the_network_saw_them_whatever_the_sizes(sizes: list[tuple[int, int]]) -> None:
    geometry = run(pictures(*sizes))
    assert torch.equal(geometry.w2c[0], torch.eye(4))
    for i, size in enumerate(sizes):
        height, width = size
        known = geometry.depth[i, :height, :width] > 0
        assert known.all()
        # The depth is interpolated in its inverse, which is exact on a plane, but for half a network pixel at the rim,
        # where it is the nearest one's: at this slant that is 1 % at most.
        inner = off_plane(geometry, i, size)[8:-8, 8:-8]
        assert float(inner.max()) < 1e-3
        assert float(off_plane(geometry, i, size).max()) < 0.02
        # Outside the frame on its canvas nothing is known.
        assert not geometry.depth[i, height:].any()
        assert not geometry.confidence[i, :, width:].any()


def test_the_focal_length_is_that_of_the_size_the_network_saw() -> None:
    """A square among wide pictures is padded to their canvas, whose field of view the network tells."""
    wide, square = (180, 320), (200, 200)
    geometry = run(pictures(wide, square))
    side = VGGT_TINY.image_side
    for K, (height, width) in zip(geometry.K, (wide, square), strict=True):
        scale = max(height, width) / side  # frame pixels a network pixel
        canvas = (side, side)
        expected = decode_pose(torch.tensor([0, 0, 0, 0, 0, 0, 1.0, *FOV]), canvas)[1]
        assert float(K[0, 0]) == pytest.approx(float(expected[0, 0]) * scale, rel=1e-5)
        assert float(K[1, 1]) == pytest.approx(float(expected[1, 1]) * scale, rel=0.5 / 157)  # whole pixels
        # The middle of the canvas is the middle of the picture, but for rounding to whole pixels.
        assert (float(K[0, 2]) + 0.5) / width == pytest.approx(0.5, abs=1.5 / side)
        assert (float(K[1, 2]) + 0.5) / height == pytest.approx(0.5, abs=1.5 / side)


def test_the_network_sees_pictures_of_their_own_aspect_on_white() -> None:
    oracle = Oracle()
    estimate(pictures((140, 280), (280, 140)), oracle, VGGT_TINY)
    (canvas,) = oracle.seen
    assert canvas.shape == (2, 280, 280, 3)
    assert canvas.dtype == torch.uint8
    assert (canvas[0, :70] == 255).all()
    assert (canvas[0, 210:] == 255).all()
    assert not (canvas[0, 70:210] == 255).all(-1).any()
    assert not (canvas[1, :, 70:210] == 255).all(-1).any()


def halved(answer: dict[str, Tensor]) -> None:
    answer["CONFIDENCE"][:, :, ::2] = 1.2


def test_confidence_is_what_an_expected_error_leaves_and_below_the_threshold_nothing() -> None:
    size = (VGGT_TINY.patch * 12, VGGT_TINY.image_side)
    strict, lax = run(pictures(size), halved), run(pictures(size), halved, min_confidence=1.0)
    assert lax.confidence.unique().tolist() == pytest.approx([1 - 1 / 1.2, 0.9])
    assert strict.confidence.unique().tolist() == pytest.approx([0, 0.9])
    assert strict.info["confident_fraction"] == 0.5
    assert lax.info["confident_fraction"] == 1.0


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_least_confident_share_is_dropped_whatever_the_padding_says(share: float) -> None:
    def ramp(answer: dict[str, Tensor]) -> None:
        confidence = answer["CONFIDENCE"]
        answer["CONFIDENCE"] = torch.linspace(50, 2, confidence.numel()).reshape(confidence.shape)

    geometry = run(pictures((168, 280), (100, 280)), ramp, drop_lowest=share)
    shown = 168 * 280 + 100 * 280
    kept = sum(int((geometry.confidence[i, :h] > 0).sum()) for i, h in enumerate((168, 100)))
    assert kept == shown - math.floor(share * shown)
    assert geometry.confidence[0, 0].all()  # where the ramp begins
    assert not geometry.confidence[1, 99].any()


def test_depth_that_is_no_number_is_unknown() -> None:
    def broken(answer: dict[str, Tensor]) -> None:
        answer["DEPTH"][0, :84] = torch.inf
        answer["DEPTH"][0, 84:100] = torch.nan
        answer["CONFIDENCE"][0, 100:120] = torch.nan

    geometry = run(pictures((168, 280)), broken)
    assert geometry.depth.isfinite().all()
    assert geometry.confidence.isfinite().all()
    assert not geometry.confidence[0, :120].any()
    assert geometry.confidence[0, 120:].all()


def test_views_that_agree_say_so_and_others_are_warned_of() -> None:
    frames = pictures(*[(168, 280)] * 4)
    good = run(frames)
    assert good.warnings == ()
    assert good.info["agreement"] == 1.0
    assert isinstance(good.info["depth_difference"], float)
    assert good.info["depth_difference"] < 1e-3

    def own_scales(answer: dict[str, Tensor]) -> None:
        answer["DEPTH"] *= torch.tensor([1.0, 1.3, 0.8, 1.5])[:, None, None]

    bad = run(frames, own_scales)
    assert isinstance(bad.info["agreement"], float)
    assert bad.info["agreement"] < 0.3
    assert any("agree on only" in warning for warning in bad.warnings)

    def turned_away(answer: dict[str, Tensor]) -> None:
        answer["POSE"][1::2, 3:7] = torch.tensor([0.0, 1.0, 0.0, 0.0])  # half a turn

    away = run(pictures(*[(168, 280)] * 2), turned_away)
    assert away.info["agreement"] is None
    assert any("No frame sees anything of another" in warning for warning in away.warnings)

    def one_scale(answer: dict[str, Tensor]) -> None:
        answer["DEPTH"][5] *= 1.4

    odd = run(pictures(*[(168, 280)] * 10), one_scale)
    assert [warning for warning in odd.warnings if "does not fit" in warning and "photo5.jpg does" in warning]


def test_what_is_told_of_an_answer_can_be_sent() -> None:
    """A figure that is no number would fail the job at its very end."""

    def broken(answer: dict[str, Tensor]) -> None:
        answer["CONFIDENCE"][0, 5, 5] = torch.nan
        answer["CONFIDENCE"][1] = torch.inf
        answer["DEPTH"][1, 3] = torch.nan

    geometry = run(pictures((168, 280), (168, 280)), broken)
    assert json.loads(json.dumps(geometry.info, allow_nan=False)) == geometry.info


@pytest.mark.parametrize(
    ("change", "options", "said", "at_fault"),
    [
        (lambda a: a["DEPTH"][0].fill_(torch.inf), {}, "no depth in photo0.jpg", "MEDIA"),
        (lambda a: a["CONFIDENCE"][0].fill_(torch.nan), {}, "reaches 1, 1 being", "spec.geometry.vggt_confidence"),
        (
            lambda a: a["CONFIDENCE"][0].fill_(1),
            {"min_confidence": 1.0},
            "reaches 1, 1 being none",
            "spec.geometry.vggt_confidence",
        ),
        (
            lambda a: a["CONFIDENCE"][0].fill_(5),
            {"drop_lowest": 0.5},
            "least confident 50%",
            "spec.geometry.vggt_drop_lowest",
        ),
    ],
)
def test_a_first_view_that_is_not_trusted_says_why(
    change: Callable[[dict[str, Tensor]], None], options: dict[str, float], said: str, at_fault: str
) -> None:
    with pytest.raises(InvalidInputError, match=said) as caught:
        run(pictures((168, 280), (168, 280)), change, **options)
    assert caught.value.field == at_fault


def test_one_frame_works_and_is_warned_of() -> None:
    geometry = run(pictures((168, 280)))
    assert len(geometry) == 1
    assert any("no parallax" in warning for warning in geometry.warnings)
    assert geometry.info["agreement"] is None


def test_a_frame_that_the_network_does_not_trust_is_named() -> None:
    def doubt(answer: dict[str, Tensor]) -> None:
        answer["CONFIDENCE"][1] = 1.01

    geometry = run(pictures((168, 280), (168, 280)), doubt)
    assert any("photo1.jpg" in warning and "photo0.jpg" not in warning for warning in geometry.warnings)


def test_a_first_frame_without_trusted_depth_is_refused_with_the_figure() -> None:
    with pytest.raises(
        InvalidInputError, match=r"no depth of photo0.jpg.*reaches 10, 1 being none, and 11 is asked for"
    ) as caught:
        run(pictures((168, 280)), min_confidence=11.0)
    assert caught.value.field == "spec.geometry.vggt_confidence"


@pytest.mark.parametrize("count", [0, 201])
def test_too_few_and_too_many_frames_are_refused_with_the_figure(count: int) -> None:
    frames = Frames(torch.zeros(count, 16, 16, 3, dtype=torch.uint8), torch.full((count, 2), 16), ("x",) * count)
    oracle = Oracle()
    with pytest.raises(InvalidInputError, match=f"1 to 200 frames at once; got {count}") as caught:
        estimate(frames, oracle, VGGT_TINY)
    assert caught.value.field == "MEDIA"
    assert not oracle.seen


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (8, 0.0, "field of view of 0x51.6 degrees for photo1.jpg"),
        (7, 3.2, "field of view of 63x183 degrees for photo1.jpg"),
        (0, math.nan, "no camera for photo1.jpg"),
        (slice(3, 7), 0.0, "no camera for photo1.jpg"),
    ],
)
def test_an_encoding_that_is_no_camera_names_its_frame(at: int | slice, value: float, said: str) -> None:
    def broken(answer: dict[str, Tensor]) -> None:
        answer["POSE"][1, at] = value

    with pytest.raises(InvalidInputError) as caught:
        run(pictures((168, 280), (168, 280)), broken)
    assert said in str(caught.value)


def test_it_stops_when_told() -> None:
    oracle = Oracle()
    with pytest.raises(CancelledError):
        estimate(pictures((168, 280)), oracle, VGGT_TINY, Watch(lambda: True))
    assert not oracle.seen
    steps: list[tuple[str, int, int]] = []
    estimate(pictures((168, 280)), oracle, VGGT_TINY, Watch(on_progress=lambda *step: steps.append(step)))
    assert steps == [("vggt.network", 0, 2), ("vggt.network", 1, 2), ("vggt.network", 2, 2)]
