"""The quality benchmark: its measures on cases with known answers, its table, and one small scene from end to end."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import quality, quality_case, quality_metrics, quality_results, quality_rows, quality_table
from benchmarks.quality_bars import must_hold
from benchmarks.quality_case import draw_cases, held_out_seeds
from benchmarks.quality_composite import COMPOSITES, Warps, composites, filled
from benchmarks.quality_perceptual import PerceptualDistance
from benchmarks.quality_rows import FIGURES, Group
from benchmarks.quality_served import load_served
from benchmarks.quality_sheet import KEPT, contact_sheet, save_under
from benchmarks.quality_telea import inpaint
from gen3c.errors import InvalidInputError
from gen3c.fusion import FUSION_MODES
from gen3c.geometry.types import Frames, Geometry
from gen3c.presets import TINY
from training.motion import motion
from training.run import FIRST_TRAINING_SEED
from training.shots import TEST_SEEDS, VALIDATION_SEEDS

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
SMALL = replace(TINY, height=64, width=96)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_only_held_out_worlds_are_measured() -> None:
    assert held_out_seeds(64) == list(TEST_SEEDS)
    shards = [held_out_seeds(10, (i, 3)) for i in range(3)]
    assert sorted(seed for shard in shards for seed in shard) == list(TEST_SEEDS)[:10]
    with pytest.raises(ValueError, match="--scenes is 65"):
        held_out_seeds(65)
    assert max(*TEST_SEEDS, *VALIDATION_SEEDS) < FIRST_TRAINING_SEED
    assert not set(TEST_SEEDS) & set(VALIDATION_SEEDS)
    path = ROOT / "benchmarks" / "results" / "quality" / quality_table.SCENES
    if path.is_file():
        assert {case["seed"] for case in json.loads(path.read_text())["cases"]} <= set(TEST_SEEDS)


def test_a_kind_of_pixels_has_its_own_error() -> None:
    truth, where = torch.zeros(2, 3, 8, 10), torch.zeros(2, 8, 10, dtype=torch.bool)
    where[:, :, :5] = True
    video = torch.where(where[:, None], 0.1, 0.01) + truth
    error = quality_metrics.squared_error(video, truth)
    assert quality_metrics.decibel(quality_metrics.mean_over(error, where)) == pytest.approx(20, abs=1e-4)
    assert quality_metrics.decibel(quality_metrics.mean_over(error, ~where)) == pytest.approx(40, abs=1e-4)
    assert quality_metrics.mean_over(error, torch.zeros_like(where)) is None
    assert quality_metrics.decibel(0.0) == pytest.approx(100)


def test_ssim_of_plain_and_of_equal_pictures() -> None:
    truth = noise(2, 3, 32, 40)
    assert torch.allclose(quality_metrics.ssim(truth, truth), torch.ones(2, 32, 40), atol=1e-4)
    grey, lighter = torch.full((1, 3, 32, 40), 0.4), torch.full((1, 3, 32, 40), 0.6)
    expected = (2 * 0.4 * 0.6 + 1e-4) / (0.4**2 + 0.6**2 + 1e-4)  # nothing but the means differ
    assert torch.allclose(quality_metrics.ssim(grey, lighter), torch.tensor(expected), atol=1e-3)
    assert float(quality_metrics.ssim(noise(2, 3, 32, 40, seed=1), truth).mean()) < 0.2


def test_what_stays_on_its_surface_does_not_flicker() -> None:
    """A wall seen by a camera that moves by two pixels a frame."""
    t, height, width, depth, step = 4, 24, 32, 2.0, 2
    K = torch.tensor([[30.0, 0, (width - 1) / 2], [0, 30.0, (height - 1) / 2], [0, 0, 1]])
    w2c = torch.eye(4).repeat(t, 1, 1)
    w2c[:, 0, 3] = -torch.arange(t) * step * depth / 30
    wall = noise(3, height, width + t * step)
    video = torch.stack([wall[:, :, i * step : i * step + width] for i in range(t)])
    moved = motion(torch.full((t, height, width), depth), w2c, K)
    assert torch.equal(moved.visible[0], (torch.arange(width) >= step).expand(height, -1))  # others leave the picture
    assert float(quality_metrics.flicker_map(video, moved)[moved.visible].max()) < 1e-4
    still = video[:1].expand(t, -1, -1, -1)
    assert float(quality_metrics.flicker_map(still, moved)[moved.visible].mean()) > 0.2
    covered = torch.ones(t, height, width, dtype=torch.bool)
    covered[1, :, :10] = False
    lasts = quality_metrics.lasting(covered, moved)
    assert torch.equal(lasts[0], (torch.arange(width) >= 10 + step).expand(height, -1))
    assert not lasts[1, :, :10].any()
    assert lasts[2, :, step:].all()


def test_holes_of_raw_warps_flicker_where_all_points_count() -> None:
    """Two grey warps of a grey wall; in the last frame the second loses 4 of 16 columns."""
    K = torch.tensor([[20.0, 0, 7.5], [0, 20, 3.5], [0, 0, 1]])
    truth = quality_rows.Truth.__new__(quality_rows.Truth)
    truth.moved = motion(torch.full((2, 8, 16), 4.0), torch.eye(4).repeat(2, 1, 1), K)
    truth.on_warps = torch.zeros(1, 8, 16)
    image, depth = torch.zeros(2, 3, 3, 8, 16), torch.full((2, 3, 8, 16), 4.0)
    image[1, 2, :, :, 4:8], depth[1, 2, :, 4:8] = -1.0, torch.inf
    found = truth.measure_warps(Warps(image, depth, torch.ones(2, 3)))
    assert found["flicker"] == 0
    assert found["flicker_with_holes"] == pytest.approx(0.5 * 4 / 16 / 2, abs=1e-5)
    assert truth.on_warps.flatten().unique(return_counts=True)[1].tolist() == [32, 96]  # one warp lasts, two do


def test_what_is_hidden_in_the_next_frame_is_left_out() -> None:
    depth = torch.full((2, 16, 16), 4.0)
    depth[1, :, :8] = 1.0  # something came in front
    K = torch.tensor([[20.0, 0, 7.5], [0, 20, 7.5], [0, 0, 1]])
    visible = motion(depth, torch.eye(4).repeat(2, 1, 1), K).visible[0]
    assert not visible[:, :7].any()
    assert visible[:-1, 9:-1].all()


def test_errors_of_geometry() -> None:
    angle = torch.tensor(0.1)
    turn = torch.eye(4)
    turn[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    true = torch.stack((torch.eye(4), torch.eye(4)))
    error = quality_metrics.rotation_error(torch.stack((torch.eye(4), turn)), true)
    assert error.tolist() == pytest.approx([0, 180 / torch.pi * 0.1], abs=1e-3)
    assert quality_metrics.rotation_error(turn @ true, true).tolist() == pytest.approx([0, 0], abs=1e-3)
    moved = true.clone()
    moved[1, 0, 3] = -0.5
    assert quality_metrics.centres(moved)[1].tolist() == pytest.approx([0.5, 0, 0])
    depth = noise(8, 8) + 1
    relative, ratio = quality_metrics.abs_rel(torch.where(depth > 1.5, 3 * depth, 0.0), depth)
    assert [relative, ratio] == pytest.approx([0, 3], abs=1e-6)
    assert quality_metrics.abs_rel(depth * torch.tensor([1.0, 1.1] * 4), depth)[0] > 0.03


def test_holes_are_filled_from_around_them() -> None:
    ramp = torch.linspace(-1, 1, 40).expand(2, 3, 30, 40)
    known = torch.ones(2, 30, 40, dtype=torch.bool)
    known[0, 10:18, 12:22] = False
    known[1] = False
    result = inpaint(ramp, known)
    assert torch.equal(result[0][:, known[0]], ramp[0][:, known[0]])
    assert float((result[0] - ramp[0]).abs().max()) < 0.25  # 40 px are 2
    assert float((result[0] - ramp[0])[:, ~known[0]].abs().mean()) < 0.1
    assert not result[1].any()
    assert torch.equal(inpaint(ramp, torch.ones_like(known)), ramp)


def warped() -> Warps:
    """Three views of one pixel row in one frame: what each column tests is said in the test."""
    inf = torch.inf
    depth = torch.tensor([[2.0, 2.00, inf, inf], [1.0, 2.01, 3.0, inf], [2.0, 2.02, inf, inf]])[:, None, None]
    image = torch.stack([torch.full((1, 3, 1, 4), v) for v in (0.1, 0.2, 0.3)])
    image = torch.where(depth[:, :, None].isfinite(), image, -1.0)
    return Warps(image, depth, torch.tensor([[2.0], [3.0], [1.0]]))


def test_composites_rank_the_views() -> None:
    pictures, covered = composites(warped())
    assert list(pictures) == list(COMPOSITES)
    assert covered.flatten().tolist() == [True, True, True, False]
    rows = {name: picture[0, 0, 0].tolist() for name, picture in pictures.items()}
    # Columns: another view's surface is nearer; all show one surface; one view alone; none.
    assert rows["surface"] == pytest.approx([0.2, 0.1, 0.2, -1])
    assert rows["camera"] == pytest.approx([0.3, 0.3, 0.2, -1])
    assert rows["both"] == pytest.approx([0.2, 0.3, 0.2, -1])
    assert rows["blend"][0] == pytest.approx(0.2)
    assert 0.2 < rows["blend"][1] < 0.3
    assert rows["blend"][3] == -1
    whole = filled(pictures, covered)
    assert whole["both"][0, 0, 0].tolist() == pytest.approx([0.2, 0.3, 0.2, 0.2], abs=0.06)


def test_the_perceptual_distance_tells_structure() -> None:
    truth = F.interpolate(noise(1, 3, 12, 20), (96, 160), mode="bicubic").clamp(0, 1)
    truth = (truth + 0.3 * (noise(1, 3, 96, 160, seed=1) - 0.5)).clamp(0, 1)
    network = PerceptualDistance()
    features = network.features(truth)

    def distance(picture: Tensor) -> float:
        return float(network(picture, features).mean())

    def blurred(window: int) -> Tensor:
        return F.avg_pool2d(truth, window, 1, window // 2, count_include_pad=False)

    def noisy(deviation: float) -> Tensor:
        return truth + deviation * torch.randn(truth.shape, generator=torch.Generator().manual_seed(2))

    assert distance(truth) == 0
    assert distance(truth * 0.9 + 0.05) < distance(noisy(0.02)) < distance(noisy(0.1))
    assert distance(blurred(3)) < distance(blurred(5)) < distance(blurred(9))
    assert distance(truth.roll(1, 3)) < distance(truth.roll(4, 3))
    assert distance(noisy(0.02)) < distance(blurred(9))
    other = noise(1, 3, 96, 160, seed=3)
    assert distance(truth.roll(1, 3)) < distance(other) < 1


def case_of(seed: int, quality_db: float) -> dict[str, Any]:
    """A made-up result, in which 8 views beat all else by 2.5 dB."""

    def row(psnr: float) -> list[float | None]:
        return [psnr if name.startswith("psnr") else 0.01 for name in FIGURES]

    names = ["composite_both_vae", "one", "one_shared", "warp", "truth_vae"]
    names += [f"composite_{name}" for name in COMPOSITES]
    rows = {name: row(quality_db - 2.5) for name in names}
    rows["composite_both"] = row(quality_db - 2.4)
    rows |= {f"{prefix}views_{mode}": row(quality_db - 0.1) for prefix in ("", "exact_") for mode in FUSION_MODES}
    rows["views_ranked_concat"] = row(quality_db)
    geometry = {"abs_rel": 0.03, "abs_rel_trusted": 0.02, "trusted": 0.9, "focal": 0.01}
    lists = {"rotation": [1.0, 3.0, 1.5], "true_rotation": [10.0], "translation": [0.05]}
    return {
        "seed": seed,
        "path": "left 0.5",
        "unseen": 0.2,
        "vae": {"psnr": 29.0, "linear_psnr": 25.5},
        "rows": rows,
        "geometry": geometry | lists,
        "warps": {"flicker": 0.02, "flicker_with_holes": 0.03, "psnr_covered": 20.0, "covered": 0.8},
    }


def results_of(*cases: Mapping[str, Any]) -> dict[str, Any]:
    about = {"gpu": "", "driver": "", "versions": {"torch": "2"}, "python": "3", "commit": "abc", "command": "quality"}
    return {"about": about, "weights": {"dit": "x"}, "steps": 2, "linear_clips": 1, "cases": list(cases)}


CLIP = {"psnr_covered": {"surface": 21.0, "camera": 22.5}}


def test_the_list_says_what_holds_and_what_does_not() -> None:
    results = quality_results.Results(results_of(case_of(0, 24.0), case_of(1, 26.0)))
    assert (results.mode, results.ranking) == ("ranked_concat", "both")
    assert results.mean("views_ranked_concat", "psnr_all") == pytest.approx(25)
    listed = must_hold(results, CLIP)
    assert "missed" not in listed
    assert listed.count("Real clip against") == 2
    poor = [case_of(0, 24.0) | {"unseen": 0.1}, case_of(1, 26.0) | {"vae": {"psnr": 27.0, "linear_psnr": 26.0}}]
    listed = must_hold(quality_results.Results(results_of(*poor)), CLIP)
    assert listed.count("**missed**") == 1  # one scene's loss is not the mean's; the other is
    assert must_hold(results).count("**missed**, not measured") == 2  # no clip yet
    listed = must_hold(results, {"psnr_covered": {"surface": 21.0, "camera": 19.0}})
    assert "nearest surface, covered pixels: 21.00 dB, at least 20: holds" in listed
    assert "nearest camera, covered pixels: 19.00 dB, at least 20: **missed**" in listed


@pytest.mark.parametrize(
    ("composite", "autoencoded", "first", "second"),
    [
        (22.6, 22.5, "the next line counts in its place", "holds; applicable, as the VAE costs 0.10 dB"),
        (22.6, 22.55, "the next line counts in its place", "**missed**; applicable"),
        (22.4, 22.6, "holds", "not applicable, as the VAE costs the composite nothing (+0.20 dB)"),
        (22.6, 22.7, "**missed**", "not applicable"),
    ],
)
def test_the_autoencoded_composite_counts_only_where_it_is_worse(
    composite: float, autoencoded: float, first: str, second: str
) -> None:
    case = case_of(0, 24.02)  # 1.42 to 1.62 over these
    for row, psnr in (("composite_both", composite), ("composite_both_vae", autoencoded)):
        case["rows"][row][0] = psnr
    lines = must_hold(quality_results.Results(results_of(case)), CLIP).splitlines()
    (best,) = (line for line in lines if "over the best composite" in line)
    (through,) = (line for line in lines if "through the VAE" in line)
    assert f": {first}" in best
    assert f": {second}" in through


def test_what_is_refused_is_named() -> None:
    refused = {key: value for key, value in case_of(2, 20.0).items() if key not in {"geometry", "warps"}}
    refused |= {"rows": {}, "refused": {"8 views": "VGGT finds no camera for view 3; leave it out."}}
    page = quality_table.scenes_part(quality_results.Results(results_of(case_of(0, 24.0), refused)))
    assert "refused 1 groups of rows, which the table leaves out: seed 2, 8 views: VGGT finds" in page
    assert "Scenes whose eight views the pipeline refuses: 1, below 1: **missed**" in page
    other = case_of(0, 24.0) | {"refused": {"1 view": "no."}}
    page = quality_table.scenes_part(quality_results.Results(results_of(other)))
    assert "seed 0, 1 view: no." in page
    assert "Scenes whose eight views the pipeline refuses: 0, below 1: holds" in page


def test_a_refusal_costs_its_own_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the measuring itself made up: what is tested is which groups are left."""
    case = next(iter(draw_cases([5], (24, 40), CPU)))
    given = quality_case.exact_geometry(case, 8)

    def estimate(_: object, frames: Frames) -> Geometry:
        if len(frames.pixels) == 1:
            raise InvalidInputError("one view is too few.")
        return given

    def group(name: str) -> Group:
        return Group({name: [1.0]})

    monkeypatch.setattr(quality_rows, "Truth", lambda *_: None)
    monkeypatch.setattr(quality_rows, "_vae_figures", lambda *_: {})
    monkeypatch.setattr(quality_rows, "_geometry_figures", lambda *_: {"abs_rel": 0.1})
    monkeypatch.setattr(quality_rows, "estimate", estimate)
    monkeypatch.setattr(quality_rows, "_views_rows", lambda prefix, *_: group(f"{prefix}views"))
    monkeypatch.setattr(quality_rows, "_one_view_row", lambda name, *_: group(name))
    monkeypatch.setattr(quality_rows, "_truth_rows", lambda *_: group("truth"))
    bench = argparse.Namespace(served=None, perceptual=None, exact_modes=())
    measured = quality_rows.measure_case(case, bench)  # type: ignore[arg-type]
    assert measured.figures["refused"] == {"1 view": "one view is too few."}
    assert list(measured.figures["rows"]) == ["views", "one_shared", "truth", "exact_views", "exact_one"]
    assert measured.figures["geometry"] == {"abs_rel": 0.1}


