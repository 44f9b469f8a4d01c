"""Runs the checks on a folder of vectors and says what came out."""

import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tests.golden.tolerance import Verdict
from tests.golden.vectors import Check, Result, Vectors

SETS = ("gen3c", "vggt")  # one folder for each reference implementation


class FolderError(Exception):
    """The folder cannot be judged at all."""


@dataclass
class FileReport:
    """What came out of one file that has checks."""

    name: str  # gen3c/warp
    results: list[Result] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # failures that are no comparison
    fed: int = 0  # arrays that were inputs alone

    @property
    def failures(self) -> int:
        return len(self.problems) + sum(result.failed for result in self.results)

    @property
    def closest(self) -> Result | None:
        """The result that came closest to failing."""
        gating = [result for result in self.results if not result.informative]
        return max(gating, key=lambda result: result.verdict.use, default=None)


@dataclass(frozen=True)
class Report:
    """What came out of a folder."""

    files: list[FileReport]
    no_checks: list[str]  # names of files that no check knows

    @property
    def ok(self) -> bool:
        return not any(file.failures for file in self.files)


def find_files(folder: Path, checks: Mapping[str, Check]) -> tuple[list[Path], list[str]]:
    """The files that have checks, and the names of those that have none. Raises FolderError if there are none."""
    if not folder.is_dir():
        legal = " or ".join(f"{s}/" for s in SETS)
        raise FolderError(f"{folder} is not a folder; legal: one that holds {legal} (make golden GOLDEN=DIR).")
    paths = [path for name in SETS for path in sorted((folder / name).glob("*.npz"))]
    known = [path for path in paths if _name(path) in checks]
    if not known:
        without = [s for s in SETS if not any(name.startswith(f"{s}/") for name in checks)]
        unchecked = [s for s in without if any(path.parent.name == s for path in paths)]
        reason = f" {' and '.join(unchecked)} has no checks yet." if unchecked else ""
        raise FolderError(
            f"{folder} holds no file to check ({len(paths)} npz files in {'/ and '.join(SETS)}/, none of them known), "
            f"so nothing was checked.{reason}"
        )
    return known, [_name(path) for path in paths if _name(path) not in checks]


def run_file(path: Path, check: Check) -> FileReport:
    """Run one check. Whatever goes wrong in it is a failure of that file, and the others still run."""
    report = FileReport(_name(path))
    try:
        vectors = Vectors(path)
    except Exception as error:  # a damaged file raises whatever its zip or array reader does
        report.problems.append(f"{report.name}  cannot be read: {error}")
        return report
    try:
        with torch.inference_mode():
            check(vectors)
    except Exception:
        report.problems.append(f"{report.name}  the check stopped:\n{traceback.format_exc().rstrip()}")
    report.results = vectors.results
    report.problems += [f"{report.name}/{array}  was neither fed nor compared" for array in vectors.unchecked()]
    report.fed = vectors.fed
    if not vectors.fed and not vectors.results:
        report.problems.append(f"{report.name}  holds nothing")
    return report


def lines(report: FileReport) -> Iterator[str]:
    """One line for each comparison: name, error, tolerance, ok; then the other problems."""
    for result in report.results:
        yield f"{result.name}  {_error(result.verdict)}  {_limit(result.verdict)}  {_word(result)}"
    for problem in report.problems:
        yield f"{problem}  FAILED" if "\n" not in problem else f"{problem}\nFAILED"


def summary(report: Report) -> Iterator[str]:
    """A line for each file with the comparison that came closest to failing, the files without checks, the verdict."""
    yield "file: compared, inputs alone, closest to its tolerance"
    for file in report.files:
        closest = file.closest
        what = "inputs load" if closest is None else _closest(closest)
        state = "ok" if not file.failures else f"{file.failures} FAILED"
        yield f"  {file.name}: {len(file.results)}, {file.fed}, {what}  {state}"
    if report.no_checks:
        yield f"no checks: {', '.join(report.no_checks)}"
    compared = sum(len(file.results) for file in report.files)
    informative = sum(result.informative for file in report.files for result in file.results)
    failures = sum(file.failures for file in report.files)
    yield (
        f"{len(report.files)} files, {compared} comparisons ({informative} informative), "
        + (f"{failures} FAILED" if failures else "all ok")
    )


def _closest(result: Result) -> str:
    return f"{result.name.split('/', 2)[2]} {_error(result.verdict)} of {_limit(result.verdict)}"


def _error(verdict: Verdict) -> str:
    return f"{verdict.error:.3g}" if verdict.measure == "max abs" else f"{verdict.error:.3g} ({verdict.measure})"


def _limit(verdict: Verdict) -> str:
    return f"{verdict.allowed:.3g}" if verdict.allowed else "exact"


def _word(result: Result) -> str:
    if result.informative:
        return "informative"
    return "FAILED" if result.failed else "ok"


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"
