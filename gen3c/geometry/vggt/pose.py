"""A camera as nine numbers, VGGT's `absT_quaR_FoV`.

Translation 3, quaternion 4 (x,y,z,w), vertical and horizontal field of view in radians.

The translation and rotation are OpenCV's camera-from-world. The principal point is the middle of the picture that the
network saw, (width/2, height/2), in a raster whose pixel centres are integers: that is how the network was trained.
"""

import torch
from torch import Tensor

SMALLEST_DIVISOR = 0.1  # in quaternions from matrices: the largest of the four is never below 0.5


def decode_pose(encoding: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Encodings [...,9] of pictures of `size` (height, width) px -> w2c [...,4,4] and K [...,3,3].

    A field of view of 0 gives an infinite focal length: the caller decides what is usable.
    """
    height, width = size
    w2c = torch.zeros(*encoding.shape[:-1], 4, 4, dtype=encoding.dtype, device=encoding.device)
    w2c[..., :3, :3] = quaternion_to_matrix(encoding[..., 3:7])
    w2c[..., :3, 3] = encoding[..., :3]
    w2c[..., 3, 3] = 1
    K = torch.zeros(*encoding.shape[:-1], 3, 3, dtype=encoding.dtype, device=encoding.device)
    K[..., 0, 0] = width / 2 / (encoding[..., 8] / 2).tan()
    K[..., 1, 1] = height / 2 / (encoding[..., 7] / 2).tan()
    K[..., 0, 2], K[..., 1, 2], K[..., 2, 2] = width / 2, height / 2, 1
    return w2c, K


def encode_pose(w2c: Tensor, K: Tensor, size: tuple[int, int]) -> Tensor:
    """The inverse of `decode_pose`, [...,9]; the quaternion is a unit one with w >= 0."""
    height, width = size
    fov_h = 2 * (height / 2 / K[..., 1, 1]).atan()
    fov_w = 2 * (width / 2 / K[..., 0, 0]).atan()
    quaternion = matrix_to_quaternion(w2c[..., :3, :3])
    return torch.cat((w2c[..., :3, 3], quaternion, fov_h[..., None], fov_w[..., None]), dim=-1)


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """Rotations [...,3,3] of quaternions [...,4] (x,y,z,w) of any length but 0."""
    x, y, z, w = quaternion.unbind(-1)
    s = 2 / quaternion.square().sum(-1)
    rows = (
        (1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)),
        (s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)),
        (s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def matrix_to_quaternion(R: Tensor) -> Tensor:
    """Unit quaternions [...,4] (x,y,z,w), w >= 0, of rotations [...,3,3].

    By the largest component, so that none is divided by a number near 0.
    """
    xx, yy, zz = R[..., 0, 0], R[..., 1, 1], R[..., 2, 2]
    # Each component doubled, and the three others times it by four, from the largest of the four on.
    doubled = torch.stack((1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz, 1 + xx + yy + zz), dim=-1)
    doubled = doubled.clamp(min=0).sqrt()
    plus_xy, plus_xz, plus_yz = R[..., 1, 0] + R[..., 0, 1], R[..., 2, 0] + R[..., 0, 2], R[..., 2, 1] + R[..., 1, 2]
    less_x, less_y, less_z = R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]
    square = doubled.square()
    products = (
        (square[..., 0], plus_xy, plus_xz, less_x),
        (plus_xy, square[..., 1], plus_yz, less_y),
        (plus_xz, plus_yz, square[..., 2], less_z),
        (less_x, less_y, less_z, square[..., 3]),
    )
    candidates = torch.stack([torch.stack(row, dim=-1) for row in products], dim=-2)  # [...,4,4], one a row
    candidates = candidates / (2 * doubled[..., None].clamp(min=SMALLEST_DIVISOR))
    largest = doubled.argmax(-1)[..., None, None].expand(*doubled.shape[:-1], 1, 4)
    quaternion = candidates.gather(-2, largest)[..., 0, :]
    return torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)
