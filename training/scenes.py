"""An endless procedural world with exact depth: seeds -> Worlds -> render(cameras) -> pictures and depth.

The world is z-up and in metres; cameras are OpenCV (x right, y down, z forward) w2c; K is in pixels of the raster,
pixel centres are integers. A dome around each scene gives its sky a finite depth: the truth has no holes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

from training.indoors import room, things
from training.outdoors import street, village
from training.paints import Draws
from training.places import Light, Place, Scene
from training.solids import Solids
from training.tracing import geometry, shade

KINDS: tuple[Callable[[Draws], Scene], ...] = (room, things, village, street)
DRAWS = 768  # numbers that a scene may draw
PIXELS_ON_CPU = 1 << 12  # rays at a time: rays times solids stay in the processor's cache
PIXELS_ON_GPU = 1 << 21  # bounds memory, and gives every call the shapes that were compiled before


@dataclass(frozen=True)
class Worlds:
    """b static scenes under their skies, on one device."""

    solids: Solids
    light: Light
    place: Place  # where cameras may stand

    def __len__(self) -> int:
        return len(self.solids.centre)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.solids.centre.device

    def to(self, device: torch.device) -> "Worlds":
        """The same on another device."""
        return Worlds(self.solids.to(device), self.light.to(device), self.place.to(device))

    def __getitem__(self, scenes: slice) -> "Worlds":
        return Worlds(self.solids[scenes], self.light[scenes], self.place[scenes])


@dataclass(frozen=True)
class Views:
    """What cameras see."""

    rgb: Tensor  # [b,f,h,w,3] uint8, sRGB
    depth: Tensor  # [b,f,h,w] float32 m, z-depth at the pixel centres, > 0


def draw_worlds(seeds: Sequence[int], device: torch.device) -> Worlds:
    """One scene a seed, of a kind that the seed draws too; the same scene on every device and in every company."""
    draws = torch.stack([torch.rand(DRAWS, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    kind = (draws[:, 0] * len(KINDS)).long().clamp_max(len(KINDS) - 1)
    rows, made = [], []
    for i, builder in enumerate(KINDS):
        of_kind = (kind == i).nonzero().squeeze(1)
        if len(of_kind):
            rows.append(of_kind)
            made.append(builder(Draws(draws[of_kind, 1:])))
    order = torch.cat(rows).argsort()
    solids, light, place = zip(*made, strict=True)
    return Worlds(_joined(solids, order), _joined(light, order), _joined(place, order)).to(device)


Part = TypeVar("Part", Solids, Light, Place)


def _joined(parts: Sequence[Part], order: Tensor) -> Part:
    """The scenes of several batches in one, in another order."""
    rows = (torch.cat([getattr(part, field.name) for part in parts])[order] for field in fields(parts[0]))
    return type(parts[0])(*rows)


@torch.no_grad()
def render(
    worlds: Worlds,
    w2c: Tensor,  # [b,f,4,4]
    K: Tensor,  # [b,3,3] in pixels of the [h,w] raster
    size: tuple[int, int],  # h, w
    *,
    samples: int = 1,  # rays per pixel and axis, against jagged edges
) -> Views:
    """The scenes in their cameras."""
    total = w2c.shape[1] * size[0] * size[1]
    rgb = torch.empty(len(worlds), total, 3, dtype=torch.uint8, device=worlds.device)
    depth = torch.empty(len(worlds), total, device=worlds.device)
    table, light = worlds.solids.table(), worlds.light.table()
    pixel = 1 / K[:, 0, 0]
    step = _step(worlds, samples)
    for first in range(0, total, step):
        last = min(first + step, total)
        origin, ray = _rays(w2c, K, size, first, step, samples)
        linear, t = shade(table, light, origin, ray, pixel)
        if samples > 1:
            linear = linear.unflatten(1, (step, samples * samples)).mean(2)
        else:
            depth[:, first:last] = t[:, : last - first]
        rgb[:, first:last] = to_srgb(linear[:, : last - first])
    shape = (len(worlds), w2c.shape[1], *size)
    true = depth.view(shape) if samples == 1 else render_depth(worlds, w2c, K, size)
    return Views(rgb.view(*shape, 3), true)


@torch.no_grad()
def render_depth(worlds: Worlds, w2c: Tensor, K: Tensor, size: tuple[int, int]) -> Tensor:
    """z-depth [b,f,h,w] alone, metres; arguments as for `render`."""
    total = w2c.shape[1] * size[0] * size[1]
    depth = torch.empty(len(worlds), total, device=worlds.device)
    table = worlds.solids.table()
    step = _step(worlds, 1)
    for first in range(0, total, step):
        last = min(first + step, total)
        depth[:, first:last] = geometry(table, *_rays(w2c, K, size, first, step, 1))[:, : last - first]
    return depth.view(len(worlds), w2c.shape[1], *size)


def _step(worlds: Worlds, samples: int) -> int:
    """Pixels of each scene that are drawn at a time."""
    pixels = PIXELS_ON_CPU if worlds.device.type == "cpu" else PIXELS_ON_GPU
    return max(1, pixels // (len(worlds) * samples * samples))


def _rays(w2c: Tensor, K: Tensor, size: tuple[int, int], first: int, count: int, samples: int) -> tuple[Tensor, Tensor]:
    """World origins and directions [b,count*samples^2,3] of pixels first, first+1, ... of the flattened [f,h,w] raster.

    Directions have z-length 1 in the camera: the ray parameter is z-depth. Past the last pixel comes that one again.
    """
    device, (h, w) = w2c.device, size
    index = torch.arange(first, first + count, device=device).clamp_max(w2c.shape[1] * h * w - 1)
    frame = index // (h * w)
    offsets = (torch.arange(samples, device=device) + 0.5) / samples - 0.5
    dy, dx = torch.meshgrid(offsets, offsets, indexing="ij")
    x = (index % w)[:, None] + dx.flatten()  # [count,s]
    y = (index // w % h)[:, None] + dy.flatten()
    R, shift = w2c[:, frame, :3, :3], w2c[:, frame, :3, 3]  # [b,count,3,3], [b,count,3]
    origin = -(R * shift[..., None]).sum(2)  # -R^T t
    fx, fy, cx, cy = (K[:, i, j, None, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    across, down = (x - cx) / fx, (y - cy) / fy  # [b,count,s]
    ray = across[..., None] * R[:, :, None, 0] + down[..., None] * R[:, :, None, 1] + R[:, :, None, 2]
    return origin[:, :, None].expand_as(ray).flatten(1, 2), ray.flatten(1, 2)


def as_float(rgb: Tensor) -> Tensor:
    """Pictures [n,h,w,3] or videos [n,t,h,w,3] of uint8 in [-1,1], colours first: [n,3,h,w] or [n,3,t,h,w]."""
    return rgb.movedim(-1, 1).float() / 127.5 - 1


def to_srgb(linear: Tensor) -> Tensor:
    """Linear light -> sRGB uint8, with a soft shoulder instead of clipped highlights."""
    x = 1 - torch.exp(-1.35 * linear)
    encoded = torch.where(x <= 0.0031308, 12.92 * x, 1.055 * x.clamp_min(1e-6) ** (1 / 2.4) - 0.055)
    return (encoded * 255).round().clamp(0, 255).to(torch.uint8)


def look_at(eye: Sequence[float], target: Sequence[float]) -> Tensor:
    """OpenCV world-to-camera [4,4] of an upright camera at `eye` that looks at `target`."""
    return look_at_all(torch.tensor(eye, dtype=torch.float64), torch.tensor(target, dtype=torch.float64)).float()


def look_at_all(eye: Tensor, target: Tensor) -> Tensor:
    """w2c [...,4,4] of upright cameras at eyes [...,3] that look at targets [...,3], never straight up or down."""
    forward = torch.nn.functional.normalize(target - eye, dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=eye.dtype, device=eye.device).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    R = torch.stack([right, torch.linalg.cross(forward, right), forward], -2)
    w2c = torch.eye(4, dtype=eye.dtype, device=eye.device).repeat(*eye.shape[:-1], 1, 1)
    w2c[..., :3, :3] = R
    w2c[..., :3, 3] = -(R * eye[..., None, :]).sum(-1)
    return w2c


def orbit(center: Sequence[float], radius: float, height: float, start: float, end: float, frames: int) -> Tensor:
    """Cameras [frames,4,4] on an arc around `center`, angles in radians; they rise a little and come closer midway."""
    poses = []
    for i in range(frames):
        s = i / max(frames - 1, 1)
        angle = start + (end - start) * s
        r = radius * (1 - 0.08 * math.sin(math.pi * s))
        eye = (center[0] + r * math.cos(angle), center[1] + r * math.sin(angle), height + 0.5 * s)
        poses.append(look_at(eye, center))
    return torch.stack(poses)
