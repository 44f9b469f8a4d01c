"""How good estimated depth and cameras are, after the one scale that they leave open."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gen3c.geometry.vggt.model import Vggt
from gen3c.geometry.vggt.pose import decode_pose
from training.scenes import draw_worlds
from training.vggt_data import DRAWN_AT_ONCE, SIZE, drawn
from training.vggt_loss import inverse_of_rigid, product

CHUNK = 8  # scenes at a time
TRUSTED = 1.5  # confidence, as served


def held_out(seeds: Sequence[int], device: torch.device) -> dict[str, Tensor]:
    """The worlds of `seeds` as `training.vggt_data.drawn` keeps them."""
    groups = [seeds[i : i + DRAWN_AT_ONCE] for i in range(0, len(seeds), DRAWN_AT_ONCE)]
    parts = [drawn(group, draw_worlds(group, device)) for group in groups]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def evaluate(model: Vggt, seeds: Sequence[int], device: torch.device) -> dict[str, float]:
    """What `evaluate_on` says of the worlds of `seeds`, eight views each."""
    return evaluate_on(model, held_out(seeds, device))


@torch.no_grad()
def evaluate_on(model: Vggt, scenes: dict[str, Tensor]) -> dict[str, float]:
    """Errors over `scenes` (training.vggt_data.drawn); see `depth_errors` and `camera_errors`.

    Means over scenes of depth errors; median and mean over views 1 and later of rotation (degrees) and of the place of
    the camera (share of the shots' unit); mean over views of the focal length's error (percent).
    """
    n = len(scenes["w2c"])
    absrel, trusted, share = list[Tensor](), list[Tensor](), list[Tensor]()
    cameras = list[tuple[Tensor, Tensor, Tensor]]()
    for i in range(0, n, CHUNK):
        rgb, depth, w2c, K = (scenes[name][i : i + CHUNK] for name in ("rgb", "depth", "w2c", "K"))
        depth = depth.float()
        prediction = model(rgb.permute(0, 1, 4, 2, 3).float() / 255)
        scale = alignment(prediction.depth, depth)
        errors = (prediction.depth * scale[:, None, None, None] - depth).abs() / depth
        sure = (prediction.depth_confidence >= TRUSTED).float()
        absrel.append(errors.flatten(1).mean(1))
        trusted.append((errors * sure).flatten(1).sum(1) / sure.flatten(1).sum(1).clamp(min=1))
        share.append(sure.flatten(1).mean(1))
        cameras.append(camera_errors(prediction.pose.float(), w2c, K, scale))
    turned, moved, focal = (torch.cat(errors).flatten() for errors in zip(*cameras, strict=True))
    values = {
        "absrel": torch.cat(absrel).mean(),
        "absrel_median_scene": torch.cat(absrel).median(),
        "absrel_trusted": torch.cat(trusted).mean(),
        "trusted_percent": 100 * torch.cat(share).mean(),
        "rotation_median": turned.median(),
        "rotation_mean": turned.mean(),
        "rotation_90_percent": turned.quantile(0.9),
        "place_median": moved.median(),
        "place_mean": moved.mean(),
        "focal_percent": 100 * focal.mean(),
    }
    return {name: round(float(value), 5) for name, value in values.items()}


def alignment(estimate: Tensor, truth: Tensor) -> Tensor:
    """The median of truth / estimate over each scene's pixels: depths [b,...] -> [b]."""
    ratio: Tensor = (truth / estimate.clamp(min=1e-9)).flatten(1).median(1).values
    return ratio


def camera_errors(
    pose: Tensor,  # [b,s,9] encodings
    w2c: Tensor,  # [b,s,4,4] true cameras
    K: Tensor,  # [b,3,3] true intrinsics
    scale: Tensor,  # [b] true lengths over estimated ones
    size: tuple[int, int] = SIZE,
) -> tuple[Tensor, Tensor, Tensor]:
    """Errors of rotation (degrees) and of the camera's place (true unit) of views 1 and later [b,s-1], all relative to
    view 0; and of the focal length as a share, [b,s]."""
    estimated, estimated_K = decode_pose(pose, size)
    estimated = product(estimated, inverse_of_rigid(estimated[:, :1]))[:, 1:]
    truth = product(w2c, inverse_of_rigid(w2c[:, :1]))[:, 1:]
    # ||R - R'|| = 2 sqrt(2) sin(angle / 2); the arc cosine of the trace is blind below 0.03 degrees.
    half = (estimated[..., :3, :3] - truth[..., :3, :3]).flatten(2).norm(dim=-1) / 8**0.5
    rotation = torch.rad2deg(2 * half.clamp(max=1).asin())
    places = inverse_of_rigid(estimated)[..., :3, 3] * scale[:, None, None] - inverse_of_rigid(truth)[..., :3, 3]
    focal = (estimated_K[..., 0, 0] / K[:, None, 0, 0] - 1).abs()
    return rotation, places.norm(dim=-1), focal
