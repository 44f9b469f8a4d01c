"""Cameras: poses, intrinsics, projection, and the camera paths of GEN3C.

OpenCV axes (x right, y down, z forward), `w2c` 4x4 world to camera, `K` 3x3 in pixels, pixel centres at integers.
"""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from gen3c.errors import InvalidInputError

PathKind = Literal["left", "right", "up", "down", "zoom_in", "zoom_out", "clockwise", "counterclockwise"]
RotationMode = Literal["center_facing", "no_rotation", "trajectory_aligned"]

RIGID_TOLERANCE = 1e-3  # of R R^T against the identity: JSON with four digits passes, a scaled matrix does not


def pixel_rays(height: int, width: int, K: Tensor) -> Tensor:
    """Camera-space directions with z = 1 of every pixel centre, [b,h,w,3], for intrinsics K [b,3,3]."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float32, device=K.device),
        torch.arange(width, dtype=torch.float32, device=K.device),
        indexing="ij",
    )
    pixels = torch.stack((x, y, torch.ones_like(x)), dim=-1)  # [h,w,3]
    return transform(inverse(K), pixels[None])


def transform(matrices: Tensor, points: Tensor) -> Tensor:
    """Matrices [b,3,3] times points [b or 1,...,3], in float32 and in the same order of operations everywhere.

    A BLAS fuses multiplications and additions on one CPU and not on another; where points fall on the borders of
    pixels, as between rectified views, that bit decides which pixels they reach.
    """
    columns = matrices.float().view(-1, *[1] * (points.ndim - 2), 3, 3).unbind(-1)  # [b,...,3] each
    result = points[..., :1].float() * columns[0]
    for i in (1, 2):
        result = result + points[..., i : i + 1].float() * columns[i]
    return result


def inverse(matrices: Tensor) -> Tensor:
    """Inverses of small matrices [b,n,n] in float32, by elimination with the largest pivot; see `transform`.

    A singular matrix gives infinities and NaN: cameras are checked before (`check_cameras`).
    """
    n = matrices.shape[-1]
    rows = torch.cat((matrices.float(), torch.eye(n, device=matrices.device).expand_as(matrices)), dim=-1)  # [b,n,2n]
    for k in range(n):
        pivot = rows[:, k:, k].abs().argmax(1) + k
        order = torch.arange(n, device=rows.device).repeat(len(rows), 1)
        order[:, k] = pivot
        order.scatter_(1, pivot[:, None], k)
        rows = rows.gather(1, order[..., None].expand_as(rows))
        below = rows[:, k + 1 :, k : k + 1] * (1 / rows[:, k : k + 1, k : k + 1])
        rows = torch.cat((rows[:, : k + 1], rows[:, k + 1 :] - below * rows[:, k : k + 1]), dim=1)
    for k in reversed(range(n)):
        row = rows[:, k : k + 1] * (1 / rows[:, k : k + 1, k : k + 1])
        rows = torch.cat((rows[:, :k] - rows[:, :k, k : k + 1] * row, row, rows[:, k + 1 :]), dim=1)
    return rows[..., n:]


def unproject(
    depth: Tensor,  # [b,h,w] z-depth; ray length if along_ray
    w2c: Tensor,  # [b,4,4]
    K: Tensor,  # [b,3,3]
    *,
    along_ray: bool = False,
) -> Tensor:
    """World points [b,h,w,3] of every pixel, in the unit of depth. Pixels with depth <= 0 give the zero vector."""
    rays = pixel_rays(depth.shape[1], depth.shape[2], K)
    if along_ray:
        rays = rays / (rays.norm(dim=-1, keepdim=True) + 1e-8)
    camera_points = rays * depth[..., None].float()
    world = to_camera(camera_points, inverse(w2c))
    return torch.where(depth[..., None] > 0, world, torch.zeros_like(world))


def to_camera(points: Tensor, w2c: Tensor) -> Tensor:
    """World points [b,...,3] in the frame of cameras w2c [b,4,4]; with their inverses, the other way."""
    shift = w2c[:, :3, 3].float().view(-1, *[1] * (points.ndim - 2), 3)
    return transform(w2c[:, :3, :3], points) + shift


def check_cameras(w2c: Tensor, K: Tensor, where: str) -> None:
    """Raise InvalidInputError unless w2c [n,4,4] are rigid and K [n,3,3] are pinhole intrinsics, all finite.

    `where` names the input in the message, for example `CAMERAS_W2C`.
    """
    for name, tensor in (("w2c", w2c), ("K", K)):
        bad = (~torch.isfinite(tensor)).flatten(1).any(1).nonzero()
        if len(bad):
            raise InvalidInputError(f"{where}: {name} of camera {int(bad[0])} is not finite (NaN or infinity).", where)
    R = w2c[:, :3, :3].double()
    off = (R @ R.transpose(1, 2) - torch.eye(3, dtype=torch.float64)).abs().flatten(1).amax(1)
    last = (w2c[:, 3].double() - torch.tensor([0.0, 0, 0, 1], dtype=torch.float64)).abs().amax(1)
    for i in range(len(w2c)):
        if off[i] > RIGID_TOLERANCE or torch.linalg.det(R[i]) < 0 or last[i] > RIGID_TOLERANCE:
            raise InvalidInputError(
                f"{where}: w2c of camera {i} is not rigid (|R R^T - I| is {off[i]:.3g}, det R is "
                f"{torch.linalg.det(R[i]):.3g}, last row {w2c[i, 3].tolist()}); legal: a rotation with determinant 1, "
                "a translation, and the last row 0 0 0 1.",
                where,
            )
        fx, fy = float(K[i, 0, 0]), float(K[i, 1, 1])
        lower = K[i][torch.tril(torch.ones(3, 3, dtype=torch.bool), -1)].abs().max()
        if fx <= 0 or fy <= 0 or lower > RIGID_TOLERANCE or abs(float(K[i, 2, 2]) - 1) > RIGID_TOLERANCE:
            raise InvalidInputError(
                f"{where}: K of camera {i} is {K[i].tolist()}; legal: [[fx, s, cx], [0, fy, cy], [0, 0, 1]] with "
                "positive focal lengths in pixels.",
                where,
            )


def _positions(kind: PathKind, num_frames: int, reach: float) -> Tensor:
    """Camera displacement [n,3] along a path. Straight ones end at (n-1)/n of `reach`; circles close."""
    i = torch.arange(num_frames, dtype=torch.float64)
    straight = i * reach / num_frames
    zero = torch.zeros_like(i)
    angle = 2 * torch.pi * i / max(num_frames - 1, 1)
    match kind:
        case "left":
            xyz = (-straight, zero, zero)
        case "right":
            xyz = (straight, zero, zero)
        case "up":
            xyz = (zero, -straight, zero)
        case "down":
            xyz = (zero, straight, zero)
        case "zoom_in":
            xyz = (zero, zero, straight)
        case "zoom_out":
            xyz = (zero, zero, -straight)
        case "clockwise":
            xyz = (reach * (angle.cos() - 1), reach * angle.sin(), zero)
        case "counterclockwise":
            xyz = (-reach * (angle.cos() - 1), reach * angle.sin(), zero)
        case _:
            raise InvalidInputError(f"path is {kind!r}; legal: {', '.join(get_args(PathKind))}.", "spec.path.kind")
    return torch.stack(xyz, dim=-1)


def camera_path(
    kind: PathKind,
    num_frames: int,
    initial_w2c: Tensor,  # [4,4], or [n,4,4]: one start camera for every frame
    *,
    rotation: RotationMode = "center_facing",
    distance: float = 0.3,
    center_depth: float = 1.0,
    reference: bool = False,
) -> Tensor:
    """GEN3C's camera paths, w2c [n,4,4] float32. `distance` is in units of `center_depth`.

    The camera moves to p and looks at the centre (0,0,center_depth) (`center_facing`), straight ahead
    (`no_rotation`), or on along its way (`trajectory_aligned`). GEN3C writes the translation as -p; with a rotation R
    the camera then really stands at R^T p. `reference` reproduces that; the default puts it where the name says.
    """
    p = _positions(kind, num_frames, distance * center_depth)
    center = torch.tensor([0.0, 0.0, center_depth], dtype=torch.float64)
    match rotation:
        case "center_facing":
            target = center.expand_as(p)
        case "no_rotation":
            target = center + p
        case "trajectory_aligned":
            target = center + 2 * p
        case _:
            raise InvalidInputError(
                f"rotation is {rotation!r}; legal: {', '.join(get_args(RotationMode))}.", "spec.path.rotation"
            )
    forward = target - p
    if (forward[:, 2] < 1e-6 * center_depth).any():
        # Only straight paths come here, which go (n-1)/n of the distance; rounded down, so that the figure is legal.
        limit = 1000 * num_frames // (num_frames - 1) / 1000
        raise InvalidInputError(
            f"distance is {distance}: with path {kind} and rotation {rotation} the camera reaches or passes the point "
            f"it looks at; legal: below {limit:g} for {num_frames} frames.",
            "spec.path.distance",
        )
    forward = F.normalize(forward, dim=-1)
    down = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).expand_as(forward)
    right = F.normalize(torch.linalg.cross(down, forward), dim=-1)
    true_down = torch.linalg.cross(forward, right)
    R = torch.stack((right, true_down, forward), dim=1)  # [n,3,3]
    move = torch.eye(4, dtype=torch.float64).repeat(num_frames, 1, 1)
    move[:, :3, :3] = R
    move[:, :3, 3] = -p if reference else -(R @ p[:, :, None])[:, :, 0]
    return (move @ initial_w2c.double()).float()
