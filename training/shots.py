"""Cameras in procedural worlds: eight views to see a scene by, and a camera path to show it along.

The distribution, for each scene; lengths in units of the reference view's centre depth (its median depth):
- horizontal field of view 50 to 70 degrees, square pixels, principal point in the middle;
- view 0 looks at the middle of the scene from where the kind of scene lets cameras stand (training.places): the freest
  of four draws;
- the target path starts at view 0 and is one of GEN3C's, shares and distances in PATHS; half of them face the centre,
  the others keep the direction of view 0;
- views 1 to 7 stand beside cameras of the path's beginning (ALONG), at most 0.4 away, mostly sideways, less so up and
  down, forward and back. They look at the point one unit ahead of that camera, off by up to 3 degrees each way, rolled
  by up to 2.5;
- no camera stands in a solid or has one right before its lens (`_clearance`): of four paths the first is taken for
  which that holds, or else of the same four a bit shorter, down to a half; views are pulled towards the path. Where
  nothing helps, the freest is taken. So paths down are rarer than their share, for there is ground.

Of 32 scenes (seeds from 2000), every fourth frame, at 24x40: on the median 49 % of the target's pixels show what view 0
does not see, and 14 % what none of the eight sees (quartiles 7 % and 20 %; of the test worlds 21 %). Views stand 0.30
from view 0 (quartiles 0.20 and 0.42) and are turned against it by 10 degrees (7 and 15).
"""

import bisect
import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gen3c.cameras import PathKind, RotationMode, camera_path, to_camera, unproject
from training.scenes import Worlds, look_at_all, render_depth

TEST_SEEDS = range(0, 64)
VALIDATION_SEEDS = range(1000, 1064)
FIRST_TRAINING_SEED = 1_000_000  # training only ever uses seeds from here on

VIEWS, FRAMES = 8, 25
CHECK = (18, 30)  # h, w of the depth that shows whether a camera can stand somewhere
DRAWS = 74  # numbers that the cameras of a scene may draw
TRIES = 4  # places that are drawn for view 0
PLANS = 4  # target paths that are drawn, of which one is taken
SHORTER = (1.0, 0.75, 0.5)  # factors that are tried on paths that would have a camera in a solid
PULLED = (1.0, 0.75, 0.5, 0.25)  # the same for views
NEAR, FAR = 0.1, 0.35  # how far views 1 to 7 stand beside a camera of the path sideways, in units
ALONG = 0.36  # the last place on the path for a view, as a share of its frames
# Of each kind: its share of all paths, least and most distance.
PATHS: dict[PathKind, tuple[float, float, float]] = {
    "left": (0.19, 1.1, 2.1),
    "right": (0.19, 1.1, 2.1),
    "up": (0.12, 0.9, 1.8),
    "down": (0.11, 0.7, 1.6),
    "zoom_in": (0.03, 0.3, 0.7),
    "zoom_out": (0.12, 1.0, 1.7),
    "clockwise": (0.12, 0.4, 0.7),
    "counterclockwise": (0.12, 0.4, 0.7),
}
FACING = 0.5  # share of the paths that face the centre
STREAM = 0x5EED  # keeps the numbers of the cameras apart from those of the scene of the same seed


@dataclass(frozen=True)
class Shots:
    """Cameras of b worlds."""

    K: Tensor  # [b,3,3] in pixels
    views: Tensor  # [b,8,4,4] w2c in metres; view 0 is the reference
    targets: Tensor  # [b,25,4,4] w2c in metres; the first is view 0
    unit: Tensor  # [b] metres, view 0's centre depth
    paths: tuple[str, ...]  # kind and distance of each target path, such as "left 0.45"


def draw_shots(worlds: Worlds, seeds: Sequence[int], size: tuple[int, int] = (192, 320)) -> Shots:
    """The cameras that seeds give in their worlds, for pictures of `size` h, w."""
    streams = [torch.Generator().manual_seed(seed ^ (STREAM << 40)) for seed in seeds]
    numbers = torch.stack([torch.rand(DRAWS, generator=stream) for stream in streams])
    u = numbers.to(worlds.device)
    K = _intrinsics(50 + 20 * u[:, 0], size)
    low_K = _intrinsics(50 + 20 * u[:, 0], CHECK)
    first, unit = _reference(worlds, u[:, 1:13].unflatten(1, (TRIES, 3)), low_K)
    targets, paths = _targets(worlds, first, unit, low_K, numbers[:, 62:74].unflatten(1, (PLANS, 3)))
    views = _around(worlds, targets, unit, low_K, u[:, 13:62].unflatten(1, (VIEWS - 1, 7)))
    return Shots(K, views, targets, unit, paths)


