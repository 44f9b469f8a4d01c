"""How good are the videos? The served pipeline on worlds that training never sees, against what is really there.

    python benchmarks/quality.py --output FILE.json                   # 64 scenes on this machine
    python benchmarks/quality.py --shard 1/4 --output FILE.json       # a quarter of them: shards are 1/4 to 4/4
    python benchmarks/quality.py --table FILE.json ...                # merge the shards, write docs/quality.md
    python benchmarks/quality.py --clip VIDEO_OR_FOLDER               # a real clip, which has no truth

A file comes with pictures, FILE-strips.zip. `--table` keeps the merged figures in benchmarks/results/quality,
and writes the part between the markers of docs/quality.md and its contact sheet; `--clip` does so for its own part.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_args

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # `benchmarks` is no installed package

from gen3c_client.contract import GeometryProvider, NamedPath, PathKind

from benchmarks import quality_results, quality_table
from benchmarks.measure import about
from benchmarks.quality_case import draw_cases, held_out_seeds, linear_clips
from benchmarks.quality_clip import measure_clip
from benchmarks.quality_perceptual import PerceptualDistance
from benchmarks.quality_rows import FIGURES, Bench, Figures, measure_case
from benchmarks.quality_served import SPEC, Served, load_served
from benchmarks.quality_sheet import contact_sheet, save_strip, save_under, strip
from gen3c.errors import InvalidInputError
from gen3c.fusion import FUSION_MODES
from gen3c.presets import get_preset
from training import linear_code

ROOT = Path(__file__).parents[1]
SCENES = 64
PACKAGES = ("torch", "diffusers", "numpy")
RESULTS, DOCUMENT = ROOT / "benchmarks" / "results" / "quality", ROOT / "docs" / "quality.md"
SHEET, SHEET_BYTES = ROOT / "docs" / "images" / "quality.jpg", 400_000
REAL, REAL_BYTES = ROOT / "docs" / "images" / "real.jpg", 300_000
LINEAR_CLIPS = {"cuda": 32, "cpu": 6}  # one takes half a minute on a CPU
LINEAR_NUMBERS = 16
PROGRESS_RANKING = "surface"  # of the composites


def measure_scenes(served: Served, chosen: argparse.Namespace) -> None:
    """Measure the shard's scenes and write them, again after every scene: what is done is not lost."""
    device = served.device
    clips = linear_clips(chosen.linear_clips, served.size, device)
    modes = FUSION_MODES if device.type == "cuda" else (SPEC.fusion,)
    print(f"fitting the linear code to {chosen.linear_clips} clips ...", flush=True)
    linear = linear_code.fit(clips, LINEAR_NUMBERS)
    bench = Bench(served, PerceptualDistance().to(device), linear, modes)
    seeds = held_out_seeds(chosen.scenes, chosen.shard)
    results: dict[str, Any] = {
        "about": about(device, chosen.commit, PACKAGES),
        "weights": served.weights,
        "steps": served.steps,
        "linear_clips": chosen.linear_clips,
        "figures": FIGURES,
        "cases": [],
    }
    strips = strips_of(chosen.output)
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    strips.unlink(missing_ok=True)
    start = time.perf_counter()
    for i, case in enumerate(draw_cases(seeds, served.size, device)):
        measured = measure_case(case, bench)
        results["cases"].append(measured.figures)
        save_strip(strip(case, measured.videos), strips, case.seed)
        chosen.output.write_text(quality_results.dumped(results))
        seconds = time.perf_counter() - start
        print(f"scene {i + 1}/{len(seeds)}, {seconds:.0f} s: {_summary(measured.figures)}", flush=True)


def _summary(figures: dict[str, Any]) -> str:
    rows: dict[str, Figures] = figures["rows"]

    def psnr(row: str) -> str:
        return quality_results.form(rows[row][0], ".2f") if row in rows else "-"

    return (
        f"seed {figures['seed']}, {figures['path']}, unseen {figures['unseen']:.0%}, composite "
        f"{psnr(f'composite_{PROGRESS_RANKING}')}, 8 views {psnr(f'views_{SPEC.fusion}')} dB"
        + "".join(f", refused: {group}: {why}" for group, why in figures.get("refused", {}).items())
    )


def strips_of(output: Path) -> Path:
    """The pictures beside a file of figures."""
    return output.with_name(f"{output.stem}-strips.zip")


