"""VGGT's camera head: an estimate of each frame's camera, refined a few times (section 3.3)."""

import torch
from torch import Tensor, nn

from gen3c.geometry.vggt.block import Block, Mlp

ENCODING = 9  # translation 3, quaternion 4 (x,y,z,w), vertical and horizontal field of view
ITERATIONS = 4


class CameraHead(nn.Module):
    """Camera tokens to encodings (gen3c.geometry.vggt.pose)."""

    def __init__(self, width: int, depth: int, heads: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(width)
        self.trunk_norm = nn.LayerNorm(width)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, ENCODING))
        self.embed_pose = nn.Linear(ENCODING, width)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))
        self.adaln_norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.trunk = nn.ModuleList(Block(width, heads, mlp_ratio) for _ in range(depth))
        self.pose_branch = Mlp(width, width // 2, ENCODING)

    def forward(self, tokens: Tensor, iterations: int = ITERATIONS) -> Tensor:
        """Tokens [b,s,p,c], of which the first of each frame is read -> the encoding after each iteration [i,b,s,9]."""
        camera = self.token_norm(tokens[:, :, 0])  # [b,s,c]
        encoding, refined = self.empty_pose_tokens, []
        for i in range(iterations):
            shift, scale, gate = self.poseLN_modulation(self.embed_pose(encoding)).chunk(3, dim=-1)
            x = camera + gate * (self.adaln_norm(camera) * (1 + scale) + shift)
            for block in self.trunk:
                x = block(x)
            delta = self.pose_branch(self.trunk_norm(x))
            encoding = delta if i == 0 else encoding + delta
            refined.append(torch.cat((encoding[..., :7], encoding[..., 7:].relu()), dim=-1))
        return torch.stack(refined)
