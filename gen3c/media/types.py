"""What media input takes and gives, and which frames of a video become views."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

from gen3c.errors import CancelledError, InvalidInputError
from gen3c.geometry.types import Frames

SelectMethod = Literal["first", "middle", "last", "all", "interval", "first-max"]

MIN_SIDE = 16  # px, of a picture as given and as scaled: less than two latent cells show nothing


@dataclass(frozen=True)
class MediaItem:
    """An encoded picture or video. The name is for messages only: what it is, is told by its content."""

    data: bytes
    name: str


@dataclass(frozen=True)
class Selection:
    """Which frames of each video become views; still images are always taken.

    `all`: at most `max_frames`, evenly spread from the first to the last; `interval`: every `frame_interval`-th;
    `first-max`: 0, step_size, 2*step_size ...; both at most `max_frames`. InvalidInputError for a number below 1.
    """

    method: SelectMethod = "all"
    step_size: int = 1
    frame_interval: int = 30
    max_frames: int = 10

    def __post_init__(self) -> None:
        for name in ("step_size", "frame_interval", "max_frames"):
            if getattr(self, name) < 1:
                raise InvalidInputError(
                    f"{name} is {getattr(self, name)}; legal: 1 or more.", field=f"spec.select.{name}"
                )

    @property
    def needs_total(self) -> bool:
        """Whether the choice depends on how many frames there are."""
        return self.method in ("middle", "last", "all")

    def indices(self, total: int, at_most: int) -> list[int]:
        """The first `at_most` of the chosen frames, ascending: the caller's bound, as `max_frames` may be anything.

        `total` is the number of frames; only used where `needs_total`. Otherwise the numbers may go past the end.
        """
        match self.method:
            case "first":
                return [0]
            case "middle":
                return [total // 2]
            case "last":
                return [total - 1]
            case "interval":
                return [i * self.frame_interval for i in range(min(self.max_frames, at_most))]
            case "first-max":
                return [i * self.step_size for i in range(min(self.max_frames, at_most))]
            case "all":
                count = min(total, self.max_frames)
                gaps = max(count - 1, 1)
                return [(i * (total - 1) + gaps // 2) // gaps for i in range(min(count, at_most))]
        raise InvalidInputError(
            f"selection method is {self.method!r}; legal: {', '.join(get_args(SelectMethod))}.",
            field="spec.select.method",
        )


@dataclass(frozen=True)
class MediaLimits:
    """What is accepted."""

    pixels: int = 100_000_000  # of one picture or video frame, as encoded
    views: int = 64  # in all


@dataclass(frozen=True)
class LoadedMedia:
    """The views, and sentences for the user."""

    frames: Frames
    warnings: tuple[str, ...] = field(default=())


def scaled_size(height: int, width: int, max_side: int, name: str) -> tuple[int, int]:
    """Height and width with the longer side at most max_side, aspect kept; never enlarges.

    Raises InvalidInputError if a side is below MIN_SIDE before or after.
    """
    scale = min(1.0, max_side / max(height, width))
    scaled = max(1, round(height * scale)), max(1, round(width * scale))
    if min(*scaled, height, width) < MIN_SIDE:
        becomes = "" if scale == 1 else f", scaled to {scaled[1]}x{scaled[0]}"
        raise InvalidInputError(
            f"{name} is {width}x{height} pixels{becomes}; each side must be at least {MIN_SIDE} pixels."
        )
    return scaled


def check_pixels(height: int, width: int, limits: MediaLimits, name: str) -> None:
    """Raises InvalidInputError if a picture of that size is over the limit."""
    if height * width > limits.pixels:
        raise InvalidInputError(
            f"{name} has {width}x{height} = {height * width} pixels; the limit is {limits.pixels} a picture."
        )


def check_cancelled(is_cancelled: Callable[[], bool], name: str) -> None:
    """Raises CancelledError if the job that reads `name` should stop."""
    if is_cancelled():
        raise CancelledError(f"cancelled while {name} was read")
