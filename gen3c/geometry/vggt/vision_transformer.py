"""The patch embedding: a DINOv2 vision transformer with registers (Oquab et al., arXiv 2304.07193; Darcet et al.,
"Vision Transformers Need Registers", arXiv 2309.16588)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gen3c.geometry.vggt.block import Block

EPS = 1e-6


class PatchEmbed(nn.Module):
    """One token a patch, in rows."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        """Images [n,3,h,w] -> [n,patches,c] float32."""
        patches: Tensor = self.proj(images.to(self.proj.weight.dtype))
        return patches.float().flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """DINOv2 at any size that is a multiple of the patch."""

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        *,
        image_side: int,
        patch: int = 14,
        registers: int = 4,
        ratio: int = 4,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.patch_embed = PatchEmbed(width, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (image_side // patch) ** 2, width))
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of DINO's training; in every checkpoint
        self.blocks = nn.ModuleList(Block(width, heads, ratio, eps=EPS) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=EPS)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [n,3,h,w] -> tokens [n, 1 + registers + patches, c] float32: class, registers, patches."""
        n, _, height, width = images.shape
        positions = positional_embedding(self.pos_embed, height, width, self.patch)
        patches = self.patch_embed(images) + positions[:, 1:]
        first = self.cls_token + positions[:, :1]
        x = torch.cat((first.expand(n, -1, -1), self.register_tokens.expand(n, -1, -1), patches), dim=1)
        for block in self.blocks:
            x = block(x)
        normed: Tensor = self.norm(x)
        return normed


def positional_embedding(table: Tensor, height: int, width: int, patch: int) -> Tensor:
    """The learnt table [1,1+s*s,c] for images of height x width px, [1,1+patches,c].

    The class token's entry stays; the square is resized by an antialiased cubic filter unless it fits as it is.
    """
    rows, columns = height // patch, width // patch
    side = math.isqrt(table.shape[1] - 1)
    if rows == columns == side:
        return table
    square = table[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(square, (rows, columns), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat((table[:, :1].float(), resized.flatten(2).transpose(1, 2)), dim=1)
