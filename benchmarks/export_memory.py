"""How much memory does an ONNX export take? Under 8 GB, however large the network and its pictures.

    python benchmarks/export_memory.py [--networks dit video_encoder video_decoder vggt] [--folder DIR] [--keep]

For each network at the sizes of `gen3c-7b` (704x1280, 121 frames; VGGT-1B for up to 32 frames of 518x518): writes
a checkpoint of random weights, exports it for a GPU in a process of its own and reads the high-water mark of its
resident memory (VmHWM of Linux' /proc, which counts mapped files too) shortly before it ends. Then every weight in the
ONNX file is compared with the checkpoint's. Needs 30 GB of free disk; files are removed after each row, except ONNX
files with `--keep`.

The last line is `peak_gb=<largest peak>`. The exit status is 1 if it is 8 or more, or if a weight differs.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from onnxscript import ir
from safetensors.torch import save_file
from torch import Tensor, nn

from gen3c.generator.checkpoint import STATISTICS, statistics_config, transformer_config, vae_config
from gen3c.generator.dit import Dit
from gen3c.generator.signatures import DIT, LATENT_CHANNELS
from gen3c.generator.vae import Vae
from gen3c.geometry.vggt.model import Vggt
from gen3c.geometry.vggt.signature import VGGT
from gen3c.networks import NETWORKS, WeightSource, network
from gen3c.presets import GEN3C_7B, VGGT_1B
from gen3c_export.plans import engine_plan, graph_plans
from gen3c_export.tensorrt_graphs import DTYPE, export_graph
from gen3c_export.writer import Weight, write_component

LIMIT_GB = 8.0
GRAPH = "network.onnx"
COMPONENTS = ("transformer", "vae", "vggt")


@dataclass(frozen=True)
class Noise:
    """A weight that is drawn when it is written: a piece of noise, again and again."""

    piece: Tensor
    shape: torch.Size
    shift: int

    @property
    def numel(self) -> int:
        return self.shape.numel()

    def read(self) -> Tensor:
        times = -(-self.numel // len(self.piece))
        return self.piece.roll(self.shift).repeat(times)[: self.numel].reshape(self.shape)


def noise(module: nn.Module) -> dict[str, Weight]:
    """Weights of a module on the meta device, in its types."""
    piece = torch.randn(2**20 + 7, generator=torch.Generator().manual_seed(0)) * 0.02
    return {
        name: Weight(Noise(piece, tensor.shape, i), tensor.dtype)
        for i, (name, tensor) in enumerate(module.state_dict().items())
        if name not in STATISTICS
    }


def write_checkpoint(folder: Path, name: str) -> None:
    """Files as `gen3c-export convert` writes them, or VGGT's, of the network that `name` needs."""
    with torch.device("meta"):
        dit, vae = Dit(GEN3C_7B.dit).transformer.to(DTYPE), Vae(GEN3C_7B.vae, GEN3C_7B.latent_shape[0]).to(DTYPE)
        vggt = Vggt(VGGT_1B, points=False).narrow(DTYPE)
    if name == DIT.name:
        write_component(folder, "transformer", transformer_config(GEN3C_7B.dit), noise(dit))
    elif name == VGGT.name:
        tensors = {key: weight.source.read().to(weight.dtype) for key, weight in noise(vggt).items()}
        (folder / "vggt").mkdir()
        save_file(tensors, folder / "vggt" / "model.safetensors")
    else:
        shape = (LATENT_CHANNELS, GEN3C_7B.latent_shape[0])
        statistics = statistics_config(torch.zeros(shape), torch.ones(shape))
        write_component(folder, "vae", vae_config(GEN3C_7B.vae) | statistics, noise(vae))


def export_here(folder: Path, name: str) -> None:
    """Export in this process, and print the most memory that it held, in kB."""
    plan = engine_plan(graph_plans(name, GEN3C_7B, VGGT_1B))
    export_graph(network(name), WeightSource(GEN3C_7B, folder), plan, folder / GRAPH)
    status = Path("/proc/self/status").read_text()
    print("VmHWM", next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1], flush=True)


def differences(folder: Path, name: str) -> int:
    """How many of the checkpoint's weights have other values or shapes in the ONNX file."""
    graph = ir.load(folder / GRAPH).graph
    wrong = 0
    streamed = network(name).streamed(WeightSource(GEN3C_7B, folder), DTYPE)
    for key, tensor in streamed.module.state_dict().items():
        if key not in graph.initializers:
            print(f"{key} is left out: no output depends on it", file=sys.stderr)
            continue
        stored, written = streamed.weights[key].read(), graph.initializers[key].const_value
        values = torch.frombuffer(bytearray(written.tobytes()), dtype=tensor.dtype)
        if list(written.shape) != list(stored.shape) or not values.equal(stored.to(tensor.dtype).flatten()):
            print(f"{key} differs", file=sys.stderr)
            wrong += 1
        written.release()
    return wrong


def measure(folder: Path, name: str) -> tuple[float, float]:
    """GB of the peak and seconds of one export in a fresh process."""
    command = [sys.executable, __file__, "--export-here", "--networks", name, "--folder", str(folder)]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return int(done.stdout.split("VmHWM")[1]) * 1024 / 1e9, time.perf_counter() - start


def main() -> None:
    """Run the benchmark."""
    names = list(NETWORKS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=names, default=names, help="which ones to measure")
    parser.add_argument("--folder", type=Path, help="where the files go; default: the system's temporary folder")
    parser.add_argument("--keep", action="store_true", help="leave the ONNX files there")
    parser.add_argument("--export-here", action="store_true", help="export what is in --folder; prints kB")
    arguments = parser.parse_args()
    if arguments.export_here:
        export_here(arguments.folder, arguments.networks[0])
        return
    print(
        f"torch {torch.__version__}\n{'network':14} {'nodes':>6} {'graph MB':>9} {'data GB':>8} {'peak GB':>8} {'s':>5}"
    )
    peaks, wrong = [], 0
    for name in arguments.networks:
        folder = Path(tempfile.mkdtemp(prefix=f"export-memory-{name}-", dir=arguments.folder))
        try:
            write_checkpoint(folder, name)
            peak, seconds = measure(folder, name)
            wrong += differences(folder, name)
            nodes = len(onnx.load(folder / GRAPH, load_external_data=False).graph.node)
            graph, data = ((folder / file).stat().st_size for file in (GRAPH, f"{GRAPH}.data"))
            print(f"{name:14} {nodes:6} {graph / 1e6:9.2f} {data / 1e9:8.2f} {peak:8.2f} {seconds:5.0f}", flush=True)
            peaks.append(peak)
        finally:
            for path in [folder / part for part in COMPONENTS] if arguments.keep else [folder]:
                shutil.rmtree(path, ignore_errors=True)
    print(f"peak_gb={max(peaks):.2f}")
    sys.exit(bool(wrong) or max(peaks) >= LIMIT_GB)


if __name__ == "__main__":
    main()
