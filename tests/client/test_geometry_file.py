"""Geometry files: what is legal, and the sentence for what is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gen3c_client.errors import InputError
from gen3c_client.geometry_file import load_geometry_file

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


@pytest.mark.parametrize("changes", [{}, {"confidence": None}, {"depth": np.zeros((2, 6, 8), np.float32)}])
def test_a_legal_file_is_sent_as_it_is(tmp_path: Path, changes: dict[str, Any]) -> None:
    file = save(tmp_path, geometry(**changes))
    assert load_geometry_file(file, views=2) == file.read_bytes()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"w2c": None, "K": None}, "lacks w2c and K"),
        ({"depth": np.ones((2, 6, 8))}, r"depth must be float32 \[n, h, w\], got float64"),
        ({"depth": np.ones((2, 6, 8, 1), np.float32)}, r"got float32 \[2, 6, 8, 1\]"),
        ({"depth": np.full((2, 6, 8), np.nan, np.float32)}, "negative or not finite"),
        ({"depth": -np.ones((2, 6, 8), np.float32)}, "negative or not finite"),
        ({"w2c": np.stack([np.eye(4)[:3]] * 2)}, r"w2c must have the shape \[2, 4, 4\], got \[2, 3, 4\]"),
        ({"K": np.stack([K] * 3)}, r"K must have the shape \[2, 3, 3\]"),
        ({"confidence": np.full((2, 6, 8), 7.0, np.float32)}, r"0..1, got 7..7"),
        ({"w2c": np.stack([np.eye(4), np.diag([2.0, 2, 2, 1])])}, "view 1: w2c has no rotation"),
    ],
)
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
