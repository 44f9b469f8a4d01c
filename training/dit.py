"""Train the diffusion transformer of preset tiny.

    torchrun --standalone --nproc-per-node 4 -m training.dit --directory runs/dit --vae runs/vae --vggt runs/vggt

Loss: that of EDM (Karras et al. 2022, table 1), over the latent frames after the first, which is given as the sampler
gives it, with latent channels weighing by what they do to pixels; and the PSNR of decoded pixels, where there is much
noise (training/dit_loss.py). New scenes are drawn for a fixed share of the time; from each, every step draws other
views and another fusion mode.
"""

import argparse
import math
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from gen3c.generator.dit import Dit
from gen3c.generator.vae import VideoDecoder, VideoEncoder
from gen3c.presets import TINY
from training import vae as vae_training
from training import vggt as vggt_training
from training.conditions import SampleMaker, draw_caches
from training.dit_loss import channel_weights, denoising_loss, draw_sigmas, pixel_loss
from training.dit_validation import Validation
from training.replay import Replay
from training.run import Followed, Run, load_weights, parse
from training.stream import WorldStream

UNCONDITIONAL_SHARE = 0.03  # without cache, for guidance
DECODED_SEED_SHARE = 0.2  # first frames as those of later chunks
FRAME_RATES = (24.0, 24.0, 24.0, 12.0, 16.0, 25.0, 30.0)  # one a call
# Of the logarithm of the error in pixels: a tenth off that is 0.03, as a tenth off the latent loss.
PIXEL_WEIGHT = 0.3
VALIDATE_EVERY = 150.0  # seconds


def main() -> None:
    """Train until the time of this part is over."""
    args = parse(__doc__, minutes=16, add=_arguments)
    dit = Dit(TINY.dit)
    initialise(dit, torch.Generator().manual_seed(args.seed))
    if args.initial is not None:
        dit.load_state_dict(load_weights(args.initial))
    ignore_text(dit)
    run = Run("dit", dit, args, lr=args.lr)
    skip_text(dit)
    maker = sample_maker(args.vae, args.vggt, run.device, samples=args.samples)
    feed = Feed(run, maker, args)
    feed.fill(args.fill)
    weights = channel_weights(maker.decoder.decode, feed.ring.sample(8, run.generator)["target"], run.generator)
    validation = Validation(maker, args.validation_scenes, run.directory) if run.rank == 0 else None
    compiled = run.device.type == "cuda" and not args.eager
    network = torch.compile(run.model, dynamic=False) if compiled else run.model
    decode = torch.compile(maker.decoder.decode, dynamic=False) if compiled else maker.decoder.decode
    validated = time.monotonic()
    for _ in run.steps():
        feed.step()
        target, seed, cache, sigma, noise, fps = draw_inputs(feed.ring.sample(args.batch, run.generator), run)
        with torch.autocast(run.device.type, torch.bfloat16):
            latent, denoised, logged = denoising_loss(network, target, seed, cache, sigma, noise, fps, weights)
            pixels = pixel_loss(decode, denoised, target, sigma, run.cpu_generator)
        run.optimise(latent + args.pixel_weight * pixels, latent=latent, pixels=pixels, **logged)
        if validation is not None and time.monotonic() - validated > VALIDATE_EVERY:
            run.log(**validation.measure(run.averaged()))
            validated = time.monotonic()
    feed.close()
    if validation is not None:
        run.log(**validation.measure(run.averaged()))


def initialise(dit: Dit, generator: torch.Generator) -> None:
    """Weights to start from, in place: every block passes its input on, the output is 0 (Peebles & Xie 2023, 3.2)."""
    network = dit.transformer
    for name, parameter in network.named_parameters():
        if "norm" in name and parameter.ndim == 1:
            nn.init.ones_(parameter)
        elif "learnable_pos_embed" in name:
            # Only its direction counts, so its length is how slowly it turns.
            nn.init.normal_(parameter, std=0.5, generator=generator)
        elif parameter.ndim == 1:
            nn.init.zeros_(parameter)
        else:
            nn.init.xavier_uniform_(parameter, generator=generator)
    # The positions of unit size, which every block adds, would drown what comes in.
    nn.init.xavier_uniform_(network.patch_embed.proj.weight, gain=3.0, generator=generator)
    modulations = [
        norm.linear_2 for block in network.transformer_blocks for norm in (block.norm1, block.norm2, block.norm3)
    ]
    for linear in (*modulations, network.norm_out.linear_2, network.time_embed.t_embedder.linear_2, network.proj_out):
        nn.init.zeros_(linear.weight)
    ignore_text(dit)


def ignore_text(dit: Dit) -> None:
    """Let no text change anything, in place: cross-attention is not trained, as the text is always zeros."""
    for block in dit.transformer.transformer_blocks:
        for parameter in block.attn2.to_out.parameters():
            nn.init.zeros_(parameter)


def skip_text(dit: Dit) -> None:
    """Spare the work that `ignore_text` has made idle, in place."""
    for block in dit.transformer.transformer_blocks:
        block.attn2.set_processor(ReadsNothing())


class ReadsNothing:
    """Cross-attention to the zeros that stand for a text: exactly 0, without the work."""

    def __call__(self, attn: nn.Module, hidden_states: Tensor, **text: object) -> Tensor:  # noqa: ARG002
        return torch.zeros_like(hidden_states)


def load_trained(directory: Path) -> Dit:
    """The averaged weights of a run, float32 on the CPU, in eval mode and without gradients."""
    dit = Dit(TINY.dit)
    dit.load_state_dict(load_weights(directory))
    return dit.eval().requires_grad_(False)


