"""VGGT's geometry as the server makes it, for many scenes at once on one device.

The twin of `gen3c.geometry.vggt.provider.estimate` followed by `gen3c.scene.build_scene`, for pictures of one size that
fill VGGT's canvas; a test compares them.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gen3c.fit import SAME_SURFACE
from gen3c.geometry.vggt.model import Vggt
from gen3c.geometry.vggt.pose import decode_pose
from gen3c.geometry.vggt.provider import LEAST_FOV, MOST_FOV, VggtOptions
from training.noisy_geometry import ViewGeometry


def estimate(model: Vggt, rgb: Tensor) -> tuple[ViewGeometry, Tensor]:
    """Geometry of rgb [b,v,h,w,3] uint8 in the network's own unit, and for which scenes it can be used, [b] bool.

    Raises ValueError if the pictures do not fill a canvas of whole patches.
    """
    b, v, h, w = rgb.shape[:4]
    side, patch = model.config.image_side, model.config.patch
    size = (round(h * side / max(h, w)), round(w * side / max(h, w)))
    if size[0] % patch or size[1] % patch:
        raise ValueError(f"pictures of {w}x{h} px become {size[1]}x{size[0]}; legal: multiples of {patch}.")
    pictures = rgb.flatten(0, 1).permute(0, 3, 1, 2).float()
    if size != (h, w):
        pictures = F.interpolate(pictures, size, mode="bicubic", antialias=True, align_corners=False)
    pictures = pictures.round().clamp(0, 255).unflatten(0, (b, v)) / 255
    prediction = model(pictures, None)
    pose = torch.nan_to_num(prediction.pose.double())
    fov = pose[..., 7:]
    usable_pose = ((fov >= LEAST_FOV) & (fov <= MOST_FOV)).all(-1) & (pose[..., 3:7].norm(dim=-1) > 1e-6)
    safe = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1], dtype=pose.dtype, device=pose.device)
    w2c, K = decode_pose(torch.where(usable_pose[..., None], pose, safe), size)
    w2c = w2c @ _inverse(w2c[:, :1])
    depth = torch.where(prediction.depth.isfinite(), prediction.depth.float(), 0.0)
    raw = torch.nan_to_num(prediction.depth_confidence.float(), nan=1.0).clamp(min=1.0)
    confidence = torch.where((depth > 0) & (raw >= VggtOptions().min_confidence), 1 - 1 / raw, 0.0)
    depth, confidence = resample(depth.flatten(0, 1), confidence.flatten(0, 1), (h, w))
    scale = torch.tensor([w / size[1], h / size[0]], dtype=K.dtype, device=K.device)
    K[..., :2, :] *= scale[:, None]
    K[..., :2, 2] += (scale - 1) / 2
    geometry = ViewGeometry(
        torch.where(confidence > 0, depth, 0.0).unflatten(0, (b, v)),
        confidence.unflatten(0, (b, v)),
        w2c.float(),
        K.float(),
    )
    first_known = (geometry.confidence[:, 0] > 0).flatten(1).float().mean(1) > 0.01
    return geometry, usable_pose.all(1) & first_known


def in_unit(geometry: ViewGeometry, unit: Tensor) -> ViewGeometry:
    """Lengths divided by `unit` [b]."""
    w2c = geometry.w2c.clone()
    w2c[..., :3, 3] /= unit.view(-1, 1, 1)
    return ViewGeometry(geometry.depth / unit.view(-1, 1, 1, 1), geometry.confidence, w2c, geometry.K)


def unit_against(geometry: ViewGeometry, truth: Tensor) -> Tensor:
    """The provider's length of one unit of `truth` [b,h,w], view 0's true depth: their median ratio, [b]."""
    known = geometry.confidence[:, 0] > 0
    ratio = torch.where(known, geometry.depth[:, 0] / truth, torch.nan).flatten(1)
    return torch.nan_to_num(ratio.nanmedian(dim=1).values, nan=1.0).clamp(min=1e-6)


def resample(depth: Tensor, confidence: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """`gen3c.fit.Fit.depth` for n whole pictures: [n,h,w] each -> [n,H,W] each."""
    h, w = depth.shape[1:]
    (y0, y1, fy), (x0, x1, fx) = (_between(n, m, depth.device) for n, m in ((h, size[0]), (w, size[1])))
    usable = (depth > 0) & depth.isfinite() & (confidence > 0)
    known = torch.where(usable, depth, 0.0)
    corners = torch.stack([known[:, a][:, :, b] for a in (y0, y1) for b in (x0, x1)])  # [4,n,H,W]
    fy, fx = fy[:, None], fx[None]
    weights = torch.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx])[:, None]
    lowest = corners.amin(0)
    one_surface = (lowest > 0) & (corners.amax(0) <= lowest * (1 + SAME_SURFACE))
    smooth = 1 / (weights / corners.clamp_min(1e-12)).sum(0)
    near_y, near_x = torch.where(fy[:, 0] > 0.5, y1, y0), torch.where(fx[0] > 0.5, x1, x0)
    nearest = known[:, near_y][:, :, near_x]
    sure = torch.where(usable, confidence, 0.0)[:, near_y][:, :, near_x]
    return torch.where(one_surface, smooth, nearest), sure


def _between(source: int, target: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `target` pixels the two of `source` pixels that it lies between, and how far on the way."""
    at = ((torch.arange(target, device=device) + 0.5) / (target / source) - 0.5).clamp(0, source - 1)
    low = at.floor().long().clamp_max(max(source - 2, 0))
    return low, (low + 1).clamp_max(source - 1), at - low


def _inverse(w2c: Tensor) -> Tensor:
    """Inverses of rigid motions [...,4,4]."""
    out = torch.zeros_like(w2c)
    turned = w2c[..., :3, :3].mT
    out[..., :3, :3] = turned
    out[..., :3, 3:] = -turned @ w2c[..., :3, 3:]
    out[..., 3, 3] = 1
    return out
