"""A video of any legal length: chunk after chunk, each starting from the last frame of the one before."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gen3c.conditioning import Cameras, ChunkViews, Conditioner, ConditionOptions, pool_views
from gen3c.fusion import Pool
from gen3c.generator.condition import ChunkCondition, encode_seed
from gen3c.generator.sampler import initial_noise, sample_chunk
from gen3c.geometry.swept_depth import SweptDepth
from gen3c.geometry.types import Watch
from gen3c.growth import DepthEstimator, NoDepthError, frame_as_view
from gen3c.presets import Preset
from gen3c.program import Program
from gen3c.scene import Scene, SourceView

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Programs:
    """The networks of a rollout."""

    dit: Program
    video_encoder: Program
    video_decoder: Program
    conditioner: Conditioner
    seed_frames: int | None = 1  # frames that the encoder takes for the first picture; None: a whole chunk's only
    device: torch.device = CPU  # where conditions and latents live between the programs
    # Of the frames that a scene of one view grows by.
    depth: DepthEstimator = field(default_factory=SweptDepth)


@dataclass(frozen=True)
class RolloutOptions:
    """How a video is made."""

    seed: int
    steps: int
    guidance: float
    fps: float
    condition: ConditionOptions


@dataclass(frozen=True)
class Chunk:
    """One finished chunk."""

    frames: Tensor  # [t,h,w,3] uint8, CPU: the new frames; a later chunk's first, already shown, is left out
    views: ChunkViews  # of the scene's views; of a grown cache: the newest frame first, then the scene's view
    notices: tuple[str, ...] = ()  # sentences for the user


def rollout(
    scene: Scene,
    cameras: Cameras,
    seed_frame: Tensor,  # [1,3,h,w] in [-1,1]: the picture at cameras[0]
    text: Tensor,  # [1,tokens,dim]
    negative_text: Tensor,  # [1,tokens,dim]
    programs: Programs,
    preset: Preset,
    options: RolloutOptions,
    watch: Watch,
) -> Iterator[Chunk]:
    """Yield the chunks of a video along `cameras`, chunk + k*(chunk-1) of them.

    Consecutive chunks share a frame: the last of one is the first of the next, shown once. The static cache of several
    views is rendered again for every chunk. The cache of one view grows before every later chunk by the last frame of
    the one before, which takes the place of an earlier one; where its depth cannot be told, the cache stays as it was
    and the chunk says so. Noise comes from one generator per video, so a seed gives one video.
    """
    chunks = preset.chunks(len(cameras))
    step = preset.chunk_frames - 1
    noise_source = torch.Generator().manual_seed(options.seed)
    text, negative_text = text.to(programs.device), negative_text.to(programs.device)
    sources = scene.views
    previous: tuple[Tensor, Cameras] | None = None
    for k in range(chunks):
        part = _Part(watch, k, chunks)
        notices: tuple[str, ...] = ()
        if previous is not None and len(scene.views) == 1:
            sources, notices = _grow(sources, *previous, programs.depth, options.condition, watch, k)
        chunk_cameras = cameras[k * step : k * step + preset.chunk_frames]
        views = pool_views(
            sources,
            chunk_cameras,
            programs.conditioner,
            Pool.empty(preset.latent_shape, programs.device),
            options.condition,
            part.watch,
        )
        condition = ChunkCondition(
            seed_latent=encode_seed(programs.video_encoder, seed_frame, programs.seed_frames or preset.chunk_frames),
            cache=views.cache,
            text=text,
            negative_text=negative_text,
            fps=options.fps,
        )
        latent = sample_chunk(
            programs.dit,
            condition,
            initial_noise(condition.noise_shape, noise_source),
            steps=options.steps,
            guidance=options.guidance,
            augment_seed=options.seed,
            watch=part.watch,
        )
        watch.step("decode", k, chunks)
        frames = programs.video_decoder({"LATENT": latent})["VIDEO"][0].cpu()
        watch.step("decode", k + 1, chunks)
        seed_frame = frames[-1:].permute(0, 3, 1, 2).float() / 127.5 - 1
        previous = (frames, chunk_cameras)
        yield Chunk(frames if k == 0 else frames[1:], views, notices)


def _grow(
    sources: tuple[SourceView, ...],
    frames: Tensor,  # [t,h,w,3] uint8
    cameras: Cameras,
    estimate: DepthEstimator,
    options: ConditionOptions,
    watch: Watch,
    k: int,
) -> tuple[tuple[SourceView, ...], tuple[str, ...]]:
    """The views for chunk k: the last of the frames before it, then the original; and why it did not grow, if so."""
    named = Watch(watch.is_cancelled, lambda stage, step, total: watch.on_progress(f"geometry/{stage}", step, total))
    try:
        newest = frame_as_view(sources, frames, cameras, estimate, options, named)
    except NoDepthError as error:
        known = "the photo alone" if len(sources) == 1 else f"what was known to chunk {k}"
        return sources, (f"chunk {k + 1} is made from {known}: chunk {k} adds nothing, as {error}.",)
    return (newest, sources[-1]), ()


class _Part:
    """Counts the steps of chunk k as steps of the whole video."""

    def __init__(self, watch: Watch, k: int, chunks: int) -> None:
        self._watch, self._k, self._chunks = watch, k, chunks
        self.watch = Watch(watch.is_cancelled, self._forward)

    def _forward(self, stage: str, step: int, total: int) -> None:
        self._watch.on_progress(stage, self._k * total + step, self._chunks * total)
