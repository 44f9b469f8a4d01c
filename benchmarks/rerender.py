"""How true is the geometry? Leave one photo out, render it from the others, compare with the photo.

    python benchmarks/rerender.py photos/*.jpg --hold-out 4 --out /tmp/rerender

The held-out photo takes part in finding the camera poses, because its own pose is needed, and in nothing else: the
depth of the other views comes from the other views alone. The score counts the pixels that some reliable point
reaches (confidence at least --min-confidence); nothing is painted. The last line is `psnr=<dB> coverage=<fraction>`.
"""

import argparse
import glob
import sys
import time
from pathlib import Path
from typing import get_args

import torch
import torch.nn.functional as F
from compositing import Composite, Source, Target, composite
from PIL import Image
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.geometry.matching import scale_intrinsics
from gen3c.geometry.plane_sweep import SweepOptions, sweep
from gen3c.geometry.sfm import reconstruct
from gen3c.geometry.types import Frames, Watch
from gen3c.media import MediaItem, Selection, load_frames
from gen3c.media.types import SelectMethod

WIDTH = 640  # of the raster on which pictures are compared
FRAME_LONG_SIDE = 1280
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"}
VIDEOS = {".mp4", ".mov", ".webm", ".mkv", ".avi"}


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = Selection()
    parser.add_argument("input", nargs="+", help="pictures, videos, folders or patterns")
    parser.add_argument("--hold-out", type=int, required=True, help="index of the view to leave out, from 0")
    parser.add_argument("--select", choices=get_args(SelectMethod), default=defaults.method)
    parser.add_argument("--step-size", type=int, default=defaults.step_size)
    parser.add_argument("--frame-interval", type=int, default=defaults.frame_interval)
    parser.add_argument("--max-frames", type=int, default=defaults.max_frames)
    parser.add_argument("--min-confidence", type=float, default=0.3, help="of points that are used, in [0,1]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("outputs/rerender"),
        help="folder for the pictures: truth, re-render, error, coverage",
    )
    return parser.parse_args()


def media_items(inputs: list[str]) -> list[MediaItem]:
    """The files that the inputs name; those of folders and patterns in the order of their names."""
    paths: list[Path] = []
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            paths += sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES | VIDEOS)
        elif path.is_file():
            paths.append(path)
        elif found := sorted(glob.glob(text, recursive=True)):  # noqa: PTH207 (Path.glob takes no absolute pattern)
            paths += [Path(p) for p in found if Path(p).is_file()]
        else:
            raise InvalidInputError(f"{text}: there is no such file or folder, and nothing matches it as a pattern.")
    if not paths:
        raise InvalidInputError(f"{', '.join(inputs)}: no pictures or videos there.")
    return [MediaItem(path.read_bytes(), path.name) for path in paths]


def without(frames: Frames, view: int) -> tuple[Frames, list[int]]:
    """All frames but one, and their indices."""
    kept = [i for i in range(len(frames)) if i != view]
    names = tuple(frames.names[i] for i in kept)
    return Frames(frames.pixels[kept], frames.sizes[kept], names), kept


def picture(frames: Frames, view: int) -> Tensor:
    """Frame `view` as [3,h,w] in [0,1]."""
    return frames.frame(view).permute(2, 0, 1).float() / 255


def rerender(frames: Frames, hold_out: int, min_confidence: float, seed: int) -> tuple[Tensor, Composite]:
    """The held-out photo at WIDTH, [3,H,W], and its rendering from the other views."""
    if not 0 <= hold_out < len(frames):
        raise InvalidInputError(f"--hold-out is {hold_out}; legal: 0 to {len(frames) - 1}, one of the views.")
    if len(frames) < 3:
        raise InvalidInputError(f"There are {len(frames)} views; leaving one out needs at least 3.")
    scene = reconstruct(frames, Watch(), seed=seed)
    others, kept = without(frames, hold_out)
    subset = scene.subset(kept)
    depth, confidence = sweep(others, subset, Watch(), SweepOptions())
    sources = []
    for i in range(len(others)):
        h, w = (int(side) for side in others.sizes[i])
        pose, K = subset.w2c[i].float(), subset.K[i].float()
        sources.append(Source(picture(others, i), depth[i, :h, :w], confidence[i, :h, :w], pose, K))
    truth = picture(frames, hold_out)
    native = (truth.shape[1], truth.shape[2])
    size = (round(native[0] * WIDTH / native[1]), WIDTH)
    truth = F.interpolate(truth[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
    target = Target(scene.w2c[hold_out].float(), scale_intrinsics(scene.K[hold_out], native, size).float(), size)
    return truth, composite(sources, target, min_confidence)


def psnr(truth: Tensor, image: Tensor, where: Tensor) -> float:
    """Peak signal-to-noise ratio in dB over the pixels `where` [H,W] of pictures [3,H,W] in [0,1]."""
    return float(-10 * torch.log10(((truth - image)[:, where] ** 2).mean()))


def save_picture(path: Path, truth: Tensor, result: Composite) -> None:
    """Truth and re-render above, absolute error (times four) and coverage below."""
    error = ((truth - result.image).abs() * 4 * result.covered).clamp(max=1)
    coverage = result.covered.float().expand_as(truth)
    sheet = torch.cat([torch.cat([truth, result.image], 2), torch.cat([error, coverage], 2)], 1)
    pixels = (sheet.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.numpy()).save(path)


def main() -> None:
    """Run the benchmark."""
    arguments = parse_arguments()
    select = Selection(arguments.select, arguments.step_size, arguments.frame_interval, arguments.max_frames)
    try:
        media = load_frames(media_items(arguments.input), select, max_side=FRAME_LONG_SIDE)
        start = time.perf_counter()
        truth, result = rerender(media.frames, arguments.hold_out, arguments.min_confidence, arguments.seed)
    except InvalidInputError as error:
        sys.exit(f"error: {error}")
    print(f"{len(media.frames)} views, {time.perf_counter() - start:.1f} s")
    _, kept = without(media.frames, arguments.hold_out)
    for index, covered in zip(kept, result.covered_by, strict=True):
        print(f"view {index} ({media.frames.names[index]}): coverage={float(covered.float().mean()):.4f}")
    picture = arguments.out / f"hold_out_{arguments.hold_out}.png"
    save_picture(picture, truth, result)
    print(f"truth, re-render, error and coverage side by side: {picture}")
    coverage = float(result.covered.float().mean())
    score = psnr(truth, result.image, result.covered) if coverage > 0 else float("nan")
    print(f"psnr={score:.2f} coverage={coverage:.4f}")


if __name__ == "__main__":
    main()
