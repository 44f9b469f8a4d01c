"""The full-size benchmark on a small raster and a CPU: that it runs, and what its table says; no figure counts."""

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import full_size, full_size_job, h200, vggt
from benchmarks.full_size_table import table
from gen3c.cache3d import render
from gen3c.generator.weights import load_dit, load_vae
from gen3c.presets import VGGT_TINY
from tests.walls import SMALL

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]


def test_every_stage_is_compared_with_its_peer() -> None:
    rows = {row.stage: row for row in h200.networks_stage(SMALL, CPU, 2)}
    assert [row.times for row in rows.values()] == [8, 8, 8, 4, 1]
    compared = {stage: row.difference for stage, row in rows.items() if row.difference is not None}
    assert set(compared) == set(rows) - {"pool a view"}
    assert max(compared.values()) < 1e-3  # float32 on both sides


def test_a_whole_job_in_process_accounts_for_its_time() -> None:
    result = full_size_job.in_process(SMALL, CPU, views=2, steps=2)
    assert result["calls"] == {"encoder": 4, "conditioner": 2, "seed_encoder": 1, "dit": 4, "decoder": 1}
    assert 0 < result["inside_s"] < result["wall_s"]
    assert result["outside_share"] == pytest.approx(1 - result["inside_s"] / result["wall_s"])


def test_the_views_are_of_one_room() -> None:
    first, other = full_size.source_views(3, SMALL)[::2]
    warp = render(other.cache(0.1), first.w2c[None], first.K[None], (SMALL.height, SMALL.width))
    seen = warp.coverage.expand_as(warp.image) > 0
    assert 0.3 < float(warp.coverage.mean()) < 1
    # The painting's finest wave is about six pixels long here: half a pixel off would be 0.3.
    assert float((warp.image - first.image).abs()[seen].median()) < 0.1


def test_its_checkpoint_is_one_that_the_server_loads(tmp_path: Path) -> None:
    networks = full_size.random_networks(SMALL, CPU)
    full_size.save_checkpoint(networks, tmp_path, SMALL)
    dit, _ = load_dit(SMALL, tmp_path)
    vae, _ = load_vae(SMALL, tmp_path)
    for loaded, saved in ((dit.state_dict(), networks.dit.state_dict()), (vae.state_dict(), networks.vae.state_dict())):
        assert all(torch.equal(loaded[key], tensor) for key, tensor in saved.items())


def test_the_page_of_results_is_what_the_files_say() -> None:
    page = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    assert page.endswith(table(ROOT / "benchmarks" / "results") + "\n")
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        about = json.loads(path.read_text())["about"]
        assert about["commit"] in page
        assert about["gpu"] in page


def test_the_whole_of_vggt_takes_more_than_its_aggregator() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "vggt.json").read_text())["result"]
    assert [row["frames"] for row in rows] == list(vggt.FRAMES)
    for row in rows:
        assert row["whole_gb"] > row["aggregator_gb"]
        assert row["whole_s"] > row["aggregator_s"]


def test_vggt_is_measured_in_both_types() -> None:
    (row,) = vggt.measure(VGGT_TINY, CPU, (2,), (28, 42))
    assert row.difference is not None
    assert 1e-5 < row.difference < 0.02  # bfloat16 has 8 bits


def test_a_stage_needs_a_folder(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["h200.py", "--stage", "job"])
    with pytest.raises(SystemExit):
        h200.main()
    assert "--stage and --output" in capsys.readouterr().err
