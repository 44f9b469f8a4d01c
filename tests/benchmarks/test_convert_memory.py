import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "convert_memory.py"


@pytest.mark.slow
def test_the_memory_of_converting_does_not_grow_with_the_checkpoint(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARK), "--layers", "3", "7", "--folder", str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    (_, small, low, _), (_, large, high, _) = (map(float, line.split()) for line in done.stdout.splitlines()[2:4])
    assert large > 2 * small > 3  # GB
    # One shard of 1 GB, and which tensors share it, decide; the whole would add what the files differ by.
    assert high - low < 0.2
    assert high < 2
    assert not list(tmp_path.iterdir())
