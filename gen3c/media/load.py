"""Media of all kinds -> the views of a job."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.geometry.types import Frames, Watch
from gen3c.media.images import load_pictures
from gen3c.media.types import LoadedMedia, MediaItem, MediaLimits, Selection
from gen3c.media.video_in import load_video, video_format


def load_frames(
    items: Sequence[MediaItem],
    select: Selection | None = None,
    *,
    max_side: int,
    limits: MediaLimits | None = None,
    watch: Watch | None = None,
) -> LoadedMedia:
    """Decode pictures and selected frames of videos, scale them down and put them on one canvas.

    What an item is, is told by its content. Videos are decoded as a stream: only selected frames are held, scaled.

    Args:
        items: encoded pictures (PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF) and videos (MP4, MOV, WebM, MKV, AVI); an
            animated GIF, WebP, PNG or AVIF counts as a video.
        select: which frames of each video.
        max_side: px, the longer side of a view at most; smaller pictures keep their size.
        limits: what is accepted.
        watch: progress, stage "media", one step an item; polled at every decoded frame.

    Raises:
        InvalidInputError: with field `MEDIA` or `MEDIA[i]`, and the item's name in the message.
        CancelledError: `watch` said so.
    """
    select, limits, watch = select or Selection(), limits or MediaLimits(), watch or Watch()
    if not items:
        raise InvalidInputError("no media; give at least one picture or video.", field="MEDIA")
    views: list[Tensor] = []
    names: list[str] = []
    warnings: list[str] = []
    for i, item in enumerate(items):
        watch.step("media", i, len(items))
        before = len(views)
        if before + len(items) - i > limits.views:  # every item left gives at least one
            raise _too_many(limits, field="MEDIA")
        try:
            for index, pixels in _decode(item, select, max_side, limits, watch):
                if len(views) == limits.views:
                    raise _too_many(limits, field="MEDIA")
                views.append(pixels)
                names.append(item.name if index is None else f"{item.name}#{index}")
        except InvalidInputError as error:
            raise InvalidInputError(str(error), field=error.field or f"MEDIA[{i}]") from error.__cause__
        taken = len(views) - before
        if select.method == "first-max" and taken < select.max_frames and names[-1] != item.name:
            warnings.append(
                f"{item.name} ends before frame {taken * select.step_size}: "
                f"{taken} of the {select.max_frames} selected frames were taken."
            )
    watch.step("media", len(items), len(items))
    return LoadedMedia(_on_canvas(views, names), tuple(warnings))


def _decode(
    item: MediaItem, select: Selection, max_side: int, limits: MediaLimits, watch: Watch
) -> Iterator[tuple[int | None, Tensor]]:
    if not item.data:
        raise InvalidInputError(f"{item.name} is empty (0 bytes).")
    load = load_pictures if video_format(item.data) is None else load_video
    yield from load(item.data, item.name, select, max_side, limits, watch.is_cancelled)


def _too_many(limits: MediaLimits, field: str) -> InvalidInputError:
    return InvalidInputError(
        f"the media give more than {limits.views} views, which is the limit; "
        "select fewer frames of each video or send fewer items.",
        field=field,
    )


def _on_canvas(views: list[Tensor], names: list[str]) -> Frames:
    height, width = max(v.shape[0] for v in views), max(v.shape[1] for v in views)
    pixels = torch.zeros(len(views), height, width, 3, dtype=torch.uint8)
    for canvas, view in zip(pixels, views, strict=True):
        canvas[: view.shape[0], : view.shape[1]] = view
    sizes = torch.tensor([view.shape[:2] for view in views], dtype=torch.int32)
    return Frames(pixels, sizes, tuple(names))
