"""Train the light video autoencoder of preset tiny (gen3c/generator/light_vae.py).

    torchrun --standalone --nproc-per-node 4 -m training.vae --directory runs/vae --minutes 12

It starts from the best linear code (training/linear_code.py), which stays as it is while the residual networks learn;
with --initial it starts from the weights of another run, and --freeze-encoder then trains the decoder alone. Loss: the
logarithm of each sample's mean squared error, whose mean is PSNR, the error's differences along x, y, time and the
motion of surfaces, and what holes elsewhere change in the latents of cells that have none.
"""

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, distributed

from gen3c.generator.light_vae import LightVae, initialise
from gen3c.generator.signatures import LATENT_CHANNELS
from gen3c.presets import TINY, LightVaeConfig
from training.linear_code import LinearCode, fit
from training.motion import unsteadiness
from training.replay import Replay
from training.run import STATE, Run, load_weights, parse
from training.scenes import as_float, draw_worlds
from training.shots import VALIDATION_SEEDS
from training.stream import WorldStream
from training.vae_data import Samples, draw_clips, seen_masks, training_videos

SIZE = (TINY.height, TINY.width)
RENDERED = 16  # clips at a time
_NOISE = 0.06  # most noise on the latents of half the samples: the decoder must forgive the diffusion's errors
_CHECK_EVERY = 120.0  # seconds
_CHECKED = 32  # validation clips
_FITTED = 200  # clips for the linear code
_MEASURED = 320  # clips for the statistics


def main() -> None:
    """Train until the time of this part is over."""
    args = parse(__doc__, minutes=12, add=_add_arguments)
    vae = _start(args)
    run = Run("vae", vae, args, lr=args.lr)
    clips = Replay(args.capacity)
    worlds = WorldStream(run.seeds, RENDERED, run.device, workers=args.workers)
    began = time.monotonic()
    for _ in range(math.ceil(args.first / RENDERED)):
        clips.add(draw_clips(*worlds.next(), SIZE))
    if run.device.type == "cuda":
        torch.cuda.synchronize()
    run.log(clips=len(clips), seconds_to_draw=round(time.monotonic() - began, 1))
    code = fit(_videos(clips, _FITTED, run.device), LATENT_CHANNELS) if run.rank == 0 else None
    if run.step == 0 and args.initial is None:
        _set_linear_code(vae, code, run)
    checker = Checker(args.checked, clips, code, run, freeze_statistics=args.freeze_encoder)
    checker.check()
    step_loss = torch.compile(loss_of, dynamic=False) if args.compile and run.device.type == "cuda" else loss_of
    for step in run.steps():
        if step % args.refresh == 0:
            clips.add(draw_clips(*worlds.next(), SIZE))
        sample = clips.sample(args.batch, run.generator)
        with torch.no_grad():
            samples = training_videos(sample, tuple(args.crop), run.generator)
            noise = latent_noise(_latent_shape(samples.video), run.generator)
        with torch.autocast(run.device.type, torch.bfloat16, enabled=run.device.type == "cuda"):
            loss, logged = step_loss(vae, samples, noise, args.steady, args.keep_covered)
        run.optimise(loss, **logged)
        checker.check_sometimes()
    worlds.close()
    checker.check()
    run.save()  # with the statistics of the last weights


