"""What the results say, as Markdown: the figures of docs/quality.md."""

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality_composite import BLEND, COMPOSITES, RANKINGS
from benchmarks.quality_rows import FIGURES, KINDS
from gen3c.fusion import FUSION_MODES

SCENES, CLIP = "scenes.json", "clip.json"  # in the folder of results
BEGIN, END = "<!-- figures: python benchmarks/quality.py --table -->", "<!-- end of figures -->"
MISSING = "Not measured yet.\n"
SHARED = ("about", "weights", "steps", "linear_clips")  # what shards must have in common


class Results:
    """Merged cases, and means over them."""

    def __init__(self, merged: dict[str, Any]) -> None:
        self.about, self.cases = merged["about"], merged["cases"]
        self.weights, self.steps, self.linear_clips = merged["weights"], merged["steps"], merged["linear_clips"]
        self.mode = self.best(FUSION_MODES, "views_{}")
        self.ranking = self.best(tuple(RANKINGS), "composite_{}")
        self.exact_mode = self.best(FUSION_MODES, "exact_views_{}")
        self.exact_ranking = self.best(tuple(RANKINGS), "exact_composite_{}")

    def values(self, row: str, figure: str) -> list[float]:
        """Of every case that has it."""
        index = FIGURES.index(figure)
        found = (case["rows"].get(row, [None] * len(FIGURES))[index] for case in self.cases)
        return [value for value in found if value is not None]

    def mean(self, row: str, figure: str) -> float | None:
        """Over the cases, None without any."""
        return mean(self.values(row, figure))

    def best(self, names: Sequence[str], row: str) -> str | None:
        """The name whose row has the highest PSNR over all pixels; None if no row was measured."""
        scores = {name: self.mean(row.format(name), "psnr_all") for name in names}
        known = {name: score for name, score in scores.items() if score is not None}
        return max(known, key=lambda name: known[name]) if known else None

    def gain(self, row: str, other: str, figure: str) -> float | None:
        """Mean difference of two rows over the cases that have both."""
        index = FIGURES.index(figure)
        differences = []
        for case in self.cases:
            pair = [case["rows"].get(name, [None] * len(FIGURES))[index] for name in (row, other)]
            if None not in pair:
                differences.append(pair[0] - pair[1])
        return mean(differences)


def merge(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Shards as one. Raises ValueError if they do not belong together or have a scene twice."""
    whole: dict[str, Any] | None = None
    for part in parts:
        if whole is None:
            whole = {**part, "cases": list(part["cases"])}
            continue
        for key in SHARED:
            if _comparable(whole[key]) != _comparable(part[key]):
                raise ValueError(f"the files differ in {key}: {whole[key]} and {part[key]}; merge those of one run.")
        whole["cases"] += part["cases"]
    if whole is None:
        raise ValueError("there is no file to merge; give those that the shards wrote.")
    seeds = [case["seed"] for case in whole["cases"]]
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"a scene is there twice; the seeds are {sorted(seeds)}.")
    whole["cases"].sort(key=lambda case: case["seed"])
    return whole


def dumped(results: dict[str, Any]) -> str:
    """JSON with one line a case."""
    head = json.dumps({key: value for key, value in results.items() if key != "cases"}, indent=1)
    cases = ",\n".join(json.dumps(case, separators=(",", ":")) for case in results["cases"])
    return f'{head[:-2]},\n "cases": [\n{cases}\n ]\n}}\n'


def with_figures(document: str, folder: Path) -> str:
    """The document with what `folder` holds between the markers. Raises ValueError without them."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the document has no part between {BEGIN!r} and {END!r}.")
    return f"{before}{BEGIN}\n\n{page(folder)}\n{END}{after}"


def page(folder: Path) -> str:
    """All parts, from the files of results that are there."""
    scenes = _scenes(Results(_read(folder / SCENES))) if (folder / SCENES).is_file() else MISSING
    clip = _clip(_read(folder / CLIP)) if (folder / CLIP).is_file() else MISSING
    return f"## Held-out scenes\n\n{scenes}\n## A real clip\n\n{clip}"


