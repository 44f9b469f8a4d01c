import dataclasses
import weakref
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from gen3c.cache3d import render
from gen3c.conditioning import Cameras, ChunkViews, ConditionOptions, Contribution, ViewConditioner, pool_views
from gen3c.errors import CancelledError
from gen3c.fusion import FUSION_MODES, Pool, ViewLatents, camera_nearness, cell_coverage, fold
from gen3c.generator.signatures import VIDEO_ENCODER
from gen3c.generator.vae import VideoEncoder
from gen3c.generator.weights import load_vae
from gen3c.geometry.types import Watch
from gen3c.media import decode_video
from gen3c.program import LocalProgram
from gen3c.scene import SourceView
from tests import walls
from tests.walls import SMALL

VIEWS = [walls.view(0), walls.view(10), walls.view(30)]
PATH = walls.cameras([i + 0.5 for i in range(SMALL.chunk_frames)])
LUMA = torch.tensor([0.2126, 0.7152, 0.0722])  # BT.709


class RecordingEncoder:
    """The real encoder; keeps the videos that it was given.

    An equal video gets the latents of before: the last bits of a convolution may depend on where its input lies in
    memory, and they decide between views that are as good as one another.
    """

    def __init__(self) -> None:
        self._program = LocalProgram(VideoEncoder(load_vae(SMALL, untrained_seed=0)[0]), VIDEO_ENCODER)
        self.videos: list[Tensor] = []
        self._latents: list[Tensor] = []

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        video = inputs["VIDEO"]
        known = (latents for seen, latents in zip(self.videos, self._latents, strict=True) if torch.equal(seen, video))
        latents = next(known, None)
        if latents is None:
            latents = self._program(inputs)["LATENT"]
        self.videos.append(video)
        self._latents.append(latents)
        return {"LATENT": latents}


@pytest.fixture
def encoder() -> RecordingEncoder:
    return RecordingEncoder()


def pooled(encoder: RecordingEncoder, fusion: str, views: list[SourceView] = VIEWS, watch: Watch | None = None):
    options = ConditionOptions(fusion=fusion)
    return pool_views(views, PATH, ViewConditioner(encoder), Pool.empty(SMALL.latent_shape), options, watch or Watch())


@pytest.mark.parametrize("fusion", ["vector_max", "coverage_max", "ranked_concat"])
def test_pool_views_is_rendering_encoding_and_folding_by_hand(encoder: RecordingEncoder, fusion: str) -> None:
    pool = Pool.empty(SMALL.latent_shape)
    for view in VIEWS:
        warp = render(view.cache(0.1), PATH.w2c, PATH.K, (SMALL.height, SMALL.width))
        image, grey = (x.transpose(0, 1)[None] for x in (warp.image, (warp.coverage * 2 - 1).repeat(1, 3, 1, 1)))
        latents = torch.cat([encoder({"VIDEO": video})["LATENT"][0] for video in (image, grey)])
        coverage = cell_coverage(warp.coverage)
        nearness = camera_nearness(view.w2c, PATH.w2c).expand_as(coverage)
        pool = fold(pool, ViewLatents(latents, coverage, nearness), fusion)
    got = pooled(encoder, fusion)
    assert got.cache.shape == (1, 64, *SMALL.latent_shape)
    assert torch.equal(got.cache, pool.condition())
    assert got.previews == ()


def test_topk_encodes_two_views_and_gives_both_whole(encoder: RecordingEncoder) -> None:
    """Views 1 and 0 see most of a path around 10 px; the far view 2 comes first in the list, and is not encoded."""
    views = [walls.view(30), walls.view(0), walls.view(10)]
    path = walls.cameras([8.5] * SMALL.chunk_frames)
    got = pool_views(
        views, path, ViewConditioner(encoder), Pool.empty(SMALL.latent_shape), ConditionOptions("topk_concat"), Watch()
    )
    assert len(encoder.videos) == 4  # image and mask of two views
    latents = [encoder({"VIDEO": video})["LATENT"] for video in encoder.videos[:4]]
    assert torch.equal(got.cache, torch.cat(latents, dim=1))
    best = views[2].image[:, :, :40]  # its columns 0.. are seen from 2 px on at 8.5 - 10 = -1.5 px
    assert (encoder.videos[0][0, :, 0, :, 2:42] - (best + views[2].image[:, :, 1:41]) / 2).abs().max() < 1e-3


