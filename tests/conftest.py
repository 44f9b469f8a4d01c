"""What all tests share."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def arena() -> Path:
    """The folder of the real clip and stills; skips where it is not."""
    path = SHARED / "data" / "bg_arena"
    if not path.is_dir():
        pytest.skip("the clip bg_arena is not next to this checkout")
    return path
