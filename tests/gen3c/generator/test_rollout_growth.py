"""A video from one picture: what a chunk painted stays in the cache for the next.

Untrained networks paint noise, so the decoder here gives what a perfect generator would: the true pictures.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from gen3c.cache3d import render
from gen3c.conditioning import Cameras, ConditionOptions, Contribution, ViewConditioner
from gen3c.fusion import FusionMode, Pool
from gen3c.generator.rollout import Chunk, Programs, RolloutOptions, rollout
from gen3c.generator.signatures import DIT, VIDEO_DECODER, VIDEO_ENCODER
from gen3c.generator.vae import VideoDecoder, VideoEncoder
from gen3c.generator.weights import load_dit, load_vae
from gen3c.geometry.plane_sweep import SweepOptions
from gen3c.geometry.swept_depth import SweptDepth
from gen3c.geometry.types import Watch
from gen3c.growth import NoDepthError
from gen3c.presets import TINY
from gen3c.program import LocalProgram
from gen3c.scene import Scene, SourceView
from tests.gen3c.geometry.scenes import Shot, camera, shoot

PRESET = dataclasses.replace(TINY, height=96, width=160, chunk_frames=9)
STEP = PRESET.chunk_frames - 1
FRAMES = 3 * STEP + 1
UNIT = 5.0  # depth of the wall's middle: lengths of the scene are in these
REACH = 1.0  # the camera moves so far to the right in a chunk, of a picture that is 5.7 wide


@pytest.fixture(scope="module")
def shot() -> Shot:
    return shoot([camera(REACH * i / STEP) for i in range(FRAMES)], (PRESET.height, PRESET.width), 140.0)


def scene_of(shot: Shot) -> tuple[Scene, Cameras]:
    """The first picture as the only view, and the path of all."""
    w2c, K = shot.w2c.float().clone(), shot.K.float()
    w2c[:, :3, 3] /= UNIT
    image = shot.frames.pixels[0].permute(2, 0, 1).float() / 127.5 - 1
    depth = shot.depth[0] / UNIT
    return Scene((SourceView(image, depth, torch.ones_like(depth), w2c[0], K[0]),), 1.0, torch.eye(4)), Cameras(w2c, K)


@dataclass
class Run:
    """A rollout whose frames are given; keeps the views that every chunk was conditioned with."""

    pictures: Tensor | None  # [FRAMES,h,w,3] uint8; None: what the networks paint
    conditioned: list[tuple[SourceView, Cameras]] = field(default_factory=list)
    stages: set[str] = field(default_factory=set)

    def __call__(
        self, scene: Scene, cameras: Cameras, depth: object = None, fusion: FusionMode = "coverage_max"
    ) -> list[Chunk]:
        vae, _ = load_vae(PRESET, untrained_seed=0)
        dit, _ = load_dit(PRESET, untrained_seed=0)
        encoder = LocalProgram(VideoEncoder(vae), VIDEO_ENCODER)
        inner = ViewConditioner(encoder)
        decoded = 0

        def decoder(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
            nonlocal decoded
            painted = LocalProgram(VideoDecoder(vae), VIDEO_DECODER)(inputs)
            if self.pictures is None:
                return painted
            decoded += 1
            return {"VIDEO": self.pictures[(decoded - 1) * STEP : decoded * STEP + 1][None]}

        def conditioner(
            view: SourceView, cameras: Cameras, options: ConditionOptions, pool: Pool | None, keep: Tensor | None = None
        ) -> Contribution:
            self.conditioned.append((view, cameras))
            return inner(view, cameras, options, pool, keep)

        estimate = depth or SweptDepth(SweepOptions(planes=48, offsets=12))
        programs = Programs(LocalProgram(dit, DIT), encoder, decoder, conditioner, depth=estimate)
        options = RolloutOptions(1, 1, 0.0, 24.0, ConditionOptions(fusion))
        text = torch.zeros(1, PRESET.dit.text_tokens, PRESET.dit.text_dim)
        watch = Watch(on_progress=lambda stage, _step, _total: self.stages.add(stage))
        first = scene.views[0].image[None]
        return list(rollout(scene, cameras, first, text, text, programs, PRESET, options, watch))


def test_the_last_frame_of_a_chunk_is_known_to_the_next(shot: Shot) -> None:
    """What lies outside the first picture and was shown in chunk 1's last frame is covered in chunk 2."""
    scene, cameras = scene_of(shot)
    run = Run(shot.frames.pixels)
    chunks = run(scene, cameras)
    original = scene.views[0]
    assert [chunk.notices for chunk in chunks] == [(), (), ()]
    assert [len(chunk.views.coverage) for chunk in chunks] == [1, 2, 2]
    assert [view is original for view, _ in run.conditioned] == [True, False, True, False, True]  # newest first
    assert "geometry/sweep.fine" in run.stages

    for k, call in ((1, 1), (2, 3)):
        newest, chunk_cameras = run.conditioned[call]
        assert torch.equal(newest.w2c, cameras.w2c[k * STEP])
        assert torch.equal(newest.image, shot.frames.pixels[k * STEP].permute(2, 0, 1) / 127.5 - 1)
        sure = newest.confidence > 0.3
        error = (newest.depth * UNIT - shot.depth[k * STEP]).abs() / shot.depth[k * STEP]
        assert sure.float().mean() > 0.6
        assert error[sure].median() < 0.02

        # Two frames on, where the first view's picture has ended:
        at = slice(2, 3)
        old, new = (
            render(v.cache(0.1), chunk_cameras.w2c[at], chunk_cameras.K[at], scene.size) for v in (original, newest)
        )
        outside = old.coverage[0, 0] == 0
        outside[:, :-30] = False  # cracks and occlusions aside: the right edge
        outside[:, -16:] = False  # what came into the picture too lately to be measured
        gained = outside & (new.coverage[0, 0] > 0)
        assert outside.sum() > 1000
        assert gained.sum() > 0.95 * outside.sum()
        truth = shot.frames.pixels[k * STEP + 2].permute(2, 0, 1) / 127.5 - 1
        assert (new.image[0] - truth).abs().mean(0)[gained].mean() < 0.1  # of a range of 2


