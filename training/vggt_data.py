"""What VGGT is trained on: eight pictures of a world with their depth and cameras, drawn, chosen, mirrored, altered."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from training.scenes import Worlds, render
from training.shots import draw_shots

SHOT_SIZE = (192, 320)  # px, the raster of the intrinsics of shots
SIZE = (168, 280)  # px, what the served provider makes of such pictures: twelve by twenty patches
VIEWS = 8
DRAWN_AT_ONCE = 16  # worlds: a GPU draws any other number with functions compiled anew
UNALTERED = 0.25  # share of scenes whose pictures stay as they were drawn
BLOCKY = 0.3  # share of scenes whose pictures lose detail in blocks, as JPEG's
_BLOCK = 8  # px


@dataclass(frozen=True)
class Views:
    """s views of each of b scenes."""

    rgb: Tensor  # [b,s,h,w,3] uint8
    depth: Tensor  # [b,s,h,w] z-depth > 0
    w2c: Tensor  # [b,s,4,4] float32, lengths in the unit of depth
    K: Tensor  # [b,3,3] px


def drawn(seeds: Sequence[int], worlds: Worlds, samples: int = 1) -> dict[str, Tensor]:
    """The fields of `Views` for the worlds of `seeds`, as they are kept: depth float16, lengths in the shots' unit."""
    shots = draw_shots(worlds, seeds, SHOT_SIZE)
    K = scaled(shots.K, SHOT_SIZE, SIZE)
    views = render(worlds, shots.views, K, SIZE, samples=samples)
    w2c = shots.views.clone()
    w2c[..., :3, 3] /= shots.unit[:, None, None]
    depth = (views.depth / shots.unit[:, None, None, None]).clamp(1e-3, 6e4)  # what float16 holds
    return {"rgb": views.rgb, "depth": depth.half(), "w2c": w2c, "K": K}


def scaled(K: Tensor, size: tuple[int, int], to: tuple[int, int]) -> Tensor:
    """Intrinsics [...,3,3] of pictures of `size` (height, width) for the same pictures at size `to`."""
    K = K.clone()
    for row, axis in ((0, 1), (1, 0)):
        factor = to[axis] / size[axis]
        K[..., row, :2] *= factor
        K[..., row, 2] = (K[..., row, 2] + 0.5) * factor - 0.5  # pixel centres are integers
    return K


def chosen(kept: dict[str, Tensor], views: int, generator: torch.Generator) -> Views:
    """`views` of the kept views of each scene in random order: any of them becomes the reference."""
    n, total = kept["w2c"].shape[:2]
    order = torch.rand(n, total, generator=generator, device=generator.device).argsort(1)[:, :views]  # [n,s]
    scene = torch.arange(n, device=order.device)[:, None]
    rgb, depth, w2c = (kept[name][scene, order] for name in ("rgb", "depth", "w2c"))
    return Views(rgb, depth, w2c, kept["K"])


def mirrored(views: Views, which: Tensor) -> Views:  # which [b] bool
    """The scenes of `which` as a mirror shows them: what was left is right, and cameras move the other way.

    The world is mirrored across the plane x = 0 and every camera across its own, so that w2c becomes M w2c M.
    """
    h_flip = which[:, None, None, None]
    signs = torch.ones(4, device=views.w2c.device)
    signs[0] = -1
    K = views.K.clone()
    K[:, 0, 2] = views.rgb.shape[3] - 1 - K[:, 0, 2]
    K[:, 0, 1] = -K[:, 0, 1]
    return Views(
        torch.where(h_flip[..., None], views.rgb.flip(3), views.rgb),
        torch.where(h_flip, views.depth.flip(3), views.depth),
        torch.where(h_flip, signs[:, None] * views.w2c * signs, views.w2c),
        torch.where(which[:, None, None], K, views.K),
    )


