"""Worlds photographed: source views and the true video, in the frame and unit of view 0, as `gen3c.scene` has them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.noisy_geometry import ViewGeometry
from training.scenes import Worlds, render
from training.shots import Shots, draw_shots


@dataclass(frozen=True)
class Footage:
    """Pictures of b scenes and where they were taken; view 0's camera is the identity, its centre depth 1."""

    views: Tensor  # [b,v,h,w,3] uint8
    targets: Tensor  # [b,f,h,w,3] uint8; the first frame is view 0
    truth: ViewGeometry  # of the views
    target_depth: Tensor  # [b,f,h,w]
    target_w2c: Tensor  # [b,f,4,4]


def film(seeds: Sequence[int], worlds: Worlds, size: tuple[int, int], samples: int = 2) -> tuple[Footage, Shots]:
    """Photograph the worlds of `seeds`."""
    device = worlds.device
    shots = draw_shots(worlds, seeds, size)
    K = shots.K.to(device)
    cameras = torch.cat((shots.views, shots.targets[:, 1:]), dim=1).to(device)  # target 0 is view 0
    pictures = render(worlds, cameras, K, size, samples=samples)
    unit = shots.unit.to(device)
    w2c = relative(cameras, unit)
    depth = pictures.depth / unit.view(-1, 1, 1, 1)
    v = shots.views.shape[1]

    def path(x: Tensor) -> Tensor:
        return torch.cat((x[:, :1], x[:, v:]), dim=1)

    views_depth = depth[:, :v].contiguous()
    truth = ViewGeometry(views_depth, torch.ones_like(views_depth), w2c[:, :v], K[:, None].expand(-1, v, -1, -1))
    return Footage(pictures.rgb[:, :v], path(pictures.rgb), truth, path(depth), path(w2c)), shots


def relative(w2c: Tensor, unit: Tensor) -> Tensor:
    """Cameras [b,n,4,4] in the frame of camera 0 of each scene, lengths divided by `unit` [b]."""
    moved = w2c.double() @ torch.linalg.inv(w2c[:, :1].double())
    moved[..., :3, 3] /= unit.double().view(-1, 1, 1)
    return moved.float()


def mirrored(footage: Footage, flip: Tensor) -> Footage:
    """The scenes where `flip` [b] bool, seen in a mirror: left is right. Principal points are in the middle."""

    def picture(x: Tensor, axis: int) -> Tensor:
        return torch.where(flip.view(-1, *[1] * (x.ndim - 1)), x.flip(axis), x)

    sign = torch.ones(4, 4, device=flip.device)
    sign[0, 1:] = sign[1:, 0] = -1

    def camera(w2c: Tensor) -> Tensor:
        return torch.where(flip.view(-1, 1, 1, 1), w2c * sign, w2c)

    truth = footage.truth
    return Footage(
        picture(footage.views, 3),
        picture(footage.targets, 3),
        ViewGeometry(picture(truth.depth, 3), picture(truth.confidence, 3), camera(truth.w2c), truth.K),
        picture(footage.target_depth, 3),
        camera(footage.target_w2c),
    )


def recoloured(rgb: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures [b,n,h,w,3] uint8 as if by other light and other cameras: gain, gamma, saturation and tint a scene."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand(len(rgb), *shape, generator=generator, device=rgb.device)
        return (low + (high - low) * drawn).view(-1, 1, 1, 1, *shape)

    x = rgb.float() / 255
    x = x.clamp(min=1e-3) ** uniform(0.75, 1.3, 1)
    grey = x.mean(-1, keepdim=True)
    x = grey + (x - grey) * uniform(0.5, 1.5, 1)
    x = x * uniform(0.75, 1.15, 1) * uniform(0.92, 1.08, 3)
    return (x * 255).round().clamp(0, 255).to(torch.uint8)
