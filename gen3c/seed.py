"""The picture that a video starts from."""

import torch
from torch import Tensor

from gen3c.cache3d import nearest_surface
from gen3c.conditioning import Cameras
from gen3c.holes import fill_holes
from gen3c.scene import Scene

SAME_POSE = 1e-3  # of the 4x4 matrices, in radians and centre depths


def seed_frame(scene: Scene, cameras: Cameras, min_confidence: float) -> tuple[Tensor, str | None]:
    """The picture [1,3,h,w] in [-1,1] at the first camera, and a sentence for the user if it is no photo.

    The network holds the first frame to this picture. Where the path starts at a source view, that is its photo;
    elsewhere it is what the cache shows there, its holes closed from their surroundings.
    """
    w2c, K = cameras.w2c[0], cameras.K[0]
    for view in scene.views:
        if float((view.w2c - w2c).abs().max()) < SAME_POSE and torch.allclose(view.K, K, rtol=SAME_POSE):
            return view.image[None], None
    image, covered = composite(scene, w2c, K, min_confidence)
    share = float(covered.float().mean())
    if share == 0:
        return torch.zeros(1, 3, *scene.size), "the first camera of the path sees nothing of the scene."
    note = f"the path starts at no source view: its first frame is a rendering of them ({share:.0%} covered)."
    return fill_holes(image, covered), note


def composite(scene: Scene, w2c: Tensor, K: Tensor, min_confidence: float) -> tuple[Tensor, Tensor]:
    """All views seen from one camera: per pixel the nearest surface of any, [1,3,h,w], and where there is one."""
    image, _, covered = nearest_surface((view.cache(min_confidence) for view in scene.views), w2c, K, scene.size)
    return image[None], covered[None, None]
