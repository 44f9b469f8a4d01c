import torch

from gen3c.cameras import unproject
from gen3c.splat import EMPTY, forward_warp

K = torch.tensor([[[60.0, 0, 19.5], [0, 60, 11.5], [0, 0, 1]]])


def plane(depth: float, height: int = 24, width: int = 40) -> torch.Tensor:
    return unproject(torch.full((1, height, width), depth), torch.eye(4)[None], K)


def picture(seed: int, height: int = 24, width: int = 40) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_a_sideways_step_shifts_a_plane_by_its_parallax() -> None:
    image = picture(1)
    w2c = torch.eye(4)[None].clone()
    w2c[0, 0, 3] = -2.0 * 3 / 60  # 3 px at depth 2
    warp = forward_warp(plane(2.0), image, torch.ones(1, 1, 24, 40), w2c, K)
    assert (warp.image[..., :-3] - image[..., 3:]).abs().max() < 1e-3
    assert (warp.image[..., -2:] == EMPTY).all()
    assert (warp.coverage[..., -2:] == 0).all()
    assert torch.allclose(warp.depth[..., :-3], torch.tensor(2.0), atol=1e-4)


def test_near_hides_far() -> None:
    points = torch.cat((plane(1.0), plane(4.0)), dim=2)  # [1,24,80,3]: the same pixels twice
    image = torch.cat((torch.full((1, 3, 24, 40), 0.8), torch.full((1, 3, 24, 40), -0.6)), dim=3)
    warp = forward_warp(points, image, torch.ones(1, 1, 24, 80), torch.eye(4)[None], K, size=(24, 40))
    assert (warp.image - 0.8).abs().max() < 1e-3


def test_points_behind_the_camera_and_masked_points_take_no_part() -> None:
    behind = torch.eye(4)[None].clone()
    behind[0, 2, 3] = -3.0
    warp = forward_warp(plane(2.0), picture(2), torch.ones(1, 1, 24, 40), behind, K)
    assert (warp.coverage == 0).all()
    assert (warp.image == EMPTY).all()
    masked = forward_warp(plane(2.0), picture(2), torch.zeros(1, 1, 24, 40), torch.eye(4)[None], K)
    assert (masked.coverage == 0).all()


def test_a_picture_does_not_depend_on_its_batch_mates() -> None:
    image = torch.cat((picture(3), picture(4)))
    points = torch.cat((plane(2.0), plane(500.0)))
    w2c = torch.eye(4).repeat(2, 1, 1)
    w2c[:, 0, 3] = 0.013
    mask, intrinsics = torch.ones(2, 1, 24, 40), K.repeat(2, 1, 1)
    together = forward_warp(points, image, mask, w2c, intrinsics)
    alone = forward_warp(points[:1], image[:1], mask[:1], w2c[:1], intrinsics[:1])
    assert torch.equal(together.image[:1], alone.image)


def test_target_size_may_differ() -> None:
    warp = forward_warp(plane(2.0), picture(5), torch.ones(1, 1, 24, 40), torch.eye(4)[None], K, size=(12, 50))
    assert warp.image.shape == (1, 3, 12, 50)
    assert (warp.coverage[..., :12, :40] == 1).all()
    assert (warp.coverage[..., 41:] == 0).all()
