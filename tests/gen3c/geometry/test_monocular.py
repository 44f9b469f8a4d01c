import pytest
import torch
from torch import Tensor

from gen3c.geometry.monocular import FAR, MAX_DEPTH, NetworkAnswer, depth_of_frame, resize_uint8, view_from_picture

NORMALISED = torch.tensor([[0.8, 0.0, 0.5], [0.0, 1.4, 0.5], [0.0, 0.0, 1.0]])
RASTERS = {"network_size": (90, 160), "size": (88, 160)}


class Network:
    """Knows the depth 2 of everything in the left half."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, image: Tensor) -> NetworkAnswer:
        self.seen.append(image)
        height, width = image.shape[1:]
        depth = torch.full((height, width), 2.0)
        depth[3, 5], depth[:, width // 2 :] = torch.nan, torch.inf
        return NetworkAnswer(depth, torch.isfinite(depth), NORMALISED)


def photo(seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (45, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_depth_is_not_mixed_with_the_fill_behind_it() -> None:
    view = view_from_picture(photo(), Network(), **RASTERS)
    assert view.depth.shape == (88, 160)
    assert set(view.depth.unique().tolist()) == {2.0, FAR}
    assert torch.equal(view.depth == 2, view.mask)
    smeared = view_from_picture(photo(), Network(), **RASTERS, reference=True).depth
    assert ((smeared > 3) & (smeared < 900)).any()


def test_the_network_sees_the_picture_on_its_own_raster() -> None:
    network = Network()
    view = view_from_picture(photo(), network, **RASTERS)
    (seen,) = network.seen
    assert seen.shape == (3, 90, 160)
    assert torch.equal(seen, resize_uint8(photo(), (90, 160)).permute(2, 0, 1) / 255)
    assert view.image.shape == (3, 88, 160)
    assert view.image.min() >= -1
    assert view.image.max() <= 1
    assert view.image.std() > 0.1


@pytest.mark.parametrize(("reference", "cx", "cy"), [(False, 79.5, 43.5), (True, 80.0, 44.0)])
def test_intrinsics_are_in_pixels_of_the_output(reference: bool, cx: float, cy: float) -> None:
    """A principal point in the middle is between the two middle pixels, unless K is scaled plainly."""
    K = view_from_picture(photo(), Network(), **RASTERS, reference=reference).K
    assert torch.allclose(K, torch.tensor([[128.0, 0, cx], [0, 123.2, cy], [0, 0, 1]]))


def test_a_generated_frame_is_not_resized() -> None:
    network = Network()
    frame = torch.rand(3, 40, 56, generator=torch.Generator().manual_seed(0))
    depth, mask = depth_of_frame(frame, network)
    assert network.seen[0] is frame
    assert (depth[mask] == 2).all()
    assert (depth[~mask] == FAR).all()
    assert mask.sum() == 40 * 28 - 1


def test_known_depth_is_bounded() -> None:
    def network(image: Tensor) -> NetworkAnswer:
        depth = torch.full(image.shape[1:], 3e5)
        depth[0, :3] = torch.tensor([torch.nan, torch.inf, -1.0])
        return NetworkAnswer(depth, torch.ones_like(depth, dtype=torch.bool), NORMALISED)

    depth, _ = depth_of_frame(torch.zeros(3, 8, 8), network)
    assert depth[0, :4].tolist() == [MAX_DEPTH, MAX_DEPTH, 0, MAX_DEPTH]


@pytest.mark.parametrize("size", [(90, 160), (45, 64), (23, 31), (46, 200)])
def test_the_fixed_point_resize_is_a_bilinear_one(size: tuple[int, int]) -> None:
    exact = torch.nn.functional.interpolate(photo().permute(2, 0, 1)[None].double(), size, mode="bilinear")[0]
    ours = resize_uint8(photo(), size).permute(2, 0, 1)
    assert ours.dtype == torch.uint8
    assert (ours - exact).abs().max() < 1.1  # rounding, and what 11 bits of weight cannot hold
    assert (ours - exact).mean().abs() < 0.25