def _intrinsics(degrees: Tensor, size: tuple[int, int]) -> Tensor:
    """K [b,3,3] of horizontal fields of view [b]."""
    h, w = size
    K = torch.zeros(len(degrees), 3, 3, device=degrees.device)
    K[:, 0, 0] = K[:, 1, 1] = w / 2 / (degrees * (math.pi / 360)).tan()
    K[:, 0, 2], K[:, 1, 2], K[:, 2, 2] = (w - 1) / 2, (h - 1) / 2, 1
    return K


def _reference(worlds: Worlds, u: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
    """View 0 [b,4,4] and its centre depth [b]: the best of several places, u [b,tries,3]."""
    place = worlds.place
    ranges = torch.stack([place.distance, place.azimuth, place.elevation], 1)[:, None]  # [b,1,3,2]
    distance, azimuth, elevation = (ranges[..., 0] + (ranges[..., 1] - ranges[..., 0]) * u).unbind(-1)
    flat = elevation.cos()
    toward = torch.stack([flat * azimuth.cos(), flat * azimuth.sin(), elevation.sin()], -1)
    focus = place.focus[:, None]
    eye = (focus + distance[..., None] * toward).clamp(place.low[:, None], place.high[:, None])
    w2c = look_at_all(eye.double(), focus.expand_as(eye).double()).float()
    free = _clearance(worlds, w2c, K, (focus - eye).norm(dim=-1))
    best = free.argmax(1)
    rows = torch.arange(len(best), device=best.device)
    first = w2c[rows, best]
    depth = render_depth(worlds, first[:, None], K, CHECK)
    return first, depth.flatten(1).median(1).values


def _clearance(worlds: Worlds, w2c: Tensor, K: Tensor, unit: Tensor) -> Tensor:
    """How freely cameras [b,f] stand: 1 and more is good, 0 within a solid. `unit` [b] or [b,f] metres.

    Good is outside of all solids with 98 % of the picture farther than 0.2 units and the median beyond 0.4.
    """
    depth = render_depth(worlds, w2c, K, CHECK).flatten(2).sort(-1).values
    unit = unit.view(len(unit), -1)
    pixels = depth.shape[-1]
    near, middle = depth[..., pixels // 50] / (0.2 * unit), depth[..., pixels // 2] / (0.4 * unit)
    return torch.minimum(near, middle) * _outside(worlds, w2c)


def _outside(worlds: Worlds, w2c: Tensor) -> Tensor:
    """Which cameras [b,f] stand outside of all solids."""
    R, shift = w2c[..., :3, :3], w2c[..., :3, 3]
    return ~worlds.solids.contain(-(R * shift[..., None]).sum(-2)).any(-1)


def _compose(second: Tensor, first: Tensor) -> Tensor:
    """Product of poses [...,4,4], in float32 whatever precision matrix products are set to."""
    return (second[..., None] * first[..., None, :, :]).sum(-2)


def _around(worlds: Worlds, targets: Tensor, unit: Tensor, K: Tensor, u: Tensor) -> Tensor:
    """View 0, which is the first of targets [b,25,4,4], and seven beside cameras of the path, [b,8,4,4]; u [b,7,7]."""
    signed = 2 * u - 1
    frame = (ALONG * u[..., 6] * (FRAMES - 1)).round().long()  # [b,7]
    beside = targets.gather(1, frame[..., None, None].expand(-1, -1, 4, 4))
    turn = 2 * math.pi * u[..., 0]
    far = NEAR + (FAR - NEAR) * u[..., 1]
    offset = torch.stack([turn.cos(), -0.6 * turn.sin(), 0.5 * signed[..., 2]], -1) * far[..., None]  # [b,7,3]
    aim = torch.stack([0.05 * signed[..., 3], 0.05 * signed[..., 4], torch.ones_like(far)], -1)
    roll = math.radians(2.5) * signed[..., 5]
    stretch = torch.tensor(PULLED, device=u.device)[:, None, None]  # [s,1,1]
    # Candidates [b,s,7]: every view at each of the shorter offsets.
    relative = _facing(stretch * offset[:, None], aim[:, None], roll[:, None])
    relative[..., :3, 3] *= unit[:, None, None, None]
    w2c = _compose(relative, beside[:, None])
    free = _clearance(worlds, w2c.flatten(1, 2), K, unit).unflatten(1, w2c.shape[1:3])
    chosen = _first_good(free)[:, None, :, None, None].expand(-1, 1, -1, 4, 4)
    return torch.cat([targets[:, :1], w2c.gather(1, chosen)[:, 0]], 1)


def _first_good(free: Tensor) -> Tensor:
    """Of candidates as `free` [b,s,n], the index of the first good one of each n, or else of the freest, of equals the
    last, which is the shortest: [b,n]."""
    last = free.shape[1] - 1
    order = torch.arange(free.shape[1], device=free.device)[:, None]
    first = torch.where(free >= 1, order, last + 1).amin(1)
    return torch.where(first <= last, first, last - free.flip(1).argmax(1))


def _facing(position: Tensor, target: Tensor, roll: Tensor) -> Tensor:
    """Poses [...,4,4] in a camera's frame at positions [...,3] that look at targets [...,3], rolled by radians."""
    forward = torch.nn.functional.normalize(target - position, dim=-1)
    down = torch.stack([roll.sin(), roll.cos(), torch.zeros_like(roll)], -1).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(down, forward), dim=-1)
    R = torch.stack([right, torch.linalg.cross(forward, right), forward], -2)
    pose = torch.eye(4, device=R.device).repeat(*R.shape[:-2], 1, 1)
    pose[..., :3, :3] = R
    pose[..., :3, 3] = -(R * position[..., None, :]).sum(-1)
    return pose


def _targets(worlds: Worlds, first: Tensor, unit: Tensor, K: Tensor, u: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """Target paths [b,25,4,4] from view 0 [b,4,4], and their names; u [b,PLANS,3] on the CPU."""
    plans = [[_plan(*row) for row in scene] for scene in u.tolist()]
    # Candidates: all plans at their full length, then all a bit shorter, and so on.
    candidates = [[(plan, shorter) for shorter in SHORTER for plan in scene] for scene in plans]
    steps = torch.stack([torch.stack([_relative(*plan, shorter) for plan, shorter in scene]) for scene in candidates])
    steps = steps.to(first.device)  # [b,s,25,4,4]
    steps[..., :3, 3] *= unit[:, None, None, None]
    w2c = _compose(steps, first[:, None, None])
    outside = _outside(worlds, w2c.flatten(1, 2)).unflatten(1, w2c.shape[1:3])  # [b,s,25]
    some = w2c[:, :, 4::4]  # [b,s,6,4,4]: every fourth frame tells
    free = _clearance(worlds, some.flatten(1, 2), K, unit).unflatten(1, some.shape[1:3])
    chosen = _first_good((free.amin(2) * outside.all(2))[..., None])[:, 0]
    rows = torch.arange(len(chosen), device=chosen.device)
    names = []
    for scene, i in zip(candidates, chosen.tolist(), strict=True):
        (kind, _, distance), shorter = scene[i]
        names.append(f"{kind} {round(distance * shorter, 3):g}")
    targets = w2c[rows, chosen]
    targets[:, 0] = first
    return targets, tuple(names)


def _plan(a: float, b: float, c: float) -> tuple[PathKind, RotationMode, float]:
    """Path, rotation and distance from three numbers in [0,1)."""
    bounds = list(itertools.accumulate(share for share, _, _ in PATHS.values()))
    kind = list(PATHS)[min(bisect.bisect_right(bounds, a), len(PATHS) - 1)]
    _, low, high = PATHS[kind]
    return kind, "center_facing" if c < FACING else "no_rotation", round(low + (high - low) * b, 2)


@functools.cache
def _relative(kind: PathKind, rotation: RotationMode, distance: float, shorter: float) -> Tensor:
    """The path [25,4,4] from the identity, in units of the centre depth."""
    return camera_path(kind, FRAMES, torch.eye(4), rotation=rotation, distance=distance * shorter)


@torch.no_grad()
def seen(
    depth: Tensor,  # [b,f,h,w] metres, of target pictures
    w2c: Tensor,  # [b,f,4,4]
    K: Tensor,  # [b,3,3], of targets and views
    view_depth: Tensor,  # [b,v,h,w]
    view_w2c: Tensor,  # [b,v,4,4]
    tolerance: float = 0.02,
) -> Tensor:
    """Which surface points of target pixels each view sees, bool [b,f,v,h,w].

    A point is seen where it falls in the view's raster and its depth there is within the range of the four pixels
    around it, give or take `tolerance` of it.
    """
    b, f, h, w = depth.shape
    points = unproject(depth.flatten(0, 1), w2c.flatten(0, 1), K.repeat_interleave(f, 0)).view(b, -1, 3)  # [b,fhw,3]
    found = []
    for v in range(view_w2c.shape[1]):
        x, y, z = to_camera(points, view_w2c[:, v]).unbind(-1)
        front = z > 1e-6
        px = x / z * K[:, 0, 0, None] + K[:, 0, 2, None]
        py = y / z * K[:, 1, 1, None] + K[:, 1, 2, None]
        inside = front & (px >= -0.5) & (px <= w - 0.5) & (py >= -0.5) & (py <= h - 0.5)
        left, top = px.nan_to_num().floor().clamp(-1, w).long(), py.nan_to_num().floor().clamp(-1, h).long()
        corners = torch.stack(
            [
                view_depth[:, v].flatten(1).gather(1, (top + i).clamp(0, h - 1) * w + (left + j).clamp(0, w - 1))
                for i in (0, 1)
                for j in (0, 1)
            ]
        )
        found.append(inside & (z <= corners.amax(0) * (1 + tolerance)) & (z >= corners.amin(0) * (1 - tolerance)))
    return torch.stack(found, 1).view(b, view_w2c.shape[1], f, h, w).transpose(1, 2)
