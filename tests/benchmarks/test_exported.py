"""The benchmarks of exported networks at small size and on a CPU: that they run, and what the page says of them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import onnx_cpu
from benchmarks.full_size_table import table

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def cells(page: str, start: str) -> list[str]:
    """The row of a table that starts so."""
    (row,) = [line for line in page.splitlines() if line.startswith(f"| {start} |")]
    return row.strip("| ").split(" | ")


def compiled(name: str, **changes: Any) -> dict[str, Any]:
    """A result of benchmarks/compiled.py with other figures."""
    entry: dict[str, Any] = json.loads((RESULTS / "compiled-dit.json").read_text())
    return {"about": entry["about"], "result": entry["result"] | {"program": name} | changes}


def test_the_ratio_is_against_the_faster_of_the_peers(tmp_path: Path) -> None:
    for name, seconds in (("dit", (6.0, 4.0)), ("video_encoder", (4.0, 6.0)), ("vggt", (None, None))):
        peers = {"peer_s": seconds[0], "peer_fastest_s": seconds[1]}
        entry = compiled(name, package_s=3.0, eager_s=4.0, **peers)
        (tmp_path / f"compiled-{name}.json").write_text(json.dumps(entry))
    page = table(tmp_path)
    assert cells(page, "dit")[7:9] == cells(page, "video_encoder")[7:9] == ["0.750", "0.750"]
    assert cells(page, "vggt")[5:9] == ["-", "-", "0.750", "-"]


@pytest.mark.parametrize("names", [[], ["compiled-dit"], ["compiled-video_decoder", "vggt"]], ids=str)
def test_the_page_works_for_any_of_the_files(names: list[str], tmp_path: Path) -> None:
    for name in names:
        shutil.copy(RESULTS / f"{name}.json", tmp_path)
    page = table(tmp_path)
    assert ("## Exported for the GPU" in page) == any(name.startswith("compiled") for name in names)
    assert ("## VGGT" in page) == ("vggt" in names)


def test_what_machines_differ_in_is_told_of_each(tmp_path: Path) -> None:
    first, other = compiled("dit"), compiled("video_encoder")
    other["about"]["commit"] = "another"
    for entry in (first, other):
        (tmp_path / f"compiled-{entry['result']['program']}.json").write_text(json.dumps(entry))
    page = table(tmp_path)
    assert page.count(f"commit {first['about']['commit']}\n") == page.count("commit another\n") == 1


def test_onnx_runtime_is_compared_with_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (picture,) = [case for case in onnx_cpu.cases() if case.name == "video_encoder 1"]
    monkeypatch.setattr(onnx_cpu, "cases", lambda: [picture])  # the others take minutes
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # stays as other tests know it
    monkeypatch.setattr(sys, "argv", ["onnx_cpu.py", "--output", str(tmp_path), "--repeats", "1", "--commit", "here"])
    onnx_cpu.main()
    one, chain = json.loads((tmp_path / "onnx_cpu.json").read_text())["result"]
    assert 0 < one["difference"] < 1e-5
    assert chain["onnx_s"] == one["onnx_s"] > 0
    page = table(tmp_path)
    assert "commit here" in page
    assert cells(page, "video_encoder 1")[2:4] == [f"{1e3 * one[key]:.1f}" for key in ("eager_s", "onnx_s")]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs g++")
def test_a_package_is_compared_with_eager_and_with_the_peer(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "compiled.py"), "--program", "dit"]
    command += ["--preset", "tiny", "--device", "cpu", "--output", str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.iterdir()
    result = json.loads(path.read_text())["result"]
    assert result["difference"] < 1e-4  # float32 on both sides
    assert min(result[key] for key in ("compile_s", "package_s", "eager_s", "peer_s", "peer_fastest_s")) > 0
    assert cells(table(tmp_path), "dit")[0] == "dit"