def _scenes(results: Results) -> str:
    parts = [
        _about(results.about),
        _weights(results),
        _table(results),
        "### Must hold\n",
        must_hold(results),
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
    failed = [case for case in results.cases if "failed" in case]
    unseen = statistics.median(case["unseen"] for case in results.cases)
    lines = [
        f"{len(results.cases)} scenes, {results.steps} denoising steps. Weights: {weights}.",
        f"Every figure of every scene: [{SCENES}](../benchmarks/results/quality/{SCENES}).",
        f"No view shows {unseen:.1%} of the pixels of the median scene.",
    ]
    if failed:
        which = "; ".join(f"seed {case['seed']}: {case['failed']}" for case in failed)
        lines.append(f"The pipeline refused the views of {len(failed)}, which the rows leave out: {which}")
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
        on_warps = results.mean(row, "flicker_on_warps") if warps is None else _of_warps(results, warps, "flicker")
        cells.append(form(on_warps, ".4f"))
        lines.append(f"| {label} | {' | '.join(cells)} |")
    covered = _of_warps(results, "warps", "psnr_covered")
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
    rows += [("exact_warp", "exact geometry: raw warp of view 0")]
    rows += [(f"exact_composite_{exact_ranking}", "exact geometry: composite")]
    rows += [(f"exact_views_{mode}", f"exact geometry: 8 views + DiT, `{mode}`") for mode in FUSION_MODES]
    return rows


def must_hold(results: Results) -> str:
    """The list of what is asked for: value, limit, and whether it holds."""
    result, composite = f"views_{results.mode}", f"composite_{results.ranking}"
    gains = {
        "over the best composite": (composite, "psnr_all"),
        "over that composite through the VAE": (f"{composite}_vae", "psnr_all"),
        "over 1 view + DiT, the better of its rows": (results.best(("one", "one_shared"), "{}") or "one", "psnr_all"),
        "over the inpainted composite, disoccluded pixels": (composite, "psnr_unseen"),
    }
    gain = {name: results.gain(result, other, figure) for name, (other, figure) in gains.items()}
    blended = form(results.gain(result, f"composite_{BLEND}", "psnr_all"), "+.2f")
    vae, linear = (mean([case["vae"][key] for case in results.cases]) for key in ("psnr", "linear_psnr"))
    ahead = None if vae is None or linear is None else vae - linear
    rotations = _geometry_values(results, "rotation")
    lines = [
        at_least("VAE, reconstruction of the true videos", vae, 28.0, "dB"),
        at_least("VAE, over the linear code of 16 numbers", ahead, 3.0, "dB"),
        below("VGGT, AbsRel after scale alignment, all pixels", mean(_geometry_values(results, "abs_rel")), 0.04, ""),
        below("VGGT, median rotation error", statistics.median(rotations) if rotations else None, 2.0, "degrees"),
    ]
    limits = (1.5, 1.5, 2.0, 1.5)
    for (name, value), limit in zip(gain.items(), limits, strict=True):
        lines.append(at_least(f"8 views + DiT {name}", value, limit, "dB"))
    unseen = statistics.median(case["unseen"] for case in results.cases)
    lines.append(at_least("Pixels that no view shows, median scene", 100 * unseen, 15.0, "%"))
    warps, own = _of_warps(results, "warps", "flicker"), results.mean(result, "flicker_on_warps")
    lines.append(below("Flicker on static points, against that of the raw warps", own, warps, "", ".4f"))
    lines.append(below("Scenes that the pipeline refuses", sum("failed" in c for c in results.cases), 1, "", "d"))
    notes = f"\nOf the first two gains one must hold. Against the blend of views, which is no ranking: {blended} dB.\n"
    return "\n".join(lines) + "\n" + notes


def at_least(what: str, value: float | None, limit: float, unit: str) -> str:
    """A line of the list for what must not be smaller."""
    verdict = "**not measured**" if value is None else "holds" if value >= limit else "**missed**"
    return f"- {what}: {form(value, '.2f')} {unit}, at least {limit:g}: {verdict}".replace(" ,", ",")


def below(what: str, value: float | None, limit: float | None, unit: str, spec: str = ".3f") -> str:
    """A line of the list for what must be smaller."""
    known = value is not None and limit is not None
    verdict = "**not measured**" if not known else "holds" if value < limit else "**missed**"  # type: ignore[operator]
    bound = form(limit, spec) if limit is not None else "-"
    return f"- {what}: {form(value, spec)} {unit}, below {bound}: {verdict}".replace(" ,", ",")


def _geometry(results: Results) -> str:
    def line(what: str, key: str, spec: str, unit: str, average: Callable[[list[float]], float | None] = mean) -> str:
        return f"- {what}: {form(average(_geometry_values(results, key)), spec)}{unit}"

    rotation, true = (_geometry_values(results, key) for key in ("rotation", "true_rotation"))
    vae, linear = (mean([case["vae"][key] for case in results.cases]) for key in ("psnr", "linear_psnr"))
    lines = [
        line("depth AbsRel, all pixels", "abs_rel", ".4f", ""),
        line("depth AbsRel, trusted pixels", "abs_rel_trusted", ".4f", ""),
        line("trusted pixels", "trusted", ".1%", ""),
        f"- rotation error: median {form(_median(rotation), '.2f')}, mean {form(mean(rotation), '.2f')} degrees; true "
        f"rotation: median {form(_median(true), '.1f')} degrees",
        line("camera position error, median", "translation", ".4f", " of view 0's centre depth", _median),
        line("focal length error", "focal", ".1%", ""),
        f"- linear code of 16 numbers a cell, fitted to {results.linear_clips} training clips: "
        f"{form(linear, '.2f')} dB; VAE, also 16 numbers: {form(vae, '.2f')} dB",
    ]
    return "\n".join(lines) + "\n"


def _clip(entry: dict[str, Any]) -> str:
    result = entry["result"]
    weights = "; ".join(f"{name}: {source}" for name, source in result["weights"].items())
    lines = [
        _about(entry["about"]),
        f"{len(result['views'])} frames of `{result['name']}`, geometry `{result['provider']}`, fusion "
        f"`{result['fusion']}`, path `{result['path']}`. Weights: {weights}.\n",
        at_least("Result against the composite of all views, covered pixels", result["psnr_covered"], 20.0, "dB"),
        f"- covered pixels: {result['covered']:.1%}; there the composite through the VAE has "
        f"{result['psnr_vae']:.2f} dB",
        "",
        "![views, composite and result of a real clip](images/real.jpg)\n",
    ]
    return "\n".join(lines)


def _geometry_values(results: Results, key: str) -> list[float]:
    values: list[float] = []
    for case in results.cases:
        if "geometry" in case:
            value = case["geometry"][key]
            values += value if isinstance(value, list) else [value]
    return values


def _of_warps(results: Results, geometry: str, key: str) -> float | None:
    return mean([case[geometry][key] for case in results.cases if geometry in case])


def mean(values: Sequence[float | None]) -> float | None:
    """Of the values that are known."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def form(value: float | None, spec: str) -> str:
    """A figure, or a dash."""
    return "-" if value is None else format(value, spec)


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _comparable(value: Any) -> Any:
    """Without the command, which names the shard."""
    return {k: v for k, v in value.items() if k != "command"} if isinstance(value, dict) else value
