"""Tensors -> H.264 mp4 that plays everywhere, the same bytes on every run."""

import tempfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import torch
from torch import Tensor

from gen3c.errors import InvalidInputError

BT709 = 1  # ITU-T H.273 code of matrix, primaries and transfer
LIMITED_RANGE = 1
# x264's output depends on how many threads share a picture, not on how many cores there are: fixed, it is reproducible.
ENCODER_THREADS = 16
# With B-frames, the lookahead of the x264 that PyAV 18 ships lets memory contents into its decisions: of 25 encodings
# of one noisy clip up to 12 differed, also on one thread. Without them 150 of 150 were equal.
B_FRAMES = 0


class VideoWriter:
    """Writes one video frame by frame in constant memory; a context manager that drops an unfinished file.

    H.264, yuv420p, BT.709 tagged, index in front (faststart). The same frames give the same bytes in every process
    with the same versions of the libraries.
    """

    def __init__(
        self, height: int, width: int, fps: float, *, crf: int = 16, preset: str = "medium", comment: str = ""
    ) -> None:
        """Open a video of `height` x `width` pixels, both even.

        Args:
            height: px.
            width: px.
            fps: frames per second.
            crf: x264's constant rate factor, 0 (lossless) to 51; 16 is visually lossless.
            preset: x264's speed. "veryfast" takes a third of "medium"'s time for a fifth more bytes and 0.8 dB (of 40).
            comment: stored in the file's metadata.

        Raises:
            InvalidInputError: a side is odd or below 2, or fps is not positive.
        """
        if height % 2 or width % 2 or min(height, width) < 2:
            raise InvalidInputError(f"a video of {width}x{height} pixels cannot be written; both sides must be even.")
        if not 0 < fps <= 1000:
            raise InvalidInputError(f"fps is {fps}; legal: above 0, at most 1000.", field="fps")
        self._size = (height, width)
        # The muxer reads its own file again to put the index in front, so it needs a real one.
        self._folder = tempfile.TemporaryDirectory(prefix="gen3c-video-")
        self._path = Path(self._folder.name) / "video.mp4"
        self._container = av.open(str(self._path), "w", options={"movflags": "+faststart", "fflags": "+bitexact"})
        if comment:
            self._container.metadata["comment"] = comment
        rate = Fraction(fps).limit_denominator(1001)
        self._stream = self._container.add_stream("libx264", rate=rate)
        context = self._stream.codec_context
        context.height, context.width, context.pix_fmt = height, width, "yuv420p"
        context.thread_count = ENCODER_THREADS
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED_RANGE
        context.options = {"crf": str(crf), "preset": preset, "bf": str(B_FRAMES)}
        self._frames = 0

    def add(self, frame: Tensor) -> None:
        """Append a picture, [h,w,3] uint8 RGB; raises InvalidInputError if it has another size or type."""
        if tuple(frame.shape) != (*self._size, 3) or frame.dtype != torch.uint8:
            raise InvalidInputError(
                f"frame {self._frames} is {list(frame.shape)} {frame.dtype}; this video takes "
                f"[{self._size[0]}, {self._size[1]}, 3] torch.uint8."
            )
        picture = av.VideoFrame.from_ndarray(frame.cpu().contiguous().numpy(), format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        picture.pts = self._frames
        picture.time_base = 1 / self._stream.codec_context.framerate
        self._container.mux(self._stream.encode(picture))
        self._frames += 1

    def finish(self) -> bytes:
        """Close the video and return the file; raises InvalidInputError if it has no frame."""
        if not self._frames:
            self.close()
            raise InvalidInputError("a video needs at least one frame; none was added.")
        self._container.mux(self._stream.encode(None))
        self._container.close()
        data = self._path.read_bytes()
        self._folder.cleanup()
        return data

    def close(self) -> None:
        """Drop the file. Does nothing after finish()."""
        if self._path.parent.exists():  # the file itself appears with the first packet only
            self._container.close()
            self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def encode_video(frames: Iterable[Tensor], fps: float, *, crf: int = 16, comment: str = "") -> bytes:
    """An mp4 of frames [h,w,3] uint8 RGB, all of one even size; see VideoWriter for arguments and errors."""
    writer: VideoWriter | None = None
    try:
        for frame in frames:
            if writer is None:
                writer = VideoWriter(frame.shape[0], frame.shape[1], fps, crf=crf, comment=comment)
            writer.add(frame)
        if writer is None:
            raise InvalidInputError("a video needs at least one frame; none was given.")
        return writer.finish()
    finally:
        if writer is not None:
            writer.close()