def test_topk_leaves_out_frames_that_the_best_view_fills(encoder: RecordingEncoder) -> None:
    """Upstream's rule: at 2.5 px view 0 covers 46/48 of a frame, so view 1 stays silent there, not at 20.5 px."""
    path = walls.cameras([2.5] * 4 + [20.5] * 5)
    views = [walls.view(0), walls.view(10)]
    got = pool_views(
        views, path, ViewConditioner(encoder), Pool.empty(SMALL.latent_shape), ConditionOptions("topk_concat"), Watch()
    )
    assert (got.coverage[0, :4] >= 0.9).all()
    first, second = encoder.videos[:2], encoder.videos[2:]  # of two views none is left out, and their order stays
    silent_image, silent_mask = second
    assert (silent_image[:, :, :4] == -1).all()
    assert (silent_mask[:, :, :4] == -1).all()
    assert (silent_mask[:, :, 4:] == 1).any()
    assert (first[1][:, :, :4] == 1).any()


@pytest.mark.parametrize(("fusion", "calls"), [("coverage_max", 3), ("ranked_concat", 3), ("topk_concat", 5)])
def test_steps_count_up_to_the_number_of_calls(encoder: RecordingEncoder, fusion: str, calls: int) -> None:
    steps: list[tuple[str, int, int]] = []
    pooled(encoder, fusion, watch=Watch(on_progress=lambda *step: steps.append(step)))
    assert steps == [("condition", i, calls) for i in range(calls + 1)]


def test_topk_of_one_view(encoder: RecordingEncoder) -> None:
    steps: list[tuple[str, int, int]] = []
    got = pooled(encoder, "topk_concat", VIEWS[:1], Watch(on_progress=lambda *step: steps.append(step)))
    assert steps == [("condition", i, 2) for i in range(3)]
    assert (got.cache[:, 32:] == 0).all()
    assert torch.equal(got.cache, pooled(encoder, "vector_max", VIEWS[:1]).cache)


@pytest.mark.parametrize("fusion", FUSION_MODES)
def test_coverage_is_the_share_of_columns_that_a_view_reaches(encoder: RecordingEncoder, fusion: str) -> None:
    """From s + 1/2 px aside, a view of 48 columns reaches all but s of them."""
    got = pooled(encoder, fusion).coverage
    for view, shift in enumerate((0, 10, 30)):
        for frame in range(SMALL.chunk_frames):
            missed = int(abs(frame + 0.5 - shift))
            assert got[view, frame] == pytest.approx((48 - missed) / 48, abs=1e-6)


def test_a_view_seen_from_its_own_pose_is_its_photo(encoder: RecordingEncoder) -> None:
    path = walls.cameras([10.0] * SMALL.chunk_frames)
    options = ConditionOptions()
    contribution = ViewConditioner(encoder)(VIEWS[1], path, options, Pool.empty(SMALL.latent_shape))
    assert (contribution.frame_coverage == 1).all()
    image, mask = encoder.videos
    assert (image[0] - VIEWS[1].image[:, None]).abs().max() < 1e-3  # float32 rays there and back
    assert (mask == 1).all()


def test_holes_are_empty_in_picture_and_mask(encoder: RecordingEncoder) -> None:
    path = walls.cameras([20.5] * SMALL.chunk_frames)
    ViewConditioner(encoder)(VIEWS[0], path, ConditionOptions(), Pool.empty(SMALL.latent_shape))
    image, mask = encoder.videos
    assert (image[..., 28:] == -1).all()
    assert (mask[..., 28:] == -1).all()
    assert (mask[..., :28] == 1).all()


def test_without_a_pool_nothing_is_encoded(encoder: RecordingEncoder) -> None:
    contribution = ViewConditioner(encoder)(VIEWS[0], PATH, ConditionOptions(), None)
    assert encoder.videos == []
    assert contribution.pool is None
    assert contribution.frame_coverage.shape == (SMALL.chunk_frames,)


def test_doubtful_points_stay_out_from_the_confidence_that_is_asked_for(encoder: RecordingEncoder) -> None:
    confidence = torch.ones(SMALL.height, SMALL.width)
    confidence[:, 24:] = 0.3
    view = dataclasses.replace(VIEWS[0], confidence=confidence)
    path = walls.cameras([0.5] * SMALL.chunk_frames)
    for threshold, share in ((0.2, 1.0), (0.5, 0.5)):
        got = ViewConditioner(encoder)(view, path, ConditionOptions(min_confidence=threshold), None)
        assert torch.allclose(got.frame_coverage, torch.tensor(share))


