"""How fast the exported networks of target `cuda` are at full size on one GPU, beside eager PyTorch and diffusers.

    python benchmarks/compiled.py --program dit --output DIR          # compiles for minutes, then measures
    python benchmarks/compiled.py --program dit --fp8 --output DIR
    python benchmarks/compiled.py --program video_encoder --output DIR   # also video_decoder, vggt
    python benchmarks/h200.py --table DIR                          # what DIR holds, as benchmarks/RESULTS.md shows it

Random bfloat16 weights (speed does not depend on their values). The package is written, loaded as a server does it
(gen3c.exported.program), and compared with its twin on fresh inputs: `difference` is |package - ours| / |ours|. All
times are medians of the same run. The script also runs at `--preset tiny --device cpu`, where its figures mean nothing.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))  # `benchmarks` is no installed package

from benchmarks import full_size
from benchmarks.measure import about, measured
from benchmarks.vggt import random_vggt
from gen3c.attention import fastest_attention
from gen3c.exported.program import Runner, aoti_runner
from gen3c.generator.fp8 import quantise
from gen3c.generator.signatures import DIT, VIDEO_DECODER, VIDEO_ENCODER, symbols
from gen3c.generator.vae import VideoDecoder, VideoEncoder, to_uint8
from gen3c.geometry.vggt.model import VggtProgram
from gen3c.geometry.vggt.signature import VGGT
from gen3c.presets import VGGT_1B, VGGT_TINY, Preset, get_preset
from gen3c.program import Signature
from gen3c_export.aoti_file import export_aoti
from gen3c_export.plans import example_inputs

WIDENED = ("video_encoder", "video_decoder", "vggt")  # small enough to be held in float32 as well
VGGT_SIZES = {"s": 8, "H": 392, "W": 518}
PACKAGES = ("torch", "triton", "diffusers", "numpy")


@dataclass(frozen=True)
class Subject:
    """One program with its eager twin and diffusers' module."""

    signature: Signature
    module: nn.Module
    sizes: dict[str, int]
    dynamic: tuple[str, ...]
    peer: Any = None  # diffusers' eager module as a function of the same inputs


@dataclass(frozen=True)
class Result:
    """Median seconds of one call; memory is the peak of what tensors took, GiB."""

    program: str
    fp8: bool
    sizes: dict[str, int]
    compile_s: float
    package_gb: float
    load_s: float
    package_s: float
    eager_s: float
    eager_gib: float
    peer_s: float | None  # diffusers' module with the kernel of attention that PyTorch chooses by itself
    peer_fastest_s: float | None  # and with the one that ours runs with
    difference: float  # |package - eager| / |eager|; of an fp8 package: eager is bfloat16
    eager_off: float | None  # |eager - float32| / |float32|, of the autoencoder
    package_off: float | None  # |package - float32| / |float32|
    psnr_db: float  # of the outputs against eager's, the peak being their range


def subject(name: str, preset: Preset, device: torch.device) -> Subject:
    """Random networks; the peer shares their weights."""
    sizes = symbols(preset)
    if name == "vggt":
        config, dtype = (VGGT_1B, torch.bfloat16) if device.type == "cuda" else (VGGT_TINY, torch.float32)
        small = VGGT_SIZES if device.type == "cuda" else {"s": 2, "H": 56, "W": 84}
        return Subject(VGGT, VggtProgram(random_vggt(config, device, dtype), frames_at_once=None), small, ("s",))
    preset = full_size.with_peer(preset)
    networks = full_size.random_networks(preset, device)
    peer = full_size.peer_of(networks, preset)
    if name == "dit":

        def evaluate(inputs: dict[str, Tensor]) -> Tensor:
            padding = torch.zeros_like(inputs["CONDITION_MASK"])
            output: Tensor = peer.transformer(
                hidden_states=inputs["LATENT"],
                timestep=inputs["TIMESTEP"].flatten(),
                encoder_hidden_states=inputs["TEXT"],
                fps=24,
                condition_mask=torch.cat([inputs["CONDITION_MASK"], inputs["CACHE"], padding], dim=1),
                return_dict=False,
            )[0]
            return output

        return Subject(DIT, networks.dit, sizes, ("batch",), evaluate)
    if name == "video_encoder":
        return Subject(
            VIDEO_ENCODER,
            VideoEncoder(networks.vae),
            sizes,
            (),
            lambda inputs: peer.autoencoder.encode(inputs["VIDEO"]).latent_dist.mode() * 0.5,
        )
    return Subject(
        VIDEO_DECODER,
        VideoDecoder(networks.vae),
        sizes,
        (),
        lambda inputs: to_uint8(peer.autoencoder.decode(inputs["LATENT"].to(inputs["LATENT"].dtype) / 0.5).sample),
    )


