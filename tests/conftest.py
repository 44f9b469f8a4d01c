"""What all tests share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

SHARED = Path(__file__).resolve().parents[2] / "shared"

Golden = dict[str, Tensor]


@pytest.fixture
def golden() -> Callable[[str], Golden]:
    """Reads a set of reference vectors by name, for example `gen3c/warp.npz`; skips where the vectors are not."""

    def read(name: str) -> Golden:
        path = SHARED / "golden" / name
        if not path.is_file():
            pytest.skip(f"reference vectors {name} are not next to this checkout")
        with np.load(path) as file:
            return {key: torch.as_tensor(np.array(file[key])) for key in file.files}

    return read


@pytest.fixture
def arena() -> Path:
    """The folder of the real clip and stills; skips where it is not."""
    path = SHARED / "data" / "bg_arena"
    if not path.is_dir():
        pytest.skip("the clip bg_arena is not next to this checkout")
    return path