def test_foreground_masking_drops_what_the_foreground_hides(encoder: RecordingEncoder) -> None:
    """A box at depth 0.5 before the wall: seen from aside, its silhouette keeps the wall from shining through."""
    depth = torch.ones(SMALL.height, SMALL.width)
    depth[8:24, 16:32] = 0.5
    view = dataclasses.replace(VIEWS[0], depth=depth)
    plain, masked = (
        ViewConditioner(encoder)(view, PATH, ConditionOptions(foreground_masking=on), None).frame_coverage
        for on in (False, True)
    )
    assert (masked <= plain).all()
    assert masked[-1] < plain[-1]


def test_previews_show_the_rendering_of_every_view(encoder: RecordingEncoder) -> None:
    options = ConditionOptions(preview_fps=24.0)
    got = pool_views(VIEWS[:2], PATH, ViewConditioner(encoder), Pool.empty(SMALL.latent_shape), options, Watch())
    assert len(got.previews) == 2
    for preview, image in zip(got.previews, encoder.videos[::2], strict=True):
        frames = torch.stack(list(decode_video(preview)))
        assert frames.shape == (SMALL.chunk_frames, SMALL.height, SMALL.width, 3)
        error = (frames.float() - (image[0].permute(1, 2, 3, 0) + 1) * 127.5) @ LUMA
        assert error.abs().mean() < 3  # grey levels, after H.264 at crf 16; colour is at half resolution there


def test_topk_makes_one_preview_a_view(encoder: RecordingEncoder) -> None:
    options = ConditionOptions("topk_concat", preview_fps=24.0)
    got = pool_views(VIEWS, PATH, ViewConditioner(encoder), Pool.empty(SMALL.latent_shape), options, Watch())
    assert len(got.previews) == 3


def test_previews_of_wide_rasters_are_scaled_down(encoder: RecordingEncoder) -> None:
    """480x64 becomes 320 wide; 42.7 rows become 42, because both sides of a video are even."""
    blank = torch.ones(64, 480)
    view = SourceView(torch.zeros(3, 64, 480), blank, blank, torch.eye(4), walls.intrinsics(64, 480))
    path = Cameras(torch.eye(4).expand(3, 4, 4), view.K.expand(3, 3, 3))
    preview = ViewConditioner(encoder)(view, path, ConditionOptions(preview_fps=8.0), None).preview
    assert preview is not None
    assert [tuple(frame.shape) for frame in decode_video(preview)] == [(42, 320, 3)] * 3


@pytest.mark.parametrize("fusion", FUSION_MODES)
def test_no_more_pools_are_alive_for_more_views(encoder: RecordingEncoder, fusion: str) -> None:
    """Memory must not grow with the views: besides the pool handed in, at most the one just replaced is alive."""
    pools: list[weakref.ref[Pool]] = []
    alive: list[int] = []
    inner = ViewConditioner(encoder)

    def conditioner(view, cameras, options, pool, keep=None) -> Contribution:
        alive.append(sum(ref() is not None for ref in pools))
        contribution = inner(view, cameras, options, pool, keep)
        if contribution.pool is not None:
            pools.append(weakref.ref(contribution.pool))
        return contribution

    views = [walls.view(3 * i) for i in range(8)]
    pool_views(views, PATH, conditioner, Pool.empty(SMALL.latent_shape), ConditionOptions(fusion), Watch())
    assert pools
    assert max(alive) <= 2


def test_cancellation_takes_effect_before_the_next_view(encoder: RecordingEncoder) -> None:
    asked: list[None] = []

    def is_cancelled() -> bool:
        asked.append(None)
        return len(asked) > 2

    with pytest.raises(CancelledError, match="condition"):
        pooled(encoder, "coverage_max", watch=Watch(is_cancelled))
    assert len(encoder.videos) == 2 * 2


def test_the_order_of_views_settles_ties_alone(encoder: RecordingEncoder) -> None:
    """This fusion ranks by coverage and norm, so another order of views gives the same condition."""
    some: list[ChunkViews] = [pooled(encoder, "coverage_max", views) for views in (VIEWS, VIEWS[::-1])]
    assert torch.equal(some[0].coverage, some[1].coverage.flip(0))
    assert torch.equal(some[0].cache[:, :32], some[1].cache[:, :32])
