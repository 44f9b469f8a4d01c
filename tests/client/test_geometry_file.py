"""Geometry files: what is legal, and the sentence for what is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gen3c_client.errors import InputError
from gen3c_client.geometry_file import load_geometry_file
from numpy.typing import NDArray

from gen3c.errors import InvalidInputError
from gen3c.geometry.files import read_geometry
from gen3c.geometry.types import Frames

K = np.array([[20.0, 0, 4], [0, 20, 3], [0, 0, 1]])


def geometry(n: int = 2, **changes: Any) -> dict[str, Any]:
    arrays: dict[str, Any] = {
        "depth": np.ones((n, 6, 8), np.float32),
        "w2c": np.stack([np.eye(4)] * n),
        "K": np.stack([K] * n),
        "confidence": np.full((n, 6, 8), 0.5, np.float32),
    }
    arrays.update(changes)
    return {key: value for key, value in arrays.items() if value is not None}


def save(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path / "g.npz", **arrays)
    return path / "g.npz"


def holed(*unknown: float) -> NDArray[Any]:
    """Depth [2,6,8] float32 whose first values are `unknown`."""
    depth = np.ones((2, 6, 8), np.float32)
    depth[0, 0, : len(unknown)] = unknown
    return depth


LEGAL: list[dict[str, Any]] = [
    {},
    {"confidence": None},
    {"depth": np.ones((2, 6, 8), np.float64)},
    {"depth": np.full((2, 6, 8), 1500, np.uint16)},  # millimetres of a depth camera
    {"depth": holed(0, np.nan, np.inf, -np.inf, -1)},
    {"confidence": np.ones((2, 6, 8), np.uint8)},
    {"w2c": np.stack([np.eye(4, dtype=np.int64)] * 2)},
    {"w2c": np.stack([np.eye(4), np.eye(4) + 4e-4])},
    {"K": np.stack([K + 5e-4 * np.eye(3)] * 2)},
    {"sizes": np.array([[6, 8], [3, 8]]), "K": np.stack([K, [[20, 0, 4], [0, 10, 1], [0, 0, 1]]])},
]


@pytest.mark.parametrize("changes", LEGAL)
def test_a_legal_file_is_sent_as_it_is(tmp_path: Path, changes: dict[str, Any]) -> None:
    file = save(tmp_path, geometry(**changes))
    assert load_geometry_file(file, views=2) == file.read_bytes()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"w2c": None, "K": None}, "lacks w2c and K"),
    ({"depth": np.ones((2, 6, 8, 1), np.float32)}, r"depth must have the shape \[n, h, w\].* got \[2, 6, 8, 1\]"),
    ({"depth": np.ones((2, 0, 8), np.float32), "confidence": None}, r"none of them 0, got \[2, 0, 8\]"),
    ({"depth": np.ones((2, 6, 8), bool)}, "depth must hold numbers, got bool"),
    ({"depth": np.ones((2, 6, 8), complex)}, "depth must hold numbers, got complex128"),
    ({"depth": np.full((2, 6, 8), np.nan)}, "view 0 has no known depth"),
    ({"depth": np.full((2, 6, 8), 1e300)}, "view 0 has no known depth"),  # infinite as float32
    ({"depth": -np.ones((2, 6, 8), np.float32)}, "view 0 has no known depth"),
    ({"w2c": np.full((2, 4, 4), "one")}, "w2c must hold numbers, got <U3"),
    ({"w2c": np.stack([np.eye(4)[:3]] * 2)}, r"w2c must have the shape \[2, 4, 4\], got \[2, 3, 4\]"),
    ({"w2c": np.stack([np.eye(4), np.diag([2.0, 2, 2, 1])])}, "view 1: w2c has no rotation"),
    ({"w2c": np.stack([np.eye(4), np.eye(4) * [1, 1, 1, 1.002]])}, "view 1: w2c must end in the row"),
    ({"w2c": np.stack([np.eye(4) + 1e300 * np.eye(4, k=3)] * 2)}, "view 0: w2c has a value that is not finite"),
    ({"K": np.stack([K] * 3)}, r"K must have the shape \[2, 3, 3\]"),
    ({"K": np.stack([K + 0.002 * np.eye(3, k=-1)] * 2)}, "view 0: K must"),
    ({"confidence": np.ones((2, 6))}, r"confidence must have the shape \[2, 6, 8\], got \[2, 6\]"),
    ({"sizes": np.array([[6, 8]])}, r"sizes must have the shape \[2, 2\], got \[1, 2\]"),
    ({"sizes": np.array([[6, 8], [7, 8]])}, r"view 1: sizes is 7, 8, legal are a height of 1..6 and a width of 1..8"),
    ({"sizes": np.array([[6, np.nan], [6, 8]])}, "view 0: sizes is 6, nan"),
]


@pytest.mark.parametrize(("changes", "sentence"), REFUSED)
def test_what_is_no_geometry_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_geometry_file(save(tmp_path, geometry(**changes)))


def test_another_number_of_views_than_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it has 2 views, and 3 images are given"):
        load_geometry_file(save(tmp_path, geometry()), views=3)


def test_files_that_are_no_npz_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("depth")
    np.save(tmp_path / "single.npy", np.ones(3))
    np.savez(tmp_path / "objects.npz", depth=np.array([{"pickled": 1}], object))
    (tmp_path / "empty.npz").touch()
    for name in ("text.npz", "single.npy", "objects.npz", "empty.npz"):
        with pytest.raises(InputError, match="is not an npz of plain arrays"):
            load_geometry_file(tmp_path / name)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_geometry_file(tmp_path / "none.npz")


@pytest.mark.parametrize("changes", LEGAL)
def test_the_server_takes_what_the_client_sends(tmp_path: Path, changes: dict[str, Any]) -> None:
    data = save(tmp_path, geometry(**changes)).read_bytes()
    assert len(read_geometry(data, frames(changes.get("sizes", np.array([[6, 8]] * 2))))) == 2


@pytest.mark.parametrize("changes", [changes for changes, _ in REFUSED])
def test_the_client_stops_nothing_that_the_server_would_take(tmp_path: Path, changes: dict[str, Any]) -> None:
    data = save(tmp_path, geometry(**changes)).read_bytes()
    with pytest.raises(InvalidInputError):
        read_geometry(data, frames(np.array([[6, 8]] * 2)))


def frames(
    sizes: NDArray[Any],  # [2,2] height, width
) -> Frames:
    """The two pictures that the files belong to."""
    pixels = torch.zeros(2, 6, 8, 3, dtype=torch.uint8)
    return Frames(pixels, torch.tensor(sizes, dtype=torch.int32), ("a.png", "b.png"))
