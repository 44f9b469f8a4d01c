"""Names, dtypes and shapes of the program `vggt`; `s` counts frames, `H` and `W` pixels, multiples of the patch."""

import torch

from gen3c.program import Signature, TensorSpec

_FLOAT = torch.float32

VGGT = Signature(
    "vggt",
    (TensorSpec("IMAGES", ("s", "H", "W", 3), torch.uint8, torch.uint8),),
    (
        TensorSpec("POSE", ("s", 9), _FLOAT, _FLOAT),
        TensorSpec("DEPTH", ("s", "H", "W"), _FLOAT, _FLOAT),
        TensorSpec("CONFIDENCE", ("s", "H", "W"), _FLOAT, _FLOAT),
    ),
)
