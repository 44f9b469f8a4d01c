"""One view and one chunk at a time: render, encode, fold. Memory does not grow with the number of views."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from gen3c.cache3d import render
from gen3c.fusion import FusionMode, Pool, ViewLatents, camera_nearness, cell_coverage, choose_views, fold
from gen3c.generator.condition import encode_view
from gen3c.geometry.types import Watch
from gen3c.media import encode_video
from gen3c.program import Program
from gen3c.scene import SourceView
from gen3c.splat import EMPTY

PREVIEW_WIDTH = 320  # px: enough to see what a view contributes


@dataclass(frozen=True)
class Cameras:
    """Target cameras of consecutive output frames."""

    w2c: Tensor  # [t,4,4]
    K: Tensor  # [t,3,3] px of the output raster

    def __len__(self) -> int:
        return len(self.w2c)

    def __getitem__(self, frames: slice) -> "Cameras":
        return Cameras(self.w2c[frames], self.K[frames])


@dataclass(frozen=True)
class ConditionOptions:
    """How views become a condition."""

    fusion: FusionMode = "ranked_concat"
    foreground_masking: bool = False
    min_confidence: float = 0.1
    preview_fps: float | None = None  # make a small video of every rendering


@dataclass(frozen=True)
class Contribution:
    """What one view adds to one chunk."""

    frame_coverage: Tensor  # [t] share of covered pixels of every frame
    pool: Pool | None  # the pool with the view in it; None if only coverage was asked for
    preview: bytes | None  # mp4 of the rendering, at most PREVIEW_WIDTH wide


class Conditioner(Protocol):
    """Folds one view of one chunk into a pool: in this process (`ViewConditioner`), or as a model of a server."""

    def __call__(
        self,
        view: SourceView,
        cameras: Cameras,
        options: ConditionOptions,
        pool: Pool | None,
        keep: Tensor | None = None,
    ) -> Contribution:
        """Without a pool nothing is encoded. `keep` [t] bool: the frames that the view may show."""


class ViewConditioner:
    """Conditioning in this process, on `device`. On a GPU renderings are kept in bfloat16, as the encoder wants."""

    def __init__(self, encoder: Program, device: torch.device | None = None) -> None:
        self._encoder = encoder
        self._device = device or torch.device("cpu")
        self._dtype = torch.float32 if self._device.type == "cpu" else torch.bfloat16

    @torch.inference_mode()
    def __call__(
        self,
        view: SourceView,
        cameras: Cameras,
        options: ConditionOptions,
        pool: Pool | None,
        keep: Tensor | None = None,
    ) -> Contribution:
        height, width = view.depth.shape
        warp = render(
            view.to(self._device).cache(options.min_confidence),
            cameras.w2c.to(self._device),
            cameras.K.to(self._device),
            (height, width),
            foreground_masking=options.foreground_masking,
        )
        image, mask = warp.image.to(self._dtype), warp.coverage
        del warp
        preview = None if options.preview_fps is None else _preview(image, options.preview_fps)
        frame_coverage = mask.mean(dim=(1, 2, 3)).cpu()
        if pool is None:
            return Contribution(frame_coverage, None, preview)
        if keep is not None:
            shown = keep.to(self._device)[:, None, None, None]
            image = torch.where(shown, image, torch.full_like(image, EMPTY))
            mask = torch.where(shown, mask, torch.zeros_like(mask))
        latents = encode_view(self._encoder, image.transpose(0, 1)[None], mask.transpose(0, 1)[None])[0].float()
        coverage = cell_coverage(mask)
        nearness = camera_nearness(view.w2c, cameras.w2c).to(self._device).expand_as(coverage)
        pool = fold(pool.to(self._device), ViewLatents(latents, coverage, nearness), options.fusion)
        return Contribution(frame_coverage, pool, preview)


@dataclass(frozen=True)
class ChunkViews:
    """The condition of one chunk from all views."""

    cache: Tensor  # [1,64,t,h,w]
    coverage: Tensor  # [v,t] share of covered pixels per view and frame
    previews: tuple[bytes, ...]  # one a view, if asked for


def pool_views(
    views: Sequence[SourceView],
    cameras: Cameras,
    conditioner: Conditioner,
    pool: Pool,  # empty; it says where the condition lives
    options: ConditionOptions,
    watch: Watch,
) -> ChunkViews:
    """Fold all views into the condition of one chunk; one call a view, so progress and cancellation come for free."""
    whole = options.fusion == "topk_concat"
    calls = len(views) + (min(len(views), 2) if whole else 0)
    frame_coverages, previews = [], []  # the contributions themselves would keep every pool alive
    for i, view in enumerate(views):
        watch.step("condition", i, calls)
        contribution = conditioner(view, cameras, options, None if whole else pool)
        pool = contribution.pool or pool
        frame_coverages.append(contribution.frame_coverage)
        previews.append(contribution.preview)
    coverage = torch.stack(frame_coverages)
    if whole:
        # Only two views are encoded; the pass above has told which ones.
        choice = choose_views(coverage)
        silent = ConditionOptions(options.fusion, options.foreground_masking, options.min_confidence)
        for n, i in enumerate(choice.views):
            watch.step("condition", len(views) + n, calls)
            pool = conditioner(views[i], cameras, silent, pool, choice.keep[n]).pool or pool
    watch.step("condition", calls, calls)
    return ChunkViews(pool.condition(), coverage, tuple(p for p in previews if p is not None))


def _preview(image: Tensor, fps: float) -> bytes:
    """A small mp4 of a rendering [t,3,h,w] in [-1,1]; holes are black."""
    width = min(PREVIEW_WIDTH, image.shape[3])
    height = round(image.shape[2] * width / image.shape[3] / 2) * 2
    small = (F.interpolate(frame[None], (height, width), mode="area")[0] for frame in image)
    return encode_video((((f.permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).cpu() for f in small), fps)
