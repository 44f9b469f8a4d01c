"""Rotary position angles of the diffusion transformer, in float32 and as the released GEN3C computes them.

GEN3C casts the whole network to bfloat16, the buffers behind the angles included: exponents, frequencies, positions
and their products each round to 8 bits, which turns far positions by up to 0.15 rad.
"""

from typing import Literal

import torch
from torch import Tensor, nn

Precision = Literal["float32", "bfloat16"]

BASE_FPS = 24.0  # at this frame rate one latent frame is one step of the time axis
_THETA = 10000.0


class RotaryAngles(nn.Module):
    """Drop-in for the `rope` of diffusers' `CosmosTransformer3DModel`; "float32" gives the same bits.

    A head's channels are divided between time, height and width: a third each for height and width, rounded down to
    even, the rest for time. `scale` stretches each axis (NTK-aware scaling of the base).
    """

    def __init__(
        self,
        head_dim: int,
        *,
        patch_size: tuple[int, int, int] = (1, 2, 2),
        scale: tuple[float, float, float] = (2.0, 1.0, 1.0),  # of time, height, width
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        spatial = head_dim // 6 * 2
        self.dims = (head_dim - 2 * spatial, spatial, spatial)
        self.patch_size = patch_size
        self.scale = scale
        self.dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32

    def forward(self, hidden_states: Tensor, fps: Tensor | float | None = None) -> tuple[Tensor, Tensor]:
        """Cosine and sine, [n,head_dim] float32 each, for hidden_states [b,c,t,h,w] of n = t*h*w patches.

        `fps` is the frame rate; None counts every frame as one step, as at 24.
        """
        t, h, w = (size // patch for size, patch in zip(hidden_states.shape[2:], self.patch_size, strict=True))
        angles = self.angles((t, h, w), fps, hidden_states.device)
        return angles.cos(), angles.sin()

    def angles(
        self, grid: tuple[int, int, int], fps: Tensor | float | None = None, device: torch.device | None = None
    ) -> Tensor:
        """The angle of every patch and channel in radians, [t*h*w,head_dim] float32, patches in (t, h, w) order.

        The first half of the channels holds time, height, width; the second half repeats it.
        """
        t, h, w = grid
        time, rows, columns = self.axes(grid, fps, device)
        expanded = (
            time[:, None, None].expand(-1, h, w, -1),
            rows[None, :, None].expand(t, -1, w, -1),
            columns[None, None].expand(t, h, -1, -1),
        )
        return torch.cat(expanded * 2, dim=-1).flatten(0, 2)

    def axes(
        self, grid: tuple[int, int, int], fps: Tensor | float | None = None, device: torch.device | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The angles along time, height and width: [t,dim_t/2], [h,dim_h/2] and [w,dim_w/2] float32."""
        time, rows, columns = (torch.arange(n, dtype=torch.float32, device=device).to(self.dtype) for n in grid)
        if fps is not None:
            rate = fps.to(time.device, self.dtype) if isinstance(fps, Tensor) else fps
            time = time / rate * BASE_FPS
        frequencies = [self._frequencies(axis, device) for axis in range(3)]
        angles = [torch.outer(x, f).float() for x, f in zip((time, rows, columns), frequencies, strict=True)]
        return angles[0], angles[1], angles[2]

    def _frequencies(self, axis: int, device: torch.device | None) -> Tensor:
        """Radians per step of every channel pair, [dim/2], falling from 1."""
        dim = self.dims[axis]
        theta = _THETA * self.scale[axis] ** (dim / (dim - 2))
        exponents = (torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim).to(self.dtype)
        frequencies: Tensor = 1.0 / theta**exponents
        return frequencies
