"""Put trained weights into the package: `python -m training.package --vae RUN --vggt RUN --dit RUN [--target DIR]`.

The target is a checkpoint directory (gen3c/generator/checkpoint.py) of float16 weights.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from gen3c.generator.checkpoint import STATISTICS, statistics_config, transformer_config, vae_config
from gen3c.geometry.vggt.weights import FILES, FOLDER
from gen3c.presets import TINY
from gen3c.weight_files import PACKAGED, HeldWeight
from gen3c_export.writer import Weight, write_component
from training.run import load_weights

LIMIT = 24_000_000  # bytes, all weights together


def package(vae: Path, vggt: Path, dit: Path, target: Path) -> int:
    """Write the averaged weights of three runs; returns their bytes. Raises ValueError if those are too many."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        root = Path(scratch)
        tensors = load_weights(vae)
        statistics = {name: tensors.pop(name) for name in STATISTICS}
        config = vae_config(TINY.vae) | statistics_config(*(statistics[name] for name in STATISTICS))
        write_component(root, "vae", config, _halved(tensors))
        tensors = {key.removeprefix("transformer."): x for key, x in load_weights(dit).items()}
        write_component(root, "transformer", transformer_config(TINY.dit), _halved(tensors))
        (root / FOLDER).mkdir()
        save_file({key: x.half().contiguous() for key, x in load_weights(vggt).items()}, root / FOLDER / FILES[0])
        size = sum(path.stat().st_size for path in root.rglob("*.safetensors"))
        if size > LIMIT:
            raise ValueError(f"the weights have {size} bytes; legal are {LIMIT}.")
        target.mkdir(parents=True, exist_ok=True)
        for folder in ("vae", "transformer", FOLDER):
            shutil.rmtree(target / folder, ignore_errors=True)
            (root / folder).rename(target / folder)
    return size


def _halved(tensors: dict[str, Tensor]) -> dict[str, Weight]:
    return {key: Weight(HeldWeight(tensor.contiguous()), torch.float16) for key, tensor in tensors.items()}


def main() -> None:
    """Package, and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("vae", "vggt", "dit"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--target", type=Path, default=PACKAGED / TINY.name)
    args = parser.parse_args()
    args.target.parent.mkdir(parents=True, exist_ok=True)
    print(f"{package(args.vae, args.vggt, args.dit, args.target) / 1e6:.1f} MB of weights in {args.target}")


if __name__ == "__main__":
    main()
