"""Draw the logs of runs: `python -m training.curves LOG... --output FILE.png` (the extra `train` brings matplotlib)."""

import argparse
import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot

LEFT_OUT = {"step", "minutes", "progress", "rate", "norm", "bad_steps"}


def read_log(path: Path) -> dict[str, list[tuple[int, float]]]:
    """What a log says of each quantity: steps and values."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        for name, value in entry.items():
            if name not in LEFT_OUT and isinstance(value, int | float):
                curves.setdefault(name, []).append((entry["step"], value))
    return curves


def main() -> None:
    """One row a log, one panel a quantity."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logs", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="quantities to draw; default: all")
    args = parser.parse_args()
    logs = {path: read_log(path) for path in args.logs}
    wanted = {path: [n for n in curves if not args.only or n in args.only] for path, curves in logs.items()}
    columns = max(len(names) for names in wanted.values())
    figure, axes = pyplot.subplots(len(logs), columns, figsize=(2.6 * columns, 2.2 * len(logs)), squeeze=False)
    for row, (path, curves) in zip(axes, logs.items(), strict=True):
        for axis in row[len(wanted[path]) :]:
            axis.axis("off")
        for axis, name in zip(row, wanted[path], strict=False):
            steps, values = zip(*curves[name], strict=True)
            axis.plot(steps, values, linewidth=0.8)
            axis.set_title(f"{path.stem}: {name}", fontsize=7)
            axis.tick_params(labelsize=6)
            if min(values) > 0 and max(values) > 20 * min(values):
                axis.set_yscale("log")
    figure.tight_layout()
    figure.savefig(args.output, dpi=110)


if __name__ == "__main__":
    main()
