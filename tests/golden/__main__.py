"""`python -m tests.golden DIR`: exit code 0 if everything is within its tolerance, 1 if not, 2 if DIR is unusable."""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.golden.registry import CHECKS
from tests.golden.report import FolderError, Report, find_files, lines, run_file, summary
from tests.golden.vectors import Check


def main(arguments: Sequence[str] | None = None, checks: Mapping[str, Check] = CHECKS) -> int:
    """Print one line an array and a summary; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description="Parity with reference vectors.")
    parser.add_argument("folder", type=Path, help="holds gen3c/ and/or vggt/ with npz files")
    folder = parser.parse_args(arguments).folder
    started = time.monotonic()
    try:
        paths, no_checks = find_files(folder, checks)
    except FolderError as error:
        print(error, file=sys.stderr)
        return 2
    print("name  error  tolerance  ok")
    reports = []
    for path in paths:
        report = run_file(path, checks[f"{path.parent.name}/{path.stem}"])
        print("\n".join(lines(report)), flush=True)
        reports.append(report)
    whole = Report(reports, no_checks)
    print("\n".join(["", *summary(whole), f"{time.monotonic() - started:.0f} s"]))
    return 0 if whole.ok else 1


if __name__ == "__main__":
    sys.exit(main())