def test_the_best_two_views_are_those_of_the_grown_cache(shot: Shot) -> None:
    scene, cameras = scene_of(shot)
    chunks = Run(shot.frames.pixels)(scene, cameras, fusion="topk_concat")
    assert (chunks[0].views.cache[:, 32:] == 0).all()
    assert not (chunks[1].views.cache[:, 32:] == 0).all()
    newest, original = chunks[2].views.coverage.mean(1).tolist()
    assert newest > original + 0.2


def test_without_depth_the_cache_stays_as_it_was_and_the_chunk_says_so(shot: Shot) -> None:
    scene, cameras = scene_of(shot)

    def blind(frames: Tensor, _cameras: Cameras, shown: Tensor, _watch: Watch) -> tuple[Tensor, Tensor]:
        if len(calls) == 1:
            raise NoDepthError("it is dark")
        calls.append(frames)
        return shown, (shown > 0).float()

    calls: list[Tensor] = []
    run = Run(shot.frames.pixels)
    chunks = run(scene, cameras, blind)
    notice = "chunk 3 is made from what was known to chunk 2: chunk 2 adds nothing, as it is dark."
    assert [chunk.notices for chunk in chunks] == [(), (), (notice,)]
    assert torch.equal(calls[0], shot.frames.pixels[: STEP + 1])
    views = [view for view, _ in run.conditioned]
    assert views[3] is views[1]  # chunk 2's newest frame serves chunk 3 as well
    assert views[4] is views[2] is views[0] is scene.views[0]


def test_depth_that_contradicts_the_cache_is_not_taken(shot: Shot) -> None:
    scene, cameras = scene_of(shot)

    def inside_out(_frames: Tensor, _cameras: Cameras, shown: Tensor, _watch: Watch) -> tuple[Tensor, Tensor]:
        return torch.where(shown > 0, 1 / (3 - 1 / shown.clamp(min=0.4)), 0.0), torch.ones_like(shown)

    chunks = Run(shot.frames.pixels)(scene, cameras, inside_out)
    assert [len(chunk.views.coverage) for chunk in chunks] == [1, 1, 1]
    assert all("does not fit the cache. The new depth contradicts" in chunk.notices[0] for chunk in chunks[1:])


def test_depth_unlike_the_cache_is_not_taken(shot: Shot) -> None:
    scene, cameras = scene_of(shot)

    def random(_frames: Tensor, _cameras: Cameras, shown: Tensor, _watch: Watch) -> tuple[Tensor, Tensor]:
        return torch.rand(shown.shape, generator=torch.Generator().manual_seed(0)) + 0.2, torch.ones_like(shown)

    chunks = Run(shot.frames.pixels)(scene, cameras, random)
    assert [len(chunk.views.coverage) for chunk in chunks] == [1, 1, 1]
    assert all("does not fit the cache: it is off by" in chunk.notices[0] for chunk in chunks[1:])


def test_noise_does_not_grow_the_cache(shot: Shot) -> None:
    scene, cameras = scene_of(shot)
    chunks = Run(None)(scene, cameras)  # the untrained networks themselves
    assert [len(chunk.views.coverage) for chunk in chunks] == [1, 1, 1]
    said = "is made from the photo alone: chunk {} adds nothing, as its frames agree on the depth of only"
    assert chunks[1].notices[0].startswith(f"chunk 2 {said.format(1)}")
    assert chunks[2].notices[0].startswith(f"chunk 3 {said.format(2)}")


def test_several_views_are_a_static_cache(shot: Shot) -> None:
    scene, cameras = scene_of(shot)
    second = dataclasses.replace(scene.views[0], w2c=cameras.w2c[STEP])
    run = Run(shot.frames.pixels)
    chunks = run(dataclasses.replace(scene, views=(*scene.views, second)), cameras)
    assert [len(chunk.views.coverage) for chunk in chunks] == [2, 2, 2]
    assert {id(view) for view, _ in run.conditioned} == {id(scene.views[0]), id(second)}
    assert all(not stage.startswith("geometry") for stage in run.stages)
