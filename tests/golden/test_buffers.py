"""The check of a grown cache looks at the masks that the cache itself holds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gen3c.buffers import BufferCache, Picture
from gen3c.cache3d import RELIABILITY_THRESHOLD, reliable_mask
from gen3c.cameras import unproject
from tests.golden.buffers import check_update, depth_of_points, filter_decided
from tests.golden.vectors import Vectors

SIZE = (24, 32)
K = torch.tensor([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]])
W2C = torch.eye(4)
W2C[0, 3] = 0.1


def ground(generator: torch.Generator) -> Tensor:
    """Depth [h,w] with slopes on both sides of the filter's threshold, noise, and a step."""
    depth = 2 + torch.linspace(0, 1.2, SIZE[0])[:, None] ** 2 + 0.01 * torch.rand(SIZE, generator=generator)
    depth[8:16, 10:18] -= 0.5
    return depth


@pytest.fixture(scope="module")
def grown() -> BufferCache:
    generator = torch.Generator().manual_seed(3)
    image, depth = torch.rand(3, *SIZE, generator=generator) * 2 - 1, ground(generator)
    cache = BufferCache.start(Picture(image, depth, torch.eye(4), K), reference=True)
    return cache.grown(Picture(-image, 1.1 * depth, W2C, K))


def stored(path: Path, cache: BufferCache, moved: float = 0.0) -> Vectors:
    """The cache as vectors, the newest points moved along their rays as another run of the alignment may."""
    generator = torch.Generator().manual_seed(4)
    depth = depth_of_points(cache.buffers[0].points, W2C) * (1 + moved * torch.rand(SIZE, generator=generator))
    mask = reliable_mask(depth[None, None], reference=True)[0]
    newest = replace(cache.buffers[0], points=unproject(depth[None], W2C[None], K[None])[0], mask=mask)
    buffers = (newest, *cache.buffers[1:])
    arrays = {
        f"{part}_after_x": torch.stack([getattr(view, field) for view in buffers])[None, None, :, None].numpy()
        for part, field in (("images", "image"), ("points", "points"), ("input_mask", "mask"))
    }
    np.savez(path, **arrays)
    return Vectors(path)


def failed(v: Vectors) -> list[str]:
    return [result.name.rpartition("/")[2] for result in v.results if result.failed]


@pytest.mark.parametrize("moved", [0.0, 1e-3])
def test_a_grown_cache_passes_and_its_alignment_may_differ(tmp_path, grown: BufferCache, moved: float) -> None:
    v = stored(tmp_path / "cache.npz", grown, moved)
    assert 0.1 < float(grown.buffers[0].mask.float().mean()) < 0.9
    check_update(v, grown, W2C, K, "after_x")
    assert not failed(v)


@pytest.mark.parametrize("moved", [0.0, 1e-3])
@pytest.mark.parametrize("wrong", [torch.zeros_like, torch.ones_like, torch.logical_not])
def test_a_wrong_mask_of_the_grown_cache_fails(tmp_path, grown: BufferCache, wrong, moved: float) -> None:
    v = stored(tmp_path / "cache.npz", grown, moved)
    newest = replace(grown.buffers[0], mask=wrong(grown.buffers[0].mask))
    check_update(v, replace(grown, buffers=(newest, *grown.buffers[1:])), W2C, K, "after_x")
    assert failed(v) == ["input_mask_after_x [as grown]"]


def test_the_zero_vector_stands_for_unknown_depth() -> None:
    depth = ground(torch.Generator().manual_seed(1))
    depth[3:6, 4] = 0
    w2c = W2C.clone()
    w2c[2, 3] = 1.0  # puts the zero vector one unit in front of the camera
    recovered = depth_of_points(unproject(depth[None], w2c[None], K[None])[0], w2c)
    assert torch.equal(recovered == 0, depth == 0)
    assert torch.allclose(recovered, depth, atol=1e-5)


@pytest.mark.parametrize("size", [1e-5, 1e-3, 1e-2])
def test_the_filter_agrees_where_it_is_decided(size: float) -> None:
    """And with errors like the alignment's it is decided almost everywhere."""
    generator = torch.Generator().manual_seed(2)
    depth = ground(generator)
    depth[2:4, 20:22] = 0
    other = depth * (1 + size * (torch.rand(SIZE, generator=generator) * 2 - 1))
    decided = filter_decided(depth, other, RELIABILITY_THRESHOLD)
    a, b = (reliable_mask(x[None, None], reference=True)[0, 0] for x in (depth, other))
    assert torch.equal(a[decided], b[decided])
    assert float(decided.float().mean()) > 1 - 20 * size - 0.02
