"""Make the sample clip that ships with the package: `python -m training.sample_clip [FILE]`, half a CPU hour."""

import argparse
import math
from pathlib import Path

import torch

from gen3c.media.video_out import VideoWriter
from gen3c.samples import COURTYARD
from training.courtyard import courtyard
from training.scenes import orbit, render

HEIGHT, WIDTH, FOCAL = 360, 640, 560.0  # px
FRAMES, FPS = 76, 24
SEED = 7
CRF = 21  # keeps the file under 1 MB


def cameras() -> tuple[torch.Tensor, torch.Tensor]:
    """The clip's true w2c [76,4,4], in metres, and K [3,3]."""
    w2c = orbit((0, 1.0, 1.25), 9.2, 2.3, math.radians(-130), math.radians(-55), FRAMES)
    K = torch.tensor([[FOCAL, 0, (WIDTH - 1) / 2], [0, FOCAL, (HEIGHT - 1) / 2], [0, 0, 1]])
    return w2c, K


def main() -> None:
    """Render and encode."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=COURTYARD)
    target: Path = parser.parse_args().file
    torch.set_num_threads(1)  # small pieces: more threads wait for each other
    world = courtyard(SEED)
    w2c, K = cameras()
    with VideoWriter(HEIGHT, WIDTH, FPS, crf=CRF, preset="slow", comment="procedural scene, Apache-2.0") as writer:
        for pose in w2c:
            writer.add(render(world, pose[None, None], K[None], (HEIGHT, WIDTH), samples=2).rgb[0, 0])
        target.write_bytes(writer.finish())


if __name__ == "__main__":
    main()
