"""Many views' latents become one condition, view by view in constant memory.

The network has room for two buffers of 32 channels (16 of the rendering, 16 of its mask). A pool holds them per latent
cell, with what is needed to compare the next view against them. Which view takes a cell is the fusion mode:

- `vector_max`: the largest latent norm, buffer 1 only (the public multi-view fork, exactly).
- `coverage_max`: the largest latent norm among the views that cover the cell, buffer 1 only.
- `ranked_concat`: best view in buffer 1, second best in buffer 2; best = coverage in eighths, then the nearest camera,
  then lowest index. A norm says how much contrast a view shows, not how rightly: that it broke ties made eight views
  worse than one where the path goes straight on (docs/quality.md).
- `topk_concat`: the two views that cover most of the chunk, whole, as upstream GEN3C (`choose_views` comes first).
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from gen3c.cameras import inverse
from gen3c.errors import InvalidInputError
from gen3c.generator.signatures import LATENT_CHANNELS, VIEW_CHANNELS

FusionMode = Literal["vector_max", "coverage_max", "topk_concat", "ranked_concat"]
FUSION_MODES: tuple[FusionMode, ...] = get_args(FusionMode)

BUFFERS = 2
COVERED = 0.5  # coverage from which a latent cell counts as seen
NEAR_FULL = 0.9  # of a frame: one buffer is then enough (upstream's rule)
_NONE = -1.0  # coverage and norm of a buffer that holds nothing: below any real one


@dataclass(frozen=True)
class ViewLatents:
    """One view of one chunk, ready to be folded."""

    latents: Tensor  # [32,t,h,w]
    coverage: Tensor  # [t,h,w] in [0,1]
    nearness: Tensor | None = None  # [t,h,w] in (0,1], of the view's camera to the target's; None: equally near

    @property
    def norm(self) -> Tensor:
        """L2 norm of the rendering's 16 channels, [t,h,w]."""
        norm: Tensor = torch.linalg.vector_norm(self.latents[:LATENT_CHANNELS], dim=0)
        return norm


@dataclass(frozen=True)
class Pool:
    """The buffers so far. Its size does not depend on the number of views."""

    latents: Tensor  # [2,32,t,h,w]
    coverage: Tensor  # [2,t,h,w], -1 where the buffer is empty
    norm: Tensor  # [2,t,h,w], for ranked_concat the nearness; -1 where the buffer is empty

    @classmethod
    def empty(cls, latent_shape: tuple[int, int, int], device: torch.device | None = None) -> "Pool":
        """No view yet, for latents of t frames, h rows, w columns."""
        keys = torch.full((BUFFERS, *latent_shape), _NONE, device=device)
        return cls(torch.zeros(BUFFERS, VIEW_CHANNELS, *latent_shape, device=device), keys, keys.clone())

    def to(self, device: torch.device) -> "Pool":
        """The same pool on another device."""
        return Pool(self.latents.to(device), self.coverage.to(device), self.norm.to(device))

    def condition(self) -> Tensor:
        """The 64 cache channels [1,64,t,h,w]: buffer 1, then buffer 2; an empty buffer is zero."""
        return self.latents.flatten(0, 1)[None]


def fold(pool: Pool, view: ViewLatents, mode: FusionMode) -> Pool:
    """The pool after one more view. Views are folded in index order: on a tie the earlier one stays."""
    coverage = view.coverage
    match mode:
        case "vector_max":
            norm = view.norm
            return _place(pool, view, norm, norm > pool.norm[0])
        case "coverage_max":
            norm = view.norm
            return _place(pool, view, norm, _better_covered(coverage, norm, pool.coverage[0], pool.norm[0]))
        case "ranked_concat":
            nearness = torch.ones_like(coverage) if view.nearness is None else view.nearness
            rank = _eighths(coverage)
            first, second = (_higher(rank, nearness, _eighths(pool.coverage[i]), pool.norm[i]) for i in range(BUFFERS))
            return _place(pool, view, nearness, first, second)
        case "topk_concat":
            taken = pool.norm.flatten(1).amax(1) > _NONE
            if bool(taken.all()):
                raise ValueError(f"topk_concat folds {BUFFERS} views; choose_views says which")
            everywhere = torch.ones_like(coverage, dtype=torch.bool)
            nowhere = ~everywhere
            norm = view.norm
            return _place(pool, view, norm, nowhere, everywhere) if taken[0] else _place(pool, view, norm, everywhere)
        case _:
            raise InvalidInputError(f"fusion is {mode!r}; legal: {', '.join(FUSION_MODES)}.", "fusion")


