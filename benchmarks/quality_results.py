"""The figures of all scenes: shards merged, and means over them."""

import json
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.quality_composite import RANKINGS
from benchmarks.quality_rows import FIGURES
from gen3c.fusion import FUSION_MODES

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

    def of_geometry(self, key: str) -> list[float]:
        """A figure of the estimates, of every case or, where it is a list, of every view."""
        values: list[float] = []
        for case in self.cases:
            if "geometry" in case:
                value = case["geometry"][key]
                values += value if isinstance(value, list) else [value]
        return values

    def of_warps(self, geometry: str, key: str) -> float | None:
        """Mean figure of the raw warps; `geometry` is "warps" or "exact_warps"."""
        return mean([case[geometry][key] for case in self.cases if geometry in case])

    def of_vae(self, key: str) -> float | None:
        """Mean figure of the autoencoder and the linear code."""
        return mean([case["vae"][key] for case in self.cases])

    @property
    def unseen(self) -> float:
        """Share of pixels that no view shows, median scene."""
        return float(statistics.median(case["unseen"] for case in self.cases))

    @property
    def refused(self) -> list[tuple[int, str, str]]:
        """Seed, group of rows, and why it is not there."""
        return [(case["seed"], *entry) for case in self.cases for entry in case.get("refused", {}).items()]


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


def mean(values: Sequence[float | None]) -> float | None:
    """Of the values that are known."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def median(values: Sequence[float]) -> float | None:
    """None without any value."""
    return statistics.median(values) if values else None


def form(value: float | None, spec: str) -> str:
    """A figure, or a dash."""
    return "-" if value is None else format(value, spec)


def _comparable(value: Any) -> Any:
    """Without the command, which names the shard."""
    return {k: v for k, v in value.items() if k != "command"} if isinstance(value, dict) else value
