"""What surrounds VGGT's network: pictures in, cameras and points out."""

import io
import re
from typing import cast

import torch
from PIL import Image
from torch import Tensor

from gen3c.cameras import pixel_rays, to_camera, unproject
from gen3c.errors import InvalidInputError
from gen3c.geometry.vggt.pose import decode_pose, encode_pose, matrix_to_quaternion, quaternion_to_matrix
from gen3c.geometry.vggt.preprocess import released, released_size, released_square
from tests.golden.tolerance import Absolute, Close, Exact
from tests.golden.vectors import Check, Vectors
from tests.golden.vggt_networks import OUTPUT, config_of

NEAR_ZERO = 1e-4  # of a unit quaternion's w, below which its sign says nothing
SIDE, PATCH = 518, 14  # of the released loader


def check_pose_encoding(v: Vectors) -> None:
    """To matrices and back; quaternions of hard rotations."""
    config_of(v)
    height, width = (int(x) for x in v.input("image_hw"))
    w2c, K = decode_pose(v.input("pose_enc"), (height, width))
    v.check("extrinsic", w2c[..., :3, :], OUTPUT)
    v.check("intrinsic", K, Close(1e-3, 1e-5))
    expected = v.expected("pose_enc_roundtrip")
    back = encode_pose(w2c, K, (height, width))
    signed = torch.cat((back[..., :3], _same_sign(back[..., 3:7], expected[..., 3:7]), back[..., 7:]), dim=-1)
    v.check("pose_enc_roundtrip", signed, Absolute(1e-4))
    v.check("cam_to_world", torch.linalg.inv(w2c.double()).float().flatten(0, -3), Absolute(1e-4))
    rotations = quaternion_to_matrix(v.input("quat_xyzw"))
    v.check("rotmat", rotations, OUTPUT)
    quaternions = matrix_to_quaternion(v.expected("rotmat"))
    v.check("quat_back", _same_sign(quaternions, v.expected("quat_back")), Absolute(1e-4))


def check_unproject(v: Vectors) -> None:
    """Depth to points. Depth that is none has points in the vectors; our `unproject` leaves those out."""
    config_of(v)
    depth, extrinsic, K = v.input("depth")[..., 0], v.input("extrinsic"), v.input("intrinsic")
    w2c = torch.cat((extrinsic, extrinsic.new_tensor([0, 0, 0, 1]).expand(len(extrinsic), 1, 4)), dim=1)
    rays = pixel_rays(depth.shape[1], depth.shape[2], K)
    camera_points = rays * depth[..., None]
    valid = depth > 1e-8
    v.check("valid_mask", valid, Exact())
    v.check("cam_points", camera_points, OUTPUT)
    every = to_camera(camera_points, torch.linalg.inv(w2c.double()).float())
    v.check("world_points", torch.where(valid[..., None], unproject(depth, w2c, K), every), Absolute(1e-4))


def check_preprocess(v: Vectors) -> None:
    """The released loaders on PNG files; modes and files of each case are in the file's JSON."""
    files = {match[1]: bytes(v.input(match[0]).numpy()) for match in v.matching(r"png:(\w+)")}
    for case, what in config_of(v)["cases"].items():
        pictures = [Image.open(io.BytesIO(files[name])) for name in what["files"]]
        if square := re.fullmatch(r"square(\d+)", what["mode"]):
            pixels, places = released_square(pictures, int(square[1]))
            v.check(f"{case}:coords", places, Absolute(1e-3))
        else:
            pixels = released(pictures, what["mode"], SIDE, PATCH)
        v.check(f"{case}:out_u8", pixels, Exact())


def check_sizes(v: Vectors) -> None:
    """Sizes that pictures of many shapes get, in both modes, and how much of the padded one is not white."""
    rows = [_sizes(int(row[0]), int(row[1])) for row in v.input("rows")]
    v.check("rows", torch.tensor(rows), Exact())


def _sizes(width: int, height: int) -> list[int]:
    grey = Image.new("RGB", (width, height), (128, 128, 128))

    def loaded(mode: str) -> Tensor | None:
        try:
            released_size(width, height, mode, SIDE, PATCH)  # type: ignore[arg-type]
        except InvalidInputError:
            return None  # where the released loader raises
        return released([grey], mode, SIDE, PATCH)[0]  # type: ignore[arg-type]

    crop, pad = loaded("crop"), loaded("pad")
    row = [width, height, *([-1, -1] if crop is None else crop.shape[1:])]
    if pad is None:
        return [*row, -1, -1, -1, -1]
    seen = (pad != 255).any(0)
    return [*row, *pad.shape[1:], int(seen.any(1).sum()), int(seen.any(0).sum())]


def _same_sign(ours: Tensor, expected: Tensor) -> Tensor:
    """Quaternions with the reference's sign where w is about 0: both signs are the same rotation."""
    opposite = (ours * expected).sum(-1, keepdim=True) < 0
    free = expected[..., 3:].abs() < NEAR_ZERO
    return cast(Tensor, torch.where(opposite & free, -ours, ours))


CHECKS: dict[str, Check] = {
    "pose_encoding": check_pose_encoding,
    "unproject": check_unproject,
    "preprocess": check_preprocess,
    "preprocess_sizes": check_sizes,
}
