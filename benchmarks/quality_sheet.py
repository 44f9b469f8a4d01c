"""The contact sheet of the benchmark: the best, the median and the two worst scenes, as they came."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from benchmarks.quality_case import Case
from benchmarks.quality_composite import RANKINGS
from benchmarks.quality_results import Results
from gen3c.fusion import FUSION_MODES

TITLES = ("source views", "raw warp of view 0", "composite", "8 views + DiT", "truth")
# What a strip holds between the source views and the truth; a sheet shows the best of each kind.
KEPT = ("warp", *(f"composite_{name}" for name in RANKINGS), *(f"views_{mode}" for mode in FUSION_MODES))
CAPTION = 18  # px, height
GRID = 3  # source views a row and column
STRIP_QUALITY = 85


def strip(case: Case, videos: Mapping[str, Tensor]) -> Image.Image:
    """The pictures of a case side by side, at the frame of which the views show least; what is not there is grey."""
    frame = int((~case.seen).flatten(1).sum(1).argmax())
    grey = torch.full_like(case.truth[frame], 128)
    tiles = [videos[name][frame] if name in videos else grey for name in KEPT]
    tiles = [mosaic(case.views), *tiles, case.truth[frame]]
    return as_image(torch.cat([tile.cpu() for tile in tiles], dim=1))


def shown(whole: Image.Image, results: Results) -> Image.Image:
    """Of a strip the tiles that the sheet shows."""
    width, height = whole.width // (len(KEPT) + 2), whole.height
    inner = ["warp", f"composite_{results.ranking}", f"views_{results.mode}"]
    places = [0, *(1 + KEPT.index(name) for name in inner), len(KEPT) + 1]
    row = Image.new("RGB", (width * len(places), height))
    for i, place in enumerate(places):
        row.paste(whole.crop((place * width, 0, (place + 1) * width, height)), (i * width, 0))
    return row


def mosaic(views: Tensor) -> Tensor:
    """Up to nine pictures [v,h,w,3] uint8 on the area of one."""
    height, width = views.shape[1:3]
    h, w = height // GRID, width // GRID
    small = F.interpolate(views[: GRID * GRID].permute(0, 3, 1, 2).float(), (h - 2, w - 2), mode="area")
    sheet = torch.full((height, width, 3), 255, dtype=torch.uint8)
    for i, picture in enumerate(small.round().to(torch.uint8).permute(0, 2, 3, 1).cpu()):
        top, left = i // GRID * h, i % GRID * w
        sheet[top : top + h - 2, left : left + w - 2] = picture
    return sheet


def save_strip(image: Image.Image, archive: Path, seed: int) -> None:
    """Keep a strip for the sheet, which is made when all shards are there: one more file of a ZIP."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=STRIP_QUALITY)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(f"{seed}.jpg", buffer.getvalue())


def contact_sheet(results: Results, archives: Sequence[Path]) -> Image.Image | None:
    """The chosen scenes among each other, from the strips in `archives`; None where there is none."""
    strips: dict[str, bytes] = {}
    for archive in archives:
        if archive.is_file():
            with zipfile.ZipFile(archive) as file:
                strips |= {name: file.read(name) for name in file.namelist()}
    rows = []
    for title, seed in chosen(results):
        if f"{seed}.jpg" in strips:
            with Image.open(io.BytesIO(strips[f"{seed}.jpg"])) as opened:
                rows.append((title, shown(opened.convert("RGB"), results)))
    if not rows:
        return None
    width, height = rows[0][1].size
    sheet = Image.new("RGB", (width, CAPTION + len(rows) * (height + CAPTION)), "white")
    for i, title in enumerate(TITLES):
        write(sheet, (i * width // len(TITLES) + 4, 3), title)
    for i, (title, picture) in enumerate(rows):
        top = CAPTION + i * (height + CAPTION)
        write(sheet, (4, top + 3), title)
        sheet.paste(picture, (0, top + CAPTION))
    return sheet


def chosen(results: Results) -> list[tuple[str, int]]:
    """Captions and seeds of the best, the median and the two worst scenes by PSNR of the best fusion mode."""
    row = f"views_{results.mode}"
    scored = sorted((case["rows"][row][0], case["seed"], case["path"]) for case in results.cases if row in case["rows"])
    if not scored:
        return []
    places = {len(scored) - 1: "best", len(scored) // 2: "median", 1: "second worst", 0: "worst"}  # later names win
    return [
        (f"{name}: seed {scored[i][1]}, {scored[i][2]}, {scored[i][0]:.1f} dB over all frames", scored[i][1])
        for i, name in sorted(places.items(), reverse=True)
        if i < len(scored)
    ]


def write(image: Image.Image, at: tuple[int, int], text: str) -> None:
    """Black letters on an image."""
    ImageDraw.Draw(image).text(at, text, fill="black", font=ImageFont.load_default(size=12))


def save_under(image: Image.Image, path: Path, most_bytes: int) -> int:
    """Save as JPEG in the best quality that fits; returns that quality. Raises ValueError if none does."""
    for quality in range(92, 30, -4):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= most_bytes:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(buffer.getvalue())
            return quality
    raise ValueError(f"a picture of {image.width}x{image.height} does not fit into {most_bytes} bytes.")


def as_image(pixels: Tensor) -> Image.Image:
    """[h,w,3] uint8."""
    return Image.fromarray(pixels.cpu().contiguous().numpy())
