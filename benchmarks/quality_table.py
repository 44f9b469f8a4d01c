"""What the results say, as Markdown: the figures of docs/quality.md."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.quality_bars import must_hold
from benchmarks.quality_composite import CLIP_RANKINGS, COMPOSITES, RANKINGS
from benchmarks.quality_results import Results, form, mean, median
from benchmarks.quality_rows import KINDS, OTHER_STEPS
from benchmarks.quality_served import SPEC
from gen3c.fusion import FUSION_MODES

SCENES, CLIP = "scenes.json", "clip.json"  # in the folder of results
BEGIN, END = "<!-- figures: python benchmarks/quality.py --table -->", "<!-- end of figures -->"
MISSING = "Not measured yet.\n"


def with_figures(document: str, folder: Path) -> str:
    """The document with what `folder` holds between the markers. Raises ValueError without them."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the document has no part between {BEGIN!r} and {END!r}.")
    return f"{before}{BEGIN}\n\n{page(folder)}\n{END}{after}"


def page(folder: Path) -> str:
    """All parts, from the files of results that are there."""
    entry = _read(folder / CLIP) if (folder / CLIP).is_file() else None
    result = None if entry is None else entry["result"]
    scenes = scenes_part(Results(_read(folder / SCENES)), result) if (folder / SCENES).is_file() else MISSING
    clip = MISSING if entry is None else clip_part(entry)
    return f"## Held-out scenes\n\n{scenes}\n## A real clip\n\n{clip}"


def scenes_part(results: Results, clip: dict[str, Any] | None = None) -> str:
    """The part about the held-out scenes; what must hold of the clip is listed here, too."""
    parts = [
        _about(results.about),
        _weights(results),
        _table(results),
        "### Must hold\n",
        must_hold(results, clip),
        "### Geometry and autoencoder\n",
        _geometry(results),
        "![best, median and worst scenes](images/quality.jpg)\n",
    ]
    return "\n".join(parts)


