"""Does the memory of condition building grow with the number of source views? It must not: within 10 % from 2 to 16.

    python benchmarks/memory.py [--fusion coverage_max] [--views 2 16]

Every figure comes from a process of its own, at the preset `tiny` with the real encoder. What is counted is resident
memory (Linux, /proc): the baseline is taken when the encoder and all source views (picture, depth, confidence, cameras;
the job holds those whatever happens) are loaded, the peak while `pool_views` makes the condition of one chunk from all
of them. `building` is peak - baseline, `whole` the peak of the entire process, views included. Beside the four fusion
modes stands the peer `hold_all`: render every view first, then encode and fold, as the public multi-view fork does.

Freed memory is given back to the system at once (MALLOC_MMAP_THRESHOLD_), so the figures are what the code holds. With
`--keep-freed` the C library decides, as it does when serving: it keeps freed blocks for reuse, which is twice as fast;
the peak then rises over the first four views and stays there.

The last line is `peak_ratio=<building at most views over that at least views, the worst of the fusion modes>`. The exit
status is 1 if it is above 1.10.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from gen3c.cache3d import render
from gen3c.conditioning import Cameras, ConditionOptions, ViewConditioner, pool_views
from gen3c.fusion import FUSION_MODES, FusionMode, Pool, ViewLatents, cell_coverage, fold
from gen3c.generator.condition import encode_view
from gen3c.generator.signatures import VIDEO_ENCODER
from gen3c.generator.vae import VideoEncoder
from gen3c.generator.weights import load_vae
from gen3c.geometry.types import Watch
from gen3c.presets import TINY, Preset
from gen3c.program import LocalProgram, Program
from gen3c.scene import SourceView

LIMIT = 1.10
PEER = "hold_all"
THREADS = 2  # each thread has scratch memory of its own
GIVEN_BACK_FROM = 128 * 1024  # bytes; glibc's first threshold, which it else raises up to 32 MiB as blocks are freed


@dataclass(frozen=True)
class Usage:
    """Resident memory of one process, in MiB."""

    baseline: float  # everything loaded, nothing done
    peak: float  # at most, from then on

    @property
    def building(self) -> float:
        return self.peak - self.baseline


def measure(work: Callable[[], object]) -> Usage:
    """The memory that `work` takes beyond what the process holds now. Raises OSError where Linux' /proc is not."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # memory that was freed, but kept, would hide as much of the peak
    # Writing 5 sets the high-water mark back to now. getrusage's ru_maxrss cannot be set back, and a child starts with
    # its parent's.
    Path("/proc/self/clear_refs").write_text("5")
    baseline = _status("VmRSS")
    work()
    return Usage(baseline, _status("VmHWM"))


def _status(key: str) -> float:
    """An entry of /proc/self/status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1]) / 1024


def source_views(n: int, preset: Preset) -> list[SourceView]:
    """n views of a noisy wall at depth 1, next to each other."""
    generator = torch.Generator().manual_seed(0)
    size = preset.height, preset.width
    views = []
    for i in range(n):
        w2c = torch.eye(4)
        w2c[0, 3] = 0.02 * i
        image = torch.rand(3, *size, generator=generator) * 2 - 1
        views.append(SourceView(image, torch.ones(size), torch.ones(size), w2c, _intrinsics(preset)))
    return views


def target_cameras(preset: Preset) -> Cameras:
    """One chunk of a path along the wall."""
    w2c = torch.eye(4).repeat(preset.chunk_frames, 1, 1)
    w2c[:, 0, 3] = torch.linspace(0, 0.3, preset.chunk_frames)
    return Cameras(w2c, _intrinsics(preset).expand(preset.chunk_frames, 3, 3))


def hold_all(views: Sequence[SourceView], cameras: Cameras, encoder: Program, preset: Preset) -> Pool:
    """The peer: all renderings in memory before the first is encoded."""
    size = preset.height, preset.width
    warps = [render(view.cache(0.1), cameras.w2c, cameras.K, size) for view in views]
    pool = Pool.empty(preset.latent_shape)
    for warp in warps:
        latents = encode_view(encoder, warp.image.transpose(0, 1)[None], warp.coverage.transpose(0, 1)[None])[0]
        pool = fold(pool, ViewLatents(latents, cell_coverage(warp.coverage)), "coverage_max")
    return pool


def build_condition(mode: FusionMode | str, n: int, preset: Preset = TINY) -> Usage:
    """Measure one chunk's condition from n views in this process, which should have done nothing before."""
    torch.set_num_threads(THREADS)
    encoder = LocalProgram(VideoEncoder(load_vae(preset, untrained_seed=0)[0]), VIDEO_ENCODER)
    views, cameras = source_views(n, preset), target_cameras(preset)
    if mode == PEER:
        return measure(lambda: hold_all(views, cameras, encoder, preset))
    options = ConditionOptions(fusion=next(legal for legal in FUSION_MODES if legal == mode))
    conditioner = ViewConditioner(encoder)
    return measure(lambda: pool_views(views, cameras, conditioner, Pool.empty(preset.latent_shape), options, Watch()))


def in_fresh_process(mode: str, n: int, *, keep_freed: bool = False) -> Usage:
    """`build_condition` in a new process."""
    command = [sys.executable, __file__, "--measure", mode, "--views", str(n)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    if not keep_freed:
        environment["MALLOC_MMAP_THRESHOLD_"] = str(GIVEN_BACK_FROM)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return Usage(**json.loads(done.stdout))


def _intrinsics(preset: Preset) -> torch.Tensor:
    return torch.tensor(
        [[250.0, 0, (preset.width - 1) / 2], [0, 250, (preset.height - 1) / 2], [0, 0, 1]], dtype=torch.float32
    )


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = [*FUSION_MODES, PEER]
    parser.add_argument("--fusion", nargs="+", choices=modes, default=modes, help="what to measure")
    parser.add_argument("--views", nargs="+", type=int, default=[2, 16], help="numbers of source views, rising")
    parser.add_argument("--measure", choices=modes, help="measure one number of views in this process; prints JSON")
    parser.add_argument("--keep-freed", action="store_true", help="let the C library keep freed memory, as in a server")
    arguments = parser.parse_args()
    if sorted(set(arguments.views)) != arguments.views or arguments.views[0] < 1:
        parser.error(f"--views is {arguments.views}; legal: rising numbers from 1.")
    return arguments


def main() -> None:
    """Run the benchmark."""
    arguments = parse_arguments()
    if arguments.measure:
        print(json.dumps(asdict(build_condition(arguments.measure, arguments.views[0]))))
        return
    raster = f"{TINY.chunk_frames} frames of {TINY.width}x{TINY.height}"
    print(f"{raster}, torch {torch.__version__}, {THREADS} threads; MiB")
    print(f"{'fusion':14} {'views':>5} {'baseline':>9} {'building':>9} {'whole':>9}   building, whole over the first")
    worst = 0.0
    for mode in arguments.fusion:
        first = None
        for n in arguments.views:
            usage = in_fresh_process(mode, n, keep_freed=arguments.keep_freed)
            first = first or usage
            ratio = usage.building / first.building
            print(
                f"{mode:14} {n:5} {usage.baseline:9.1f} {usage.building:9.1f} {usage.peak:9.1f}   "
                f"{ratio:.3f}, {usage.peak / first.peak:.3f}",
                flush=True,
            )
            if mode != PEER:
                worst = max(worst, ratio)
    print(f"peak_ratio={worst:.3f}")
    sys.exit(worst > LIMIT)


if __name__ == "__main__":
    main()
