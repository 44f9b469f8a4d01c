"""Which graphs are made of each network: the sizes that are fixed, those that stay open, and as what it is served."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gen3c.exported.manifest import TARGETS, Kind, Range, Target
from gen3c.generator.scheduler import SIGMA_MAX, SIGMA_MIN
from gen3c.generator.signatures import DIT, VIDEO_DECODER, VIDEO_ENCODER, symbols
from gen3c.generator.text_program import TEXT_ENCODER
from gen3c.geometry.vggt.signature import VGGT
from gen3c.presets import Preset, VggtConfig
from gen3c.program import Signature, TensorSpec

MODEL = "model"  # file name of the graph that Triton's own backends look for
IMAGE = "image"
BATCH = "batch"
ROWS_OF_A_STEP = 2  # of the transformer's: with and without the condition


@dataclass(frozen=True)
class GraphPlan:
    """A graph to make."""

    stem: str  # file name without its ending
    sizes: Mapping[str, int]  # fixed
    dynamic: Mapping[str, Range]  # open

    def example_sizes(self) -> dict[str, int]:
        """Sizes to trace it with: torch takes an open dimension that is 1 in the example for a constant."""
        return {**self.sizes, **{symbol: max(2, open_.usual) for symbol, open_ in self.dynamic.items()}}

    def check_sizes(self) -> list[dict[str, int]]:
        """Sizes to compare it with its twin at: the usual ones, one more, and the least."""
        found: list[dict[str, int]] = []
        for sizes in (
            {symbol: open_.usual for symbol, open_ in self.dynamic.items()},
            {symbol: min(open_.usual + 1, open_.most) for symbol, open_ in self.dynamic.items()},
            {symbol: open_.least for symbol, open_ in self.dynamic.items()},
        ):
            if {**self.sizes, **sizes} not in found:
                found.append({**self.sizes, **sizes})
        return found


def graph_plans(program: str, preset: Preset, vggt: VggtConfig) -> tuple[GraphPlan, ...]:
    """The graphs of a program, the main one first."""
    chunk = symbols(preset)
    latent = {symbol: chunk[symbol] for symbol in ("t", "h", "w")}
    if program == DIT.name:
        fixed = latent | {symbol: chunk[symbol] for symbol in ("text_tokens", "text_dim")}
        return (GraphPlan(MODEL, fixed, {BATCH: Range(least=1, usual=1, most=8)}),)
    if program == VIDEO_ENCODER.name:
        video = {"batch": 1, "T": preset.chunk_frames, "H": preset.height, "W": preset.width}
        # The first picture of a chunk is encoded by itself: the encoder is causal.
        return GraphPlan(MODEL, video, {}), GraphPlan(IMAGE, video | {"T": 1}, {})
    if program == VIDEO_DECODER.name:
        return (GraphPlan(MODEL, latent | {"batch": 1}, {}),)
    if program == TEXT_ENCODER.name:
        tokens = Range(least=1, usual=min(64, preset.dit.text_tokens), most=preset.dit.text_tokens)
        return (GraphPlan(MODEL, {"batch": 1}, {"tokens": tokens}),)
    # One canvas for pictures of all shapes: a graph takes one size of picture.
    side = vggt.image_side // vggt.patch * vggt.patch
    return (GraphPlan(MODEL, {"H": side, "W": side}, {"s": Range(least=1, usual=8, most=32)}),)


def engine_plan(plans: tuple[GraphPlan, ...]) -> GraphPlan:
    """The one that TensorRT gets: Triton's backend holds one file a model.

    It takes the rows of one step at most: as long as a plan is loaded it keeps the memory of its largest call.
    """
    main = plans[0]
    dynamic = {
        symbol: open_.model_copy(update={"most": max(open_.usual, ROWS_OF_A_STEP)}) if symbol == BATCH else open_
        for symbol, open_ in main.dynamic.items()
    }
    return GraphPlan(main.stem, main.sizes, dynamic)


OWN_KIND: dict[Target, Kind] = {"cpu": "onnx", "cuda": "aoti", "tensorrt": "tensorrt"}
_ONCE_A_PROMPT = "it runs once a prompt, and gains little (ONNX Runtime 4 to 15 %) for holding it twice"
_IN_PYTORCH: dict[tuple[str, Target], str] = {
    (VGGT.name, "cpu"): "ONNX Runtime is no faster (0.9 to 1.0 of PyTorch's speed from 4 frames on)",
    (VGGT.name, "cuda"): "compiled it takes 1.9 times as long (8 frames), one size of picture, and more memory",
    **{(TEXT_ENCODER.name, target): _ONCE_A_PROMPT for target in TARGETS},
}


def default_kind(program: str, target: Target) -> tuple[Kind, str]:
    """As what a program is served, and why where that is not the target's own kind."""
    if (program, target) in _IN_PYTORCH:
        return "pytorch", _IN_PYTORCH[program, target]
    return OWN_KIND[target], ""


def example_inputs(
    signature: Signature, sizes: Mapping[str, int], generator: torch.Generator, device: torch.device
) -> dict[str, Tensor]:
    """Random inputs as a job sends them, in the types that a program has on `device`."""
    on_gpu = device.type == "cuda"
    tensors = {}
    for spec in signature.inputs:
        tensor = _random(spec, spec.sizes(sizes), generator)
        tensors[spec.name] = tensor.to(device, spec.gpu_dtype if on_gpu else spec.cpu_dtype)
    return tensors


def _random(spec: TensorSpec, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if spec.cpu_dtype == torch.uint8:
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    if spec.cpu_dtype == torch.int64:  # tokens, of the smallest vocabulary; the first are special ones
        return torch.randint(3, 13, shape, generator=generator)
    drawn = torch.randn(shape, generator=generator) * 0.5
    match spec.name:
        case "TIMESTEP":  # rows of several jobs have noise levels of their own
            low, high = 0.25 * math.log(SIGMA_MIN), 0.25 * math.log(SIGMA_MAX)
            drawn = low + (high - low) * torch.rand(shape, generator=generator)
        case "FPS":  # but one frame rate
            drawn = (8 + 52 * torch.rand(1, generator=generator)).expand(shape)
        case "CONDITION_MASK":
            drawn = torch.zeros(shape)
            drawn[:, :, 0] = 1
        case "VIDEO":
            drawn = drawn.clamp(-1, 1)
    return drawn
