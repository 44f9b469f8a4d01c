import io

import numpy as np
import pytest
import torch

from gen3c.errors import InvalidInputError
from gen3c.geometry.files import read_geometry
from gen3c.geometry.types import Frames


def frames(n: int = 2, height: int = 48, width: int = 64) -> Frames:
    sizes = torch.tensor([[height, width]] * n, dtype=torch.int32)
    return Frames(torch.zeros(n, height, width, 3, dtype=torch.uint8), sizes, tuple(f"{i}.png" for i in range(n)))


def arrays(n: int = 2, height: int = 48, width: int = 64) -> dict[str, np.ndarray]:
    K = np.array([[50.0, 0, width / 2 - 0.5], [0, 50, height / 2 - 0.5], [0, 0, 1]])
    return {
        "depth": np.full((n, height, width), 2.0, np.float32),
        "w2c": np.tile(np.eye(4), (n, 1, 1)),
        "K": np.tile(K, (n, 1, 1)),
    }


def packed(content: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **content)
    return buffer.getvalue()


def test_reads_what_it_is_given() -> None:
    content = arrays()
    content["depth"][0, 0, :4] = (0, np.nan, np.inf, -1)
    geometry = read_geometry(packed(content), frames())
    assert (geometry.depth[0, 0, :4] == 0).all()
    assert (geometry.confidence[0, 0, :4] == 0).all()
    assert (geometry.depth[1] == 2).all()
    assert (geometry.confidence[1] == 1).all()
    assert np.allclose(geometry.K.numpy(), content["K"])


def test_another_resolution_keeps_pixels_on_their_rays() -> None:
    """A file at half the resolution: the same ray goes through (c + .5) * 2 - .5."""
    content = arrays(height=24, width=32)
    geometry = read_geometry(packed(content), frames())
    small_K, K = content["K"][0], geometry.K[0].numpy()
    for x, y in ((0.0, 0.0), (7.0, 5.0)):
        small = np.linalg.inv(small_K) @ (x, y, 1)
        large = np.linalg.inv(K) @ ((x + 0.5) * 2 - 0.5, (y + 0.5) * 2 - 0.5, 1)
        assert np.allclose(small, large, atol=1e-5)


def test_sizes_place_pictures_on_a_common_raster() -> None:
    mixed = Frames(
        torch.zeros(2, 64, 64, 3, dtype=torch.uint8), torch.tensor([[48, 64], [64, 48]], dtype=torch.int32), ("a", "b")
    )
    content = arrays(height=64, width=64)
    content["sizes"] = np.array([[48, 64], [64, 48]])
    geometry = read_geometry(packed(content), mixed)
    assert (geometry.depth[0, :48] == 2).all()
    assert (geometry.depth[0, 48:] == 0).all()
    assert (geometry.depth[1, :, 48:] == 0).all()


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (lambda c: c.pop("w2c"), "no array 'w2c'"),
        (lambda c: c.update(depth=c["depth"][:1]), "1 views for 2"),
        (lambda c: c.update(K=c["K"][:, :2]), "K of the geometry has shape [2, 2, 3]"),
        (lambda c: c.update(w2c=c["w2c"] * 2), "not rigid"),
        (lambda c: c.update(w2c=np.full_like(c["w2c"], np.nan)), "not finite"),
        (lambda c: c.update(depth=np.zeros_like(c["depth"])), "no depth of view 0"),
        (lambda c: c.update(depth=c["depth"][:, :24]), "the same aspect"),
        (lambda c: c.update(sizes=np.array([[48, 64], [49, 64]])), "1..48"),
        (lambda c: c.update(depth=np.array([["a"]])), "shape [1, 1]"),
    ],
)
def test_bad_files_are_refused_by_array(change, fragment: str) -> None:
    content = arrays()
    change(content)
    with pytest.raises(InvalidInputError) as caught:
        read_geometry(packed(content), frames())
    assert fragment in str(caught.value)
    assert caught.value.field == "GEOMETRY"


@pytest.mark.parametrize("data", [b"", b"hello", packed(arrays())[:-200]])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError, match="not an npz"):
        read_geometry(data, frames())


def test_pickles_are_refused() -> None:
    content = arrays()
    content["w2c"] = np.array([{"a": 1}], dtype=object)
    with pytest.raises(InvalidInputError, match="not an npz"):
        read_geometry(packed(content), frames())


def test_a_corrupt_member_is_refused() -> None:
    data = bytearray(packed(arrays()))
    data[200:220] = bytes(20)
    with pytest.raises(InvalidInputError):
        read_geometry(bytes(data), frames())
