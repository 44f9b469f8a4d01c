import io
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from gen3c.errors import InvalidInputError
from gen3c.geometry.files import MAX_UNPACKED_BYTES, read_geometry
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


def confidence(wrong: float) -> np.ndarray:
    """0.5 but for one pixel of view 1."""
    values = np.full((2, 48, 64), 0.5, np.float32)
    values[1, 7, 9] = wrong
    return values


def packed(content: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **content)
    return buffer.getvalue()


def claimed(name: str, shape: tuple[int, ...], others: dict[str, np.ndarray]) -> bytes:
    """An npz of a few hundred bytes whose array `name` has a header and no data."""
    buffer = io.BytesIO()
    np.savez(buffer, **others)
    with zipfile.ZipFile(buffer, "a") as archive, archive.open(f"{name}.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": shape})
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
        (lambda c: c.update(confidence=confidence(255)), "confidence of view 1 has values of 0.5 to 255; legal: 0..1"),
        (lambda c: c.update(confidence=confidence(-1)), "confidence of view 1 has values of -1 to 0.5; legal: 0..1"),
        (lambda c: c.update(confidence=confidence(np.inf)), "has values of 0.5 to inf; legal: 0..1"),
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


@pytest.mark.parametrize(
    ("shape", "figure"),
    [
        ((1, 10**6, 10**6), "1000000x1000000 = 1000000000000 pixels"),
        ((10**9, 10**4, 10**4), "1000000000 views for 1"),
        ((1, 10**4, 10**4), "not an npz"),  # legal, but the data are missing
        ((1, 0, 10), r"shape \[1, 0, 10\]"),
        ((1, -5, -5), r"shape \[1, -5, -5\]"),
    ],
)
def test_claims_are_judged_before_anything_is_allocated(shape: tuple[int, ...], figure: str) -> None:
    cameras = {name: array[:1] for name, array in arrays(height=48, width=48).items() if name != "depth"}
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInputError, match=figure):
            read_geometry(claimed("depth", shape, cameras), frames(1, 48, 48))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["w2c", "K", "sizes", "confidence"])
def test_claims_of_the_other_arrays_are_judged_too(name: str) -> None:
    content = {key: array for key, array in arrays().items() if key != name}
    with pytest.raises(InvalidInputError, match=f"{name} of the geometry has shape"):
        read_geometry(claimed(name, (2, 10**6, 10**6), content), frames())


def test_the_limit_of_pixels_is_the_callers() -> None:
    assert len(read_geometry(packed(arrays()), frames(), max_pixels=48 * 64)) == 2
    with pytest.raises(InvalidInputError, match=r"64x48 = 3072 pixels a view; legal: 3071\."):
        read_geometry(packed(arrays()), frames(), max_pixels=48 * 64 - 1)


def test_all_arrays_together_have_a_limit() -> None:
    """11 views of 100 million pixels each are legal one by one."""
    cameras = {name: array for name, array in arrays(11).items() if name != "depth"}
    with pytest.raises(InvalidInputError, match=f"unpacks to 4400000000 bytes; legal: {MAX_UNPACKED_BYTES}"):
        read_geometry(claimed("depth", (11, 10**4, 10**4), cameras), frames(11))


def test_memory_does_not_grow_with_the_views() -> None:
    """A zip of zeros: 64 MB each of depth and confidence in 0.2 MB. Numpy's and Python's allocations are traced."""
    content = arrays(16, 1000, 1000)
    content["confidence"] = np.zeros((16, 1000, 1000), np.float32)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **content)
    data = buffer.getvalue()
    del content, buffer
    tracemalloc.start()
    try:
        geometry = read_geometry(data, frames(16, 48, 48))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert geometry.depth.shape == (16, 48, 48)
    assert peak < 6 * 4_000_000  # a slice as bytes, as numbers, and what is made of it; all 16 would be 64 MB


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8", "<i2", "u1"])
def test_every_kind_of_number_is_read(dtype: str) -> None:
    content = arrays()
    content["depth"] = content["depth"].astype(dtype)
    content["confidence"] = np.ones((2, 48, 64), dtype)
    geometry = read_geometry(packed(content), frames())
    assert (geometry.depth == 2).all()
    assert (geometry.confidence == 1).all()


