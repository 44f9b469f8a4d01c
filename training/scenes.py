"""An endless procedural world with exact depth: seed -> Scene -> render(camera) -> picture and depth.

The world is z-up and in metres; cameras are OpenCV (x right, y down, z forward), pixel centres are integers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.solids import MISS, Solid, Vec3
from training.textures import Noise, albedo

TILE = 64  # px, side of the squares that are drawn at a time: most solids miss most squares


@dataclass(frozen=True)
class Scene:
    """Static solids under a sun and a sky."""

    solids: tuple[Solid, ...]
    seed: int
    sun: Vec3 = (-0.55, -0.5, 0.67)  # towards the sun, unit length


@dataclass(frozen=True)
class View:
    """What a camera sees."""

    rgb: Tensor  # [h,w,3] uint8, sRGB
    depth: Tensor  # [h,w] float32 m, z-depth at the pixel centres, 0 where there is only sky


def look_at(eye: Sequence[float], target: Sequence[float]) -> Tensor:
    """OpenCV world-to-camera [4,4] of an upright camera at `eye` that looks at `target`."""
    position = torch.tensor(eye, dtype=torch.float64)
    forward = torch.tensor(target, dtype=torch.float64) - position
    forward = forward / forward.norm()
    right = torch.linalg.cross(forward, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    right = right / right.norm()
    w2c = torch.eye(4, dtype=torch.float64)
    w2c[:3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward])
    w2c[:3, 3] = -w2c[:3, :3] @ position
    return w2c.float()


def render(scene: Scene, w2c: Tensor, K: Tensor, size: tuple[int, int], *, samples: int = 2) -> View:
    """The scene in one camera.

    Args:
        scene: what to draw.
        w2c: [4,4] world to camera.
        K: [3,3] in pixels of the [h,w] raster.
        size: height and width of the picture.
        samples: rays per pixel and axis, against aliasing.
    """
    h, w = size
    noise = Noise(scene.seed)
    pixel = 1 / (float(K[0, 0]) * samples)
    light, depth = torch.empty(h, w, 3), torch.empty(h, w)
    for top in range(0, h, TILE):
        for left in range(0, w, TILE):
            rows, columns = slice(top, min(top + TILE, h)), slice(left, min(left + TILE, w))
            shape = (rows.stop - top, columns.stop - left)
            origin, rays = _camera_rays(w2c, K, rows, columns, samples)
            solids = _in_sight(scene.solids, origin, rays)
            colors = _shade(scene, solids, origin, rays, pixel, noise)
            light[rows, columns] = colors.view(shape[0], samples, shape[1], samples, 3).mean((1, 3))
            origin, rays = _camera_rays(w2c, K, rows, columns, 1)
            depth[rows, columns] = _nearest(solids, origin, rays)[0].view(shape)
    return View(rgb=_to_srgb(light), depth=torch.where(depth.isinf(), 0.0, depth))


def _camera_rays(w2c: Tensor, K: Tensor, rows: slice, columns: slice, samples: int) -> tuple[Tensor, Tensor]:
    """Camera centre [1,3] and ray directions [n,3] in the world, of z-length 1: the ray parameter is depth."""
    inside = (torch.arange(samples) + 0.5) / samples - 0.5
    x = (torch.arange(columns.start, columns.stop)[:, None] + inside).flatten()
    y = (torch.arange(rows.start, rows.stop)[:, None] + inside).flatten()
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    camera = torch.stack([(grid_x - K[0, 2]) / K[0, 0], (grid_y - K[1, 2]) / K[1, 1], torch.ones_like(grid_x)], -1)
    return -(w2c[:3, 3] @ w2c[:3, :3])[None], camera.view(-1, 3) @ w2c[:3, :3]


def _in_sight(solids: Sequence[Solid], origin: Tensor, rays: Tensor) -> list[Solid]:
    """The solids whose bounding sphere meets the cone around rays [n,3] from origin [1,3]."""
    unit = rays / rays.norm(dim=1, keepdim=True)
    axis = unit.mean(0) / unit.mean(0).norm()
    opening = float((unit @ axis).min().clamp(-1, 1).acos())
    found = []
    for solid in solids:
        center, radius = solid.bound
        toward = center - origin[0]
        distance = float(toward.norm())
        angle = math.acos(max(-1.0, min(1.0, float(toward @ axis) / max(distance, 1e-9))))
        if distance <= radius or angle <= opening + math.asin(radius / distance):
            found.append(solid)
    return found


def _in_shadow_path(solids: Sequence[Solid], points: Tensor, sun: Tensor) -> list[Solid]:
    """The solids whose bounding sphere can stand between points [n,3] and the sun."""
    center = (points.amin(0) + points.amax(0)) / 2
    reach = float((points - center).norm(dim=1).max())
    found = []
    for solid in solids:
        middle, radius = solid.bound
        toward = middle - center
        along = float(toward @ sun)
        aside = math.sqrt(max(float(toward @ toward) - along * along, 0.0))
        if aside <= reach + radius and along >= -(reach + radius):
            found.append(solid)
    return found


def _nearest(solids: Sequence[Solid], origins: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    """Ray parameter of the first hit [n], inf for none, and the index of the solid [n]."""
    nearest = torch.full((len(rays),), MISS)
    index = torch.full((len(rays),), -1)
    for i, solid in enumerate(solids):
        t = solid.intersect(origins, rays)
        closer = t < nearest
        nearest = torch.where(closer, t, nearest)
        index[closer] = i
    return nearest, index


def _shade(scene: Scene, solids: Sequence[Solid], origin: Tensor, rays: Tensor, pixel: float, noise: Noise) -> Tensor:
    """Linear light [n,3] along rays [n,3] that meet `solids`; `pixel` is the width of a pixel at unit distance."""
    t, index = _nearest(solids, origin, rays)
    light = _sky(rays, noise)
    for i in sorted(set(index.tolist())):
        if i < 0:
            continue
        hit = (index == i).nonzero().squeeze(1)
        points = origin + t[hit, None] * rays[hit]
        normal, uv = solids[i].surface(points)
        toward = -rays[hit] / rays[hit].norm(dim=1, keepdim=True)
        slant = (normal * toward).sum(1).abs().clamp_min(0.1).sqrt()
        color = albedo(solids[i].material, uv, t[hit] * pixel / slant, noise)
        lit = color * _irradiance(scene, points, normal)
        haze = (1 - torch.exp(-t[hit] / 160))[:, None]
        light[hit] = torch.lerp(lit, torch.tensor([0.55, 0.66, 0.78]).expand_as(lit), haze)
    return light


def _irradiance(scene: Scene, points: Tensor, normal: Tensor) -> Tensor:
    """Light that falls on points [n,3]: sun with hard shadows, sky from above, warm bounce from below."""
    sun = torch.tensor(scene.sun)
    facing = (normal @ sun).clamp_min(0)
    lit = (facing > 0).nonzero().squeeze(1)
    start = points[lit] + 2e-3 * normal[lit]
    toward_sun = sun.expand(len(lit), 3)
    if len(lit):
        shaded = torch.zeros(len(lit), dtype=torch.bool)
        for solid in _in_shadow_path(scene.solids, start, sun):
            shaded |= solid.intersect(start, toward_sun).isfinite()
        facing[lit[shaded]] = 0
    up = 0.5 + 0.5 * normal[:, 2:]
    near_ground = (0.55 + 0.45 * (points[:, 2:] / 0.5).clamp(0, 1)) if bool((normal[:, 2] < 0.9).any()) else 1.0
    sky = torch.tensor([0.36, 0.44, 0.58]) * up + torch.tensor([0.20, 0.16, 0.12]) * (1 - up)
    return facing[:, None] * torch.tensor([1.75, 1.55, 1.25]) + sky * near_ground


def _sky(rays: Tensor, noise: Noise) -> Tensor:
    """Linear light of the sky along rays [n,3], with thin clouds; infinitely far, so only directions matter."""
    unit = rays / rays.norm(dim=1, keepdim=True)
    height = unit[:, 2:].clamp(0, 1)
    blue = torch.lerp(torch.tensor([0.62, 0.74, 0.86]), torch.tensor([0.10, 0.27, 0.62]), height.sqrt())
    plane = unit[:, :2] / (unit[:, 2:] + 0.25).clamp_min(0.05)
    cloud = noise.fractal(plane, torch.full((len(rays),), 1e-3), 0.9, 5, 3)
    amount = ((cloud - 0.1) * 1.3).clamp(0, 0.75)[:, None] * (height * 6).clamp_max(1)
    return torch.lerp(blue, torch.tensor([0.95, 0.95, 0.97]).expand_as(blue), amount)


def _to_srgb(linear: Tensor) -> Tensor:
    """Linear light -> sRGB uint8, with a soft shoulder instead of clipped highlights."""
    x = 1 - torch.exp(-1.05 * linear)
    encoded = torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x.clamp_min(1e-6) ** (1 / 2.4) - 0.055)
    return (encoded * 255).round().clamp(0, 255).to(torch.uint8)


def orbit(center: Vec3, radius: float, height: float, start: float, end: float, frames: int) -> Tensor:
    """Cameras [frames,4,4] on an arc around `center`, angles in radians; they rise a little and come closer midway."""
    poses = []
    for i in range(frames):
        s = i / max(frames - 1, 1)
        angle = start + (end - start) * s
        r = radius * (1 - 0.08 * math.sin(math.pi * s))
        eye = (center[0] + r * math.cos(angle), center[1] + r * math.sin(angle), height + 0.5 * s)
        poses.append(look_at(eye, center))
    return torch.stack(poses)