@torch.inference_mode()
def measure(name: str, preset: Preset, device: torch.device, fp8: bool) -> Result:
    """Compile, load, compare."""
    found = subject(name, preset, device)
    generator = torch.Generator().manual_seed(1)
    inputs = example_inputs(found.signature, found.sizes, generator, device)
    arguments = found.signature.arguments(inputs)
    eager_s, eager_gib, expected = measured(lambda: _compared(found.module(*arguments)), device)
    peer_s = peer_fastest_s = None
    if found.peer is not None:
        peer_s = measured(lambda: found.peer(inputs), device)[0]
        with fastest_attention() if device.type == "cuda" else nullcontext():
            peer_fastest_s = measured(lambda: found.peer(inputs), device)[0]
    print(f"{name}: eager {eager_s:.3f} s, {eager_gib:.1f} GiB; peer {peer_s}, {peer_fastest_s}", flush=True)
    example = {symbol: max(2, size) if symbol in found.dynamic else size for symbol, size in found.sizes.items()}
    module = quantise(found.module) if fp8 else found.module  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        started = time.perf_counter()
        with torch.inference_mode(False):
            export_aoti(
                module,
                found.signature,
                example_inputs(found.signature, example, generator, device),
                path,
                dynamic=found.dynamic,
            )
        compile_s, size = time.perf_counter() - started, path.stat().st_size
        print(f"compiled in {compile_s:.0f} s, {size / 1e9:.2f} GB", flush=True)
        started = time.perf_counter()
        run: Runner = aoti_runner(path, device, found.signature)
        load_s = time.perf_counter() - started
    package_s, _, outputs = measured(lambda: _compared(run(arguments)), device)
    exact = None
    if name in WIDENED:
        found.module.float()
        wide = [x.float() if x.is_floating_point() else x for x in arguments]
        exact = _compared(found.module(*wide)).float().cpu()
    off = (outputs.float() - expected.float()).cpu()
    reference = expected.float().cpu()
    span = float(reference.max() - reference.min())
    return Result(
        name,
        fp8,
        found.sizes,
        compile_s,
        size / 1e9,
        load_s,
        package_s,
        eager_s,
        eager_gib,
        peer_s,
        peer_fastest_s,
        float(off.norm() / reference.norm()),
        None if exact is None else float((expected.float().cpu() - exact).norm() / exact.norm()),
        None if exact is None else float((outputs.float().cpu() - exact).norm() / exact.norm()),
        float(20 * torch.log10(span / off.square().mean().sqrt())),
    )


def _compared(result: Tensor | Sequence[Tensor]) -> Tensor:
    """The output that is compared: the only one, or VGGT's depth."""
    if isinstance(result, Tensor):
        return result
    return result[0] if len(result) == 1 else result[1]


def main() -> None:
    """Measure one program and write DIR/compiled-<program>.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", choices=("dit", "video_encoder", "video_decoder", "vggt"), required=True)
    parser.add_argument("--fp8", action="store_true", help="the transformer's linear layers in float8")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--preset", default="gen3c-7b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--commit", default="unknown")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    result = measure(chosen.program, get_preset(chosen.preset), device, chosen.fp8)
    packages = [name for name in PACKAGES if device.type == "cuda" or name != "triton"]
    entry = {"about": about(device, chosen.commit, packages), "result": asdict(result)}
    chosen.output.mkdir(parents=True, exist_ok=True)
    target = chosen.output / f"compiled-{chosen.program}{'-fp8' if chosen.fp8 else ''}.json"
    target.write_text(json.dumps(entry, indent=1) + "\n")
    print(target.read_text())


if __name__ == "__main__":
    main()
