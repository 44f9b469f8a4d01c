"""How long a full-size video takes on one GPU, stage by stage, beside diffusers' own modules.

    python benchmarks/h200.py --stage networks --output DIR   # each stage, ours and the peer's; about 3 minutes
    python benchmarks/h200.py --stage memory --output DIR     # condition building over 2 and 16 views
    python benchmarks/h200.py --stage job --output DIR        # one whole job in this process; about 6 minutes
    python benchmarks/h200.py --stage serve --output DIR      # the same job through Triton
    python benchmarks/h200.py --table DIR                     # what DIR holds, as benchmarks/RESULTS.md shows it

Preset gen3c-7b: random bfloat16 weights (speed does not depend on their values), 8 views of a painted room at 704x1280,
121 frames, 35 steps, guidance 1, so 70 evaluations of the network. Each stage writes DIR/<stage>.json. The script also
runs at `--preset tiny --device cpu`, where its figures mean nothing.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # `benchmarks` is no installed package

from benchmarks import full_size, full_size_job
from benchmarks.full_size_table import table
from benchmarks.measure import about, measured, peak_gib
from gen3c.cache3d import CachedView, render
from gen3c.conditioning import Cameras, ConditionOptions, ViewConditioner, pool_views
from gen3c.fusion import Pool, ViewLatents, cell_coverage, fold
from gen3c.generator.condition import encode_view
from gen3c.generator.signatures import DIT, VIDEO_DECODER, VIDEO_ENCODER, symbols
from gen3c.generator.vae import VideoDecoder, VideoEncoder, to_uint8
from gen3c.geometry.types import Watch
from gen3c.presets import Preset, get_preset
from gen3c.program import LocalProgram
from gen3c.splat import EMPTY, depth_weight, project, splat

VIEWS = 8
PACKAGES = ("torch", "diffusers", "numpy")


@dataclass(frozen=True)
class Row:
    """One stage of a job: median seconds of one pass, and how often a job makes it."""

    stage: str
    times: int
    ours_s: float
    ours_peak_gib: float  # allocated at most, the networks' weights included
    peer_s: float | None = None
    peer_peak_gib: float | None = None
    difference: float | None = None  # |ours - peer| / |peer| of the outputs


@torch.inference_mode()
def networks_stage(preset: Preset, device: torch.device, steps: int) -> list[Row]:  # noqa: PLR0915 (a list of measurements)
    """Every stage of a job by itself, ours and the peer's on the same inputs."""
    preset = full_size.with_peer(preset)
    networks = full_size.random_networks(preset, device)
    peer = full_size.peer_of(networks, preset)
    dtype = networks.dit.transformer.proj_out.weight.dtype
    generator = torch.Generator(device).manual_seed(1)
    sizes = symbols(preset)
    rows = []

    def compare(stage: str, times: int, ours: Callable[[], Any], theirs: Callable[[], Any] | None) -> Any:
        seconds, peak, result = measured(ours, device)
        if theirs is None:
            rows.append(Row(stage, times, seconds, peak))
        else:
            peer_seconds, peer_peak, expected = measured(theirs, device)
            difference = float((result.float() - expected.float()).norm() / expected.float().norm())
            rows.append(Row(stage, times, seconds, peak, peer_seconds, peer_peak, difference))
        print(rows[-1], flush=True)
        return result

    view = full_size.source_views(2, preset)[1].to(device)
    path = full_size_job.path(preset)
    path = Cameras(path.w2c.to(device), path.K.to(device))
    cached = view.cache(0.1)
    size = preset.height, preset.width

    def plain_render() -> torch.Tensor:
        # No peer of diffusers': the plain PyTorch splat, as released GEN3C does it, two frames a call.
        return torch.cat([_plain_warp(cached, path[i : i + 2], size) for i in range(0, len(path), 2)])

    compare("render a view", VIEWS, lambda: render(cached, path.w2c, path.K, size).image, plain_render)
    warp = render(cached, path.w2c, path.K, size)
    image, mask = warp.image.transpose(0, 1)[None].to(dtype), warp.coverage.transpose(0, 1)[None].to(dtype)
    coverage = cell_coverage(warp.coverage)
    del warp

    encoder = LocalProgram(VideoEncoder(networks.vae), VIDEO_ENCODER)

    def peer_encode() -> torch.Tensor:
        grey = (mask * 2 - 1).expand_as(image)
        return torch.cat([peer.autoencoder.encode(x).latent_dist.mode() * 0.5 for x in (image, grey)], dim=1)

    latents = compare("encode a view (picture and mask)", VIEWS, lambda: encode_view(encoder, image, mask), peer_encode)
    seen = ViewLatents(latents[0].float(), coverage)
    empty = Pool.empty(preset.latent_shape, device)
    compare("pool a view", VIEWS, lambda: fold(empty, seen, "coverage_max").latents, None)

    inputs = {
        spec.name: torch.randn(spec.sizes(sizes), generator=generator, device=device, dtype=dtype)
        for spec in DIT.inputs
    }
    inputs |= {"TIMESTEP": torch.full((1, 1), 0.3, device=device), "FPS": torch.full((1, 1), 24.0, device=device)}
    inputs["CONDITION_MASK"] = torch.zeros_like(inputs["CONDITION_MASK"])
    padding = torch.zeros_like(inputs["CONDITION_MASK"])

    def peer_evaluate() -> torch.Tensor:
        condition = torch.cat([inputs["CONDITION_MASK"], inputs["CACHE"], padding], dim=1)
        result: torch.Tensor = peer.transformer(
            hidden_states=inputs["LATENT"],
            timestep=inputs["TIMESTEP"][:, 0],
            encoder_hidden_states=inputs["TEXT"],
            fps=24,
            condition_mask=condition,
            return_dict=False,
        )[0]
        return result

    dit = LocalProgram(networks.dit, DIT)
    compare("evaluate the network", 2 * steps, lambda: dit(inputs)["OUT"], peer_evaluate)

    if device.type == "cuda":
        # Fused by the compiler, block by block: what an exported network can gain. No part of the table's sums.
        for block in networks.dit.transformer.transformer_blocks:
            block.compile(dynamic=False)
        compiled, peak, _ = measured(lambda: dit(inputs)["OUT"], device)
        rows.append(Row("evaluate the network, blocks compiled", 0, compiled, peak))
        print(rows[-1], flush=True)

    latent = torch.randn(1, 16, *preset.latent_shape, generator=generator, device=device, dtype=dtype)
    decoder = LocalProgram(VideoDecoder(networks.vae), VIDEO_DECODER)
    compare(
        "decode the video",
        1,
        lambda: decoder({"LATENT": latent})["VIDEO"],
        lambda: to_uint8(peer.autoencoder.decode(latent / 0.5).sample),
    )
    return rows


