import io
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from gen3c.errors import CancelledError, InvalidInputError
from gen3c.geometry.types import Watch
from gen3c.media import LoadedMedia, MediaItem, MediaLimits, Selection, decode_video, load_frames
from gen3c.media.types import SelectMethod

CLIP = Path(__file__).parents[2] / ".." / "shared" / "data" / "bg_arena" / "bg_arena.mp4"
STEP = 8  # grey levels between two frames of the test videos


def make_video(
    frames: int = 20,
    *,
    size: tuple[int, int] = (64, 96),
    kind: str = "mp4",
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
    pts: list[int] | None = None,
    options: dict[str, str] | None = None,
) -> bytes:
    """Frame i is grey of level 8*i, with a white block in the upper left corner."""
    out = io.BytesIO()
    with av.open(out, "w", format=kind, options=options or {}) as container:
        stream = container.add_stream(codec, rate=Fraction(25))
        stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = Fraction(1, 25)
        if rotation:
            stream.set_display_rotation(rotation)
        for i in range(frames):
            picture = np.full((*size, 3), STEP * i, np.uint8)
            picture[: size[0] // 2, : size[1] // 4] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = pts[i] if pts else i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def load(
    data: bytes,
    select: Selection | None = None,
    *,
    max_side: int = 640,
    limits: MediaLimits | None = None,
    watch: Watch | None = None,
) -> LoadedMedia:
    return load_frames([MediaItem(data, "clip")], select, max_side=max_side, limits=limits, watch=watch)


def numbers(loaded: LoadedMedia) -> list[int]:
    """Which frames were taken, told by their grey level, and that the names agree."""
    level = loaded.frames.pixels[:, 40, 60].float().mean(-1) / STEP
    found = level.round().int().tolist()
    assert loaded.frames.names == tuple(f"clip#{i}" for i in found)
    return found


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        (Selection("first"), [0]),
        (Selection("middle"), [10]),
        (Selection("last"), [19]),
        (Selection("all", max_frames=4), [0, 6, 13, 19]),
        (Selection("all", max_frames=1), [0]),
        (Selection("all", max_frames=50), list(range(20))),
        (Selection("interval", frame_interval=6), [0, 6, 12, 18]),
        (Selection("interval", frame_interval=6, max_frames=2), [0, 6]),
        (Selection("first-max", step_size=3, max_frames=4), [0, 3, 6, 9]),
    ],
)
def test_the_selected_frames_are_taken(select: Selection, expected: list[int]) -> None:
    loaded = load(make_video(), select)
    assert numbers(loaded) == expected
    assert not loaded.warnings


@pytest.mark.parametrize(
    ("kind", "codec", "pix_fmt"),
    [
        ("mov", "libx264", "yuv420p"),
        ("mp4", "libx265", "yuv420p10le"),
        ("webm", "libvpx-vp9", "yuv420p"),
        ("matroska", "ffv1", "yuv444p"),
        ("avi", "mpeg4", "yuv420p"),
        ("avi", "mjpeg", "yuvj420p"),
    ],
)
def test_containers_and_codecs(kind: str, codec: str, pix_fmt: str) -> None:
    loaded = load(make_video(kind=kind, codec=codec, pix_fmt=pix_fmt), Selection("last"))
    assert numbers(loaded) == [19]
    assert loaded.frames.sizes.tolist() == [[64, 96]]


@pytest.mark.parametrize(
    ("rotation", "corner"), [(90, (-1, 0)), (-90, (0, -1)), (180, (-1, -1))]
)  # counterclockwise: where the upper left corner ends up
def test_phone_rotation_is_honoured(rotation: int, corner: tuple[int, int]) -> None:
    frame = load(make_video(1, rotation=rotation)).frames.frame(0)
    assert frame.shape[:2] == ((64, 96) if rotation == 180 else (96, 64))
    y, x = corner
    assert int(frame[y, x].min()) > 250
    assert int(frame[0, 0].max()) < 5


def test_odd_sizes_and_scaling() -> None:
    loaded = load(make_video(3, size=(121, 241), codec="ffv1", pix_fmt="yuv444p", kind="matroska"), max_side=100)
    assert loaded.frames.sizes.tolist() == [[50, 100]] * 3


def test_pixels_become_square() -> None:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    assert load(out.getvalue()).frames.sizes.tolist() == [[64, 128]]


def test_variable_frame_rate_counts_frames_not_seconds() -> None:
    pts = [0, 1, 2, 40, 41, 90, 91, 92, 150, 200]
    assert numbers(load(make_video(10, pts=pts), Selection("all", max_frames=4))) == [0, 3, 6, 9]


def test_frames_beyond_the_end_give_a_warning() -> None:
    loaded = load(make_video(), Selection("first-max", step_size=8, max_frames=5))
    assert numbers(loaded) == [0, 8, 16]
    assert loaded.warnings == ("clip ends before frame 24: 3 of the 5 selected frames were taken.",)


