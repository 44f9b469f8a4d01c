"""Names, dtypes and shapes of the generator's programs: the single source of truth for whoever calls, exports or
serves one.

`T, H, W` count frames and pixels, `t, h, w` latent frames, rows and columns.
"""

import torch

from gen3c.presets import Preset
from gen3c.program import Signature, TensorSpec

LATENT_CHANNELS = 16
VIEW_CHANNELS = 2 * LATENT_CHANNELS  # RGB latent, mask latent
CACHE_CHANNELS = 2 * VIEW_CHANNELS  # the network was trained with two buffers


def symbols(preset: Preset, batch: int = 1) -> dict[str, int]:
    """The size of every symbol for one chunk of `preset`."""
    t, h, w = preset.latent_shape
    return {
        "batch": batch,
        **{"T": preset.chunk_frames, "H": preset.height, "W": preset.width},
        **{"t": t, "h": h, "w": w},
        **{"text_tokens": preset.dit.text_tokens, "text_dim": preset.dit.text_dim},
    }


_LATENT_GRID = ("t", "h", "w")

DIT = Signature(
    "dit",
    inputs=(
        TensorSpec("LATENT", ("batch", LATENT_CHANNELS, *_LATENT_GRID)),  # noisy, times c_in
        TensorSpec("TIMESTEP", ("batch", 1), gpu_dtype=torch.float32),  # 0.25 ln(sigma); bfloat16 would round sigma
        TensorSpec("CONDITION_MASK", ("batch", 1, *_LATENT_GRID)),  # 1 where the latent is given, else 0
        TensorSpec("CACHE", ("batch", CACHE_CHANNELS, *_LATENT_GRID)),  # what the scene's cache shows
        TensorSpec("TEXT", ("batch", "text_tokens", "text_dim")),
        TensorSpec("FPS", ("batch", 1), gpu_dtype=torch.float32),  # frames per second, sets the speed of the time axis
    ),
    outputs=(TensorSpec("OUT", ("batch", LATENT_CHANNELS, *_LATENT_GRID)),),
)

# Inputs that have one value a call, in every row: the rotary angles are made once for the whole batch. They have rows
# all the same, because a server can only put calls together whose tensors all have them.
ONE_VALUE_A_CALL: dict[str, tuple[str, ...]] = {DIT.name: ("FPS",)}

# The encoder takes floats, not bytes: what it sees are renderings, and rounding them to 1/255 would change the
# condition that the network was trained on (the masks and the -1 of empty pixels share the scale).
VIDEO_ENCODER = Signature(
    "video_encoder",
    inputs=(TensorSpec("VIDEO", ("batch", 3, "T", "H", "W")),),  # in [-1,1]
    outputs=(TensorSpec("LATENT", ("batch", LATENT_CHANNELS, *_LATENT_GRID)),),  # normalised, std 0.5
)

VIDEO_DECODER = Signature(
    "video_decoder",
    # As the sampler leaves it: small, and rounded first when its statistics are undone.
    inputs=(TensorSpec("LATENT", ("batch", LATENT_CHANNELS, *_LATENT_GRID), gpu_dtype=torch.float32),),
    outputs=(TensorSpec("VIDEO", ("batch", "T", "H", "W", 3), torch.uint8, torch.uint8),),
)

SIGNATURES: dict[str, Signature] = {signature.name: signature for signature in (DIT, VIDEO_ENCODER, VIDEO_DECODER)}
