"""What all tests share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture
def arena() -> Path:
    """The folder of the real clip and stills; skips where it is not."""
    path = SHARED / "data" / "bg_arena"
    if not path.is_dir():
        pytest.skip("the clip bg_arena is not next to this checkout")
    return path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository of `tiny` for a CPU, once for all tests: copy it before you change it."""
    return build_tiny(tmp_path_factory.mktemp("built"))


def build_tiny(out: Path) -> Path:
    """The repository of `tiny` for a CPU in `out`, as a user builds it."""
    command = [sys.executable, "-m", "gen3c_export", "build", "--out", str(out)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GEN3C_")}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"{out / 'tiny-cpu'}\n"
    return out / "tiny-cpu"