def cell_coverage(mask: Tensor) -> Tensor:
    """Share of seen pixels in each latent cell, [t',h/8,w/8], of a mask [t,1,h,w] of 0 and 1, t = 1 + 8k.

    A cell holds 8x8 pixels of one frame (latent frame 0) or of eight (the others).
    """
    spatial = F.avg_pool2d(mask.float(), 8)[:, 0]
    later = spatial[1:].reshape(-1, 8, *spatial.shape[1:]).mean(1)
    return torch.cat((spatial[:1], later))


def camera_nearness(view: Tensor, targets: Tensor) -> Tensor:
    """1 / (1 + distance) of a view's camera w2c [4,4] to target cameras [t,4,4], t = 1 + 8k: [t',1,1].

    Distances are in the scene's unit, their mean over the frames of a latent frame.
    """
    distance = (inverse(targets)[:, :3, 3] - inverse(view[None])[:, :3, 3]).norm(dim=1)
    later = distance[1:].reshape(-1, 8).mean(1)
    return (1 / (1 + torch.cat((distance[:1], later))))[:, None, None]


@dataclass(frozen=True)
class Choice:
    """Which views topk_concat encodes, and which of their frames it shows."""

    views: tuple[int, ...]  # at most two, best first
    keep: Tensor  # [len(views),t] bool


def choose_views(frame_coverage: Tensor, near_full: float = NEAR_FULL) -> Choice:
    """The released GEN3C's selection, from the covered share of every frame, [v,t].

    Of more than two views it keeps the two with the most coverage over the chunk, best first, ties to the lower index.
    In a frame where one of them covers at least `near_full`, only the first such view is shown.
    """
    order = torch.arange(len(frame_coverage))
    if len(order) > BUFFERS:
        order = torch.argsort(frame_coverage.double().sum(1), descending=True, stable=True)[:BUFFERS]
    kept = frame_coverage[order]  # [k,t]
    nearly = kept >= near_full
    first = nearly & (nearly.int().cumsum(0) == 1)
    keep = torch.where(nearly.any(0), first, torch.ones_like(nearly))
    return Choice(tuple(order.tolist()), keep)


def _higher(coverage: Tensor, norm: Tensor, old_coverage: Tensor, old_norm: Tensor) -> Tensor:
    return (coverage > old_coverage) | ((coverage == old_coverage) & (norm > old_norm))


def _better_covered(coverage: Tensor, norm: Tensor, old_coverage: Tensor, old_norm: Tensor) -> Tensor:
    # Where nobody covers the cell, the ordinary ranking decides, so that its mask latent still says "empty".
    new, old = coverage >= COVERED, old_coverage >= COVERED
    neither = ~new & ~old & _higher(coverage, norm, old_coverage, old_norm)
    return (new & ~old) | (new & old & (norm > old_norm)) | neither


def _eighths(coverage: Tensor) -> Tensor:
    """Coverage in whole eighths: the cracks of a splat are no reason to prefer another view. Below 0 stays below 0."""
    return (8 * coverage).floor()


def _place(pool: Pool, view: ViewLatents, key: Tensor, first: Tensor, second: Tensor | None = None) -> Pool:
    """Put the view into buffer 1 where `first`, moving what was there to buffer 2 if `second` (bool [t,h,w]) is given.

    With `second`, cells that lose against buffer 1 but win against buffer 2 go there. `key` [t,h,w], the view's norm or
    nearness, is what the next view is compared with.
    """

    def merge(old: Tensor, new: Tensor, win1: Tensor, win2: Tensor | None) -> Tensor:
        buffer1 = torch.where(win1, new, old[0])
        if win2 is None:
            return torch.stack((buffer1, old[1]))
        return torch.stack((buffer1, torch.where(win1, old[0], torch.where(win2, new, old[1]))))

    return Pool(
        merge(pool.latents, view.latents, first[None], None if second is None else second[None]),
        merge(pool.coverage, view.coverage, first, second),
        merge(pool.norm, key, first, second),
    )