def _plain_warp(view: CachedView, cameras: Cameras, size: tuple[int, int]) -> torch.Tensor:
    """Pictures [t,3,h,w] of a view from t cameras by the twin of our GPU kernel."""
    t = len(cameras)
    pixels, z = project(view.points.expand(t, -1, -1, -1), cameras.w2c, cameras.K)
    weight = view.mask.float() * (z > 0) / depth_weight(z, "image")
    values = torch.cat((view.image.expand(t, -1, -1, -1), z[:, None]), dim=1)
    mean, summed = splat(values, pixels, weight, size)
    return torch.where(summed > 0, mean[:, :3], EMPTY).clamp(-1, 1)


@torch.inference_mode()
def memory_stage(preset: Preset, device: torch.device) -> dict[str, float]:
    """Peak of allocated memory while the condition of one chunk is built, in GiB, by number of views."""
    networks = full_size.random_networks(preset, device)
    conditioner = ViewConditioner(LocalProgram(VideoEncoder(networks.vae), VIDEO_ENCODER), device)
    views, path = full_size.source_views(16, preset), full_size_job.path(preset)
    peaks = {}
    for n in (2, 16):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        pool_views(views[:n], path, conditioner, Pool.empty(preset.latent_shape, device), ConditionOptions(), Watch())
        peaks[str(n)] = peak_gib(device)
        print(f"{n} views: {peaks[str(n)]:.3f} GiB", flush=True)
    return peaks


def main() -> None:
    """Run one stage, or show the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=("networks", "memory", "job", "serve"))
    parser.add_argument("--output", type=Path, help="folder for <stage>.json")
    parser.add_argument("--table", type=Path, metavar="DIR", help="print the results that DIR holds")
    parser.add_argument("--preset", default="gen3c-7b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, help="denoising steps of a job; default: the preset's")
    parser.add_argument("--commit", default="unknown")
    chosen = parser.parse_args()
    if chosen.table is not None:
        print(table(chosen.table))
        return
    if chosen.stage is None or chosen.output is None:
        parser.error("give --stage and --output, or --table")
    preset, device = get_preset(chosen.preset), torch.device(chosen.device)
    steps = chosen.steps or preset.steps
    result: Any
    match chosen.stage:
        case "networks":
            result = [asdict(row) for row in networks_stage(preset, device, steps)]
        case "memory":
            result = memory_stage(preset, device)
        case "job":
            result = full_size_job.in_process(preset, device, VIEWS, steps)
        case _:
            result = full_size_job.served(preset, device, VIEWS, steps)
    chosen.output.mkdir(parents=True, exist_ok=True)
    target = chosen.output / f"{chosen.stage}.json"
    target.write_text(json.dumps({"about": about(device, chosen.commit, PACKAGES), "result": result}, indent=1))
    print(target.read_text())


if __name__ == "__main__":
    main()
