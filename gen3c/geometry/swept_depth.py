"""Depth of a chunk's last frame, measured: its cameras are known, so earlier frames can be swept against it.

Needs no network and no scale: depth comes out in the unit of the cameras. It does need parallax between the frames and
pictures that agree with each other, and says so where they do not.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from gen3c.cameras import unproject
from gen3c.conditioning import Cameras
from gen3c.geometry.matching import Matcher, Projection, View
from gen3c.geometry.plane_sweep import FEWEST_POINTS, FILLED, SweepOptions, sweep_views
from gen3c.geometry.smooth import enlarge
from gen3c.geometry.sparse import SparseScene
from gen3c.geometry.types import Watch
from gen3c.growth import NoDepthError

# Degrees of parallax with the last frame that companions should have, one each. Near ones see what has just come into
# the picture, far ones measure well what was there before.
ANGLES = (1.5, 3.0, 6.0, 12.0)
LEAST_ANGLE = 1.0  # degrees: some 5 px in a picture 320 px wide
LEAST_MOTION = 4.0  # px of parallax that a pixel's depth shows: matching errs by a quarter of a pixel, so 6% of depth
MATCHED = 0.4  # matching cost below which a pixel is the same in several frames: a true one's is near 0.05, noise's 0.8
LEAST_MEASURED = 0.2  # share of pixels that must be so
_GRID = 32  # points along the long side of the picture that stand for the cache


@dataclass(frozen=True)
class SweptDepth:
    """A `DepthEstimator` by plane sweeping (gen3c.geometry.plane_sweep), on a CPU."""

    options: SweepOptions = field(default_factory=SweepOptions)

    def __call__(self, frames: Tensor, cameras: Cameras, shown: Tensor, watch: Watch) -> tuple[Tensor, Tensor]:
        """Depth and confidence [h,w] of the last frame; see `DepthEstimator`.

        What the cache shows tells the range of depths to look in, with a margin, and which frames see the same things.
        """
        scene = _cache_points(cameras, shown)
        chosen = [len(frames) - 1, *_companions(scene)]
        pictures = [frames[i].permute(2, 0, 1).float() / 255 for i in chosen]
        views = [self._view(picture, scene, i) for picture, i in zip(pictures, chosen, strict=True)]
        inverse, confidence = sweep_views(views, _part(scene, chosen), watch, self.options)
        # Completed depths of several views can agree about pictures that do not: the pictures have the last word.
        cost = Matcher(views[0], views[1:], radius=3, best=self.options.best)(inverse[0][None])[0]
        sure = torch.where(_motion(views[0], views[1:], inverse[0]) >= LEAST_MOTION, confidence[0], 0.0)
        measured = float(((sure > FILLED) & (cost < MATCHED)).float().mean())
        if measured < LEAST_MEASURED:
            raise NoDepthError(
                f"its frames agree on the depth of only {measured:.0%} of the last one, {LEAST_MEASURED:.0%} are needed"
            )
        depth = 1 / enlarge(inverse[0], views[0].image, pictures[0])
        size = (int(frames.shape[1]), int(frames.shape[2]))
        return depth, F.interpolate(sure[None, None], size, mode="nearest-exact")[0, 0]

    def _view(self, picture: Tensor, scene: SparseScene, i: int) -> View:
        height, width = picture.shape[1:]
        shrink = min(1.0, self.options.long_side / max(height, width))
        size = (max(16, round(height * shrink)), max(16, round(width * shrink)))
        return View(picture, scene.w2c[i], scene.K[i]).resized(size)


def _motion(view: View, others: list[View], inverse: Tensor) -> Tensor:
    """Parallax in pixels of points at inverse depths [h,w], against infinity, [h,w].

    That in the view where it is largest; 0 where no other view shows the point.
    """
    motions = []
    for other in others:
        projection = Projection(view, other)
        u, v, z = projection(inverse[None])
        far_u, far_v, _ = projection(torch.zeros_like(inverse)[None])
        motions.append(torch.where(projection.inside(u, v, z), torch.hypot(u - far_u, v - far_v), 0.0)[0])
    return torch.stack(motions).amax(0)


def _companions(scene: SparseScene) -> list[int]:
    """Earlier views that the last one can be swept against, nearest first."""
    last = len(scene) - 1
    angles = {
        i: float(scene.ray_angles(last, i).median())
        for i in range(last)
        if (scene.seen[:, last] & scene.seen[:, i]).sum() >= FEWEST_POINTS
    }
    largest = max(angles.values(), default=0.0)
    if largest < LEAST_ANGLE:
        raise NoDepthError(
            f"the camera moved too little to measure depth: {largest:.2g} degrees of parallax between its frames, "
            f"{LEAST_ANGLE:g} are needed"
        )
    useful = [i for i in angles if angles[i] >= LEAST_ANGLE]
    nearest = (min(useful, key=lambda i: abs(angles[i] - angle)) for angle in ANGLES)
    return list(dict.fromkeys(nearest))


def _cache_points(cameras: Cameras, shown: Tensor) -> SparseScene:
    """Points of the cache as the last camera sees them, in place of a sparse reconstruction of the frames."""
    height, width = shown.shape
    w2c, K = cameras.w2c.double(), cameras.K.double()
    every = max(1, max(height, width) // _GRID)
    points = unproject(shown[None], w2c[-1:], K[-1:])[0, ::every, ::every].reshape(-1, 3)
    points = points[shown[::every, ::every].reshape(-1) > 0].double()
    if len(points) < FEWEST_POINTS:
        raise NoDepthError("the last frame shows next to nothing of the cache, so its depth has no scale")
    camera_points = torch.einsum("nij,pj->npi", w2c[:, :3, :3], points) + w2c[:, None, :3, 3]
    q = torch.einsum("nij,npj->npi", K, camera_points)
    pixels = q[..., :2] / q[..., 2:].clamp(min=1e-9)
    limit = pixels.new_tensor([width - 1, height - 1])
    inside = (q[..., 2] > 1e-6) & ((pixels >= 0) & (pixels <= limit)).all(-1)
    return SparseScene(w2c, K, points, inside.T.contiguous(), torch.zeros(len(points), dtype=torch.float64))


def _part(scene: SparseScene, views: list[int]) -> SparseScene:
    """The scene of some of its views, with all points."""
    return SparseScene(scene.w2c[views], scene.K[views], scene.points, scene.seen[:, views], scene.error)