def test_a_cut_file_gives_what_is_there_or_says_so() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 64, 96, 3), np.uint8)
    out = io.BytesIO()
    with av.open(out, "w", format="mp4", options={"moov_size": "4000"}) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for picture in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    whole = out.getvalue()
    assert len(load(whole, Selection("all", max_frames=50)).frames) == 20
    half = whole[: len(whole) // 2]
    assert load(half, Selection("first")).frames.names == ("clip#0",)
    for method in ("all", "last"):
        with pytest.raises(InvalidInputError, match=r"clip is (cut off|broken)"):
            load(half, Selection(method))
    with pytest.raises(InvalidInputError, match="clip is broken"):
        load(make_video()[:700])


def test_sound_alone_is_no_video() -> None:
    sound = io.BytesIO()
    with wave.open(sound, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(b"\0\0" * 8000)
    m4a = io.BytesIO()
    with av.open(m4a, "w", format="mp4") as container, av.open(io.BytesIO(sound.getvalue())) as source:
        stream = container.add_stream("aac", rate=8000)
        for frame in source.decode(audio=0):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(InvalidInputError, match="clip holds no video, only sound") as caught:
        load(m4a.getvalue())
    assert caught.value.field == "MEDIA[0]"


def test_a_video_without_frames_is_refused() -> None:
    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        container.start_encoding()
    with pytest.raises(InvalidInputError, match=r"clip (has no frame|is broken|holds no video)"):
        load(out.getvalue())


def test_limits_hold_for_videos() -> None:
    data = make_video()
    with pytest.raises(InvalidInputError, match=r"clip has 96x64 = 6144 pixels; the limit is 6000"):
        load(data, limits=MediaLimits(pixels=6000))
    with pytest.raises(InvalidInputError, match="more than 4 views"):
        load(data, Selection(max_frames=5), limits=MediaLimits(views=4))


@pytest.mark.parametrize("method", ["first", "middle", "last", "all", "interval", "first-max"])
def test_any_number_of_frames_may_be_asked_for(method: SelectMethod) -> None:
    select = Selection(method, max_frames=10**12, step_size=2, frame_interval=2)
    chosen = select.indices(10**12, 65)  # a list of what is asked for would not fit in memory
    assert len(chosen) == (65 if method in ("all", "interval", "first-max") else 1)
    assert len(load(make_video(), select).frames) == {"all": 20, "interval": 10, "first-max": 10}.get(method, 1)


def test_more_frames_than_views_are_refused_at_the_limit() -> None:
    for method in ("all", "interval", "first-max"):
        with pytest.raises(InvalidInputError, match="more than 4 views"):
            load(make_video(), Selection(method, max_frames=10**12, frame_interval=1), limits=MediaLimits(views=4))


@pytest.mark.parametrize("name", ["step_size", "frame_interval", "max_frames"])
def test_selections_of_nothing_are_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{name} is 0; legal: 1 or more") as caught:
        Selection(**{name: 0})
    assert caught.value.field == f"spec.select.{name}"


@pytest.mark.parametrize(("kind", "indexed"), [("mp4", True), ("matroska", False)])
def test_a_job_can_be_cancelled_anywhere_in_a_video(kind: str, indexed: bool) -> None:
    """Before every packet that is counted, every frame that is tried, every frame that is read."""
    polls = 0

    def ask(stop_at: int = -1) -> bool:
        nonlocal polls
        polls += 1
        return polls == stop_at

    data = make_video(kind=kind)
    load(data, Selection("last"), watch=Watch(is_cancelled=ask))
    total = polls
    assert total >= (4 if indexed else 3) * 20
    for stop_at in range(1, total + 1, 7):
        polls = 0
        with pytest.raises(CancelledError):
            load(data, Selection("last"), watch=Watch(is_cancelled=lambda stop_at=stop_at: ask(stop_at)))
        assert polls == stop_at


def test_decode_video_streams_every_frame() -> None:
    levels = [round(float(f[40, 60].float().mean()) / STEP) for f in decode_video(make_video())]
    assert levels == list(range(20))


@pytest.mark.skipif(not CLIP.exists(), reason="the real clip ../shared/data/bg_arena is not here")
def test_the_real_clip_matches_its_stills() -> None:
    loaded = load(CLIP.read_bytes(), Selection("interval", frame_interval=40, max_frames=3))
    still = Image.open(CLIP.with_name("input_image_0002.png")).resize((640, 360), Image.Resampling.BICUBIC)
    error = np.abs(np.asarray(still).astype(int) - loaded.frames.frame(2).numpy()).mean()
    assert error < 6  # stills were stretched from 640x360 to 1280x704 by others; frame 0 instead is off by more
    other = np.abs(np.asarray(still).astype(int) - loaded.frames.frame(0).numpy()).mean()
    assert other > 2 * error
