"""VGGT's losses (Wang et al., CVPR 2025, section 3.3), and what they compare with.

Two things differ from the paper. Lengths are divided by the geometric mean of the points' distances instead of their
mean: a sky dome, which is far, hardly moves it. The error of depth is that of its logarithm: the measure is relative,
and the absolute error would be one of the sky alone. So confidence 1.5, below which the served provider cuts, still
means an error of 0.13, now as a share of the depth.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gen3c.geometry.vggt.pose import encode_pose
from training.vggt_data import Views

CAMERA = 5.0  # weight against depth, as in the paper's released settings
ROTATION, TRANSLATION, FOV = 2.0, 1.0, 1.0  # within the camera's; rotation is what is measured
DECAY = 0.6  # of the weights of earlier iterations
ALPHA = 0.2  # of log c
PAPER = 0.2  # weight of the paper's depth loss beside the plain one
GRADIENT_STEPS = (1, 2, 4)  # px
_EVERY = 4  # px, of the points that give the scale


@dataclass(frozen=True)
class Targets:
    """What the network should say."""

    pose: Tensor  # [b,s,9] encoding
    depth: Tensor  # [b,s,h,w]


def targets_of(views: Views) -> Targets:
    """Cameras and depth in the frame of camera 0, the geometric mean of all points' distances from it being 1."""
    w2c, depth = views.w2c.float(), views.depth.float()
    relative = product(w2c, inverse_of_rigid(w2c[:, :1]))
    b, s, height, width = depth.shape
    y = torch.arange(0, height, _EVERY, dtype=torch.float32, device=depth.device)
    x = torch.arange(0, width, _EVERY, dtype=torch.float32, device=depth.device)
    rays = torch.ones(b, len(y), len(x), 3, device=depth.device)
    rays[..., 0] = (x - views.K[:, 0, 2, None, None]) / views.K[:, 0, 0, None, None]
    rays[..., 1] = (y[:, None] - views.K[:, 1, 2, None, None]) / views.K[:, 1, 1, None, None]
    seen = (rays[:, None] * depth[:, :, ::_EVERY, ::_EVERY, None]).flatten(2, 3)  # [b,s,n,3] in the cameras' frames
    c2w = inverse_of_rigid(relative)
    points = seen @ c2w[..., :3, :3].transpose(-1, -2) + c2w[..., None, :3, 3]
    scale = points.norm(dim=-1).clamp(min=1e-6).log().mean((1, 2)).exp()  # [b]
    relative[..., :3, 3] /= scale[:, None, None]
    pose = encode_pose(relative, views.K[:, None].expand(-1, s, -1, -1), (height, width))
    return Targets(pose, depth / scale[:, None, None, None])


def inverse_of_rigid(matrices: Tensor) -> Tensor:
    """Inverses of [...,4,4]."""
    inverse = torch.zeros_like(matrices)
    inverse[..., :3, :3] = matrices[..., :3, :3].transpose(-1, -2)
    inverse[..., :3, 3:] = -product(inverse[..., :3, :3], matrices[..., :3, 3:])
    inverse[..., 3, 3] = 1
    return inverse


def product(a: Tensor, b: Tensor) -> Tensor:
    """Products of small matrices [...,n,m] and [...,m,k] in full float32: a training lets `@` round to TensorFloat-32,
    which is 0.03 degrees."""
    return (a[..., None] * b[..., None, :, :]).sum(-2)


def camera_loss(
    estimates: Tensor,  # [i,b,s,9] encodings after each iteration
    truth: Tensor,  # [b,s,9]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The weighted loss, and the last iteration's mean errors of translation, quaternion and field of view."""
    error = (estimates - truth).abs().mean((1, 2))  # [i,9]; true quaternions have w >= 0, as decoded ones
    translation, rotation, fov = error[:, :3].mean(1), error[:, 3:7].mean(1), error[:, 7:].mean(1)  # [i]
    weights = DECAY ** torch.arange(len(error) - 1, -1, -1, dtype=torch.float32, device=error.device)
    each = TRANSLATION * translation + ROTATION * rotation + FOV * fov
    return (weights / weights.sum() * each).sum(), translation[-1], rotation[-1], fov[-1]


def depth_loss(
    logits: Tensor,  # [n,2,h,w] log depth, and the confidence before its activation
    truth: Tensor,  # [n,h,w]
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and the mean errors of log depth and of its differences.

    Besides the paper's loss, in which pixels without confidence count little, there is the plain one: AbsRel is a mean
    over all pixels, edges too.
    """
    difference = logits[:, 0].float() - truth.float().log()
    confidence = 1 + logits[:, 1].float().exp()
    error = difference.abs()
    right = F.pad(difference[:, :, 1:] - difference[:, :, :-1], (0, 1)).abs()
    below = F.pad(difference[:, 1:] - difference[:, :-1], (0, 0, 0, 1)).abs()
    paper = (confidence * (error + right + below) - ALPHA * confidence.log()).mean()
    gradient = torch.stack([_gradient(difference, step) for step in GRADIENT_STEPS]).mean()
    return error.mean() + gradient + PAPER * paper, error.mean(), gradient


def _gradient(difference: Tensor, step: int) -> Tensor:
    """Mean difference of [n,h,w] between pixels `step` apart (Li and Snavely, "MegaDepth", CVPR 2018, section 4)."""
    right = difference[:, :, step:] - difference[:, :, :-step]
    below = difference[:, step:] - difference[:, :-step]
    return right.abs().mean() + below.abs().mean()
