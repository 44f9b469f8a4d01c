"""How much faster the `tiny` preset's programs are in ONNX Runtime than in eager PyTorch, on a CPU.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/onnx_cpu.py --output DIR    # about two minutes on two cores

Random weights (speed does not depend on their values), batches of one. The chain is what one chunk costs: the encoder
on the given frame and on two renderings, the default number of denoising steps, the decoder. PyTorch and ONNX Runtime
take turns at a program, so that whatever else the machine does falls on both; figures are medians.
"""

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))  # `benchmarks` is no installed package

from benchmarks.measure import about
from gen3c.generator.signatures import DIT, VIDEO_DECODER, VIDEO_ENCODER, symbols
from gen3c.generator.vae import VideoDecoder, VideoEncoder
from gen3c.generator.weights import load_dit, load_vae
from gen3c.presets import TINY
from gen3c.program import Signature
from gen3c_export.onnx_file import export_onnx

REPEATS = 15
THREADS = 2


@dataclass(frozen=True)
class Case:
    """A program at one size; `calls` of it make one chunk."""

    name: str
    module: nn.Module
    signature: Signature
    calls: int
    sizes: dict[str, int]
    dynamic: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One program, or the chain. Seconds a call."""

    program: str
    calls: int
    eager_s: float
    onnx_s: float
    difference: float  # |ONNX - eager| / |eager|
    export_s: float

    def __str__(self) -> str:
        return (
            f"{self.program:17} x{self.calls:<3} eager {self.eager_s * 1e3:7.1f} ms, ONNX {self.onnx_s * 1e3:7.1f} ms: "
            f"{self.eager_s / self.onnx_s:.2f}x; differs by {self.difference:.0e}; exported in {self.export_s:.1f} s"
        )


def cases() -> list[Case]:
    """The programs of one chunk."""
    dit, _ = load_dit(TINY, untrained_seed=0)
    vae, _ = load_vae(TINY, untrained_seed=0)
    encoder = VideoEncoder(vae)
    one_frame = symbols(TINY) | {"T": 1, "t": 1}
    return [
        Case("dit", dit, DIT, TINY.steps, symbols(TINY), ("batch",)),
        Case("video_encoder 25", encoder, VIDEO_ENCODER, 2, symbols(TINY)),
        Case("video_encoder 1", encoder, VIDEO_ENCODER, 1, one_frame),
        Case("video_decoder", VideoDecoder(vae), VIDEO_DECODER, 1, symbols(TINY)),
    ]


def example(signature: Signature, sizes: dict[str, int], seed: int = 0) -> dict[str, Tensor]:
    """Inputs in [-1,1]; a rate of frames is 24."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {spec.name: torch.randn(spec.sizes(sizes), generator=generator).clamp(-1, 1) for spec in signature.inputs}
    return {name: torch.full_like(tensor, 24.0) if name == "FPS" else tensor for name, tensor in inputs.items()}


def session(path: Path) -> onnxruntime.InferenceSession:
    """As a server runs it, whose models share the cores: threads that wait do not spin."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@torch.inference_mode()
def measure(folder: Path, repeats: int) -> list[Row]:
    """Every program, then their sum."""
    rows = []
    for number, case in enumerate(cases()):
        path = folder / f"{number}.onnx"
        start = time.perf_counter()
        _export(case, path)
        export_s = time.perf_counter() - start
        eager, onnx = _works(case, path)
        expected, found = eager().double(), torch.from_numpy(onnx()[0]).double()
        difference = float((found - expected).norm() / expected.norm())
        eager_s, onnx_s = _medians([eager, onnx], repeats)
        rows.append(Row(case.name, case.calls, eager_s, onnx_s, difference, export_s))
    eager_s = sum(row.calls * row.eager_s for row in rows)
    onnx_s = sum(row.calls * row.onnx_s for row in rows)
    return [
        *rows,
        Row("chain", 1, eager_s, onnx_s, max(row.difference for row in rows), sum(row.export_s for row in rows)),
    ]


def _export(case: Case, path: Path) -> None:
    sizes = case.sizes | dict.fromkeys(case.dynamic, 2)
    with torch.inference_mode(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's about its own code
        inputs = example(case.signature, sizes)
        export_onnx(case.module, case.signature, inputs, path, dynamic=case.dynamic, runtime="onnxruntime")


def _works(case: Case, path: Path) -> tuple[Callable[[], Tensor], Callable[[], Any]]:
    inputs = example(case.signature, case.sizes, seed=1)
    arguments = case.signature.arguments(inputs)
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    runtime = session(path)
    return lambda: case.module(*arguments), lambda: runtime.run(None, arrays)


def _medians(works: list[Callable[[], Any]], repeats: int) -> list[float]:
    """Seconds of each, after one pass to warm up."""
    seconds: list[list[float]] = [[] for _ in works]
    for repeat in range(1 + repeats):
        for work, figures in zip(works, seconds, strict=True):
            start = time.perf_counter()
            work()
            if repeat:
                figures.append(time.perf_counter() - start)
    return [statistics.median(figures) for figures in seconds]


def main() -> None:
    """Measure and write DIR/onnx_cpu.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for onnx_cpu.json")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--commit", default="unknown")
    chosen = parser.parse_args()
    torch.set_num_threads(THREADS)
    with TemporaryDirectory() as folder:
        rows = measure(Path(folder), chosen.repeats)
    for row in rows:
        print(row)
    versions = about(torch.device("cpu"), chosen.commit, ("torch", "onnx", "onnxruntime", "numpy"))
    chosen.output.mkdir(parents=True, exist_ok=True)
    entry = {"about": versions, "result": [asdict(row) for row in rows]}
    (chosen.output / "onnx_cpu.json").write_text(json.dumps(entry, indent=1) + "\n")


if __name__ == "__main__":
    main()