@torch.no_grad()
def draw_inputs(batch: dict[str, Tensor], run: Run) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What one step learns from: target [n,16,t,h,w], seed [n,16,1,h,w], cache [n,64,t,h,w], sigma [n], noise like the
    target, and fps [n,1].
    """
    generator = run.generator
    target = batch["target"].float()
    n, device = len(target), target.device
    chosen = torch.rand(n, generator=generator, device=device) < DECODED_SEED_SHARE
    seed = batch["seed"].float()[torch.arange(n, device=device), chosen.long()]
    given = torch.rand(n, 1, 1, 1, 1, generator=generator, device=device) >= UNCONDITIONAL_SHARE
    cache = draw_caches(batch, generator) * given
    noise = torch.randn(target.shape, generator=generator, device=device)
    rate = FRAME_RATES[int(torch.randint(len(FRAME_RATES), (), generator=run.cpu_generator))]
    return target, seed, cache, draw_sigmas(n, generator, device), noise, torch.full((n, 1), rate, device=device)


class Feed:
    """The ring of samples, to which scenes are added so often that drawing them takes a given share of the time."""

    def __init__(self, run: Run, maker: SampleMaker, args: argparse.Namespace) -> None:
        self.ring = Replay(args.ring)
        self._run, self._maker = run, maker
        self._group, self._share = args.group, args.generation_share
        self._worlds = WorldStream(run.seeds, args.group, run.device, workers=args.workers)
        self._every, self._since, self._trained_since = 8, 0, time.monotonic()
        self._costs: list[tuple[float, float]] = []  # seconds to draw a group, seconds of a step
        self._vggt = Followed(args.vggt) if args.vggt else None

    def fill(self, scenes: int) -> None:
        """Draw scenes before the first step."""
        began = self._now()
        for _ in range(math.ceil(scenes / self._group)):
            self._add()
        self._trained_since = self._now()
        self._run.log(scenes=len(self.ring), scenes_per_s=round(len(self.ring) / (self._trained_since - began), 2))

    def step(self) -> None:
        """Before every step."""
        if self._since < self._every:
            self._since += 1
            return
        began = self._now()
        self._add()
        ended = self._now()
        self._balance(ended - began, (began - self._trained_since) / self._since)
        self._since, self._trained_since = 1, ended

    def close(self) -> None:
        """End what draws worlds ahead."""
        self._worlds.close()

    def _add(self) -> None:
        newer = self._vggt.newer() if self._vggt else None
        if newer is not None:
            self._maker.exchange_vggt(newer)
            self._run.log(vggt_exchanged=1)
        self.ring.add(self._maker(*self._worlds.next(), self._run.generator))

    def _balance(self, drawing: float, step: float) -> None:
        """How many steps until the next group: the same for all processes, which wait for one another at every step."""
        costs = torch.tensor([drawing, step], device=self._run.device, dtype=torch.float64)
        if distributed.is_initialized():
            distributed.all_reduce(costs)
            costs /= self._run.world
        self._costs = [*self._costs, (float(costs[0]), float(costs[1]))][-9:]
        drawing, step = (statistics.median(column) for column in zip(*self._costs, strict=True))
        self._every = min(200, max(1, round(drawing / step * (1 - self._share) / self._share)))
        if self._run.step % 50 < self._every:
            self._run.log(
                ring=len(self.ring), steps_a_group=self._every, group_s=round(drawing, 3), step_s=round(step, 4)
            )

    def _now(self) -> float:
        if self._run.device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic()


def add_feed_arguments(parser: argparse.ArgumentParser, *, fill: int, ring: int, megabytes: float) -> None:
    """The options of a `Feed`; `megabytes` are those of a sample."""
    parser.add_argument("--group", type=int, default=16, help="scenes drawn at a time")
    parser.add_argument("--workers", type=int, default=3, help="processes that draw worlds ahead")
    parser.add_argument("--fill", type=int, default=fill, help="scenes drawn before the first step")
    parser.add_argument("--ring", type=int, default=ring, help=f"scenes kept; {megabytes:g} MB each")
    parser.add_argument("--generation-share", type=float, default=0.25, help="of the time")
    parser.add_argument("--samples", type=int, default=2, help="rays a pixel and axis")


def sample_maker(
    vae_run: Path, vggt_run: Path | None, device: torch.device, *, samples: int, with_pixels: bool = False
) -> SampleMaker:
    """What makes samples with the networks of two runs."""
    vae = vae_training.load_trained(vae_run)
    vggt = None
    if vggt_run is not None:
        vggt = vggt_training.load_trained(vggt_run).to(device)
        if device.type == "cuda":
            vggt = vggt.narrow(torch.bfloat16)
    return SampleMaker(VideoEncoder(vae), VideoDecoder(vae), vggt, device, samples=samples, with_pixels=with_pixels)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vae", type=Path, required=True, help="the run of training.vae")
    parser.add_argument(
        "--vggt",
        type=Path,
        help="the run of training.vggt, which may go on meanwhile; without it no geometry is estimated",
    )
    parser.add_argument("--batch", type=int, default=64, help="samples a step and process")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument(
        "--pixel-weight", type=float, default=PIXEL_WEIGHT, help="of the logarithm of the pixels' error"
    )
    add_feed_arguments(parser, fill=800, ring=6000, megabytes=3.3)
    parser.add_argument("--eager", action="store_true", help="do not compile the network")
    parser.add_argument("--validation-scenes", type=int, default=24)


if __name__ == "__main__":
    main()
