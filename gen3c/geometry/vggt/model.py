"""VGGT for inference: pictures to cameras, depth and, if asked, points; without the released network's tracker.

`Vggt` has the released state dict, less the tracker's part. `VggtProgram` is what is served and exported: one scene,
bytes in, without the point head, since depth and cameras give better points (the authors' advice).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gen3c.errors import InvalidInputError
from gen3c.geometry.vggt.aggregator import Aggregator
from gen3c.geometry.vggt.camera_head import CameraHead
from gen3c.geometry.vggt.dense_head import DenseHead, depth_of, points_of
from gen3c.presets import VggtConfig

FRAMES_AT_ONCE = 4  # of the dense heads, whose maps take 0.35 GB a frame at full size; fewer cost time


@dataclass(frozen=True)
class Prediction:
    """What VGGT says of the frames of b scenes."""

    pose: Tensor  # [b,s,9] encoding (gen3c.geometry.vggt.pose)
    depth: Tensor  # [b,s,h,w] z-depth > 0, in an arbitrary unit
    depth_confidence: Tensor  # [b,s,h,w] > 1; 1 is none at all
    points: Tensor | None  # [b,s,h,w,3] in the frame of camera 0
    points_confidence: Tensor | None  # [b,s,h,w] > 1


class Vggt(nn.Module):
    """The network. `points=False` leaves out the point head."""

    def __init__(self, config: VggtConfig, *, points: bool = True) -> None:
        super().__init__()
        self.config = config
        width = 2 * config.width
        self.aggregator = Aggregator(config)
        self.camera_head = CameraHead(width, config.camera_depth, config.camera_heads, config.mlp_ratio)
        self.depth_head = DenseHead(width, config.features, config.out_channels, 2, config.patch)
        self.point_head = DenseHead(width, config.features, config.out_channels, 4, config.patch) if points else None

    def forward(self, images: Tensor, frames_at_once: int | None = FRAMES_AT_ONCE) -> Prediction:
        """Images [b,s,3,h,w] in [0,1], sides multiples of the patch; frame 0 of each scene is its world.

        The dense heads take `frames_at_once` frames a time, None for all: results agree to rounding.
        """
        b, s, _, height, width = images.shape
        levels = self.aggregator(images)
        pose = self.camera_head(levels[-1])[-1]
        flat = [tokens.flatten(0, 1) for tokens in levels]
        logits = self._dense(self.depth_head, flat, (height, width), frames_at_once)
        depth, confidence = (x.reshape(b, s, *x.shape[1:]) for x in depth_of(logits))
        if self.point_head is None:
            return Prediction(pose, depth, confidence, None, None)
        logits = self._dense(self.point_head, flat, (height, width), frames_at_once)
        points, points_confidence = (x.reshape(b, s, *x.shape[1:]) for x in points_of(logits))
        return Prediction(pose, depth, confidence, points, points_confidence)

    def _dense(self, head: DenseHead, levels: list[Tensor], size: tuple[int, int], at_once: int | None) -> Tensor:
        special = self.config.special_tokens
        if at_once is None:  # no loop over a number of frames, which an exported network would fix
            return head(levels, size, special)  # type: ignore[no-any-return]
        n = levels[0].shape[0]
        parts = [head([x[i : i + at_once] for x in levels], size, special) for i in range(0, n, at_once)]
        return torch.cat(parts)

    def narrow(self, dtype: torch.dtype) -> "Vggt":
        """Make the aggregator's linear layers and convolution `dtype`, in place; the rest stays float32.

        That is the arithmetic of the released network under autocast, whose heads run in float32.
        """
        for module in self.aggregator.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.to(dtype)
        return self


class VggtProgram(nn.Module):
    """The program `vggt` (gen3c.geometry.vggt.signature)."""

    def __init__(self, vggt: Vggt, frames_at_once: int | None = FRAMES_AT_ONCE) -> None:
        super().__init__()
        self.vggt = vggt
        self.frames_at_once = frames_at_once

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images [s,h,w,3] uint8 -> pose [s,9], depth [s,h,w], confidence [s,h,w] > 1; all float32.

        Raises InvalidInputError unless the sides are multiples of the patch.
        """
        (height, width), patch = images.shape[1:3], self.vggt.config.patch
        if height % patch or width % patch:
            raise InvalidInputError(f"IMAGES are {width}x{height} px; legal: sides that are multiples of {patch}.")
        pictures = images.float().permute(0, 3, 1, 2) / 255  # in this order: TensorRT transposes no bytes
        prediction = self.vggt(pictures[None], self.frames_at_once)
        return prediction.pose[0], prediction.depth[0], prediction.depth_confidence[0]
