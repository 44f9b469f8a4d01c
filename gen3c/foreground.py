"""Foreground masking: hide background that shines through the cracks of a stretched foreground.

Where depth jumps, neighbouring points of one surface move apart in the target view and the background lands between
them. GEN3C meshes the neighbourhood of depth jumps at a quarter of the resolution, casts a ray through every target
pixel, and drops what was splatted behind that mesh. A triangle only meets the rays inside its own
projection, so each one is tested against its bounding box instead of all rays against all triangles.

Points of unknown depth lie nowhere: GEN3C, whose depth is complete, has none; here no mesh touches them.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from gen3c.cameras import pixel_rays, to_camera
from gen3c.splat import EMPTY, Warp

MESH_STRIDE = 4  # px of the source picture between two mesh vertices
OCCLUSION_MARGIN = 0.02  # in the scene's unit (gen3c.scene): how far a point may lie behind the mesh
_EPSILON = 1e-8
_PAIRS_AT_ONCE = 1 << 21  # (triangle, pixel) tests held in memory together


def boundary_mesh(
    camera_points: Tensor,  # [h,w,3] in the target camera
    boundary: Tensor,  # [h,w] bool
    known: Tensor | None = None,  # [h,w] bool: points of known depth; default: all
) -> tuple[Tensor, Tensor]:
    """The mesh around depth jumps of one view.

    Gives vertices [n,3] (only those in use, in grid order) and faces [m,3] int64: all (top left, top right, bottom
    left), then all (top right, bottom right, bottom left) triangles of the cells with a boundary corner and four
    corners of known depth. A vertex mixes up to 2x2 points; its depth is known if that of each of them is.
    """
    size = (camera_points.shape[0] // MESH_STRIDE, camera_points.shape[1] // MESH_STRIDE)
    grid = F.interpolate(camera_points.permute(2, 0, 1)[None], size, mode="bilinear", align_corners=False)[0]
    marked = F.interpolate(boundary[None, None].float(), size, mode="nearest")[0, 0] > 0
    cells = marked[:-1, :-1] | marked[:-1, 1:] | marked[1:, :-1] | marked[1:, 1:]
    if known is not None:
        touched = F.interpolate((~known)[None, None].float(), size, mode="bilinear", align_corners=False)[0, 0] > 0
        cells &= ~(touched[:-1, :-1] | touched[:-1, 1:] | touched[1:, :-1] | touched[1:, 1:])
    row, column = cells.nonzero(as_tuple=True)
    top_left = row * size[1] + column
    top_right, bottom_left, bottom_right = top_left + 1, top_left + size[1], top_left + size[1] + 1
    faces = torch.cat(
        (
            torch.stack((top_left, top_right, bottom_left), dim=1),
            torch.stack((top_right, bottom_right, bottom_left), dim=1),
        )
    )
    used, renumbered = torch.unique(faces, return_inverse=True)
    return grid.flatten(1).T[used], renumbered.view(-1, 3)


def unit_rays(height: int, width: int, K: Tensor) -> Tensor:
    """Unit direction [h,w,3] of the ray through every pixel centre, for one K [3,3]."""
    return F.normalize(pixel_rays(height, width, K[None])[0], dim=-1)


def nearest_hit(triangles: Tensor, rays: Tensor, K: Tensor) -> Tensor:
    """Distance [h,w] along unit rays [h,w,3] to the nearest triangle [m,3,3] of either facing; 0 where none is hit.

    Moeller and Trumbore 1997, on every pixel of each triangle's projected bounding box.
    """
    height, width = rays.shape[:2]
    nearest = torch.full((height * width,), torch.inf, device=rays.device)
    if len(triangles):
        left, top, columns, rows = _bounding_boxes(triangles, K, height, width)
        counts = columns * rows
        # Whole triangles in groups of bounded work; one huge triangle may exceed the bound alone.
        group = (counts.cumsum(0) - 1).clamp(min=0) // _PAIRS_AT_ONCE
        for members in torch.split(torch.arange(len(triangles), device=rays.device), torch.bincount(group).tolist()):
            n = counts[members]
            face = torch.repeat_interleave(members, n)
            local = torch.arange(int(n.sum()), device=rays.device) - torch.repeat_interleave(n.cumsum(0) - n, n)
            pixel = (top[face] + local // columns[face]) * width + left[face] + local % columns[face]
            t = _intersect(triangles[face], rays.reshape(-1, 3)[pixel])
            nearest.scatter_reduce_(0, pixel, t, reduce="amin")
    return torch.where(torch.isfinite(nearest), nearest, torch.zeros_like(nearest)).view(height, width)


def all_pairs_hit(triangles: Tensor, rays: Tensor) -> Tensor:
    """`nearest_hit` by testing every ray against every triangle: the plain twin, for tests."""
    flat = rays.reshape(-1, 3)
    nearest = torch.full((len(flat),), torch.inf, device=rays.device)
    for triangle in triangles:
        nearest = torch.minimum(nearest, _intersect(triangle.expand(len(flat), 3, 3), flat))
    return torch.where(torch.isfinite(nearest), nearest, torch.zeros_like(nearest)).view(rays.shape[:2])


def mask_foreground(
    warp: Warp,  # b pictures
    points: Tensor,  # [b,h,w,3] world: what was splatted
    boundary: Tensor,  # [b,h,w] bool: unreliable depth
    w2c: Tensor,  # [b,4,4] target cameras
    K: Tensor,  # [b,3,3]
    known: Tensor | None = None,  # [b,h,w] bool: points of known depth; default: all
) -> Warp:
    """Empty every target pixel whose splatted depth lies behind the boundary mesh of its own view."""
    height, width = warp.image.shape[-2:]
    hidden = torch.zeros_like(warp.coverage, dtype=torch.bool)
    for i, camera_points in enumerate(to_camera(points, w2c)):
        vertices, faces = boundary_mesh(camera_points, boundary[i], None if known is None else known[i])
        rays = unit_rays(height, width, K[i])
        mesh_z = nearest_hit(vertices[faces], rays, K[i]) * rays[..., 2]
        hidden[i, 0] = (mesh_z > 0) & (mesh_z + OCCLUSION_MARGIN < warp.depth[i, 0])
    return Warp(
        torch.where(hidden, torch.full_like(warp.image, EMPTY), warp.image),
        torch.where(hidden, torch.zeros_like(warp.coverage), warp.coverage),
        torch.where(hidden, torch.zeros_like(warp.depth), warp.depth),
        torch.where(hidden, torch.zeros_like(warp.weight), warp.weight),
    )


def _bounding_boxes(triangles: Tensor, K: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Left, top, columns and rows [m] of each triangle on the raster, one pixel wider against rounding.

    A triangle that reaches behind the camera has no bounded projection: it gets the whole picture, or nothing when it
    lies behind altogether.
    """
    z = triangles[..., 2]
    in_front = (z > _EPSILON).all(1)
    behind = (z <= _EPSILON).all(1)
    q = triangles @ K.float().T
    xy = q[..., :2] / torch.where(z > _EPSILON, z, torch.ones_like(z))[..., None]
    limit = torch.tensor([width - 1, height - 1], dtype=torch.float32, device=triangles.device)
    low = (xy.amin(1).floor() - 1).clamp(min=0)
    high = torch.minimum(xy.amax(1).ceil() + 1, limit)
    low = torch.where(in_front[:, None], low, torch.zeros_like(low)).long()
    high = torch.where(in_front[:, None], high, limit.expand_as(high)).long()
    extent = (high - low + 1).clamp(min=0)
    extent[behind] = 0
    return low[:, 0], low[:, 1], extent[:, 0], extent[:, 1]


def _intersect(triangles: Tensor, directions: Tensor) -> Tensor:
    """Distance [p] at which rays from the origin along directions [p,3] meet triangles [p,3,3]; inf for a miss."""
    origin_vertex = triangles[:, 0]
    edge1, edge2 = triangles[:, 1] - origin_vertex, triangles[:, 2] - origin_vertex
    h = torch.linalg.cross(directions, edge2)
    determinant = (edge1 * h).sum(-1)
    inverse = 1 / torch.where(determinant.abs() > _EPSILON, determinant, torch.ones_like(determinant))
    s = -origin_vertex
    u = inverse * (s * h).sum(-1)
    q = torch.linalg.cross(s, edge1)
    v = inverse * (directions * q).sum(-1)
    t = inverse * (edge2 * q).sum(-1)
    hit = (determinant.abs() > _EPSILON) & (u >= 0) & (v >= 0) & (u + v <= 1) & (t > _EPSILON)
    return torch.where(hit, t, torch.full_like(t, torch.inf))
