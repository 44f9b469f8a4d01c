"""Train VGGT-tiny on procedural worlds.

    torchrun --nproc-per-node 2 -m training.vggt --directory runs/vggt --minutes 18 --part-minutes 9

Worlds are drawn between the steps into a ring, from which several steps learn. Of the eight views of a world a step
takes 8, 4, 2 or 1 in random order, of so many worlds that the frames of a step stay the same. Nothing is learnt about
cameras for the first thousand steps or more; then it comes at once.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gen3c.geometry.vggt.block import Block
from gen3c.geometry.vggt.camera_head import ITERATIONS
from gen3c.geometry.vggt.model import Vggt
from gen3c.geometry.vggt.weights import UNTRAINED_FOV
from gen3c.presets import VGGT_TINY, VggtConfig
from training.replay import Replay
from training.run import Run, load_weights, parse
from training.shots import VALIDATION_SEEDS
from training.stream import WorldStream
from training.vggt_data import DRAWN_AT_ONCE, altered, chosen, draw_changes, drawn, mirrored
from training.vggt_loss import CAMERA, camera_loss, depth_loss, targets_of
from training.vggt_metrics import evaluate_on, held_out

VIEWS_OF_STEPS = (8, 4, 8, 2, 8, 4, 8, 1)  # in turns; all processes are at the same step
DENSE = 0.5  # share of a step's frames for the depth head by default: it takes half of the time, and learns from pixels
VALIDATE_EVERY = 120.0  # seconds


class LastInFloat32(nn.Sequential):
    """Modules of which the last computes in float32 under autocast: bfloat16 has steps of 0.8 % in log depth."""

    def forward(self, x: Tensor) -> Tensor:
        for module in list(self)[:-1]:
            x = module(x)
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = self[-1](x.float())
        return out


def trainable(config: VggtConfig = VGGT_TINY) -> Vggt:
    """The network without its point head, under the names of its weights, with `LastInFloat32` at its end."""
    vggt = Vggt(config, points=False)
    scratch = vggt.depth_head.scratch
    scratch.output_conv2 = LastInFloat32(*scratch.output_conv2)
    return vggt


@torch.no_grad()
def initialise(vggt: Vggt, generator: torch.Generator) -> None:
    """Weights to start from, in place.

    Keys of the aggregator start as its queries, so that tokens first look at what is like them (Trockman and Kolter,
    "Mimetic Initialization of Self-Attention Layers", ICML 2023), and places in the picture are told from the start by
    sines: both are what matching views needs, and slow to be found.
    """
    config, aggregator = vggt.config, vggt.aggregator
    width = config.width

    def normal(tensor: Tensor, deviation: float) -> None:
        tensor.copy_(deviation * torch.randn(tensor.shape, generator=generator))

    for module in vggt.modules():
        if isinstance(module, nn.Linear):
            normal(module.weight, module.in_features**-0.5)
            module.bias.zero_()
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            inputs = module.in_channels * (module.weight[0, 0].numel() if isinstance(module, nn.Conv2d) else 1)
            normal(module.weight, inputs**-0.5)
            if module.bias is not None:
                module.bias.zero_()
    blocks = [module for module in vggt.modules() if isinstance(module, Block)]
    for block in blocks:
        for scale in (block.ls1, block.ls2):
            scale.gamma.fill_((2 * (config.vit_depth + 2 * config.depth)) ** -0.5)
    for block in (*aggregator.frame_blocks, *aggregator.global_blocks):
        weight = block.attn.qkv.weight
        weight[width : 2 * width] = weight[:width]
    for token in (aggregator.camera_token, aggregator.register_token):
        normal(token, 0.5)
    embed = aggregator.patch_embed
    for token in (embed.cls_token, embed.register_tokens):
        normal(token, 0.5)
    embed.pos_embed.copy_(_places(embed.pos_embed.shape[1], width))
    head = vggt.camera_head
    head.pose_branch.fc2.weight *= 0.01
    # Each iteration adds to the estimate.
    bias = [0.0, 0, 0, 0, 0, 0, 1, UNTRAINED_FOV, UNTRAINED_FOV]
    head.pose_branch.fc2.bias.copy_(torch.tensor(bias) / ITERATIONS)
    vggt.get_parameter("depth_head.scratch.output_conv2.2.weight").mul_(0.1)


def _places(entries: int, width: int) -> Tensor:
    """A table of places [1,1+side*side,c]: the class token's is 0, a patch has sines of its column, then of its row."""
    side, quarter = round((entries - 1) ** 0.5), width // 4
    place = torch.linspace(-1, 1, side)
    frequency = 0.5 * torch.pi * (side / 2) ** torch.linspace(0, 1, quarter)  # from a quarter to side/8 periods
    angles = place[:, None] * frequency
    code = torch.cat((angles.sin(), angles.cos()), dim=1)  # [side,c/2]
    columns, rows = code[None].expand(side, -1, -1), code[:, None].expand(-1, side, -1)
    table = torch.cat((columns, rows), dim=-1).reshape(1, side * side, -1)
    return 0.5 * F.pad(table, (0, width - table.shape[-1], 1, 0))