def write_table(files: list[Path]) -> None:
    """Merge the files, and bring results, document and sheet up to date."""
    merged = quality_results.merge(json.loads(path.read_text()) for path in files)
    if len(files) > 1:
        merged["about"]["command"] = f"{merged['about']['command']}  # one of {len(files)} shards"
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / quality_table.SCENES).write_text(quality_results.dumped(merged))
    sheet = contact_sheet(quality_results.Results(merged), [strips_of(path) for path in files])
    if sheet is None:
        print(f"no pictures beside {', '.join(map(str, files))}: the sheet stays as it was.", flush=True)
    else:
        quality = save_under(sheet, SHEET, SHEET_BYTES)
        print(f"{SHEET}: {SHEET.stat().st_size} bytes, quality {quality}", flush=True)
    update_document()


def update_document() -> None:
    """Bring the document's figures up to date."""
    DOCUMENT.write_text(quality_table.with_figures(DOCUMENT.read_text(), RESULTS))
    print(quality_table.page(RESULTS), flush=True)


def write_clip(served: Served, chosen: argparse.Namespace) -> None:
    """Measure a real clip, and bring results, document and picture up to date."""
    path = NamedPath(kind=chosen.path, distance=chosen.distance)
    result, sheet = measure_clip(served, chosen.clip, chosen.interval, chosen.geometry, path, chosen.fusion)
    RESULTS.mkdir(parents=True, exist_ok=True)
    entry = {"about": about(served.device, chosen.commit, PACKAGES), "result": result}
    (RESULTS / quality_table.CLIP).write_text(json.dumps(entry, indent=1) + "\n")
    save_under(sheet, REAL, REAL_BYTES)
    update_document()


def shard(text: str) -> tuple[int, int]:
    """`I/N`, I from 1, as (index from 0, count)."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard; legal: I/N with I from 1 to N.")
    return int(index) - 1, int(count)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--output", type=Path, help="file of the figures")
    result.add_argument("--scenes", type=int, default=SCENES, help="held-out worlds, from the first")
    result.add_argument("--shard", type=shard, default=(0, 1), metavar="I/N", help="every N-th scene from the I-th")
    result.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    result.add_argument("--checkpoints", type=Path, help="folder of transformer/, vae/, vggt/; default: the package's")
    result.add_argument("--steps", type=int, help="denoising steps; default: the preset's")
    result.add_argument("--preset", default="tiny")
    result.add_argument("--linear-clips", type=int, help="training clips that the linear code is fitted to")
    result.add_argument("--commit", help="that the figures belong to; default: asked of git")
    result.add_argument("--table", type=Path, nargs="*", metavar="FILE", help="merge files; without any: the document")
    result.add_argument("--clip", type=Path, help="a video or a folder of pictures")
    result.add_argument("--interval", type=int, default=SPEC.select.frame_interval, help="frames between its views")
    result.add_argument("--geometry", choices=get_args(GeometryProvider)[:3], default="sfm", help="of the clip")
    result.add_argument("--path", choices=get_args(PathKind), default=NamedPath().kind, help="of the clip")
    result.add_argument("--distance", type=float, default=NamedPath().distance, help="of the clip's path")
    result.add_argument("--fusion", choices=FUSION_MODES, default=SPEC.fusion, help="of the clip")
    return result


@torch.no_grad()
def main(arguments: list[str] | None = None) -> None:
    """Measure, or show what was measured."""
    options = parser()
    chosen = options.parse_args(arguments)
    if chosen.table is not None:
        write_table(chosen.table) if chosen.table else update_document()
        return
    if chosen.clip is None and chosen.output is None:
        options.error("give --output, --table or --clip")
    chosen.commit = chosen.commit or _commit()
    chosen.linear_clips = chosen.linear_clips or LINEAR_CLIPS["cpu" if chosen.device == "cpu" else "cuda"]
    try:
        served = load_served(get_preset(chosen.preset), chosen.checkpoints, torch.device(chosen.device), chosen.steps)
        if chosen.clip is not None:
            write_clip(served, chosen)
        else:
            measure_scenes(served, chosen)
    except (InvalidInputError, ValueError) as error:
        sys.exit(f"error: {error}")


def _commit() -> str:
    """The checkout's commit, with a mark if files differ from it; "unknown" outside of one."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
