"""The 4-D cache: a clip whose every frame has depth and a camera, for the re-rendering of moving scenes.

Frame i of the output shows frame start + i of the clip, so that what moves moves along. A still scene is a clip of one
frame, shown at all times.
"""

from dataclasses import dataclass

from torch import Tensor

from gen3c.cache3d import RELIABILITY_THRESHOLD, UPSTREAM_CALL, CachedView, bounded_depth, cache_view, render_each
from gen3c.errors import InvalidInputError
from gen3c.splat import Warp


@dataclass(frozen=True)
class Cache4D:
    """The points of f moments. Each frame keeps its own boundary, so a part of the clip can be masked as well."""

    frames: tuple[CachedView, ...]
    reference: bool = False  # splat weights that depend on the call, as in the released GEN3C

    @classmethod
    def build(
        cls,
        images: Tensor,  # [f,3,h,w] in [-1,1]
        depths: Tensor,  # [f,h,w] z-depth, 0 = unknown
        masks: Tensor,  # [f,h,w] 0 or 1: pixels to be used
        w2c: Tensor,  # [f,4,4]
        K: Tensor,  # [f,3,3]
        *,
        reliability: float | None = RELIABILITY_THRESHOLD,
        reference: bool = False,
    ) -> "Cache4D":
        """Unproject every frame with its own camera (cache3d.cache_view)."""
        depths = bounded_depth(depths, reference=reference)
        views = (
            cache_view(
                images[i], depths[i], masks[i].float(), w2c[i], K[i], reliability=reliability, reference=reference
            )
            for i in range(len(images))
        )
        return cls(tuple(views), reference)

    def __len__(self) -> int:
        return len(self.frames)

    def render(
        self,
        w2c: Tensor,  # [t,4,4] target cameras
        K: Tensor,  # [t,3,3]
        start: int = 0,
        *,
        foreground_masking: bool = False,
    ) -> Warp:
        """Target i shows cached frame start + i: t pictures of the clip's size.

        Raises InvalidInputError for frames outside the clip, unless it has one frame only, which is shown at all times.
        """
        height, width = self.frames[0].known.shape
        return render_each(
            self._moments(start, len(w2c)),
            w2c,
            K,
            (height, width),
            foreground_masking=foreground_masking,
            call_size=UPSTREAM_CALL if self.reference else None,
        )

    def _moments(self, start: int, count: int) -> tuple[CachedView, ...]:
        if len(self) == 1:
            return self.frames * count
        if start < 0 or start + count > len(self):
            raise InvalidInputError(
                f"Frames {start} to {start + count - 1} of a cached clip of {len(self)} frames were asked for; legal: "
                f"0 to {len(self) - 1}, or a cache of one frame.",
                "start",
            )
        return self.frames[start : start + count]
