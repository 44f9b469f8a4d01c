"""The best linear code of video cells: principal components of 8 frames x 3 colours x 8x8 pixels.

It is what the light autoencoder (gen3c.generator.light_vae) starts from, and what it is measured against. As there,
frame 0 is a group of eight copies of itself, of which the last is kept.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

FRAMES, COLOURS, SIDE = 8, 3, 8
NUMBERS = FRAMES * COLOURS * SIDE * SIDE  # in a cell


@dataclass(frozen=True)
class LinearCode:
    """n principal components, the strongest first."""

    mean: Tensor  # [1536]
    basis: Tensor  # [n,1536], orthonormal rows
    std: Tensor  # [n], of the projections

    def first(self, components: int) -> "LinearCode":
        """The code of fewer numbers a cell."""
        return LinearCode(self.mean, self.basis[:components], self.std[:components])

    def encode(self, video: Tensor) -> Tensor:  # video: [b,3,T,H,W], T = 1 + 8k
        """The projections, [b,n,t,h,w]; not divided by their deviation."""
        return ((cells(video) - self.mean) @ self.basis.T).permute(0, 4, 1, 2, 3)

    def decode(self, z: Tensor) -> Tensor:  # z: [b,n,t,h,w]
        """The video, [b,3,T,H,W]."""
        return from_cells(z.permute(0, 2, 3, 4, 1) @ self.basis + self.mean)


def fit(videos: Iterable[Tensor], components: int = 16) -> LinearCode:  # videos: each [b,3,T,H,W] around [-1,1]
    """The code that loses least of the frames of `videos`: a cell of the first group counts as one frame, not eight."""
    total, sums, products = 0.0, torch.zeros(NUMBERS), torch.zeros(NUMBERS, NUMBERS)
    for video in videos:
        x = cells(video)
        if x.is_cuda:  # where float32 may be multiplied in TF32
            x = x.double()
        for group, weight in ((x[:, :1], 1 / FRAMES), (x[:, 1:], 1.0)):
            rows = group.reshape(-1, NUMBERS)
            total += weight * len(rows)
            sums = sums.to(rows) + weight * rows.sum(0)
            products = products.to(rows) + weight * (rows.T @ rows)
    mean = sums / total
    covariance = products / total - mean[:, None] * mean
    values, vectors = torch.linalg.eigh(covariance.double())  # ascending
    basis = vectors.T.flip(0)[:components]
    std = values.flip(0)[:components].clamp_min(1e-12).sqrt()
    return LinearCode(mean.float(), basis.float().contiguous(), std.float())


def cells(video: Tensor) -> Tensor:  # [b,3,T,H,W], T = 1 + 8k, H and W multiples of 8
    """The cells, [b,t,h,w,1536]: frames, colours, rows, columns."""
    frames = video.transpose(1, 2)
    frames = torch.cat([frames[:, :1].expand(-1, FRAMES - 1, -1, -1, -1), frames], dim=1)
    b, count, colours, height, width = frames.shape
    grid = frames.reshape(b, count // FRAMES, FRAMES, colours, height // SIDE, SIDE, width // SIDE, SIDE)
    return grid.permute(0, 1, 4, 6, 2, 3, 5, 7).flatten(4)


def from_cells(x: Tensor) -> Tensor:  # [b,t,h,w,1536]
    """The inverse of `cells`, [b,3,T,H,W]; of the first group the last frame."""
    b, t, h, w, _ = x.shape
    grid = x.reshape(b, t, h, w, FRAMES, COLOURS, SIDE, SIDE).permute(0, 5, 1, 4, 2, 6, 3, 7)
    return grid.reshape(b, COLOURS, t * FRAMES, h * SIDE, w * SIDE)[:, :, FRAMES - 1 :]
