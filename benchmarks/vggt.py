"""How long VGGT takes at its released size on one GPU, and how much memory, by number of frames.

    python benchmarks/vggt.py --output DIR    # about three minutes on an H200
    python benchmarks/h200.py --table DIR     # what DIR holds, as benchmarks/RESULTS.md shows it

Random weights (speed does not depend on their values), frames of 518x392 px. *Served* is what the model `vggt` runs on
a GPU: linear layers of the aggregator in bfloat16, the rest in float32. Its peer is the same network in float32, in the
same run. The aggregator is also measured by itself, which is what the authors' table tells of. The script also runs at
`--size tiny --device cpu`, where its figures mean nothing.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))  # `benchmarks` is no installed package

from benchmarks.measure import about, measured
from gen3c.geometry.vggt.model import Vggt, VggtProgram
from gen3c.presets import VGGT_1B, VGGT_TINY, VggtConfig
from gen3c.weight_files import random_weight

FRAMES = (1, 2, 4, 8, 10, 20, 50, 100, 200)
MOST_FLOAT32 = 50  # frames: beyond, float32 takes minutes
SIZE = (392, 518)  # height, width
GB = 2**30 / 1e9  # of a GiB: the authors' table is in GB


@dataclass(frozen=True)
class Row:
    """One number of frames. Seconds are medians; memory is the peak of what tensors took, weights included."""

    frames: int
    aggregator_s: float
    aggregator_gb: float  # without the heads' weights
    whole_s: float
    whole_gb: float
    compiled_s: float | None = None  # the aggregator with its blocks under torch.compile
    float32_aggregator_s: float | None = None
    float32_aggregator_gb: float | None = None
    float32_whole_s: float | None = None
    float32_whole_gb: float | None = None
    difference: float | None = None  # |served - float32| / |float32| of the depth


def random_vggt(config: VggtConfig, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Vggt:
    """The served network with random weights drawn on `device`; the same for both types but for rounding."""
    with torch.device("meta"):
        vggt = Vggt(config, points=False).narrow(dtype)
    generator = torch.Generator(device).manual_seed(seed)
    tensors = {}
    for name, tensor in vggt.state_dict().items():
        with device:
            drawn = random_weight(name, tensor.shape, generator)
        tensors[name] = drawn.to(tensor.dtype)
    vggt.load_state_dict(tensors, assign=True)
    return vggt.eval().requires_grad_(False)


@torch.inference_mode()
def measure(config: VggtConfig, device: torch.device, frames: tuple[int, ...], size: tuple[int, int]) -> list[Row]:
    """Every number of frames, in both types; one network is on the device at a time, and its heads only if needed."""
    pictures = {n: _pictures(n, size, device) for n in frames}
    narrow = _both(config, device, torch.bfloat16, pictures, compiled=device.type == "cuda")
    wide = _both(config, device, torch.float32, {n: p for n, p in pictures.items() if n <= MOST_FLOAT32})
    rows = []
    for n, served in narrow.items():
        row = Row(n, *served["aggregator"], *served["whole"], served.get("compiled_s"))
        if n in wide:
            peer = wide[n]
            off = float((served["depth"] - peer["depth"]).norm() / peer["depth"].norm())
            row = Row(*list(asdict(row).values())[:6], *peer["aggregator"], *peer["whole"], off)
        rows.append(row)
        print(row, flush=True)
    return rows


def _both(
    config: VggtConfig, device: torch.device, dtype: torch.dtype, pictures: dict[int, Tensor], compiled: bool = False
) -> dict[int, dict[str, Any]]:
    """Seconds and GB of the aggregator alone and of the whole program, by number of frames."""
    vggt = random_vggt(config, device, dtype)
    program = VggtProgram(vggt)
    found: dict[int, dict[str, Any]] = {}
    for n, images in pictures.items():
        seconds, peak, result = measured(partial(program, images), device)
        found[n] = {"whole": (seconds, peak * GB), "depth": result[1].cpu()}
        print(dtype, n, "whole", seconds, peak * GB, flush=True)
        del result
    aggregator: nn.Module = vggt.aggregator
    vggt.camera_head, vggt.depth_head = nn.Identity(), nn.Identity()  # their weights are no part of its memory
    for n, images in pictures.items():
        seconds, peak = measured(partial(aggregator, _scene(images)), device)[:2]  # the result goes before the next
        found[n]["aggregator"] = (seconds, peak * GB)
        print(dtype, n, "aggregator", seconds, peak * GB, flush=True)
    if compiled:
        for blocks in (aggregator.frame_blocks, aggregator.global_blocks, aggregator.patch_embed.blocks):
            for block in blocks:
                block.compile(dynamic=True)
        for n, images in pictures.items():
            found[n]["compiled_s"] = measured(partial(aggregator, _scene(images)), device)[0]
    return found


def _scene(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).float()[None] / 255


def _pictures(n: int, size: tuple[int, int], device: torch.device) -> Tensor:
    generator = torch.Generator(device).manual_seed(n)
    return torch.randint(0, 256, (n, *size, 3), generator=generator, dtype=torch.uint8, device=device)


def main() -> None:
    """Measure and write DIR/vggt.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for vggt.json")
    parser.add_argument("--size", choices=("1B", "tiny"), default="1B")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--frames", type=int, nargs="+", default=list(FRAMES))
    parser.add_argument("--commit", default="unknown")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    config, size = (VGGT_1B, SIZE) if chosen.size == "1B" else (VGGT_TINY, (168, 280))
    rows = measure(config, device, tuple(chosen.frames), size)
    entry = {"about": about(device, chosen.commit, ("torch", "numpy")), "result": [asdict(row) for row in rows]}
    chosen.output.mkdir(parents=True, exist_ok=True)
    (chosen.output / "vggt.json").write_text(json.dumps(entry, indent=1) + "\n")


if __name__ == "__main__":
    main()
