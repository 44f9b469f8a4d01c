import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "memory.py"

METER = """
import json, sys, torch
sys.path.insert(0, sys.argv[1])
from memory import measure
before = torch.ones(100, 2**18)  # 100 MiB that come and go before the measurement
del before
held = torch.ones(50, 2**18)  # 50 MiB that belong to the baseline
print(json.dumps([measure(lambda: torch.ones(60, 2**18)).building, measure(lambda: None).building]))
"""


def test_the_meter_sees_what_came_and_went_and_nothing_else() -> None:
    done = subprocess.run(
        [sys.executable, "-c", METER, str(BENCHMARK.parent)], check=True, capture_output=True, text=True, timeout=120
    )
    building, nothing = json.loads(done.stdout)
    assert building == pytest.approx(60, abs=3)  # MiB; beside it only a few pages of the interpreter
    assert nothing == pytest.approx(0, abs=3)


@pytest.mark.slow
def test_condition_building_takes_no_more_memory_for_more_views_and_the_peer_does() -> None:
    command = [sys.executable, str(BENCHMARK), "--fusion", "coverage_max", "hold_all"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert 0.9 < float(lines[-1].removeprefix("peak_ratio=")) <= 1.1
    peer = float(lines[-2].split()[5].rstrip(","))
    assert lines[-2].startswith("hold_all")
    assert peer > 2