@dataclass(frozen=True)
class Changes:
    """How pictures differ from what was drawn; n frames. Frames of a scene differ a little among themselves."""

    gain: Tensor  # [n,3,1,1] factor of each colour
    gamma: Tensor  # [n,1,1,1] exponent
    saturation: Tensor  # [n,1,1,1] 0 is grey, 1 as it was
    blur: Tensor  # [n,1,1,1] 1 blurs, below 0 sharpens
    noise: Tensor  # [n,1,1,1] standard deviation
    step: Tensor  # [n,1,1,1] of the blocks' coefficients; 0: no blocks


def draw_changes(scenes: int, views: int, generator: torch.Generator) -> Changes:
    """Changes of scenes * views frames, the views of a scene next to each other."""
    device = generator.device

    def normal(channels: int, among_scenes: float, among_views: float) -> Tensor:
        of_scene = among_scenes * torch.randn(scenes, 1, channels, 1, 1, generator=generator, device=device)
        of_view = among_views * torch.randn(scenes, views, channels, 1, 1, generator=generator, device=device)
        return of_scene + of_view

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(scenes, 1, 1, 1, 1, generator=generator, device=device)

    strength = uniform(-UNALTERED / (1 - UNALTERED), 1).clamp(min=0)
    blocky = (uniform(0, 1) < BLOCKY) & (strength > 0)
    changes = Changes(
        gain=(strength * (normal(3, 0.08, 0.03) + normal(1, 0.25, 0.06))).exp(),
        gamma=(strength * normal(1, 0.3, 0.05)).exp(),
        saturation=1 + strength * uniform(-0.9, 0.4),
        blur=strength * (uniform(-0.7, 1.3) + normal(1, 0.0, 0.15)),
        noise=strength * 0.04 * uniform(0, 1).square(),
        step=torch.where(blocky, uniform(-4.6, -2.5).exp(), 0.0),
    )
    fields = (x.expand(scenes, views, -1, -1, -1).flatten(0, 1) for x in vars(changes).values())
    return Changes(*fields)


def altered(rgb: Tensor, noise: Tensor, changes: Changes) -> Tensor:
    """Pictures [n,h,w,3] uint8 -> [n,3,h,w] in [0,1], changed; `noise` [n,3,h,w] of unit variance.

    Height and width are multiples of 8.
    """
    x = rgb.permute(0, 3, 1, 2).float() / 255
    around = F.pad(x, (1, 1, 1, 1), mode="replicate")
    rows = 0.25 * around[:, :, :-2] + 0.5 * around[:, :, 1:-1] + 0.25 * around[:, :, 2:]
    soft = 0.25 * rows[..., :-2] + 0.5 * rows[..., 1:-1] + 0.25 * rows[..., 2:]
    x = x + changes.blur * (soft - x)
    grey = x.mean(1, keepdim=True)
    x = (grey + changes.saturation * (x - grey)) * changes.gain
    x = x.clamp(1e-4, 1) ** changes.gamma
    x = (x + changes.noise * noise).clamp(0, 1)
    return torch.where(changes.step > 0, blocks(x, changes.step.clamp(min=1e-3)), x).clamp(0, 1)


def blocks(x: Tensor, step: Tensor) -> Tensor:
    """Pictures [n,c,h,w] whose blocks' cosine coefficients are multiples of `step` [n,1,1,1], coarser with frequency.

    That is what a JPEG of low quality shows (ITU-T T.81, A.3.3).
    """
    n, c, h, w = x.shape
    i = torch.arange(_BLOCK, dtype=torch.float32, device=x.device)
    basis = ((i + 0.5) * i[:, None] * torch.pi / _BLOCK).cos() * (2 / _BLOCK) ** 0.5  # [frequency,place]
    basis = torch.cat((basis[:1] * 0.5**0.5, basis[1:]))
    tiles = x.reshape(n, c, h // _BLOCK, _BLOCK, w // _BLOCK, _BLOCK).transpose(3, 4)  # [n,c,rows,columns,8,8]
    steps = step[..., None, None] * (1 + (i[:, None] + i) / 2)
    coarse = (basis @ tiles @ basis.T / steps).round() * steps
    return (basis.T @ coarse @ basis).transpose(3, 4).reshape(n, c, h, w)