def predict(vggt: Vggt, images: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
    """Images [b,s,3,h,w] in [0,1] -> encodings after each iteration [i,b,s,9], and the depth head's logits [n,2,h,w]
    of the frames `dense` [n], indices into b*s."""
    with torch.autocast(images.device.type, torch.bfloat16):
        levels = vggt.aggregator(images)
        parts = [tokens.flatten(0, 1).index_select(0, dense) for tokens in levels]
        logits = vggt.depth_head(parts, images.shape[-2:], vggt.config.special_tokens)
    return vggt.camera_head(levels[-1].float()), logits


class Trainer:
    """A step's loss; its functions are compiled once, on a GPU."""

    def __init__(self, run: Run, vggt: Vggt, frames: int, dense: float, camera_weight: float = CAMERA) -> None:
        self.vggt, self.frames, self.generator = vggt, frames, run.generator
        self._camera_weight = camera_weight
        self._dense = max(1, round(dense * frames))  # frames that the depth head sees
        self._altered, self._depth_loss = altered, depth_loss
        if run.device.type == "cuda":
            # By pieces: most are alike, and only attention over all frames depends on how views are grouped.
            # The camera head, of few and small operations, is not worth the time.
            torch._dynamo.config.recompile_limit = 64
            aggregator = vggt.aggregator
            for block in (*aggregator.patch_embed.blocks, *aggregator.frame_blocks, *aggregator.global_blocks):
                block.compile(dynamic=False)
            vggt.depth_head.compile(dynamic=False)
            self._altered = torch.compile(altered, dynamic=False)
            self._depth_loss = torch.compile(depth_loss, dynamic=False)

    def loss(self, ring: Replay, views: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of `frames` frames in groups of `views`, and its parts."""
        scenes = self.frames // views
        batch = chosen(ring.sample(scenes, self.generator), views, self.generator)
        device = self.generator.device
        batch = mirrored(batch, torch.rand(scenes, generator=self.generator, device=device) < 0.5)
        flat = batch.rgb.flatten(0, 1)
        noise = torch.randn(flat.shape, generator=self.generator, device=device).permute(0, 3, 1, 2)
        images = self._altered(flat, noise, draw_changes(scenes, views, self.generator))
        images = images.reshape(scenes, views, *images.shape[1:])
        targets = targets_of(batch)
        order = torch.randperm(self.frames, generator=self.generator, device=device)
        dense = order[: self._dense]
        poses, logits = predict(self.vggt, images, dense)
        camera, translation, rotation, fov = camera_loss(poses, targets.pose)
        depth, error, gradient = self._depth_loss(logits, targets.depth.flatten(0, 1)[dense])
        parts = {"camera": camera, "translation": translation, "quaternion": rotation, "fov": fov}
        parts |= {"depth": depth, "log_depth": error, "edges": gradient}
        return self._camera_weight * camera + depth, parts

    def warm_up(self, ring: Replay) -> None:
        """Compile for all groups of views. Raises RuntimeError if the queries' weights get no gradient."""

        for views in sorted(set(VIEWS_OF_STEPS)):
            step = partial(self._backward, ring, views)
            first, second = (seconds_of(self.generator.device, step) for _ in range(2))
            print(f"vggt {views} views: compiled in {first:.0f} s, a step takes {1000 * second:.0f} ms", flush=True)
        blocks = (*self.vggt.aggregator.frame_blocks, *self.vggt.aggregator.global_blocks)
        # The served kernel that turns queries is not differentiable; only a compiled block does without it.
        untaught = sum(not bool(block.attn.q_norm.weight.grad.any()) for block in blocks)
        if untaught:
            raise RuntimeError(f"{untaught} of {len(blocks)} blocks got no gradient through their queries.")
        for parameter in self.vggt.parameters():
            if parameter.grad is not None:
                parameter.grad.zero_()

    def _backward(self, ring: Replay, views: int) -> None:
        self.loss(ring, views)[0].backward()  # type: ignore[no-untyped-call]


def draw(ring: Replay, worlds: WorldStream, samples: int, times: int = 1) -> None:
    """New worlds into the ring."""
    for _ in range(times):
        ring.add(drawn(*worlds.next(), samples))


def seconds_of(device: torch.device, work: Callable[[], object]) -> float:
    """How long `work` takes, with all that it leaves to the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.monotonic()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic() - began


def load_trained(directory: Path, config: VggtConfig = VGGT_TINY) -> Vggt:
    """The network of a run with its averaged weights: float32, eval mode, without gradients, on the CPU."""
    vggt = Vggt(config, points=False)
    vggt.load_state_dict(load_weights(directory))
    return vggt.eval().requires_grad_(False)


def main() -> None:
    """Train until the time of this part is over."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--frames", type=int, default=192, help="of a step and process; a multiple of 8")
        parser.add_argument("--dense", type=float, default=DENSE, help="share of the frames that the depth head sees")
        parser.add_argument("--camera-weight", type=float, default=CAMERA, help="of the camera loss beside depth's")
        parser.add_argument("--every", type=int, default=2, help="steps between drawings of 16 new worlds a process")
        parser.add_argument("--fill", type=int, default=32, help="drawings before the first step of a part")
        parser.add_argument("--workers", type=int, default=4, help="processes that draw worlds ahead")
        parser.add_argument("--ring", type=int, default=16_384, help="worlds kept, 1.9 MB each")
        parser.add_argument("--samples", type=int, default=1, help="rays a pixel and axis")
        parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")

    args = parse(__doc__, minutes=18, add=add)
    if args.frames % max(VIEWS_OF_STEPS):
        raise SystemExit(f"--frames is {args.frames}; legal are multiples of {max(VIEWS_OF_STEPS)}.")
    if not 0 < args.dense <= 1:
        raise SystemExit(f"--dense is {args.dense}; legal is more than 0 and at most 1.")
    vggt = trainable()
    initialise(vggt, torch.Generator().manual_seed(args.seed))
    if args.initial is not None:
        vggt.load_state_dict(load_weights(args.initial))
    run = Run("vggt", vggt, args, lr=args.rate, betas=(0.9, 0.98), clip=1.0, ema=0.999)
    ring = Replay(args.ring)
    worlds = WorldStream(run.seeds, DRAWN_AT_ONCE, run.device, workers=args.workers)
    first = seconds_of(run.device, lambda: draw(ring, worlds, args.samples))
    each = 1000 / args.fill * seconds_of(run.device, lambda: draw(ring, worlds, args.samples, args.fill))
    print(f"vggt drawing {DRAWN_AT_ONCE} worlds: compiled in {first:.0f} s, {each:.0f} ms each time", flush=True)
    scenes = held_out(VALIDATION_SEEDS, run.device) if run.rank == 0 else {}
    trainer = Trainer(run, vggt, args.frames, args.dense, args.camera_weight)
    trainer.warm_up(ring)
    validated = time.monotonic()
    for step in run.steps():
        if step % args.every == 0:
            draw(ring, worlds, args.samples)
        loss, parts = trainer.loss(ring, VIEWS_OF_STEPS[step % len(VIEWS_OF_STEPS)])
        run.optimise(loss, **parts)
        if run.rank == 0 and time.monotonic() - validated > VALIDATE_EVERY:
            run.log(**evaluate_on(run.averaged(), scenes))  # type: ignore[arg-type]
            validated = time.monotonic()
    worlds.close()
    if run.rank == 0:
        run.log(**evaluate_on(run.averaged(), scenes))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
