"""The results of the benchmarks that write JSON, as Markdown: benchmarks/h200.py --table prints it."""

import json
from pathlib import Path
from typing import Any


def table(folder: Path) -> str:
    """All that `folder` holds: stage by stage, multiplied out to a job, whole jobs beside it, exported networks."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    parts = []
    if "networks" in found:
        parts.append(_networks(found["networks"]))
    if "memory" in found:
        parts.append(_memory(found["memory"]))
    for name, title in (("job", "One whole job in one process"), ("serve", "The same job through Triton")):
        if name in found:
            parts.append(_job(found[name], title))
    compiled = [found[name] for name in _COMPILED if name in found]
    if compiled:
        parts.append(_compiled(compiled))
    if "vggt" in found:
        parts.append(_vggt(found["vggt"]))
    if "onnx_cpu" in found:
        parts.append(_onnx_cpu(found["onnx_cpu"]))
    return "\n".join(parts)


def _about(*entries: dict[str, Any]) -> str:
    """What the entries were measured with, those of one machine together, and their commands."""
    commands: dict[str, list[str]] = {}
    for entry in entries:
        commands.setdefault(_machine(entry["about"]), []).append(f"    {entry['about']['command']}\n")
    return "\n".join(f"{machine}\n\n{''.join(lines)}" for machine, lines in commands.items())


def _machine(about: dict[str, Any]) -> str:
    driver = f", driver {about['driver']}" if about["driver"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return f"{about['gpu'] or 'CPU'}{driver}, Python {about['python']}, {versions}; commit {about['commit']}"


def _networks(entry: dict[str, Any]) -> str:
    lines = [
        "## Stage by stage\n",
        _about(entry),
        "Medians of three passes in one run. *Job* is the median times the passes of a job: multiplied out.\n",
        "| stage | passes | ours, s | peer, s | ratio | ours, job s | peer, job s | ours, peak GiB | peer, peak GiB "
        "| difference |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    ours = peer = compared = 0.0
    for row in entry["result"]:
        times = row["times"]  # 0: a measurement beside the job
        job, other = row["ours_s"] * times, (row["peer_s"] or 0) * times
        ours, peer = ours + job, peer + other
        compared += job if row["peer_s"] else 0
        ratio = row["peer_s"] and row["ours_s"] / row["peer_s"]
        lines.append(
            f"| {row['stage']} | {times or '-'} | {row['ours_s']:.4f} | {_figure(row['peer_s'], '.4f')} "
            f"| {_figure(ratio, '.3f')} | {_figure(job if times else None, '.2f')} "
            f"| {_figure(row['peer_s'] and other, '.2f')} | {row['ours_peak_gib']:.1f} "
            f"| {_figure(row['peer_peak_gib'], '.1f')} | {_figure(row['difference'], '.2g')} |"
        )
    lines.append(
        f"| all with a peer | | | | {compared / peer:.3f} | {compared:.1f} | {peer:.1f} | | | |\n"
        f"| all | | | | | {ours:.1f} | | | | |\n"
    )
    return "\n".join(lines)


_COMPILED = ("compiled-dit", "compiled-dit-fp8", "compiled-video_encoder", "compiled-video_decoder", "compiled-vggt")


def _compiled(entries: list[dict[str, Any]]) -> str:
    lines = [
        "## Exported for the GPU\n",
        _about(*entries),
        "Packages of AOTInductor beside the same network in eager PyTorch and diffusers' module, seconds of one call, "
        "medians of one run. *Diffusers*: first with the kernel of attention that PyTorch picks by itself, then with "
        "the one that ours runs with (cuDNN's, on this GPU); the ratio is against the faster of the two. *Difference* "
        "is |package - ours| / |ours|, ours being bfloat16 for fp8, too; *from float32* is the same distance of either "
        "from the network in float32.\n",
        "| program | compile, s | package, GB | package, s | ours, s | diffusers, s | as ours, s | ratio to ours "
        "| ratio to diffusers | difference | ours from float32 | package from float32 |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in (entry["result"] for entry in entries):
        peers = [seconds for seconds in (row["peer_s"], row["peer_fastest_s"]) if seconds]
        ratio = row["package_s"] / min(peers) if peers else None
        lines.append(
            f"| {row['program']}{', fp8' if row['fp8'] else ''} | {row['compile_s']:.0f} | {row['package_gb']:.2f} "
            f"| {row['package_s']:.3f} | {row['eager_s']:.3f} | {_figure(row['peer_s'], '.3f')} "
            f"| {_figure(row['peer_fastest_s'], '.3f')} | {row['package_s'] / row['eager_s']:.3f} "
            f"| {_figure(ratio, '.3f')} | {row['difference']:.2g} | {_figure(row['eager_off'], '.2g')} "
            f"| {_figure(row['package_off'], '.2g')} |"
        )
    return "\n".join([*lines, ""])


def _onnx_cpu(entry: dict[str, Any]) -> str:
    lines = [
        "## ONNX Runtime on a CPU\n",
        _about(entry),
        "Preset `tiny`, two threads, milliseconds of one call, PyTorch and ONNX Runtime in turns, medians. *Chain* is "
        "one chunk: all calls together. *Difference* is |ONNX - PyTorch| / |PyTorch|.\n",
        "| program | calls | PyTorch, ms | ONNX Runtime, ms | ratio | difference | export, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in entry["result"]:
        lines.append(
            f"| {row['program']} | {row['calls']} | {1e3 * row['eager_s']:.1f} | {1e3 * row['onnx_s']:.1f} "
            f"| {row['onnx_s'] / row['eager_s']:.3f} | {row['difference']:.1g} | {row['export_s']:.1f} |"
        )
    return "\n".join([*lines, ""])


# Seconds and GB of the aggregator on one H100 with FlashAttention 3, by frames: the README of facebookresearch/vggt.
_AUTHORS = {
    1: (0.04, 1.88),
    2: (0.05, 2.07),
    4: (0.07, 2.45),
    8: (0.11, 3.23),
    10: (0.14, 3.63),
    20: (0.31, 5.58),
    50: (1.04, 11.41),
    100: (3.12, 21.15),
    200: (8.75, 40.63),
}


def _vggt(entry: dict[str, Any]) -> str:
    lines = [
        "## VGGT\n",
        _about(entry),
        "Frames of 518x392 px, medians of three passes in one run, GB the peak of tensors with the weights. *Whole* is "
        "what a call of the model `vggt` computes: aggregator, cameras, depth. *Compiled*: the aggregator with its "
        "blocks under `torch.compile`, not served. *Authors*: their README, aggregator, one H100, FlashAttention 3. "
        "*Difference* is |served - float32| / |float32| of the depth.\n",
        "| frames | aggregator, s | GB | authors, s | GB | whole, s | GB | float32 aggregator, s | GB "
        "| float32 whole, s | GB | compiled, s | difference |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in entry["result"]:
        seconds, gb = _AUTHORS[row["frames"]]
        lines.append(
            f"| {row['frames']} | {row['aggregator_s']:.3f} | {row['aggregator_gb']:.2f} | {seconds} | {gb} "
            f"| {row['whole_s']:.3f} | {row['whole_gb']:.2f} | {_figure(row['float32_aggregator_s'], '.3f')} "
            f"| {_figure(row['float32_aggregator_gb'], '.2f')} | {_figure(row['float32_whole_s'], '.3f')} "
            f"| {_figure(row['float32_whole_gb'], '.2f')} | {_figure(row['compiled_s'], '.3f')} "
            f"| {_figure(row['difference'], '.2g')} |"
        )
    return "\n".join([*lines, ""])


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _memory(entry: dict[str, Any]) -> str:
    few, many = (entry["result"][n] for n in ("2", "16"))
    return (
        "## Memory of condition building\n\n"
        f"{_about(entry)}\nPeak of allocated memory, both networks' weights included: {few:.3f} GiB with 2 views, "
        f"{many:.3f} GiB with 16: ratio {many / few if few else 0:.4f}.\n"
    )


def _job(entry: dict[str, Any], title: str) -> str:
    result = entry["result"]
    stages = ", ".join(f"{name} {seconds:.2f}" for name, seconds in result["stages_s"].items())
    lines = [f"## {title}\n", _about(entry), f"- wall time {result['wall_s']:.1f} s; stages (s): {stages}"]
    lines.append(
        f"- in networks and rendering {result['inside_s']:.1f} s; outside of them "
        f"{100 * result['outside_share']:.2f} % of the job"
    )
    for key, unit in (("seconds", "s in calls of"), ("computed_s", "s computed, by Triton's statistics:")):
        if key in result:
            lines.append(f"- {unit} " + ", ".join(f"{name} {s:.2f}" for name, s in result[key].items()))
    if "peak_gib" in result:
        lines.append(f"- GPU memory: {result['peak_gib']:.1f} GiB allocated, {result['reserved_gib']:.1f} GiB reserved")
    if "gpu_used_gib" in result:
        lines.append(f"- GPU memory of all processes: {result['gpu_used_gib']:.1f} GiB at most")
        lines.append(f"- ready {result['start_s']:.1f} s after the start")
    return "\n".join(lines) + "\n"
