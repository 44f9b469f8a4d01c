import torch

from gen3c.cache3d import reliable_mask
from gen3c.cameras import unproject
from gen3c.foreground import all_pairs_hit, boundary_mesh, mask_foreground, nearest_hit, unit_rays
from gen3c.splat import forward_warp

K = torch.tensor([[60.0, 0, 19.5], [0, 60, 11.5], [0, 0, 1]])


def random_triangles(seed: int, n: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    centres = torch.rand(n, 1, 3, generator=g) * torch.tensor([2.0, 1.2, 3.0]) - torch.tensor([1.0, 0.6, 0.5])
    return centres + torch.rand(n, 3, 3, generator=g) * 0.6 - 0.3  # some reach behind the camera


def test_bounding_boxes_lose_no_hit() -> None:
    rays = unit_rays(24, 40, K)
    triangles = random_triangles(0, 300)
    assert (triangles[..., 2] < 0).any()
    assert (triangles[..., 2] > 0).any()
    assert torch.equal(nearest_hit(triangles, rays, K), all_pairs_hit(triangles, rays))


def test_no_triangles_no_hits() -> None:
    assert (nearest_hit(torch.zeros(0, 3, 3), unit_rays(24, 40, K), K) == 0).all()


def test_background_does_not_shine_through_a_torn_foreground() -> None:
    """A near square in front of a wall, seen from the side: no wall where the edge of the square is stretched."""
    depth = torch.full((1, 1, 64, 96), 4.0)
    depth[..., 20:44, 32:64] = 1.0
    intrinsics = torch.tensor([[[90.0, 0, 47.5], [0, 90, 31.5], [0, 0, 1]]])
    points = unproject(depth[:, 0], torch.eye(4)[None], intrinsics)
    image = torch.where(depth < 2, 1.0, -0.5).expand(-1, 3, -1, -1)
    w2c = torch.eye(4)[None].clone()
    w2c[0, 0, 3] = 0.3
    warp = forward_warp(points, image, torch.ones_like(depth), w2c, intrinsics)
    masked = mask_foreground(warp, points, ~reliable_mask(depth)[:, 0], w2c, intrinsics)
    # The square moves by 27 px and the wall by 6.75: between them the torn mesh spans 20 px that nobody has seen.
    assert masked.coverage.sum() < warp.coverage.sum()
    hidden = (warp.coverage > 0) & (masked.coverage == 0)
    assert (warp.depth[hidden] > 2).all()  # only background is hidden


def test_no_triangle_touches_unknown_depth() -> None:
    """Each hole of one point costs the four cells around its vertex, if the vertex looks at it at all."""
    points = torch.ones(32, 48, 3)
    everywhere = torch.ones(32, 48, dtype=torch.bool)
    cells = 7 * 11
    assert len(boundary_mesh(points, everywhere, everywhere)[1]) == 2 * cells
    for y, x, lost in ((13, 17, 4), (14, 18, 4), (12, 17, 0), (15, 18, 0), (1, 1, 1), (1, 18, 2)):
        known = everywhere.clone()
        known[y, x] = False
        holed = torch.where(known[..., None], points, -100.0)
        vertices, faces = boundary_mesh(holed, everywhere, known)
        assert len(faces) == 2 * (cells - lost)
        assert (vertices == 1).all()


def test_known_depth_everywhere_changes_nothing() -> None:
    g = torch.Generator().manual_seed(0)
    points, boundary = torch.rand(25, 42, 3, generator=g), torch.rand(25, 42, generator=g) < 0.1  # no multiple of 4
    expected = boundary_mesh(points, boundary)
    got = boundary_mesh(points, boundary, torch.ones_like(boundary))
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])
