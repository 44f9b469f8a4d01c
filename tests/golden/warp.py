"""Unprojection, projection and forward warp."""

import torch

from gen3c.cache3d import reliable_mask
from gen3c.cameras import pixel_rays, to_camera, unproject
from gen3c.foreground import boundary_mesh, mask_foreground, nearest_hit, unit_rays
from gen3c.splat import depth_weight, forward_warp, project, splat
from tests.golden.tolerance import Absolute, Exact, OnShare, Relative
from tests.golden.vectors import Check, Part, Vectors

COLOUR = Absolute(1e-4)
MASK = Exact(0.995)
FOREGROUND_SHARE = 0.99  # occlusion is a yes or no at a threshold


def check_warp(v: Vectors) -> None:
    """Every stage of the warp on its own, fed with the reference's output of the stage before."""
    image, mask = v.input("image"), v.input("mask")
    w2c_src, w2c_tgt = v.input("w2c_src"), v.input("w2c_tgt")
    K_src, K_tgt = v.input("K_src"), v.input("K_tgt")
    depth = v.input("depth")[:, 0]
    v.check("world_points", unproject(depth, w2c_src, K_src), Absolute(1e-5))
    v.check("world_points_raydist", unproject(depth, w2c_src, K_src, along_ray=True), Absolute(1e-5))

    points = v.expected("world_points")
    v.check("cam_points", to_camera(points, w2c_tgt), Absolute(1e-5))
    pixels, z = project(points, w2c_tgt, K_tgt)
    undivided = torch.cat((pixels * (z + 1e-7)[..., None], z[..., None]), dim=-1)
    v.check("projected", undivided, Absolute(1e-3))
    height, width = image.shape[-2:]
    source = pixel_rays(height, width, torch.eye(3)[None])[..., :2]  # of the identity: the pixels themselves
    v.check("flow", (pixels - source).permute(0, 3, 1, 2), Relative(1e-3))

    together = forward_warp(points, image, mask, w2c_tgt, K_tgt, normaliser="call")
    v.check("warped", together.image, COLOUR)
    v.check("warped_mask", together.coverage, MASK)
    v.check("warped_depth", together.depth[:, 0], COLOUR)
    single = forward_warp(points, image, mask, w2c_tgt, K_tgt, normaliser="image")
    v.check("warped_single", single.image, COLOUR)
    v.check("warped_mask_single", single.coverage, COLOUR)
    v.check("warped_depth_single", single.depth[:, 0], COLOUR)

    # This entry goes from camera to camera and not by way of the world.
    standing = torch.eye(4).expand_as(w2c_src)
    seen = unproject(v.input("depthpath_depth")[:, 0], standing, K_src)
    by_depth = forward_warp(seen, image, mask, w2c_tgt @ torch.linalg.inv(w2c_src), K_tgt, normaliser="call")
    v.check("depthpath_warped", by_depth.image, COLOUR)
    v.check("depthpath_mask", by_depth.coverage, COLOUR)
    v.check("depthpath_depth_out", by_depth.depth[:, 0], COLOUR)

    weight = mask[:, 0] / depth_weight(v.input("splat_depth")[:, 0], "call")
    mean, summed = splat(image, source + v.expected("flow").permute(0, 2, 3, 1), weight, (height, width))
    v.check("splat_out", mean, COLOUR)
    v.check("splat_mask", (summed > 0).float(), COLOUR)


def check_reliable_mask(v: Vectors) -> None:
    """`mask_005` is `depth` at the threshold 0.05, `mask_holes_005` is `depth_with_holes`."""
    depths = {"": v.input("depth"), "holes_": v.input("depth_with_holes")}
    for match in v.matching(r"mask_(holes_)?0(\d+)"):
        depth, threshold = depths[match[1] or ""], float(f"0.{match[2]}")
        ours = reliable_mask(depth, threshold, reference=True)
        if not match[1]:
            v.check(match[0], ours, Exact())
            continue
        # Next to the threshold rounding decides.
        below, above = (reliable_mask(depth, threshold + shift, reference=True) for shift in (-1e-6, 1e-6))
        clear = below == above
        v.check_parts(
            match[0],
            ours,
            [Part("clear of the threshold", clear, Exact()), Part("at the threshold", ~clear, Exact(share=0.0))],
        )


def check_foreground(v: Vectors) -> None:
    """The boundary mesh of image 0 and the masking of all."""
    image, mask, points = v.input("image"), v.input("mask"), v.input("world_points")
    w2c, K, boundary = v.input("w2c_tgt"), v.input("K_tgt"), v.input("boundary_mask")
    height, width = image.shape[-2:]

    vertices, faces = boundary_mesh(v.input("cam_points0"), boundary[0])
    v.check("mesh_vertices", vertices, Absolute(1e-4))
    v.check("mesh_faces", faces, Exact())
    v.check("camera_rays", unit_rays(height, width, K[0]), Absolute(1e-6))
    triangles = v.expected("mesh_vertices")[v.expected("mesh_faces")]
    distance = nearest_hit(triangles, v.expected("camera_rays"), K[0])
    v.check("mesh_t", distance, OnShare(1e-3, FOREGROUND_SHARE, channels=None))

    plain = forward_warp(points, image, mask, w2c, K, normaliser="call")
    v.check("warped_nofg", plain.image, COLOUR)
    v.check("warped_mask_nofg", plain.coverage, COLOUR)
    masked = mask_foreground(plain, points, boundary, w2c, K)
    v.check("warped", masked.image, OnShare(1e-4, FOREGROUND_SHARE))
    v.check("warped_mask", masked.coverage, OnShare(1e-4, FOREGROUND_SHARE))
    v.check("warped_depth", masked.depth[:, 0], OnShare(1e-4, FOREGROUND_SHARE, channels=None))


CHECKS: dict[str, Check] = {
    "warp": check_warp,
    "reliable_mask": check_reliable_mask,
    "foreground": check_foreground,
}
