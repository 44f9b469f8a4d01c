"""A smooth camera path through keyframes: SLERP for rotations, Catmull-Rom for positions and intrinsics."""

import torch
from torch import Tensor

from gen3c.errors import InvalidInputError


def interpolate_cameras(
    times: Tensor,  # [k] growing
    w2c: Tensor,  # [k,4,4]
    K: Tensor,  # [k,3,3]
    at: Tensor,  # [n]
) -> tuple[Tensor, Tensor]:
    """Cameras w2c [n,4,4] and K [n,3,3] at the moments `at`, float32; before the first and after the last they rest.

    Positions are camera centres, so a path turns about the camera and not about the world's origin. The spline is a
    cubic Hermite whose tangents weigh the neighbouring slopes by the interval lengths: Catmull-Rom when they are equal.
    """
    if len(times) < 2:
        raise InvalidInputError(f"a path needs at least 2 keyframes, got {len(times)}.", "cameras.keyframes")
    times, at = times.double(), at.double().clamp(float(times[0]), float(times[-1]))
    c2w = torch.linalg.inv(w2c.double())
    segment = (torch.searchsorted(times, at, right=True) - 1).clamp(0, len(times) - 2)
    share = (at - times[segment]) / (times[segment + 1] - times[segment])

    quaternions = rotation_to_quaternion(c2w[:, :3, :3])
    rotation = quaternion_to_rotation(_slerp(quaternions[segment], quaternions[segment + 1], share))
    payload = torch.cat((c2w[:, :3, 3], K.double().flatten(1)), dim=1)  # [k,3+9]
    smooth = _catmull_rom(times, payload, segment, at)

    result = torch.eye(4, dtype=torch.float64).repeat(len(at), 1, 1)
    result[:, :3, :3] = rotation
    result[:, :3, 3] = smooth[:, :3]
    return torch.linalg.inv(result).float(), smooth[:, 3:].reshape(-1, 3, 3).float()


def rotation_to_quaternion(R: Tensor) -> Tensor:
    """Unit quaternions (w,x,y,z) [n,4] of rotation matrices [n,3,3], by the largest component (Shepperd 1978)."""
    m = R.reshape(-1, 9)
    xx, xy, xz, yx, yy, yz, zx, zy, zz = m.unbind(1)
    candidates = torch.stack(
        (
            torch.stack((1 + xx + yy + zz, zy - yz, xz - zx, yx - xy), 1),
            torch.stack((zy - yz, 1 + xx - yy - zz, xy + yx, xz + zx), 1),
            torch.stack((xz - zx, xy + yx, 1 - xx + yy - zz, yz + zy), 1),
            torch.stack((yx - xy, xz + zx, yz + zy, 1 - xx - yy + zz), 1),
        ),
        dim=1,
    )  # [n,4,4]; row i is 4 q_i q
    best = candidates.diagonal(dim1=1, dim2=2).argmax(1)
    q = candidates[torch.arange(len(m)), best]
    return _unit(q)


def quaternion_to_rotation(q: Tensor) -> Tensor:
    """Rotation matrices [n,3,3] of unit quaternions (w,x,y,z) [n,4]."""
    w, x, y, z = q.unbind(1)
    rows = (
        torch.stack((1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)), 1),
        torch.stack((2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)), 1),
        torch.stack((2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)), 1),
    )
    return torch.stack(rows, dim=1)


def _unit(q: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(q, dim=1, keepdim=True)
    return q / norm


def _slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    dot = (a * b).sum(1)
    b = torch.where(dot[:, None] < 0, -b, b)  # the short way round
    angle = torch.arccos(dot.abs().clamp(max=1.0))[:, None]
    s = share[:, None]
    near = angle < 1e-6  # too close to divide by the sine
    sine = torch.where(near, torch.ones_like(angle), torch.sin(angle))
    q = torch.where(near, (1 - s) * a + s * b, (torch.sin((1 - s) * angle) * a + torch.sin(s * angle) * b) / sine)
    return _unit(q)


def _catmull_rom(times: Tensor, values: Tensor, segment: Tensor, at: Tensor) -> Tensor:
    """Cubic Hermite with Catmull-Rom tangents for unequal intervals: values [k,c] at the moments [n]."""
    step = times[1:] - times[:-1]
    slope = (values[1:] - values[:-1]) / step[:, None]
    tangent = torch.cat((slope[:1], slope[-1:]))
    if len(times) > 2:
        before, after = step[:-1, None], step[1:, None]
        inner = (slope[:-1] * after + slope[1:] * before) / (before + after)
        tangent = torch.cat((slope[:1], inner, slope[-1:]))
    width = step[segment][:, None]
    s = ((at - times[segment]) / step[segment])[:, None]
    return (
        (2 * s**3 - 3 * s**2 + 1) * values[segment]
        + (s**3 - 2 * s**2 + s) * width * tangent[segment]
        + (3 * s**2 - 2 * s**3) * values[segment + 1]
        + (s**3 - s**2) * width * tangent[segment + 1]
    )
