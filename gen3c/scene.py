"""From geometry in a provider's own frame to views on the output raster, in the frame and unit of camera paths."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from gen3c.cache3d import CachedView, bounded_depth, cache_view, center_depth
from gen3c.errors import InvalidInputError
from gen3c.fit import FitMode, fit_view
from gen3c.geometry.types import Frames, Geometry

ScaleMode = Literal["center_depth", "reference"]


@dataclass(frozen=True)
class SourceView:
    """One view on the output raster. View 0's camera is the identity; lengths are in the scene's unit."""

    image: Tensor  # [3,h,w] float in [-1,1]; outside the picture (fit "pad"), colours of its rim
    depth: Tensor  # [h,w] z-depth, 0 = unknown
    confidence: Tensor  # [h,w] in [0,1]
    w2c: Tensor  # [4,4]
    K: Tensor  # [3,3] px

    def to(self, device: torch.device) -> "SourceView":
        """The same view on another device."""
        return SourceView(
            *(tensor.to(device) for tensor in (self.image, self.depth, self.confidence, self.w2c, self.K))
        )

    def cache(self, min_confidence: float) -> CachedView:
        """The view's points (gen3c.cache3d)."""
        return cache_view(self.image, self.depth, self.confidence, self.w2c, self.K, min_confidence=min_confidence)


@dataclass(frozen=True)
class Scene:
    """All views of a job."""

    views: tuple[SourceView, ...]
    unit: float  # of lengths, in the provider's unit: view 0's centre depth, or 1
    origin_w2c: Tensor  # [4,4] view 0 in the provider's frame and unit

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the output raster."""
        height, width = self.views[0].depth.shape
        return height, width

    def from_world(self, w2c: Tensor) -> Tensor:
        """Cameras [n,4,4] given in the provider's frame and unit, in the scene's."""
        relative: Tensor = w2c.double() @ torch.linalg.inv(self.origin_w2c.double())
        relative[:, :3, 3] /= self.unit
        return relative.float()


def build_scene(
    frames: Frames, geometry: Geometry, size: tuple[int, int], fit: FitMode, scale: ScaleMode = "center_depth"
) -> Scene:
    """Fit every view to the raster of `size` (height, width) and normalise frame and unit.

    The unit of `center_depth` is view 0's centre depth, so that a path means the same in every scene. GEN3C takes its
    depth model's as it comes and puts the centre at depth 1 for all paths: that is `reference`.

    Raises InvalidInputError if view 0 has no depth (`center_depth`), or for an unknown fit or scale.
    """
    unit = _unit(geometry, scale)
    scene = Scene((), unit, geometry.w2c[0])
    poses = scene.from_world(geometry.w2c)
    views = []
    for i in range(len(frames)):
        pixels = frames.frame(i)
        height, width = pixels.shape[:2]
        fitted = fit_view(
            pixels,
            geometry.depth[i, :height, :width],
            geometry.confidence[i, :height, :width],
            geometry.K[i],
            size,
            fit,
        )
        depth = bounded_depth(fitted.depth / unit)
        views.append(SourceView(fitted.image, depth, fitted.confidence, poses[i], fitted.K))
    return Scene(tuple(views), unit, geometry.w2c[0])


def _unit(geometry: Geometry, scale: ScaleMode) -> float:
    match scale:
        case "center_depth":
            return center_depth(geometry.depth[0], geometry.confidence[0])
        case "reference":
            return 1.0
        case _:
            raise InvalidInputError(
                f"scale is {scale!r}; legal: {', '.join(get_args(ScaleMode))}.", field="spec.geometry.scale"
            )


def point_cloud(scene: Scene, min_confidence: float) -> tuple[Tensor, Tensor]:
    """All points that the cache renders: positions [n,3] in the scene's frame and colours [n,3] uint8."""
    points, colors = [], []
    for view in scene.views:
        cached = view.cache(min_confidence)
        points.append(cached.points[cached.mask[0]])
        rgb = ((cached.image.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        colors.append(rgb[cached.mask[0]])
    return torch.cat(points), torch.cat(colors)