def loss_of(
    vae: LightVae,
    samples: Samples,
    noise: Tensor,  # as the latents
    steady: float,  # weight of how the error changes along the motion, which is flicker
    keep: float,  # weight of `disturbance`
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, and for the log the mean squared error on [-1,1], the error's mean change along the motion, and
    `disturbance`.
    """
    video = samples.video
    z = vae.encoder(video)
    decoded = vae.decoder(z + noise.to(z.dtype))
    loss, logged = decoding_loss(decoded.float() - video, samples.shift, steady)
    disturbed = disturbance(vae, z, samples)
    loss = loss + 1e-6 * z.float().square().mean() + keep * disturbed
    return loss, {**logged, "disturbed": disturbed}


def decoding_loss(
    error: Tensor,  # [n,3,T,h,w] on [-1,1]
    shift: Tensor,  # [n,T-1,h,w,2], how the true points move
    steady: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of decoded pixels, and for the log their mean squared error and its mean change along the motion."""
    mse = error.square().mean((1, 2, 3, 4))  # [n]
    loss = 0.1 * (mse + 1e-4).log().mean()
    for axis in (2, 3, 4):
        loss = loss + 0.1 * error.diff(dim=axis).abs().mean()
    changing = unsteadiness(error, shift)
    return loss + steady * changing, {"mse": mse.mean(), "unsteady": changing}


def disturbance(vae: LightVae, z: Tensor, samples: Samples) -> Tensor:  # z: [n,16,t,h,w], the latents of the samples
    """Mean squared change of the latents, whose deviations are about 1, by holes that are not in their own cells.

    Fusion takes every cell from the view that covers it best, whatever surrounds it there.
    """
    if not len(samples.whole):  # of a small batch
        return z.new_zeros(())
    with torch.no_grad():
        wanted = vae.encoder(samples.whole)
    change = (z[: len(wanted)].float() - wanted.float()).square().mean(1)  # [m,t,h,w]
    return (change * samples.covered).sum() / samples.covered.sum().clamp(min=1)


def latent_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Noise for latents [n,16,t,h,w] of that shape, whose deviations are about 1; in half the samples none."""
    level = torch.rand((shape[0], 1, 1, 1, 1), generator=generator, device=generator.device)
    noise = torch.randn(tuple(shape), generator=generator, device=generator.device)
    return noise * _NOISE * (2 * level - 1).clamp_min(0)


def _latent_shape(video: Tensor) -> tuple[int, ...]:  # [n,3,T,h,w]
    n, _, frames, height, width = video.shape
    return n, LATENT_CHANNELS, 1 + (frames - 1) // 8, height // 8, width // 8


def psnr(decoded: Tensor, video: Tensor) -> Tensor:  # [n,3,T,h,w] each, in [-1,1]
    """Peak signal-to-noise ratio of each clip in dB, [n]."""
    mse = ((decoded.float().clamp(-1, 1) - video) / 2).square().mean((1, 2, 3, 4))
    return -10 * mse.clamp_min(1e-10).log10()


class Checker:
    """Validation clips, the best linear code beside which the autoencoder is measured, and the latents' statistics."""

    def __init__(
        self, count: int, clips: Replay, code: LinearCode | None, run: Run, *, freeze_statistics: bool
    ) -> None:
        """`code` is process 0's, which alone checks; None in the others."""
        self._clips, self._run, self._frozen = clips, run, freeze_statistics
        self._videos: list[Tensor] = []
        self._masks: list[Tensor] = []
        self._last = time.monotonic()
        if code is None:
            return
        generator = torch.Generator(run.device).manual_seed(0)
        seeds = list(VALIDATION_SEEDS)[:count]
        for i in range(0, count, RENDERED):
            part = seeds[i : i + RENDERED]
            drawn = draw_clips(part, draw_worlds(part, run.device), SIZE)["rgb"]
            self._videos += as_float(drawn).split(1)
        masks = seen_masks(8, self._videos[0].shape[2:], generator)
        self._masks = list((masks * 2.0 - 1.0).expand(-1, 3, -1, -1, -1).split(1))
        self._linear = _mean_psnr(self._videos, code)

    def check_sometimes(self) -> None:
        """`check`, if the last one was two minutes ago."""
        if self._run.rank == 0 and time.monotonic() - self._last > _CHECK_EVERY:
            self.check()

    def check(self) -> None:
        """Log the PSNR of the averaged weights, and put their statistics into the model; by process 0."""
        self._last = time.monotonic()
        if self._run.rank != 0:
            return
        vae = cast(LightVae, self._run.averaged())
        self._run.log(
            psnr=_mean_psnr(self._videos, vae),
            psnr_first_frame=_mean_psnr([video[:, :, :1] for video in self._videos], vae),
            psnr_masks=_mean_psnr(self._masks, vae),
            psnr_linear=self._linear,
        )
        if not self._frozen:
            self._measure(vae, cast(LightVae, self._run.model))

    @torch.no_grad()
    def _measure(self, vae: LightVae, into: LightVae) -> None:
        """Mean and deviation of the latents of pictures, per channel and latent frame."""
        videos = _videos(self._clips, _MEASURED, self._run.device)
        z = torch.cat([vae.encoder(video) for video in videos])  # [n,16,t,h,w]
        std, mean = torch.std_mean(z.double(), dim=(0, 3, 4))
        into.latents_mean.copy_(mean)
        into.latents_std.copy_(std)


def load_trained(directory: Path) -> LightVae:
    """The averaged autoencoder of a run with its statistics, in eval mode and without gradients, on the CPU."""
    vae = _new()
    vae.load_state_dict(load_weights(directory))
    return vae.eval().requires_grad_(False)


def _new() -> LightVae:
    if not isinstance(TINY.vae, LightVaeConfig):
        raise TypeError(f"Preset tiny has a {type(TINY.vae).__name__}; legal is LightVaeConfig.")
    return LightVae(TINY.vae, TINY.latent_shape[0])


def _start(args: argparse.Namespace) -> LightVae:
    """The autoencoder to train, with gradients where it shall learn."""
    if args.freeze_encoder and args.initial is None and not (args.directory / STATE).is_file():
        raise SystemExit("--freeze-encoder needs --initial, the folder of the run whose encoder it is.")
    if args.initial is not None:
        vae = load_trained(args.initial).train().requires_grad_(True)
    else:
        vae = _new()
        initialise(vae, torch.Generator().manual_seed(args.seed))
    if args.freeze_encoder:
        vae.encoder.requires_grad_(False)
    if not args.train_linear:
        vae.encoder.linear.requires_grad_(False)
        vae.decoder.linear.requires_grad_(False)
    return vae


def _set_linear_code(vae: LightVae, code: LinearCode | None, run: Run) -> None:
    """Process 0's linear code, everywhere; the others have None."""
    if code is not None:
        vae.set_linear_code(code.mean, code.basis, code.std)
    if run.world > 1:
        for tensor in vae.state_dict().values():
            distributed.broadcast(tensor, 0)


def _videos(clips: Replay, count: int, device: torch.device) -> Iterator[Tensor]:
    """Clips of the ring, [RENDERED,3,T,h,w] each, the same for the same ring."""
    generator = torch.Generator(device).manual_seed(1)
    for _ in range(math.ceil(count / RENDERED)):
        yield as_float(clips.sample(RENDERED, generator)["rgb"])


@torch.no_grad()
def _mean_psnr(videos: list[Tensor], code: LightVae | LinearCode) -> float:
    """Mean over clips of the PSNR of what is decoded; in dB."""
    if isinstance(code, LinearCode):
        values = [psnr(code.decode(code.encode(video)), video) for video in videos]
    else:
        values = [psnr(code.decoder(code.encoder(video)), video) for video in videos]
    return round(float(torch.cat(values).mean()), 3)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--freeze-encoder", action="store_true", help="train the decoder; the latents stay the same")
    parser.add_argument("--train-linear", action="store_true", help="train the linear paths too")
    parser.add_argument("--lr", type=float, default=1.5e-3, help="peak learning rate")
    parser.add_argument("--steady", type=float, default=0.3, help="weight of the error's change along the motion")
    parser.add_argument(
        "--keep-covered", type=float, default=0.1, help="weight of what holes change in cells that have none"
    )
    parser.add_argument("--batch", type=int, default=32, help="samples of a step and process")
    parser.add_argument("--crop", type=int, nargs=2, default=(128, 192), help="height and width of a sample, px")
    parser.add_argument("--refresh", type=int, default=20, help="steps between two drawings of 16 clips")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw worlds ahead")
    parser.add_argument("--first", type=int, default=200, help="clips drawn before the first step")
    parser.add_argument("--capacity", type=int, default=3000, help="clips kept on the device, 10.5 MB each")
    parser.add_argument("--checked", type=int, default=_CHECKED, help="validation clips")
    parser.add_argument("--no-compile", dest="compile", action="store_false")


if __name__ == "__main__":
    main()
