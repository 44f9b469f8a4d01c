"""What every source of geometry gives, and what it may ask while it works."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gen3c.errors import CancelledError


@dataclass(frozen=True)
class Geometry:
    """Depth and cameras of n views, in the providers' own world frame and unit.

    Cameras are OpenCV (x right, y down, z forward); pixel centres are integers.
    """

    depth: Tensor  # [n,h,w] float32, z-depth, > 0 where known, 0 where unknown
    confidence: Tensor  # [n,h,w] float32 in [0,1]; 0 = not to be used
    w2c: Tensor  # [n,4,4] float32, world to camera
    K: Tensor  # [n,3,3] float32, pixels of the [h,w] raster
    info: dict[str, object] = field(default_factory=dict)  # provider, quality figures, for the user (JSON types)
    warnings: tuple[str, ...] = ()  # sentences for the user
    notes: tuple[str, ...] = ()  # sentences that are no warnings, such as which provider was taken

    def __len__(self) -> int:
        return self.depth.shape[0]


@dataclass(frozen=True)
class Frames:
    """n pictures of mixed sizes on one canvas, each in the top left corner."""

    pixels: Tensor  # [n,h,w,3] uint8 RGB; outside a frame's size: 0
    sizes: Tensor  # [n,2] int32, height and width of each frame
    names: tuple[str, ...]  # for messages: "photo.jpg", "clip.mp4#40"

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def frame(self, i: int) -> Tensor:
        """The pixels of frame i alone, [h_i,w_i,3] uint8."""
        height, width = (int(v) for v in self.sizes[i])
        return self.pixels[i, :height, :width]


@dataclass(frozen=True)
class Watch:
    """How a long computation reports progress and learns that it should stop."""

    is_cancelled: Callable[[], bool] = lambda: False
    on_progress: Callable[[str, int, int], None] = lambda stage, step, total: None  # noqa: ARG005

    def step(self, stage: str, step: int, total: int) -> None:
        """Report `step` of `total` done; raises CancelledError if the work should stop."""
        if self.is_cancelled():
            raise CancelledError(f"cancelled during {stage}")
        self.on_progress(stage, step, total)


def empty_like_frames(frames: Frames) -> tuple[Tensor, Tensor]:
    """Zero depth and confidence on the canvas of `frames`, both [n,h,w] float32."""
    n, h, w = frames.pixels.shape[:3]
    return torch.zeros(n, h, w), torch.zeros(n, h, w)
