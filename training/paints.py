"""Random numbers and colours of scenes: draws in order, and materials by the name of their pattern."""

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor

from training.textures import Pattern, material

# Cells, what lies between them, and the solid's upper end: sRGB. Four choices each.
PALETTES: dict[Pattern, tuple[str, str, str, str]] = {
    "plain": ("b8402e 5a1f18 c8604a", "3d6b8c 1e3547 5a8cab", "d9c9a3 8a7c5e e6dcc0", "5f8a4c 2f4727 83a86c"),
    "blocks": ("a89a84 5d554a b5a68c", "8c8f92 4c4e52 9ea3a6", "c2b59b 7a6f5d cfc4ac", "8f7a68 4a3f36 a58e79"),
    "bricks": ("99503b a89a8c a65f48", "7d4a3a 9c9388 8a5544", "b57a52 8a7a6a c08a62", "8c8079 5c5550 9a8f88"),
    "pavers": ("99928a 5d5850 a09a92", "a58c74 5e5042 ae967e", "787d82 43474b 82888c", "b3a88f 6d6655 bbb098"),
    "tiles": ("c9c2b4 7c9aa3 d2ccbe", "a9654a d0b894 b5735a", "6e8791 c8ccc8 7b949e", "dad6ce 555c63 e2ded8"),
    "checker": ("c9bfa8 54493d d2c8b2", "b9bcc0 3f4a55 c5c8cc", "bb8f6a 5c3b2a c69c78", "9aa88c 4a5a45 a8b59b"),
    "planks": ("8d6545 4b3524 9a7150", "6a4a34 32231a 77563e", "b08d62 66503a bb996e", "7c7a76 413f3d 8a8884"),
    "plaster": ("d3c3a3 a8937a dccfb2", "c9a06a 9a7f62 d2ab78", "bfc4c4 8d9290 cacfce", "b98873 93746a c4957f"),
    "leaves": ("5f8a3a 2b4420 86a84e", "4c7a45 223d26 6c9a58", "7d8f3c 3b4a22 a3ae55", "a0763a 543a22 b98f4a"),
    "grass": ("6f8c45 8c8a55 7a974c", "5c7d3c 7a7040 68893f", "8d9a55 a08f5f 98a55e", "7a8a4a 5d6a38 849450"),
    "shingles": ("9a5a45 54322a a5634c", "6a6f78 3c4048 767b84", "7d5a44 46332a 8a654d", "a3744f 5e4230 ae7f59"),
    "stripes": ("c8473c e6dcc8 d05548", "3f6f9c dfe3e4 4c7caa", "d9a441 6b4a33 e0b050", "4e7f5e d8dccb 5a8c6a"),
    "books": ("8a4a3c 36332e 94554a", "4a6580 2e2c2a 56728c", "a88b52 3a3228 b0945c", "5c7055 2c2e2a 687d60"),
    "text": ("3a3632 e4ddcb 443f3a", "2d3f5c e2e2da 3a4c68", "7a2f28 e8dfc4 85382f", "2f2f30 d9c58a 3a3a3c"),
    "marble": ("c9c7c2 8b8a8c d2d0cc", "a9b0a4 6e776c b2b9ae", "b8a294 80685c c2ac9e", "77797f 4d4f57 82848a"),
    "cloth": ("8f4a52 b9858a 985560", "4d6788 8aa0ba 567192", "b3a27c d2c6a6 bcac88", "5d7a62 94aa92 67856c"),
    "windows": ("4a5a6a c9b69a 5a6c7c", "3e4a55 a8654c 4c5a66", "55636a cfcabd 627078", "3b4650 8f9294 485460"),
    "earth": ("9a8562 6a5a42 a38d6a", "a89470 7a8050 b09c78", "8a7458 5c5140 947e60", "7f8a55 9a8a60 88935c"),
    "water": ("4a7484 7aa0a8 52808f", "3f6670 6c9090 48717a", "5a8090 93b4b8 638a9a", "4d6f68 7d9a8e 567a72"),
    "rock": ("8f8a82 5a5650 a09a90", "9a8672 5e5044 a8957f", "777c80 484c50 868b8f", "a39378 6a5f4c b0a084"),
    "picture": ("7a9a6a 4d6a8a c9d5d8", "b08a5a 6a4a3a e0c890", "4a7a9a c98a5a d8dde0", "8a5a6a d9b88a a0b0c0"),
    "sky": ("c4d3de f2f2f0 6c9bc8", "d5d6d2 eeece8 86a9c6", "dccfc0 f4ece2 7f9cc0", "c2ccd4 e6e8ea 93a9bc"),
}


class Draws:
    """Numbers of b scenes, used up in order: [b] at a time."""

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers  # [b,n] uniform in [0,1)
        self.used = 0

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """[b] in [low,high)."""
        self.used += 1
        if self.used > self.numbers.shape[1]:
            raise ValueError(f"A scene draws more than {self.numbers.shape[1]} numbers; legal: at most that many.")
        return low + (high - low) * self.numbers[:, self.used - 1]

    def choice(self, count: int) -> Tensor:
        """[b] integers below count."""
        return (self.uniform() * count).long().clamp_max(count - 1)

    def chance(self, probability: float) -> Tensor:
        """[b] bool."""
        return self.uniform() < probability

    def paint(self, patterns: Sequence[Pattern], scale: float | Tensor = 1.0) -> Tensor:
        """A material [b,M]: one of the patterns, its size, colours and details drawn; `scale` in metres."""
        names = get_args(Pattern)
        pattern = torch.tensor([names.index(name) for name in patterns])[self.choice(len(patterns))]
        colors = _COLORS[pattern, self.choice(4)]
        light = self.uniform(0.75, 1.2)
        tints = torch.stack([self.uniform(0.88, 1.12) for _ in range(3)], -1)
        colors = (colors * (light[:, None] * tints).repeat(1, 3)).clamp(0.02, 0.95)
        size = scale * self.uniform(0.8, 1.3)
        return material(pattern, colors, size, self.choice(1 << 16))


def linear(colors: str) -> list[float]:
    """sRGB hex colours, separated by spaces -> linear red, green, blue of each in turn."""
    values = [int(color[i : i + 2], 16) / 255 for color in colors.split() for i in (0, 2, 4)]
    return [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]


_COLORS = torch.tensor([[linear(choice) for choice in PALETTES[name]] for name in get_args(Pattern)])
