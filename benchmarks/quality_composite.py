"""What the views show of the target without any network: warps, and pictures composed of them pixel by pixel.

Several rankings are measured, and the best of them is what the networks are compared with.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.quality_metrics import centres
from benchmarks.quality_telea import inpaint
from gen3c.cache3d import render
from gen3c.conditioning import Cameras
from gen3c.scene import Scene
from gen3c.splat import EMPTY

SAME_SURFACE = 0.03  # relative difference of depth within which two views show the same surface
RANKINGS = {
    "surface": "nearest surface",
    "camera": "nearest camera",
    "both": "nearest camera of those with the nearest surface",
}
CLIP_RANKINGS = ("surface", "camera")  # of a real clip: the pipeline's own (gen3c.seed), and the best on worlds
BLEND = "blend"
COMPOSITES = {**RANKINGS, BLEND: "mean of those with the nearest surface, near cameras first"}


@dataclass(frozen=True)
class Warps:
    """Every view seen from every target camera."""

    image: Tensor  # [v,t,3,h,w] in [-1,1], EMPTY where nothing lands
    depth: Tensor  # [v,t,h,w], inf where nothing lands
    distance: Tensor  # [v,t] from the view's camera to the target's, in scene units

    @property
    def covered(self) -> Tensor:
        """[v,t,h,w] bool."""
        return self.depth.isfinite()


def warps(scene: Scene, cameras: Cameras, min_confidence: float, device: torch.device) -> Warps:
    """As the conditioner renders them."""
    w2c, K = cameras.w2c.to(device), cameras.K.to(device)
    images, depths = [], []
    for view in scene.views:
        warp = render(view.to(device).cache(min_confidence), w2c, K, scene.size)
        images.append(warp.image)
        depths.append(torch.where(warp.coverage > 0, warp.depth, torch.inf)[:, 0])
    poses = torch.cat((torch.stack([view.w2c for view in scene.views]), cameras.w2c.cpu()))
    at = centres(poses)
    distance = torch.cdist(at[: len(scene.views)], at[len(scene.views) :]).float().to(device)
    return Warps(torch.stack(images), torch.stack(depths), distance)


def composites(warped: Warps) -> tuple[dict[str, Tensor], Tensor]:
    """Pictures [t,3,h,w] in [-1,1] by the names of COMPOSITES, holes EMPTY, and where they have none, [t,h,w] bool."""
    covered = warped.covered
    front = warped.depth.amin(0)
    shown = covered & (warped.depth <= front * (1 + SAME_SURFACE))
    far = warped.distance[:, :, None, None]
    keys = {
        "surface": warped.depth,
        "camera": torch.where(covered, far, torch.inf),
        "both": torch.where(shown, far, torch.inf),
    }
    pictures = {name: _taken(warped.image, key.argmin(0)) for name, key in keys.items()}  # on a tie the earlier view
    weight = shown / (far.square() + 1e-3)
    mean = (warped.image * weight[:, :, None]).sum(0) / weight.sum(0).clamp(min=1e-12)[:, None]
    some = covered.any(0)
    pictures[BLEND] = torch.where(some[:, None], mean, EMPTY)
    return pictures, some


def filled(pictures: dict[str, Tensor], covered: Tensor) -> dict[str, Tensor]:
    """The pictures [t,3,h,w] with their common holes inpainted, covered [t,h,w] bool."""
    parts = inpaint(torch.cat(list(pictures.values()), dim=1), covered)
    return {name: parts[:, 3 * i : 3 * i + 3] for i, name in enumerate(pictures)}


def _taken(images: Tensor, view: Tensor) -> Tensor:
    """Of images [v,t,3,h,w] the view [t,h,w] of every pixel, [t,3,h,w]."""
    index = view[None, :, None].expand(1, -1, 3, -1, -1)
    return images.gather(0, index)[0]
