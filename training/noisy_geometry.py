"""Geometry of the views of a scene: exact, or wrong in the ways in which networks and matching are wrong.

Lengths are in units of view 0's centre depth, and view 0's camera is the identity, as in `gen3c.scene`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class ViewGeometry:
    """Depth and cameras of v views of b scenes."""

    depth: Tensor  # [b,v,h,w] z-depth, 0 = unknown
    confidence: Tensor  # [b,v,h,w] in [0,1], 0 = not to be used
    w2c: Tensor  # [b,v,4,4]; [:,0] is the identity
    K: Tensor  # [b,v,3,3] px of the [h,w] raster

    @classmethod
    def choose(cls, first: Tensor, one: "ViewGeometry", other: "ViewGeometry") -> "ViewGeometry":
        """`one` for the scenes where `first` [b] bool, `other` for the rest."""
        pairs = zip(one.parts(), other.parts(), strict=True)
        return cls(*(torch.where(first.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs))

    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The tensors, in the order of the fields."""
        return self.depth, self.confidence, self.w2c, self.K


@dataclass(frozen=True)
class Severity:
    """Standard deviations of the errors at severity 1; a scene's severity is drawn between 0 and 1, squared."""

    scale: float = 0.03  # log of a view's depth scale
    warp: float = 0.05  # log of depth, smooth over a quarter of the picture
    ripple: float = 0.008  # log of depth, over some ten pixels
    rotation: float = 0.02  # rad, of a camera 0.3 from view 0
    translation: float = 0.02  # of a camera 0.3 from view 0
    focal: float = 0.04  # log of the focal length, common to all views
    dropped: float = 0.4  # share of the picture without depth, at most


def disturbed(
    exact: ViewGeometry, generator: torch.Generator, severity: Severity | None = None, amount: Tensor | None = None
) -> ViewGeometry:
    """The same scenes as a fallible provider sees them. View 0's camera and median depth stay.

    Args:
        exact: the truth, all depth known.
        generator: on the device of the truth.
        severity: of the errors.
        amount: [b] in [0,1], each scene's share of `severity`; None: drawn, small ones more often.
    """
    severity = severity or Severity()
    b, v, h, w = exact.depth.shape
    device = exact.depth.device

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    if amount is None:
        amount = torch.rand(b, generator=generator, device=device).square()
    of_scene = amount.view(b, 1, 1, 1)
    # Each kind of error has its own share of it, so that none always comes with the others.
    shares = amount[:, None] * torch.rand(b, 7, generator=generator, device=device).add(0.5).clamp(max=1)
    scale, warp, ripple, rotation, translation, focal, dropped = shares.unbind(1)

    depth = _softened(exact.depth, generator, of_scene)
    log_error = severity.scale * scale.view(b, 1, 1, 1) * normal(b, v, 1, 1)
    log_error = log_error + severity.warp * warp.view(b, 1, 1, 1) * _smooth(normal(b, v, 4, 6), (h, w))
    log_error = log_error + severity.ripple * ripple.view(b, 1, 1, 1) * _smooth(normal(b, v, h // 8, w // 8), (h, w))
    middle = log_error[:, 0].flatten(1).median(dim=1).values.view(b, 1, 1, 1)  # the unit of length is view 0's
    depth = depth * (log_error - middle).exp()

    holes = _smooth(normal(b, v, h // 14, w // 14), (h, w))
    level = torch.special.ndtri(1 - severity.dropped * dropped.clamp(min=1e-4))  # of a normal's upper tail
    confidence = torch.where(holes > level.view(b, 1, 1, 1), 0.0, 1.0)

    w2c = _moved(exact.w2c, severity.rotation * rotation, severity.translation * translation, generator)
    factor = (severity.focal * focal * normal(b)).exp()
    K = exact.K.clone()
    K[:, :, 0, 0] *= factor[:, None]
    K[:, :, 1, 1] *= factor[:, None]
    return ViewGeometry(depth, confidence, w2c, K)


def _smooth(noise: Tensor, size: tuple[int, int]) -> Tensor:
    """Noise [b,v,y,x] drawn over the raster, [b,v,h,w]."""
    return F.interpolate(noise, size, mode="bicubic", align_corners=False)


def _softened(depth: Tensor, generator: torch.Generator, amount: Tensor) -> Tensor:
    """Depth [b,v,h,w] whose edges run into one another over a few pixels, as those of dense heads do.

    Inverse depth is averaged, which leaves planes as they are. Scenes with `amount` [b,1,1,1] near 0 stay sharp.
    """
    inverse = 1 / depth
    blurred = [inverse]
    for reach in (1, 2, 4):
        mean = F.avg_pool2d(inverse, 2 * reach + 1, 1, reach, count_include_pad=False)
        blurred.append(F.avg_pool2d(mean, 2 * reach + 1, 1, reach, count_include_pad=False))
    drawn = torch.rand(amount.shape, generator=generator, device=depth.device)
    level = (drawn * 4 * amount.clamp(min=0).sqrt()).clamp(max=3.999).floor()
    chosen = torch.stack(blurred)  # [4,b,v,h,w]
    picked = sum(torch.where(level == i, chosen[i], 0.0) for i in range(len(blurred)))
    return 1 / torch.as_tensor(picked)


def _moved(w2c: Tensor, rotation: Tensor, translation: Tensor, generator: torch.Generator) -> Tensor:
    """Cameras [b,v,4,4] with errors that grow with the distance from view 0; `rotation` and `translation` are [b]."""
    b, v = w2c.shape[:2]
    distance = w2c[:, :, :3, 3].norm(dim=-1)  # [b,v]
    growth = (0.3 + 0.7 * distance / 0.3) * (torch.arange(v, device=w2c.device) > 0)
    turn = torch.randn(b, v, 3, generator=generator, device=w2c.device) * (rotation[:, None] * growth)[..., None]
    shift = torch.randn(b, v, 3, generator=generator, device=w2c.device) * (translation[:, None] * growth)[..., None]
    error = torch.zeros_like(w2c)
    error[..., :3, :3] = rotation_matrix(turn)
    error[..., :3, 3] = shift
    error[..., 3, 3] = 1
    return error @ w2c


def rotation_matrix(turn: Tensor) -> Tensor:
    """Rotations [...,3,3] by vectors [...,3]: their direction is the axis, their length the angle in radians."""
    x, y, z = turn.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).unflatten(-1, (3, 3))
    angle = turn.norm(dim=-1)[..., None, None]
    # Rodrigues' formula; sinc(x) is sin(pi x) / (pi x), 1 at 0.
    once, twice = torch.sinc(angle / math.pi), torch.sinc(angle / (2 * math.pi)).square() / 2
    return torch.eye(3, device=turn.device) + once * skew + twice * (skew @ skew)
