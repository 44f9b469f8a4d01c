"""Names, dtypes and shapes of the tensor programs: the single source of truth for whoever calls, exports or serves one.

A shape is written in symbols; equal symbols are equal sizes within one call. `T, H, W` count frames and pixels,
`t, h, w` latent frames, rows and columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.presets import Preset

LATENT_CHANNELS = 16
VIEW_CHANNELS = 2 * LATENT_CHANNELS  # RGB latent, mask latent
CACHE_CHANNELS = 2 * VIEW_CHANNELS  # the network was trained with two buffers


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor of a program. Float tensors may be narrower on a GPU; the program casts inside."""

    name: str
    shape: tuple[int | str, ...]
    cpu_dtype: torch.dtype = torch.float32
    gpu_dtype: torch.dtype = torch.bfloat16

    def sizes(self, symbols: Mapping[str, int]) -> tuple[int, ...]:
        """The shape with every symbol replaced, for example by `symbols(preset)`."""
        return tuple(size if isinstance(size, int) else symbols[size] for size in self.shape)


@dataclass(frozen=True)
class Signature:
    """The inputs of a program in calling order, and its outputs."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def arguments(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The tensors of `inputs` in calling order.

        Raises InvalidInputError with every missing or unknown name, wrong kind of dtype and wrong size.
        """
        legal = {spec.name for spec in self.inputs}
        problems = [f"{name} is not an input" for name in sorted(set(inputs) - legal)]
        symbols: dict[str, int] = {}
        for spec in self.inputs:
            if spec.name in inputs:
                problems += _mismatches(spec, inputs[spec.name], symbols)
            else:
                problems.append(f"{spec.name} is missing")
        if problems:
            raise InvalidInputError(f"Program {self.name} cannot run: {'; '.join(problems)}.")
        return tuple(inputs[spec.name] for spec in self.inputs)


def symbols(preset: Preset, batch: int = 1) -> dict[str, int]:
    """The size of every symbol for one chunk of `preset`."""
    t, h, w = preset.latent_shape
    return {
        "batch": batch,
        **{"T": preset.chunk_frames, "H": preset.height, "W": preset.width},
        **{"t": t, "h": h, "w": w},
        **{"text_tokens": preset.dit.text_tokens, "text_dim": preset.dit.text_dim},
    }


def _mismatches(spec: TensorSpec, tensor: Tensor, symbols: dict[str, int]) -> list[str]:
    """What is wrong with `tensor`; sizes of symbols seen for the first time are added to `symbols`."""
    problems = []
    if tensor.is_floating_point() != spec.cpu_dtype.is_floating_point:
        problems.append(f"{spec.name} is {tensor.dtype}, legal is {spec.cpu_dtype}")
    if tensor.ndim != len(spec.shape):
        return [*problems, f"{spec.name} has shape {list(tensor.shape)}, legal is {_shape_text(spec)}"]
    for size, wanted in zip(tensor.shape, spec.shape, strict=True):
        expected = wanted if isinstance(wanted, int) else symbols.setdefault(wanted, size)
        if size != expected:
            where = "" if isinstance(wanted, int) else f" with {wanted} = {expected}"
            return [*problems, f"{spec.name} has shape {list(tensor.shape)}, legal is {_shape_text(spec)}{where}"]
    return problems


def _shape_text(spec: TensorSpec) -> str:
    return f"[{', '.join(str(size) for size in spec.shape)}]"


_LATENT_GRID = ("t", "h", "w")

DIT = Signature(
    "dit",
    inputs=(
        TensorSpec("LATENT", ("batch", LATENT_CHANNELS, *_LATENT_GRID)),  # noisy, times c_in
        TensorSpec("TIMESTEP", ("batch",), gpu_dtype=torch.float32),  # 0.25 ln(sigma); bfloat16 would round sigma
        TensorSpec("CONDITION_MASK", ("batch", 1, *_LATENT_GRID)),  # 1 where the latent is given, else 0
        TensorSpec("CACHE", ("batch", CACHE_CHANNELS, *_LATENT_GRID)),  # what the scene's cache shows
        TensorSpec("TEXT", ("batch", "text_tokens", "text_dim")),
        TensorSpec("FPS", (1,), gpu_dtype=torch.float32),  # frames per second, sets the speed of the time axis
    ),
    outputs=(TensorSpec("OUT", ("batch", LATENT_CHANNELS, *_LATENT_GRID)),),
)

# The encoder takes floats, not bytes: what it sees are renderings, and rounding them to 1/255 would change the
# condition that the network was trained on (the masks and the -1 of empty pixels share the scale).
VIDEO_ENCODER = Signature(
    "video_encoder",
    inputs=(TensorSpec("VIDEO", ("batch", 3, "T", "H", "W")),),  # in [-1,1]
    outputs=(TensorSpec("LATENT", ("batch", LATENT_CHANNELS, *_LATENT_GRID)),),  # normalised, std 0.5
)

VIDEO_DECODER = Signature(
    "video_decoder",
    inputs=(TensorSpec("LATENT", ("batch", LATENT_CHANNELS, *_LATENT_GRID)),),
    outputs=(TensorSpec("VIDEO", ("batch", "T", "H", "W", 3), torch.uint8, torch.uint8),),
)

SIGNATURES: dict[str, Signature] = {signature.name: signature for signature in (DIT, VIDEO_ENCODER, VIDEO_DECODER)}
