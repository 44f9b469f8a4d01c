"""Intrinsics of resized and cropped pictures as GEN3C computes them: plain scaling, whole pixels cut off.

A resize by s takes the principal point c to s*c, as if pixel centres lay at the pixels' corners. The rest of this
library keeps centres at integers, where c goes to (c+.5)s-.5; this module is for data prepared by, and for parity with,
the released code (ViPE and packaged clips, its interactive server).
"""

import torch
from torch import Tensor

from gen3c.errors import InvalidInputError

Size = tuple[int, int]  # height, width


def resize_intrinsics(K: Tensor, old: Size, new: Size) -> Tensor:
    """K [...,3,3] in pixels of a picture that was resized from `old` to `new`."""
    rows = K.new_tensor([new[1] / old[1], new[0] / old[0], 1.0])
    return K * rows[:, None]


def crop_intrinsics(K: Tensor, old: Size, new: Size) -> Tensor:
    """K [...,3,3] in pixels after `center_crop` from `old` to `new`. Raises InvalidInputError if `new` is larger."""
    top, left = _offset(old, new)
    cropped = K.clone()
    cropped[..., 0, 2] -= left
    cropped[..., 1, 2] -= top
    return cropped


def resize_and_crop_intrinsics(K: Tensor, old: Size, resized: Size, cropped: Size) -> Tensor:
    """K [...,3,3] in pixels of a picture resized from `old` to `resized`, each side on its own, then centre-cropped."""
    return crop_intrinsics(resize_intrinsics(K, old, resized), resized, cropped)


def center_crop(maps: Tensor, size: Size) -> Tensor:
    """The middle of maps [...,h,w] in the given size; of an odd rest, the larger half goes at the bottom and right.

    Raises InvalidInputError if the maps are smaller.
    """
    height, width = maps.shape[-2:]
    top, left = _offset((height, width), size)
    return maps[..., top : top + size[0], left : left + size[1]]


def intrinsics_from_relative(focal: Tensor, principal: Tensor, size: Size) -> Tensor:
    """K [...,3,3] from focal lengths [...,2] in pixels of `size` and principal points [...,2] relative to it."""
    K = torch.zeros(*focal.shape[:-1], 3, 3, dtype=focal.dtype, device=focal.device)
    K[..., 0, 0], K[..., 1, 1], K[..., 2, 2] = focal[..., 0], focal[..., 1], 1
    K[..., 0, 2], K[..., 1, 2] = principal[..., 0] * size[1], principal[..., 1] * size[0]
    return K


def _offset(old: Size, new: Size) -> tuple[int, int]:
    """Rows and columns that a centre crop takes off at the top and at the left."""
    if new[0] > old[0] or new[1] > old[1]:
        raise InvalidInputError(
            f"A crop of {new[0]}x{new[1]} px does not fit into {old[0]}x{old[1]} (height x width); legal: no side "
            "longer than the picture's."
        )
    return (old[0] - new[0]) // 2, (old[1] - new[1]) // 2