def test_the_part_about_a_clip() -> None:
    result = CLIP | {
        "name": "clip.mp4",
        "views": ["0", "12"],
        "provider": "sfm",
        "fusion": "ranked_concat",
        "path": "left 0.3",
        "steps": 4,
        "weights": {"dit": "x"},
        "covered": 0.8,
        "psnr_vae": {"surface": 25.0, "camera": 26.0},
    }
    part = quality_table.clip_part({"about": results_of()["about"], "result": result})
    assert "nearest surface: 21.00 dB; that composite through the VAE: 25.00 dB" in part
    assert "nearest camera: 22.50 dB; that composite through the VAE: 26.00 dB" in part


def test_shards_become_one(tmp_path: Path) -> None:
    parts = [results_of(case_of(3, 24.0)), results_of(case_of(1, 26.0))]
    parts[1]["about"] = {**parts[1]["about"], "command": "quality --shard 2/2"}
    merged = quality_results.merge(parts)
    assert [case["seed"] for case in merged["cases"]] == [1, 3]
    assert json.loads(quality_results.dumped(merged)) == merged
    with pytest.raises(ValueError, match="a scene is there twice"):
        quality_results.merge([parts[0], parts[0]])
    with pytest.raises(ValueError, match="differ in steps"):
        quality_results.merge([parts[0], {**parts[1], "steps": 3}])
    (tmp_path / quality_table.SCENES).write_text(quality_results.dumped(merged))
    document = f"a\n{quality_table.BEGIN}\nold\n{quality_table.END}\nb\n"
    new = quality_table.with_figures(document, tmp_path)
    assert quality_table.with_figures(new, tmp_path) == new
    assert new.startswith("a\n")
    assert "| 8 views + DiT, `ranked_concat` | 25.00 |" in new
    assert "| 8 views + DiT, `ranked_concat` | 25.00 |" not in document


