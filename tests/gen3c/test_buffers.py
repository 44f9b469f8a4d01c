import pytest
import torch
from torch import Tensor

from gen3c.buffers import BufferCache, Picture, Rendering, fit_depth
from gen3c.cache3d import nearest_surface, reliable_mask
from gen3c.errors import InvalidInputError

K = torch.tensor([[60.0, 0, 19.5], [0, 60, 11.5], [0, 0, 1]])
SIZE = (24, 40)


def pose(x: float) -> Tensor:
    """A camera `x` to the right."""
    w2c = torch.eye(4)
    w2c[0, 3] = -x
    return w2c


def stage(x: float) -> Tensor:
    """Depth [24,40] of a wall at 2 and a panel at 1 before it, 0.1 <= X <= 0.25, both leaning, seen from `x`."""
    row, column = torch.meshgrid(torch.arange(24.0), torch.arange(40.0), indexing="ij")
    lean = 1 / (1 + 0.4 * (row - 11.5) / 60)
    place = (column - 19.5) / 60 * lean + x
    return torch.where((place >= 0.1) & (place <= 0.25), 1.0, 2.0) * lean


def picture(x: float, seed: int = 0, scale: float = 1.0) -> Picture:
    image = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return Picture(image, stage(x) * scale, pose(x), K)


def targets(*places: float) -> tuple[Tensor, Tensor]:
    return torch.stack([pose(x) for x in places]), K.expand(len(places), 3, 3)


def test_the_newest_picture_comes_first_and_the_original_stays() -> None:
    first, second, third = picture(0, 0), picture(0.1, 1), picture(0.2, 2)
    cache = BufferCache.start(first)
    assert [b.image is first.image for b in cache.buffers] == [True]
    cache = cache.grown(second)
    assert [b.image is p.image for b, p in zip(cache.buffers, (second, first), strict=True)] == [True, True]
    cache = cache.grown(third)
    assert [b.image is p.image for b, p in zip(cache.buffers, (third, first), strict=True)] == [True, True]


@pytest.mark.parametrize("reference", [False, True])
def test_a_new_picture_takes_the_unit_of_the_cache(reference: bool) -> None:
    """Depth known up to scale lands where the scene has it."""
    cache = BufferCache.start(picture(0), reference=reference).grown(picture(0.1, scale=3.7))
    z = (cache.buffers[0].points[..., 2]).flatten()
    surface = cache.buffers[0].mask.flatten()
    off = (z - stage(0.1).flatten()).abs()[surface]
    assert off.median() < 2e-3
    assert off.quantile(0.9) < 0.02


def test_the_boundary_of_a_new_picture_is_its_own() -> None:
    """The released GEN3C keeps the first picture's, which lies elsewhere."""
    first, second = picture(0), picture(0.1, 1)
    jumps = [~reliable_mask(p.depth[None, None], reference=True)[0, 0] for p in (first, second)]
    assert not torch.equal(*jumps)
    cache = BufferCache.start(first).grown(second, nonrigid=False)
    assert torch.equal(cache.buffers[0].boundary, ~reliable_mask(second.depth[None, None])[0, 0])
    released = BufferCache.start(first, reference=True).grown(second, nonrigid=False)
    assert torch.equal(released.buffers[0].boundary, jumps[0])


def test_growth_shows_what_the_first_picture_did_not() -> None:
    """From 0.5 to the right the first picture ends in mid-view; the second goes on."""
    cache = BufferCache.start(picture(0))
    w2c, intrinsics = targets(0.45)
    before = cache.render(w2c, intrinsics).mask
    after = cache.grown(picture(0.25, 1)).render(w2c, intrinsics).mask
    assert after.shape == (1, 2, 1, *SIZE)
    assert torch.equal(after[:, 1], before[:, 0])
    assert after.amax(1).mean() > before.mean() + 0.1


def test_a_cache_that_the_camera_does_not_see_cannot_grow() -> None:
    with pytest.raises(InvalidInputError, match="no pixel in common"):
        BufferCache.start(picture(0)).grown(picture(30.0))


def test_depth_is_fitted_to_the_nearest_of_all_buffers() -> None:
    near = BufferCache.start(picture(0)).buffers[0]
    far = BufferCache.start(Picture(picture(0).image, torch.full(SIZE, 5.0), pose(0), K)).buffers[0]
    _, depth, covered = nearest_surface((far, near), pose(0.01), K, SIZE)
    _, alone, covered_alone = nearest_surface((near,), pose(0.01), K, SIZE)
    assert torch.equal(depth[covered_alone], alone[covered_alone])
    assert covered.sum() > covered_alone.sum()
    assert (depth[~covered] == 0).all()
    fitted = fit_depth(stage(0.01) / 4, depth, covered_alone, pose(0.01), K, nonrigid=False)
    assert (fitted - stage(0.01)).abs().median() < 1e-3


def test_depth_out_of_bounds() -> None:
    depth = stage(0)
    depth[0, 0], depth[0, 1], depth[0, 2] = torch.nan, torch.inf, -1.0
    image = picture(0).image
    z = BufferCache.start(Picture(image, depth, pose(0), K)).buffers[0].points[0, :3, 2]
    assert z.tolist() == [0, 100, 0]  # unknown, far, unknown
    z = BufferCache.start(Picture(image, depth, pose(0), K), reference=True).buffers[0].points[0, :3, 2]
    assert z.tolist() == [100, 100, 0]


def test_no_frame_depends_on_another_but_in_the_reference() -> None:
    w2c, intrinsics = targets(0.013, 0.031)
    w2c[1, 2, 3] = 300.0  # a camera far away
    cache, released = (BufferCache.start(picture(0), reliability=None, reference=r) for r in (False, True))
    assert torch.equal(cache.render(w2c, intrinsics).image[:1], cache.render(w2c[:1], intrinsics[:1]).image)
    together, alone = released.render(w2c, intrinsics).image[:1], released.render(w2c[:1], intrinsics[:1]).image
    assert (together - alone).abs().max() > 1e-3


def test_noise_grows_with_the_newness_of_a_buffer() -> None:
    shape = (2, 3, 3, 4, 5)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    image = torch.full(shape, 0.25)
    got = Rendering(image, torch.ones(2, 3, 1, 4, 5)).noised(noise, 0.1)
    for n, strength in enumerate((0.2, 0.1, 0.0)):
        assert torch.allclose(got[:, n], 0.25 + strength * noise[:, n])
