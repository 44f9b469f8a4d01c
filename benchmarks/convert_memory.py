"""How much memory does `gen3c-export convert` take? Under 4 GB, however large the checkpoint.

    python benchmarks/convert_memory.py [--layers 7 14 28] [--folder DIR]

Makes files with the published names, shapes and formats at the width of `gen3c-7b` with that many layers (28 is the
published size, 14.5 GB), converts each in a process of its own and reads the high-water mark of its resident memory
(VmHWM of Linux' /proc, which counts mapped files too) shortly before it ends. Weights are zeros and ones: their values
change nothing in the memory. Needs free disk of twice the largest size; files are removed after each row.

The last line is `peak_gb=<largest peak>`. The exit status is 1 if it is 4 or more.
"""

import argparse
import dataclasses
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from gen3c.generator.checkpoint import STATISTICS
from gen3c.generator.dit import Dit
from gen3c.generator.vae import Vae
from gen3c.presets import GEN3C_7B, PRESETS, Preset
from gen3c_export.cli import main as export
from gen3c_export.official_keys import official_dit_key, official_vae_key

LIMIT_GB = 4.0


class Node(nn.Module):
    """A module of which only the names of its parameters matter."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def with_layers(layers: int) -> Preset:
    """gen3c-7b with another number of layers."""
    return dataclasses.replace(GEN3C_7B, dit=dataclasses.replace(GEN3C_7B.dit, layers=layers))


def write_files(folder: Path, preset: Preset) -> None:
    """model.pt, encoder.jit, decoder.jit and mean_std.pt in bfloat16."""
    with torch.device("meta"):
        dit = Dit(preset.dit).transformer.state_dict()
        vae = Vae(preset.vae, preset.latent_shape[0]).state_dict()
    # Pages of zeros that nobody has written to take no memory, so the whole network fits.
    weights = {official_dit_key(key): torch.zeros(t.shape, dtype=torch.bfloat16) for key, t in dit.items()}
    torch.save({"model": weights}, folder / "model.pt")
    official = {official_vae_key(key): tensor.shape for key, tensor in vae.items() if key not in STATISTICS}
    for name, prefixes in (("encoder.jit", ("encoder.", "quant_")), ("decoder.jit", ("decoder.", "post_quant_"))):
        root = Node()
        for key, shape in official.items():
            if key.startswith(prefixes):
                _put(root, key, torch.ones(shape, dtype=torch.bfloat16))
        torch.jit.trace(root, torch.zeros(1)).save(str(folder / name))
    torch.save((torch.zeros(256), torch.ones(256)), folder / "mean_std.pt")


def _put(root: nn.Module, name: str, tensor: Tensor) -> None:
    """Register a parameter under a dotted name."""
    *parents, last = name.split(".")
    for parent in parents:
        if parent not in root._modules:
            root.add_module(parent, Node())
        root = root.get_submodule(parent)
    root.register_parameter(last, nn.Parameter(tensor, requires_grad=False))


def convert_here(folder: Path, layers: int) -> None:
    """Run the command line in this process, and print the most memory that it held, in kB."""
    PRESETS["gen3c-7b"] = with_layers(layers)
    try:
        export(
            ["convert", "--dit", f"{folder / 'model.pt'}", "--tokenizer", f"{folder}", "--output", f"{folder / 'out'}"]
        )
    finally:
        status = Path("/proc/self/status").read_text()
        print("VmHWM", next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1], flush=True)


def measure(folder: Path, layers: int) -> tuple[float, float, float]:
    """GB of the source, GB of the peak, seconds of one conversion in a fresh process."""
    source = sum(path.stat().st_size for path in folder.iterdir()) / 1e9
    command = [sys.executable, __file__, "--convert-here", "--layers", str(layers), "--folder", str(folder)]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    seconds = time.perf_counter() - start
    return source, int(done.stdout.split("VmHWM")[1]) * 1024 / 1e9, seconds


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", type=int, default=[7, 14, 28], help="sizes to measure; 28 is the whole")
    parser.add_argument("--folder", type=Path, help="where the files go; default: the system's temporary folder")
    parser.add_argument("--convert-here", action="store_true", help="convert files that are in --folder; prints kB")
    arguments = parser.parse_args()
    if arguments.convert_here:
        convert_here(arguments.folder, arguments.layers[0])
        return
    print(f"torch {torch.__version__}\n{'layers':>6} {'source GB':>10} {'peak GB':>8} {'seconds':>8}")
    peaks = []
    for layers in arguments.layers:
        folder = Path(tempfile.mkdtemp(prefix="convert-memory-", dir=arguments.folder))
        try:
            write_files(folder, with_layers(layers))
            source, peak, seconds = measure(folder, layers)
        finally:
            shutil.rmtree(folder)
        print(f"{layers:6} {source:10.2f} {peak:8.2f} {seconds:8.0f}", flush=True)
        peaks.append(peak)
    print(f"peak_gb={max(peaks):.2f}")
    sys.exit(max(peaks) >= LIMIT_GB)


if __name__ == "__main__":
    main()
