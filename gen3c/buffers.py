"""The cache of a video from one picture: it grows by frames that were generated, whose depth is fitted to it.

At most two buffers, the newest first: a generated frame in front of the original picture, which always stays. By
default every buffer keeps its own boundary and no picture depends on its neighbours; `reference` computes what the
released GEN3C does, faults included: another clamp of depth at the start than later, the first picture's boundary for
every buffer, splat weights that depend on the call, and a new frame fitted to the newest buffer alone.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gen3c.alignment import align_nonrigid, align_rigid
from gen3c.cache3d import (
    RELIABILITY_THRESHOLD,
    UPSTREAM_CALL,
    CachedView,
    bounded_depth,
    cache_view,
    nearest_surface,
    render_all,
)

MAX_BUFFERS = 2
_UPDATE_LIMIT = 1e4  # of the depth of later pictures, in their own unit


@dataclass(frozen=True)
class Picture:
    """A picture with depth and camera."""

    image: Tensor  # [3,h,w] in [-1,1]
    depth: Tensor  # [h,w] z-depth, 0 = unknown
    w2c: Tensor  # [4,4]
    K: Tensor  # [3,3]


@dataclass(frozen=True)
class Rendering:
    """All n buffers from t target cameras."""

    image: Tensor  # [t,n,3,h,w] in [-1,1]
    mask: Tensor  # [t,n,1,h,w] float 0 or 1

    def noised(self, noise: Tensor, strength: float) -> Tensor:
        """Images with `noise` [t,n,3,h,w] added: `strength` per buffer that is older, so none on the oldest."""
        n = self.image.shape[1]
        age = torch.arange(n - 1, -1, -1, device=self.image.device, dtype=self.image.dtype)
        return self.image + strength * age[:, None, None, None] * noise


@dataclass(frozen=True)
class BufferCache:
    """One or two pictures as points. Immutable: `grown` gives the next cache."""

    buffers: tuple[CachedView, ...]  # newest first, at most MAX_BUFFERS
    reliability: float | None = RELIABILITY_THRESHOLD  # threshold of cache3d.reliable_mask; None: every depth is used
    foreground_masking: bool = False
    reference: bool = False

    @classmethod
    def start(
        cls,
        first: Picture,
        *,
        reliability: float | None = RELIABILITY_THRESHOLD,
        foreground_masking: bool = False,
        reference: bool = False,
    ) -> "BufferCache":
        """The cache of the original picture."""
        empty = cls((), reliability, foreground_masking, reference)
        depth = bounded_depth(first.depth, reference=reference)
        return replace(empty, buffers=(empty._cached(replace(first, depth=depth)),))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        height, width = self.buffers[0].known.shape
        return height, width

    def shown_depth(self, w2c: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
        """Depth [h,w] that the cache shows from one camera, 0 where nothing is, and where something is, [h,w] bool."""
        buffers = self.buffers[:1] if self.reference else self.buffers
        return nearest_surface(buffers, w2c, K, self.size, foreground_masking=self.foreground_masking)[1:]

    def grown(self, new: Picture, *, nonrigid: bool = True) -> "BufferCache":
        """The cache with a new picture in front, whose depth need be right only up to scale and shift in its inverse.

        A former second picture makes room. Raises InvalidInputError if the depth cannot be fitted to the cache.
        """
        # Its unit is not the scene's yet. The reference puts what is nowhere there, and does not bound what it fitted.
        depth = torch.nan_to_num(new.depth, nan=_UPDATE_LIMIT if self.reference else 0.0).clamp(0, _UPDATE_LIMIT)
        shown, covered = self.shown_depth(new.w2c, new.K)
        depth = fit_depth(depth, shown, covered, new.w2c, new.K, nonrigid=nonrigid, reference=self.reference)
        depth = depth if self.reference else bounded_depth(depth)
        view = self._cached(replace(new, depth=depth))
        if self.reference:
            view = replace(view, boundary=self.buffers[-1].boundary)
        return replace(self, buffers=(view, self.buffers[-1]))

    def render(self, w2c: Tensor, K: Tensor) -> Rendering:
        """Every buffer from target cameras w2c [t,4,4] and K [t,3,3]."""
        call = UPSTREAM_CALL if self.reference else None
        warp = render_all(self.buffers, w2c, K, self.size, foreground_masking=self.foreground_masking, call_size=call)
        shape = (len(w2c), len(self.buffers))
        return Rendering(
            warp.image.reshape(*shape, *warp.image.shape[1:]), warp.coverage.reshape(*shape, *warp.coverage.shape[1:])
        )

    def _cached(self, picture: Picture) -> CachedView:
        return cache_view(
            picture.image,
            picture.depth,
            torch.ones_like(picture.depth),
            picture.w2c,
            picture.K,
            reliability=self.reliability,
            reference=self.reference,
        )


def fit_depth(
    depth: Tensor,  # [h,w] z-depth up to scale, 0 = unknown
    shown: Tensor,  # [h,w] depth that the cache shows from the same camera
    covered: Tensor,  # [h,w] bool
    w2c: Tensor,  # [4,4]
    K: Tensor,  # [3,3]
    *,
    nonrigid: bool = True,
    reference: bool = False,
) -> Tensor:
    """`depth` in the cache's unit and shape, [h,w]: one scale and shift, then a factor per pixel (`nonrigid`).

    Raises InvalidInputError if the two have too little in common.
    """
    fitted = align_rigid(depth, shown, covered, reference=reference)
    return align_nonrigid(fitted, shown, covered, w2c, K, reference=reference) if nonrigid else fitted