def _about(about: dict[str, Any]) -> str:
    driver = f", driver {about['driver']}" if about["driver"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    machine = f"{about['gpu'] or 'CPU'}{driver}, Python {about['python']}, {versions}; commit {about['commit']}"
    return f"{machine}\n\n    {about['command']}\n"


def _weights(results: Results) -> str:
    weights = "; ".join(f"{name}: {source}" for name, source in results.weights.items())
    lines = [
        f"{len(results.cases)} scenes, {steps_of(results.steps)}. Weights: {weights}.",
        f"Every figure of every scene: [{SCENES}](../benchmarks/results/quality/{SCENES}).",
        f"No view shows {results.unseen:.1%} of the pixels of the median scene.",
    ]
    if results.refused:
        which = "; ".join(f"seed {seed}, {group}: {why}" for seed, group, why in results.refused)
        lines.append(f"The pipeline refused {len(results.refused)} groups of rows, which the table leaves out: {which}")
    if results.mode is not None and results.ranking is not None:
        lines.append(f"Best fusion mode: `{results.mode}`; best ranking of composites: {RANKINGS[results.ranking]}.")
    return " ".join(lines) + "\n"


def _table(results: Results) -> str:
    measures = (("PSNR", "psnr", ".2f"), ("SSIM", "ssim", ".3f"), ("perceptual", "perceptual", ".3f"))
    titles = [f"{title}, {kind}" for title, _, _ in measures for kind in KINDS]
    lines = [f"| | {' | '.join(titles)} | flicker | on warps |", "|---" * (len(titles) + 3) + "|"]
    for row, label in _rows(results):
        if not results.values(row, "flicker") and not results.values(row, "psnr_all"):
            continue
        cells = [form(results.mean(row, f"{name}_{kind}"), spec) for _, name, spec in measures for kind in KINDS]
        cells.append(form(results.mean(row, "flicker"), ".4f"))
        warps = {"warp": "warps", "exact_warp": "exact_warps"}.get(row)
        on_warps = results.mean(row, "flicker_on_warps") if warps is None else results.of_warps(warps, "flicker")
        cells.append(form(on_warps, ".4f"))
        lines.append(f"| {label} | {' | '.join(cells)} |")
    covered = results.of_warps("warps", "psnr_covered")
    lines.append(f"\nThe raw warp of one view where it covers a pixel: {form(covered, '.2f')} dB.\n")
    return "\n".join(lines)


def _rows(results: Results) -> list[tuple[str, str]]:
    """Names of rows and what the table calls them, in the table's order."""
    ranking, exact_ranking = results.ranking, results.exact_ranking
    rows = [("warp", "raw warp of view 0, holes black")]
    rows += [(f"composite_{name}", f"composite, {label}") for name, label in COMPOSITES.items()]
    rows += [(f"composite_{ranking}_vae", "the best composite through the VAE"), ("truth_vae", "truth through the VAE")]
    rows += [("truth", "truth")]
    rows += [("one", "1 view + DiT, its own geometry"), ("one_shared", "1 view + DiT, geometry of 8")]
    rows += [(f"views_{mode}", f"8 views + DiT, `{mode}`") for mode in FUSION_MODES]
    rows += [
        (f"steps_{n}", f"8 views + DiT, `{SPEC.fusion}`, {steps_of(n)}") for n in OTHER_STEPS if n != results.steps
    ]
    rows += [("exact_warp", "exact geometry: raw warp of view 0")]
    rows += [(f"exact_composite_{exact_ranking}", "exact geometry: composite")]
    rows += [("exact_one", "exact geometry: 1 view + DiT")]
    rows += [(f"exact_views_{mode}", f"exact geometry: 8 views + DiT, `{mode}`") for mode in FUSION_MODES]
    return rows


def steps_of(n: int) -> str:
    """The number of denoising steps in words."""
    return f"{n} denoising step{'s' * (n != 1)}"


def _geometry(results: Results) -> str:
    def line(what: str, key: str, spec: str, unit: str, average: Callable[[list[float]], float | None] = mean) -> str:
        return f"- {what}: {form(average(results.of_geometry(key)), spec)}{unit}"

    rotation, true = (results.of_geometry(key) for key in ("rotation", "true_rotation"))
    vae, linear = results.of_vae("psnr"), results.of_vae("linear_psnr")
    lines = [
        line("depth AbsRel, all pixels", "abs_rel", ".4f", ""),
        line("depth AbsRel, trusted pixels", "abs_rel_trusted", ".4f", ""),
        line("trusted pixels", "trusted", ".1%", ""),
        f"- rotation error: median {form(median(rotation), '.2f')}, mean {form(mean(rotation), '.2f')} degrees; true "
        f"rotation: median {form(median(true), '.1f')} degrees",
        line("camera position error, median", "translation", ".4f", " of view 0's centre depth", median),
        line("focal length error", "focal", ".1%", ""),
        f"- linear code of 16 numbers a cell, fitted to {results.linear_clips} training clips: "
        f"{form(linear, '.2f')} dB; VAE, also 16 numbers: {form(vae, '.2f')} dB",
    ]
    return "\n".join(lines) + "\n"


def clip_part(entry: dict[str, Any]) -> str:
    """The part about the real clip, with what benchmarks.quality.write_clip wrote."""
    result = entry["result"]
    weights = "; ".join(f"{name}: {source}" for name, source in result["weights"].items())
    lines = [
        _about(entry["about"]),
        f"{len(result['views'])} frames of `{result['name']}`, geometry `{result['provider']}`, fusion "
        f"`{result['fusion']}`, path `{result['path']}`, {steps_of(result['steps'])}. Weights: {weights}.\n",
        f"- covered pixels: {result['covered']:.1%}",
    ]
    for name in CLIP_RANKINGS:
        psnr, psnr_vae = (form(result[key][name], ".2f") for key in ("psnr_covered", "psnr_vae"))
        lines.append(
            f"- there, against the composite of all views, {RANKINGS[name]}: {psnr} dB; that composite through the "
            f"VAE: {psnr_vae} dB"
        )
    return "\n".join([*lines, "", "![views, composite and result of a real clip](images/real.jpg)\n"])


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content