def test_the_document_says_what_the_files_say() -> None:
    document = (ROOT / "docs" / "quality.md").read_text()
    assert quality_table.with_figures(document, ROOT / "benchmarks" / "results" / "quality") == document


def test_a_shard_is_told_apart_from_nonsense() -> None:
    assert quality.shard("2/4") == (1, 4)
    for text in ("0/4", "5/4", "1", "a/b"):
        with pytest.raises(argparse.ArgumentTypeError, match="is no shard"):
            quality.shard(text)


@pytest.mark.slow
@torch.no_grad()
def test_one_scene_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "1.json"
    monkeypatch.setattr(quality_case, "SAMPLES", 1)  # most of the time would go into drawing
    chosen = argparse.Namespace(
        output=output, scenes=1, shard=(0, 1), linear_clips=1, commit="abc", device="cpu", checkpoints=None
    )
    served = load_served(SMALL, None, CPU, steps=2)
    quality.measure_scenes(served, chosen)
    merged = quality_results.merge([json.loads(output.read_text())])
    (case,) = merged["cases"]
    assert case["seed"] == TEST_SEEDS[0]
    assert "refused" not in case
    rows = {name: dict(zip(FIGURES, row, strict=True)) for name, row in case["rows"].items()}
    assert {f"views_{mode}" for mode in FUSION_MODES} | {"one", "exact_one", "steps_1"} <= set(rows)
    assert rows["truth"]["psnr_all"] == pytest.approx(100)
    assert rows["truth"]["ssim_all"] == pytest.approx(1, abs=1e-3)
    assert rows["truth"]["flicker"] < 0.1
    best = max(rows[f"exact_composite_{name}"]["psnr_seen"] for name in COMPOSITES)
    assert best > rows["exact_warp"]["psnr_seen"]
    assert best > 18  # what was seen is where it should be
    assert rows["exact_composite_both"]["psnr_seen"] > rows["composite_both"]["psnr_seen"]  # VGGT is untrained
    sheet = contact_sheet(quality_results.Results(merged), [quality.strips_of(output)])
    assert sheet is not None
    assert sheet.width == 5 * SMALL.width
    save_under(sheet, tmp_path / "sheet.jpg", 400_000)
    assert (tmp_path / "sheet.jpg").stat().st_size < 400_000
    assert "8 views + DiT" in quality_table.scenes_part(quality_results.Results(merged))
    assert len(KEPT) == 1 + 3 + len(FUSION_MODES)


def test_a_case_is_the_same_again() -> None:
    first, again = (next(iter(draw_cases([5], (24, 40), CPU))) for _ in range(2))
    assert torch.equal(first.truth, again.truth)
    assert torch.equal(first.truth[0], first.views[0])  # the path starts at view 0
    assert first.seen[0].all()
    assert len(first.views) == 8
    assert len(first.truth) == 25
