"""Many videos side by side: one grid that shows what each view contributes."""

import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.media.video_out import VideoWriter

MAX_WIDTH = 3840  # px; wider H.264 does not play everywhere


class Mosaic:
    """A grid of equally large and long videos, row by row, read in lockstep: memory does not grow with length."""

    def __init__(
        self, videos: Sequence[Iterable[Tensor]], *, labels: Sequence[str] | None = None, max_width: int = MAX_WIDTH
    ) -> None:
        """Prepare a grid of `videos` (pictures [h,w,3] uint8), at most `max_width` px wide, with a label in each tile.

        Raises InvalidInputError if there is no video or labels are not one a video.
        """
        if not videos:
            raise InvalidInputError("a mosaic needs at least one video; none was given.")
        if labels is not None and len(labels) != len(videos):
            raise InvalidInputError(f"{len(labels)} labels for {len(videos)} videos; give one a video.")
        self._videos = videos
        self._labels = labels
        self._max_width = max_width
        self._columns = math.ceil(math.sqrt(len(videos)))

    def frames(self) -> Iterator[Tensor]:
        """The grid's pictures, [h,w,3] uint8, both sides even, empty tiles black.

        Raises InvalidInputError if the videos differ in size or length.
        """
        rows = math.ceil(len(self._videos) / self._columns)
        videos = [iter(video) for video in self._videos]
        while True:
            pictures = [next(video, None) for video in videos]
            shown = [p for p in pictures if p is not None]
            if not shown:
                return
            sizes = {tuple(p.shape[:2]) for p in shown}
            if len(shown) < len(pictures) or len(sizes) > 1:
                raise InvalidInputError(
                    f"the videos of a mosaic must be equally large and long; {len(pictures) - len(shown)} of "
                    f"{len(pictures)} ended early, sizes are {sorted(sizes)}."
                )
            height, width = self._tile(*shown[0].shape[:2])
            grid = torch.zeros(rows * height, self._columns * width, 3, dtype=torch.uint8)
            for i, picture in enumerate(shown):
                row, column = divmod(i, self._columns)
                tile = self._labelled(picture, height, width, i)
                grid[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile
            yield grid

    def encode(self, fps: float | Fraction, *, crf: int = 20) -> bytes:
        """The grid as an mp4; errors as in frames()."""
        writer: VideoWriter | None = None
        try:
            for grid in self.frames():
                writer = writer or VideoWriter(grid.shape[0], grid.shape[1], float(fps), crf=crf)
                writer.add(grid)
            if writer is None:
                raise InvalidInputError("the videos of the mosaic have no frames.")
            return writer.finish()
        finally:
            if writer is not None:
                writer.close()

    def _tile(self, height: int, width: int) -> tuple[int, int]:
        """Even height and width of a tile, at most the video's own."""
        scale = min(1.0, self._max_width / (self._columns * width))
        return max(2, int(height * scale) // 2 * 2), max(2, int(width * scale) // 2 * 2)

    def _labelled(self, picture: Tensor, height: int, width: int, i: int) -> Tensor:
        """The picture at tile size with its label in the lower left corner."""
        image = Image.fromarray(picture.numpy())
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        if self._labels is not None:
            size = max(10, height // 14)
            ImageDraw.Draw(image).text(
                (size // 2, height - size // 2),
                self._labels[i],
                anchor="lb",
                font=ImageFont.load_default(size),
                fill=(255, 255, 255),
                stroke_width=max(1, size // 8),
                stroke_fill=(0, 0, 0),
            )
        return torch.from_numpy(np.array(image))
