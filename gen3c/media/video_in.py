"""Encoded videos -> RGB uint8 frames, one at a time, with FFmpeg's libraries through PyAV."""

import io
import math
from collections.abc import Callable, Iterator
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.media.types import MediaLimits, Selection, check_cancelled, check_pixels, scaled_size

MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
BT709_LINES = 720  # untagged video of this height and more is BT.709 by convention, below it BT.601
UNSPECIFIED_MATRIX = 2  # ITU-T H.273


def video_format(data: bytes) -> str | None:
    """FFmpeg's name of the container, told by the content; None if it is none that is accepted.

    The demuxer is always named: left to guess, FFmpeg also accepts playlists, which make it open other files.
    """
    if data[4:8] in MP4_BOXES and data[8:12] not in PICTURE_BRANDS:
        return "mov"
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if data[:4] == b"RIFF" and data[8:11] == b"AVI":
        return "avi"
    return None


def decode_video(data: bytes, *, name: str = "video", threads: int = 0) -> Iterator[Tensor]:
    """All frames of a video in display order, [h,w,3] uint8, upright, square pixels; holds one at a time.

    Args:
        data: the file.
        name: for messages.
        threads: of the decoder; 0 = as many as there are cores.

    Raises:
        InvalidInputError: it is no video, or broken from some frame on.
    """
    for frame, aspect in _frames(data, name, threads):
        yield _to_rgb(frame, *_display_size(frame, aspect))


def load_video(
    data: bytes,
    name: str,
    select: Selection,
    max_side: int,
    limits: MediaLimits,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, Tensor]]:
    """The selected frames, scaled down to max_side: yields (frame number, [h,w,3] uint8).

    Frames are counted as they decode, whatever the container claims.

    Raises:
        InvalidInputError: no video, too large or small, or a selected frame cannot be decoded.
        CancelledError: `is_cancelled` said so.
    """
    announced, truncated = _announced_frames(data, name, limits, is_cancelled)
    at_most = limits.views + 1  # one too many: the caller sees that the limit is passed
    wanted = select.indices(announced, at_most)
    if select.needs_total and not truncated:
        # Packets are cheap to count, but a packet need not show a frame. Only a full decode tells, where it matters.
        decoded = _decodes_to(data, name, wanted[-1], is_cancelled)
        if decoded <= wanted[-1]:
            wanted = select.indices(decoded, at_most)
    seen = 0
    for index, (frame, aspect) in enumerate(_frames(data, name, 0)):
        check_cancelled(is_cancelled, name)
        seen = index + 1
        if index in wanted:
            check_pixels(frame.height, frame.width, limits, name)
            if frame.is_corrupt:
                raise InvalidInputError(f"{name} is broken: frame {index} cannot be decoded completely.")
            height, width = _display_size(frame, aspect)
            yield index, _to_rgb(frame, *scaled_size(height, width, max_side, name))
        if index == wanted[-1]:
            return
    if seen == 0:
        raise InvalidInputError(f"{name} has no frame that can be decoded.")
    if truncated:
        missing = next(i for i in wanted if i >= seen)
        raise InvalidInputError(
            f"{name} is cut off: frame {missing} is selected, but only {seen} of {announced} frames are in the file."
        )


def _open(data: bytes, name: str) -> tuple[Any, Any]:
    """The container and its first real video stream."""
    try:
        container = av.open(io.BytesIO(data), format=video_format(data))
    except (av.FFmpegError, ValueError) as error:
        raise InvalidInputError(f"{name} is broken: its container cannot be read; is the file complete?") from error
    attached = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & attached]
    if not streams:
        sound = ", only sound" if container.streams.audio else ""
        container.close()
        raise InvalidInputError(f"{name} holds no video{sound}.")
    if streams[0].codec_context is None:
        container.close()
        raise InvalidInputError(f"{name} is in a video codec that cannot be decoded; H.264 always can.")
    return container, streams[0]


def _frames(data: bytes, name: str, threads: int) -> Iterator[tuple[Any, float]]:
    """Decoded frames in display order, with the width of a pixel over its height."""
    container, stream = _open(data, name)
    with container:
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        decoded = container.decode(stream)
        aspect = float(stream.sample_aspect_ratio or 1)
        index = 0
        while True:
            try:
                frame = next(decoded, None)
            except (av.FFmpegError, ValueError) as error:
                raise InvalidInputError(f"{name} is broken: it cannot be decoded after frame {index - 1}.") from error
            if frame is None:
                return
            yield frame, aspect
            index += 1


def _announced_frames(
    data: bytes, name: str, limits: MediaLimits, is_cancelled: Callable[[], bool]
) -> tuple[int, bool]:
    """How many packets should show a frame, and whether the index points beyond the end of the file."""
    container, stream = _open(data, name)
    with container:
        check_pixels(stream.codec_context.height, stream.codec_context.width, limits, name)
        entries = stream.index_entries
        for entry in entries:
            check_cancelled(is_cancelled, name)
            if entry.pos + entry.size > len(data):
                return len(entries), True
        count = 0
        try:
            for packet in container.demux(stream):
                check_cancelled(is_cancelled, name)
                count += bool(packet.size and not packet.is_discard)
        except (av.FFmpegError, ValueError) as error:
            raise InvalidInputError(f"{name} is broken: its container cannot be read to the end.") from error
    if not count:
        raise InvalidInputError(f"{name} has no frame that can be decoded.")
    return count, False


def _decodes_to(data: bytes, name: str, last: int, is_cancelled: Callable[[], bool]) -> int:
    """How many frames decode, at most last + 1."""
    count = 0
    for _ in _frames(data, name, 0):
        check_cancelled(is_cancelled, name)
        count += 1
        if count > last:
            break
    return count


def _orientation(frame: Any) -> tuple[bool, bool, bool]:
    """Transpose, then mirror in x, then mirror in y: the frame's display matrix to the nearest quarter turn."""
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(side_data), np.int32)[:5].tolist()
    # x' = a x + c y, y' = b x + d y (ISO 14496-12, 6.2.2)
    if abs(a) >= abs(b):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def _display_size(frame: Any, aspect: float) -> tuple[int, int]:
    """Height and width as shown: upright, with square pixels."""
    width = round(frame.width * aspect)
    return (width, frame.height) if _orientation(frame)[0] else (frame.height, width)


def _to_rgb(frame: Any, height: int, width: int) -> Tensor:
    """The frame upright at that size, [h,w,3] uint8."""
    transpose, mirror_x, mirror_y = _orientation(frame)
    coded_height, coded_width = (width, height) if transpose else (height, width)
    matrix = frame.colorspace
    if matrix == UNSPECIFIED_MATRIX and frame.format.name.startswith("yuv"):
        matrix = "ITU709" if frame.height >= BT709_LINES else "ITU601"
    smaller = math.prod((coded_height, coded_width)) < frame.height * frame.width
    rgb = frame.reformat(
        width=coded_width,
        height=coded_height,
        format="rgb24",
        src_colorspace=matrix,
        interpolation="LANCZOS" if smaller else "BICUBIC",
    ).to_ndarray()
    if transpose:
        rgb = rgb.transpose(1, 0, 2)
    if mirror_x:
        rgb = rgb[:, ::-1]
    if mirror_y:
        rgb = rgb[::-1]
    return torch.from_numpy(np.ascontiguousarray(rgb))
