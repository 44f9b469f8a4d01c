"""A real clip through the same pipeline. There is no truth for a new path: what was seen must stay as it was."""

from pathlib import Path
from typing import Any

import torch
from gen3c_client.contract import NamedPath
from PIL import Image
from torch import Tensor

from benchmarks import quality_metrics as metrics
from benchmarks.quality_composite import CLIP_RANKINGS, RANKINGS, composites, filled, warps
from benchmarks.quality_rows import as_bytes, as_pictures
from benchmarks.quality_served import SPEC, Served, estimate, make_video, scene_of, through_vae
from benchmarks.quality_sheet import CAPTION, as_image, mosaic, write
from gen3c.cameras import camera_path
from gen3c.conditioning import Cameras
from gen3c.errors import InvalidInputError
from gen3c.fusion import FusionMode
from gen3c.media import MediaItem, Selection, load_frames

MOST_VIEWS = 8
PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
SHOWN = "camera"  # ranking of the composite on the sheet


def measure_clip(
    served: Served, given: Path, interval: int, provider: str, path: NamedPath, fusion: FusionMode
) -> tuple[dict[str, Any], Image.Image]:
    """Figures and the sheet of a video, every `interval`-th frame, or of a folder of pictures; the first eight views.

    Raises InvalidInputError, as a job would.
    """
    select = Selection("interval", frame_interval=interval, max_frames=MOST_VIEWS)
    frames = load_frames(_items(given), select, max_side=served.preset.geometry_side)
    views = frames.frames
    print(f"{len(views)} views of {given.name}; geometry by {provider} ...", flush=True)
    geometry = estimate(served, views, provider)
    scene = scene_of(served, views, geometry)
    count = served.preset.chunk_frames
    w2c = camera_path(path.kind, count, torch.eye(4), rotation=path.rotation, distance=path.distance)
    cameras = Cameras(w2c, scene.views[0].K.expand(count, -1, -1))
    pictures, covered = composites(warps(scene, cameras, SPEC.geometry.min_confidence, served.device))
    whole = filled(pictures, covered)
    result = make_video(served, scene, cameras, fusion)
    psnr, psnr_vae = {}, {}
    for name in CLIP_RANKINGS:
        reference = as_bytes(pictures[name])
        psnr[name] = _psnr(result, reference, covered)
        psnr_vae[name] = _psnr(through_vae(served, as_bytes(whole[name])), reference, covered)
    figures = {
        "name": given.name,
        "views": list(views.names),
        "provider": provider,
        "geometry": geometry.info,
        "fusion": fusion,
        "path": f"{path.kind} {path.distance:g}",
        "steps": served.steps,
        "weights": served.weights,
        "covered": float(covered[1:].double().mean()),
        "psnr_covered": psnr,
        "psnr_vae": psnr_vae,
    }
    sources = torch.stack([((view.image + 1) * 127.5).round().to(torch.uint8) for view in scene.views])
    middle, last = count // 2, count - 1
    holed = as_bytes(pictures[SHOWN])
    top = [mosaic(sources.permute(0, 2, 3, 1)), holed[middle].cpu(), result[middle]]
    bottom = [sources[0].permute(1, 2, 0), holed[last].cpu(), result[last]]
    titles = ("source views; below, the first", f"composite, {RANKINGS[SHOWN]}", "8 views + DiT")
    return figures, _sheet([torch.cat(top, 1), torch.cat(bottom, 1)], titles, (middle, last))


def _psnr(video: Tensor, reference: Tensor, where: Tensor) -> float | None:
    """dB between videos [t,h,w,3] uint8 over the pixels `where` [t,h,w]; frame 0 is given and counts not."""
    pictures, others = (as_pictures(v.to(where.device))[1:] for v in (video, reference))
    return metrics.decibel(metrics.mean_over(metrics.squared_error(pictures, others), where[1:]))


def _items(given: Path) -> list[MediaItem]:
    if not given.exists():
        raise InvalidInputError(f"{given}: there is no such file or folder.")
    paths = sorted(p for p in given.iterdir() if p.suffix.lower() in PICTURES) if given.is_dir() else [given]
    if not paths:
        raise InvalidInputError(f"{given}: no pictures there; legal: {', '.join(sorted(PICTURES))}.")
    return [MediaItem(path.read_bytes(), path.name) for path in paths[:MOST_VIEWS]]


def _sheet(rows: list[Tensor], titles: tuple[str, ...], frames: tuple[int, ...]) -> Image.Image:
    height, width = rows[0].shape[:2]
    sheet = Image.new("RGB", (width, len(rows) * (height + CAPTION)), "white")
    for i, (pixels, frame) in enumerate(zip(rows, frames, strict=True)):
        top = i * (height + CAPTION)
        for column, title in enumerate(titles):
            when = f", frame {frame}" if column else ""
            write(sheet, (column * width // len(titles) + 4, top + 3), f"{title}{when}" if not i or column else "")
        sheet.paste(as_image(pixels), (0, top + CAPTION))
    return sheet
