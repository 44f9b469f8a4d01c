"""Train the decoder of the light autoencoder further, on what the diffusion transformer makes.

    torchrun --nproc-per-node 4 -m training.decoder --directory runs/decoder --initial runs/vae --dit runs/dit \
        --vggt runs/vggt --minutes 4

Latents of the transformer are smoother than those of true videos and a little off, and the decoder turns that into
flicker. Here half of its latents come from the transformer, denoised in one step from the conditions of training.dit,
and half from true videos as before; either way it shall show the true video. The encoder, and so the latents, stay.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from gen3c.generator.dit import Dit
from gen3c.generator.light_vae import LightVae
from gen3c.generator.scheduler import SIGMA_DATA
from training import dit as dit_training
from training import vae as vae_training
from training.conditions import SampleMaker, draw_caches
from training.dit_loss import WINDOW
from training.dit_validation import psnr, sample
from training.motion import unsteadiness
from training.run import Run, parse
from training.scenes import as_float, draw_worlds
from training.shots import VALIDATION_SEEDS

CHECK_EVERY = 60.0  # seconds


def main() -> None:
    """Train until the time of this part is over."""
    args = parse(__doc__, minutes=4, add=_arguments)
    if args.initial is None:
        raise SystemExit("--initial is missing; legal is the folder of the run of training.vae.")
    vae = vae_training.load_trained(args.initial)
    learn_decoder(vae)
    run = Run("vae", vae, args, lr=args.lr)
    maker = dit_training.sample_maker(args.initial, args.vggt, run.device, samples=args.samples, with_pixels=True)
    feed = dit_training.Feed(run, maker, args)
    feed.fill(args.fill)
    network = dit_training.load_trained(args.dit).to(run.device)
    dit_training.skip_text(network)
    checked = held_out(maker, args.validation_scenes) if run.rank == 0 else {}
    step_loss = torch.compile(loss_of, dynamic=False) if run.device.type == "cuda" else loss_of
    _check(run, network, checked)
    last = time.monotonic()
    for _ in run.steps():
        feed.step()
        batch = feed.ring.sample(args.batch, run.generator)
        latents, video, shift = draw_inputs(batch, network, run)
        with torch.autocast(run.device.type, torch.bfloat16, enabled=run.device.type == "cuda"):
            loss, logged = step_loss(vae, latents, video, shift, args.steady)
        run.optimise(loss, **logged)
        if time.monotonic() - last > CHECK_EVERY:
            _check(run, network, checked)
            last = time.monotonic()
    feed.close()
    _check(run, network, checked)


def learn_decoder(vae: LightVae) -> None:
    """Let the decoder's residual network learn, and nothing else."""
    vae.train().requires_grad_(False)
    vae.decoder.requires_grad_(True)
    vae.decoder.linear.requires_grad_(False)


def loss_of(
    vae: LightVae,
    latents: Tensor,  # [n,16,t,h,w], not normalised
    video: Tensor,  # [n,3,T,8h,8w] in [-1,1]
    shift: Tensor,  # [n,T-1,8h,8w,2]
    steady: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of training.vae, without what concerns the encoder."""
    return vae_training.decoding_loss(vae.decoder(latents).float() - video, shift, steady)


@torch.no_grad()
def draw_inputs(batch: dict[str, Tensor], network: Dit, run: Run) -> tuple[Tensor, Tensor, Tensor]:
    """`latents`, `video` and `shift` of `loss_of`: a window, the same for all samples; the first half of the latents
    are the transformer's.
    """
    half = len(batch["target"]) // 2
    made = denoised({name: x[:half] for name, x in batch.items()}, network, run.generator)
    true = batch["target"][half:].float()
    true = _unnormalised(run.model, true) + vae_training.latent_noise(true.shape, run.generator)
    latents = torch.cat((_unnormalised(run.model, made), true))
    height, width = (
        int(torch.randint(whole - length + 1, (), generator=run.cpu_generator))
        for whole, length in zip(latents.shape[3:], WINDOW, strict=True)
    )
    cells = slice(height, height + WINDOW[0]), slice(width, width + WINDOW[1])
    pixels = tuple(slice(8 * cell.start, 8 * cell.stop) for cell in cells)
    video = as_float(batch["rgb"][:, :, pixels[0], pixels[1]])
    return latents[..., cells[0], cells[1]].contiguous(), video, batch["shift"][:, :, pixels[0], pixels[1]]


def denoised(batch: dict[str, Tensor], network: Dit, generator: torch.Generator) -> Tensor:
    """What the transformer makes of a batch's conditions in one step, [n,16,t,h,w]."""
    target = batch["target"].float()
    cache = draw_caches(batch, generator)
    noise = torch.randn(target.shape, generator=generator, device=target.device)
    with torch.autocast(target.device.type, torch.bfloat16, enabled=target.is_cuda):
        return sample(network, batch["seed"][:, 0].float(), cache, noise, steps=1)


def _unnormalised(vae: torch.nn.Module, latents: Tensor) -> Tensor:
    """The decoder's latents of GEN3C's normalised ones, [n,16,t,h,w]."""
    assert isinstance(vae, LightVae)
    mean, std = (x[None, :, :, None, None] for x in (vae.latents_mean, vae.latents_std))
    return latents.float() / SIGMA_DATA * std + mean


def held_out(maker: SampleMaker, scenes: int) -> dict[str, Tensor]:
    """Samples of the first validation scenes."""
    generator = torch.Generator(maker.device).manual_seed(1)
    parts = []
    for seed in VALIDATION_SEEDS[:scenes]:
        parts.append(maker([seed], draw_worlds([seed], maker.device), generator))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@torch.no_grad()
def _check(run: Run, network: Dit, batch: dict[str, Tensor]) -> None:
    """Log what the averaged decoder makes of the transformer's latents and of true ones.

    Mean PSNR in dB after the first frame, and how much points change along their motion, on [0,1].
    """
    if run.rank != 0:
        return
    vae = run.averaged()
    assert isinstance(vae, LightVae)
    made = denoised(batch, network, torch.Generator(run.device).manual_seed(2))
    figures = {}
    for name, latents in (("made", made), ("true", batch["target"])):
        decibels, changes = [], []
        for z, truth, shift in zip(_unnormalised(vae, latents), batch["rgb"], batch["shift"], strict=True):
            shown = vae.decoder(z[None]).float().clamp(-1, 1)
            changes.append(unsteadiness(shown / 2, shift[None]))
            pictures = ((shown[0] + 1) * 127.5).round().permute(1, 2, 3, 0)
            decibels.append(psnr(pictures[1:], truth[1:]))
        figures[f"psnr_{name}"] = round(float(torch.stack(decibels).mean()), 3)
        figures[f"flicker_{name}"] = round(float(torch.stack(changes).mean()), 5)
    run.log(**figures)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dit", type=Path, required=True, help="the run of training.dit")
    parser.add_argument("--vggt", type=Path, help="the run of training.vggt; without it no geometry is estimated")
    parser.add_argument("--batch", type=int, default=32, help="samples a step and process")
    parser.add_argument("--lr", type=float, default=7e-4)
    parser.add_argument("--steady", type=float, default=1.0, help="weight of the error's change along the motion")
    dit_training.add_feed_arguments(parser, fill=128, ring=2000, megabytes=14)
    parser.add_argument("--validation-scenes", type=int, default=16)


if __name__ == "__main__":
    main()
