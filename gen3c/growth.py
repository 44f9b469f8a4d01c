"""A video from one picture: its cache grows by the last frame of every chunk.

The path leaves what the picture shows; what the network painted there has to stay where it is when the next chunk
looks at it again. So the last frame joins the cache as a second view, in place of an earlier one.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from gen3c.buffers import fit_depth
from gen3c.cache3d import bounded_depth, nearest_surface
from gen3c.conditioning import Cameras, ConditionOptions
from gen3c.errors import InvalidInputError
from gen3c.geometry.types import Watch
from gen3c.scene import SourceView

LARGEST_ERROR = 0.05  # median of the relative difference from the cache's depth, after it was fitted


class NoDepthError(Exception):
    """Depth cannot be told from these frames. The message, a clause, says why."""


class DepthEstimator(Protocol):
    """Depth of the last of some generated frames."""

    def __call__(self, frames: Tensor, cameras: Cameras, shown: Tensor, watch: Watch, /) -> tuple[Tensor, Tensor]:
        """z-depth [h,w], up to a scale and shift of its inverse, and confidence [h,w] in [0,1], 0 = not to be used.

        Args:
            frames: [t,h,w,3] uint8, on the CPU.
            cameras: one a frame.
            shown: depth [h,w] that the cache shows from the last camera, 0 where nothing; a hint.
            watch: asked now and then whether to stop.

        Raises:
            NoDepthError: the frames do not tell.
            CancelledError: `watch` said so.
        """


def frame_as_view(
    views: Sequence[SourceView],  # the cache so far
    frames: Tensor,  # [t,h,w,3] uint8
    cameras: Cameras,  # of the frames
    estimate: DepthEstimator,
    options: ConditionOptions,
    watch: Watch,
) -> SourceView:
    """The last frame as a view of the scene, its depth fitted to what the cache shows from there.

    Raises NoDepthError if there is no depth that fits, CancelledError if `watch` says so.
    """
    w2c, K = cameras.w2c[-1], cameras.K[-1]
    cached = [view.cache(options.min_confidence) for view in views]
    height, width = views[0].depth.shape
    _, shown, covered = nearest_surface(cached, w2c, K, (height, width), foreground_masking=options.foreground_masking)
    depth, confidence = estimate(frames, cameras, shown, watch)
    usable = (confidence > 0) & (confidence >= options.min_confidence)
    try:
        fitted = bounded_depth(fit_depth(torch.where(usable, depth, 0.0), shown, covered, w2c, K))
    except InvalidInputError as error:
        raise NoDepthError(f"the last frame's depth does not fit the cache. {str(error).removesuffix('.')}") from error
    both = covered & (fitted > 0)
    off = float(((fitted - shown).abs() / shown)[both].median())
    if off > LARGEST_ERROR:
        raise NoDepthError(
            f"the last frame's depth does not fit the cache: it is off by {off:.0%} in the middle, {LARGEST_ERROR:.0%} "
            "are allowed"
        )
    image = frames[-1].permute(2, 0, 1).float() / 127.5 - 1
    return SourceView(image, fitted, torch.where(fitted > 0, confidence, 0.0), w2c, K)
