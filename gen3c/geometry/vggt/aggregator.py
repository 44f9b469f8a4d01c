"""VGGT's aggregator: blocks that attend within a frame, and over all frames, in turns (section 3.2 of the paper)."""

import torch
from torch import Tensor, nn

from gen3c.geometry.vggt.block import Block
from gen3c.geometry.vggt.rope import patch_positions, rope_tables
from gen3c.geometry.vggt.vision_transformer import VisionTransformer
from gen3c.presets import VggtConfig

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in [0,1], as DINOv2 was trained


class Aggregator(nn.Module):
    """Images to tokens that know of each other."""

    def __init__(self, config: VggtConfig) -> None:
        super().__init__()
        self.config = config
        width, ratio = config.width, config.mlp_ratio
        self.patch_embed = VisionTransformer(
            width,
            config.vit_depth,
            config.vit_heads,
            image_side=config.image_side,
            patch=config.patch,
            registers=config.registers,
            ratio=ratio,
        )
        # The first entry is for frame 0, whose camera is the world's; the second for all others.
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, width))
        self.register_token = nn.Parameter(torch.zeros(1, 2, config.registers, width))
        blocks = [[Block(width, config.heads, ratio, qk_norm=True) for _ in range(config.depth)] for _ in range(2)]
        self.frame_blocks, self.global_blocks = (nn.ModuleList(kind) for kind in blocks)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [b,s,3,h,w] in [0,1] -> for each of `config.levels` tokens [b,s,p,2c] float32.

        Tokens of a frame: camera, registers, patches in rows. Their channels: after the frame block of that level,
        after its global block. Sides must be multiples of the patch. Other levels are not kept: nothing reads them.
        """
        b, s, _, height, width = images.shape
        mean, std = (images.new_tensor(v).view(3, 1, 1) for v in (MEAN, STD))
        embedded = self.patch_embed((images.flatten(0, 1) - mean) / std)
        patches = embedded[:, 1 + self.config.registers :]  # [b*s,patches,c]
        special = torch.cat((self.camera_token, self.register_token), dim=2)  # [1,2,special,c]
        # By an index, for an exported network would fix a number of others.
        which = (torch.arange(s, device=images.device) > 0).long()
        x = torch.cat((special[:, which].expand(b, -1, -1, -1).flatten(0, 1), patches), dim=1)  # [b*s,p,c]
        tokens = x.shape[1]

        rows, columns = height // self.config.patch, width // self.config.patch
        positions = patch_positions(rows, columns, self.config.special_tokens, images.device)
        tables = rope_tables(positions, self.config.width // self.config.heads, self.config.rope_base)
        # A frame has no position among the others: the same places repeat.
        everywhere = tuple(table.repeat(s, 1, 1) for table in tables)
        kept = {}
        for i, (frame_block, global_block) in enumerate(zip(self.frame_blocks, self.global_blocks, strict=True)):
            within = frame_block(x, tables)
            x = global_block(within.reshape(b, s * tokens, -1), everywhere).reshape(b * s, tokens, -1)
            if i in self.config.levels:
                kept[i] = torch.cat((within, x), dim=-1).reshape(b, s, tokens, -1)
        return [kept[i] for i in self.config.levels]