def test_depth_beyond_float32_is_unknown() -> None:
    content = arrays()
    content["depth"] = content["depth"].astype(np.float64)
    content["depth"][0, 0, 0] = 1e300
    assert read_geometry(packed(content), frames()).depth[0, 0, :2].tolist() == [0.0, 2.0]


def test_fortran_order_is_read_within_the_limit() -> None:
    """What numpy.savez makes of transposed arrays, such as a turned picture."""
    content = arrays()
    content["depth"] = np.random.default_rng(0).random((2, 48, 64), np.float32) + 1
    expected = read_geometry(packed(content), frames())
    content = {name: np.asfortranarray(array) for name, array in content.items()}
    got = read_geometry(packed(content), frames(), max_pixels=2 * 48 * 64)
    for name in ("depth", "w2c", "K"):
        assert torch.equal(getattr(got, name), getattr(expected, name))
    with pytest.raises(InvalidInputError, match=r"numpy\.ascontiguousarray"):
        read_geometry(packed(content), frames(), max_pixels=2 * 48 * 64 - 1)


def test_confidence_counts_only_where_depth_is_known() -> None:
    content = arrays()
    content["depth"][0, :, :32] = 0
    content["confidence"] = np.ones((2, 48, 64), np.float32)
    content["confidence"][1, 0, :2] = (0, 0.5)
    got = read_geometry(packed(content), frames()).confidence
    assert (got[0, :, :32] == 0).all()
    assert (got[0, :, 32:] == 1).all()
    assert (got[1, 0, :3] == torch.tensor([0.0, 0.5, 1])).all()


def test_confidence_may_be_off_by_rounding_and_lies_within_0_and_1_then() -> None:
    content = arrays()
    content["confidence"] = np.ones((2, 48, 64), np.float32)
    content["confidence"][0, 0, :2] = (-1e-6, 1 + 1e-6)
    assert read_geometry(packed(content), frames()).confidence[0, 0, :2].tolist() == [0.0, 1.0]


def test_only_what_lies_in_a_picture_is_judged() -> None:
    """Beside a smaller picture a common raster may hold anything, and the principal point lies in the picture."""
    mixed = Frames(
        torch.zeros(2, 64, 64, 3, dtype=torch.uint8), torch.tensor([[64, 64], [48, 64]], dtype=torch.int32), ("a", "b")
    )
    content = arrays(height=64, width=64)
    content["sizes"] = np.array([[64, 64], [48, 64]])
    content["confidence"] = np.ones((2, 64, 64), np.float32)
    content["confidence"][1, 48:] = np.nan
    assert (read_geometry(packed(content), mixed).confidence[1, :48] == 1).all()
    content["K"][1, 1, 2] = 50
    [warning] = read_geometry(packed(content), mixed).warnings
    assert "K of view 1 has cx 31.5 and cy 50, outside its depth of 64x48" in warning


def test_intrinsics_of_the_full_picture_beside_depth_of_half_its_resolution_are_warned_of() -> None:
    assert read_geometry(packed(arrays()), frames()).warnings == ()
    content = arrays(height=24, width=32) | {"K": arrays()["K"]}
    [warning] = read_geometry(packed(content), frames()).warnings
    assert "cx 31.5 and cy 23.5, outside its depth of 32x24 pixels. K must be in pixels of the depth" in warning


def test_confidence_that_is_no_number_is_none() -> None:
    content = arrays()
    content["confidence"] = np.ones((2, 48, 64), np.float32)
    content["confidence"][0, 0, :2] = (np.nan, 0.5)
    assert read_geometry(packed(content), frames()).confidence[0, 0, :2].tolist() == [0, 0.5]


def test_compressions_that_may_demand_any_memory_are_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(packed(arrays()))) as plain, zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as lzma:
        for name in plain.namelist():
            lzma.writestr(name, plain.read(name))
    with pytest.raises(InvalidInputError, match="not an npz"):
        read_geometry(buffer.getvalue(), frames())


@pytest.mark.parametrize("header", [b"{" * 100, b"-" * 9000 + b"1", b"[]", b"{[]: 1}", b"\xff"])
def test_headers_that_are_no_headers_are_refused(header: bytes) -> None:
    content = arrays()
    del content["depth"]
    buffer = io.BytesIO(packed(content))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("depth.npy", np.lib.format.magic(1, 0) + len(header).to_bytes(2, "little") + header)
    with pytest.raises(InvalidInputError, match="not an npz"):
        read_geometry(buffer.getvalue(), frames())
