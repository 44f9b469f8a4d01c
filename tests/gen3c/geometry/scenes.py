"""A small scene whose depth is known exactly: a slanted textured wall and, before it, a textured square."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gen3c.geometry.sparse import SparseScene
from gen3c.geometry.types import Frames

WALL_DEPTH, SQUARE_DEPTH, SQUARE_HALF = 5.0, 3.0, 0.6


@dataclass(frozen=True)
class Shot:
    """Pictures of the scene with true depth and cameras."""

    frames: Frames
    depth: Tensor  # [n,h,w]
    w2c: Tensor  # [n,4,4] float64
    K: Tensor  # [n,3,3] float64


def camera(x: float, y: float = 0.0, turn: float = 0.0) -> Tensor:
    """w2c of a camera at (x, y, 0) turned by `turn` degrees to the left of the z axis."""
    a = math.radians(turn)
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = torch.tensor([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    pose[:3, 3] = -pose[:3, :3] @ torch.tensor([x, y, 0.0], dtype=torch.float64)
    return pose


def shoot(w2c: list[Tensor], size: tuple[int, int], focal: float, seed: int = 0) -> Shot:
    """Photograph the scene; textures come from `seed`."""
    generator = torch.Generator().manual_seed(seed)
    textures = [_texture(generator), _texture(generator)]
    height, width = size
    K = torch.tensor([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]], dtype=torch.float64)
    shots = [_picture(pose, K, size, textures) for pose in w2c]
    pixels = torch.stack([s[0] for s in shots])
    frames = Frames(pixels, torch.tensor([size] * len(w2c), dtype=torch.int32), _names(len(w2c)))
    return Shot(frames, torch.stack([s[1] for s in shots]), torch.stack(w2c), K.expand(len(w2c), 3, 3).clone())


def sparse_scene(shot: Shot, every: int = 12) -> SparseScene:
    """What perfect structure from motion would find: true cameras and points of view 0's pixel grid."""
    K, pose = shot.K[0], torch.linalg.inv(shot.w2c[0])
    height, width = shot.depth.shape[1:]
    v, u = torch.meshgrid(torch.arange(0, height, every), torch.arange(0, width, every), indexing="ij")
    z = shot.depth[0, v, u].double()
    pixel = torch.stack([u.double(), v.double(), torch.ones_like(z)], -1)
    points = ((pixel @ torch.linalg.inv(K).T) * z[..., None]).reshape(-1, 3) @ pose[:3, :3].T + pose[:3, 3]
    n = len(shot.frames)
    return SparseScene(shot.w2c, shot.K, points, torch.ones(len(points), n, dtype=torch.bool), torch.zeros(len(points)))


def _names(n: int) -> tuple[str, ...]:
    return tuple(f"photo{i}.png" for i in range(n))


def _texture(generator: torch.Generator) -> Tensor:
    """Noise of several sizes, [3,512,512] in [0,1]."""
    total = torch.zeros(1, 3, 512, 512)
    for cells in (8, 32, 96, 192):
        noise = torch.rand(1, 3, cells, cells, generator=generator) - 0.5
        total += F.interpolate(noise, (512, 512), mode="bicubic", align_corners=False)
    return (0.5 + 0.5 * total[0]).clamp(0, 1)


def _picture(w2c: Tensor, K: Tensor, size: tuple[int, int], textures: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Pixels [h,w,3] uint8, averaged over 2x2 rays, and depth [h,w] of the pixel centres."""
    colours = [_trace(w2c, K, size, textures, du, dv)[0] for du in (-0.25, 0.25) for dv in (-0.25, 0.25)]
    pixels = (torch.stack(colours).mean(0) * 255).round().to(torch.uint8)
    return pixels, _trace(w2c, K, size, textures, 0.0, 0.0)[1]


def _trace(
    w2c: Tensor, K: Tensor, size: tuple[int, int], textures: list[Tensor], du: float, dv: float
) -> tuple[Tensor, Tensor]:
    pose = torch.linalg.inv(w2c)
    v, u = torch.meshgrid(torch.arange(size[0]) + dv, torch.arange(size[1]) + du, indexing="ij")
    rays = torch.stack([u.double(), v.double(), torch.ones_like(u).double()], -1) @ torch.linalg.inv(K).T
    rays = rays @ pose[:3, :3].T  # world; camera z along the ray stays 1
    start = pose[:3, 3]
    # The wall: z = WALL_DEPTH + 0.3 x. The square: z = SQUARE_DEPTH.
    wall = (WALL_DEPTH + 0.3 * start[0] - start[2]) / (rays[..., 2] - 0.3 * rays[..., 0])
    square = (SQUARE_DEPTH - start[2]) / rays[..., 2]
    on_square = (start + rays * square[..., None])[..., :2].abs().amax(-1) <= SQUARE_HALF
    depth = torch.where(on_square, square, wall)
    place = (start + rays * depth[..., None])[..., :2]
    colours = [_look_up(t, place / scale) for t, scale in zip(textures, (6.0, 2.0), strict=True)]
    return torch.where(on_square[..., None], colours[1], colours[0]), depth.float()


def _look_up(texture: Tensor, place: Tensor) -> Tensor:
    sampled = F.grid_sample(texture[None], place.float()[None], align_corners=False, padding_mode="reflection")
    return sampled[0].permute(1, 2, 0)
