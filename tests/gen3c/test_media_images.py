import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.WebPImagePlugin import WebPImageFile

from gen3c.errors import CancelledError, InvalidInputError
from gen3c.geometry.types import Frames, Watch
from gen3c.media import MediaItem, MediaLimits, Selection, load_frames
from gen3c.media.types import SelectMethod

RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def save(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def load(data: bytes, *, select: Selection | None = None, max_side: int = 640, name: str = "photo") -> Frames:
    return load_frames([MediaItem(data, name)], select, max_side=max_side).frames


def halves(width: int = 64, height: int = 32) -> Image.Image:
    """Left half red, right half green."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(GREEN, (width // 2, 0, width, height))
    return image


def mean(frames: Frames, rows: slice, columns: slice, i: int = 0) -> list[float]:
    return frames.frame(i)[rows, columns].float().mean((0, 1)).tolist()


def header_only_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_format_gives_its_colours(kind: str) -> None:
    frames = load(save(halves(), kind), name="wrong.txt")
    assert frames.sizes.tolist() == [[32, 64]]
    assert frames.names == ("wrong.txt",)
    # lossy formats blur at the border between the halves, so look away from it
    assert mean(frames, slice(None), slice(0, 24)) == pytest.approx(RED, abs=3)
    assert mean(frames, slice(None), slice(40, 64)) == pytest.approx(GREEN, abs=3)


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees to show: left becomes top
    frames = load(save(halves(), "JPEG", exif=exif, quality=95))
    assert frames.sizes.tolist() == [[64, 32]]
    assert mean(frames, slice(0, 24), slice(None)) == pytest.approx(RED, abs=3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_shows_white(mode: str) -> None:
    image = Image.new("RGBA", (32, 32), (255, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 16, 32))
    frames = load(save(image.convert(mode), "PNG"))
    assert frames.frame(0)[0, 0].tolist() == [0, 0, 0]
    assert frames.frame(0)[0, 31].tolist() == list(WHITE)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    grey = np.full((20, 20), 32896, np.uint16)  # 128 * 257
    assert load(save(Image.fromarray(grey), kind)).frame(0)[3, 3].tolist() == [128] * 3


def test_cmyk_becomes_rgb() -> None:
    frames = load(save(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG", quality=95))
    assert mean(frames, slice(None), slice(None)) == pytest.approx(RED, abs=4)


def test_large_pictures_shrink_antialiased_and_small_ones_stay() -> None:
    stripes = np.zeros((400, 800, 3), np.uint8)
    stripes[:, ::2] = 255
    items = [MediaItem(save(Image.fromarray(stripes), "PNG"), "a"), MediaItem(save(halves(), "PNG"), "b")]
    frames = load_frames(items, max_side=200).frames
    assert frames.sizes.tolist() == [[100, 200], [32, 64]]
    assert frames.pixels.shape == (2, 100, 200, 3)
    # without a filter every fourth column would be all white or all black; away from the rim the mean is 127.5
    assert int((frames.frame(0)[:, 4:-4].int() - 127).abs().max()) <= 2
    assert int(frames.pixels[1, 32:].max()) == 0
    assert int(frames.pixels[1, :, 64:].max()) == 0


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_count_as_videos(kind: str) -> None:
    shades = [Image.new("RGB", (32, 32), (20 * i, 0, 0)) for i in range(8)]
    data = save(
        shades[0], kind, save_all=True, append_images=shades[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    frames = load(data, select=Selection("interval", frame_interval=3))
    assert frames.names == ("photo#0", "photo#3", "photo#6")
    assert frames.pixels[:, 0, 0, 0].tolist() == pytest.approx([0, 60, 120], abs=2)


def test_a_short_animation_warns() -> None:
    shades = [Image.new("RGB", (32, 32), (20 * i, 0, 0)) for i in range(4)]
    data = save(shades[0], "GIF", save_all=True, append_images=shades[1:])
    loaded = load_frames([MediaItem(data, "a.gif")], Selection("first-max", step_size=2), max_side=64)
    assert loaded.frames.names == ("a.gif#0", "a.gif#2")
    assert loaded.warnings == ("a.gif ends before frame 4: 2 of the 10 selected frames were taken.",)


def animation(kind: str, frames: int) -> bytes:
    """Frame i is red of level 4*i."""
    shades = [Image.new("RGB", (16, 16), (4 * i, 0, 0)) for i in range(frames)]
    # the lossy WebP encoder merges frames that are much alike
    return save(shades[0], kind, save_all=True, append_images=shades[1:], lossless=True)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
@pytest.mark.parametrize("method", ["middle", "last"])
def test_a_job_can_be_cancelled_on_the_way_to_a_late_frame(kind: str, method: SelectMethod) -> None:
    """Frames build on each other: to show the last one means to decode them all, with a question before each."""
    polls = 0

    def ask(stop_at: int | None = None) -> bool:
        nonlocal polls
        polls += 1
        return polls == stop_at

    item = MediaItem(animation(kind, 40), "a")
    loaded = load_frames([item], Selection(method), max_side=16, watch=Watch(is_cancelled=ask))
    index = {"middle": 20, "last": 39}[method]
    assert loaded.frames.names == (f"a#{index}",)
    assert loaded.frames.frame(0)[0, 0, 0].item() == pytest.approx(4 * index, abs=6)  # lossy
    assert polls > index
    late, polls = polls - 10, 0
    with pytest.raises(CancelledError):
        load_frames([item], Selection(method), max_side=16, watch=Watch(is_cancelled=lambda: ask(late)))
    assert polls == late


@pytest.mark.parametrize(("kind", "plugin"), [("WEBP", WebPImageFile), ("AVIF", AvifImageFile)])
def test_frames_on_the_way_are_decoded_one_between_two_questions(
    kind: str, plugin: type[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """These plugins decode nothing when they seek: all that was passed would be decoded in one call at the end."""
    decode = plugin.load
    reached: set[int] = set()

    def spy(image: Image.Image) -> object:
        reached.add(image.tell())
        return decode(image)

    monkeypatch.setattr(plugin, "load", spy)
    load(animation(kind, 12), select=Selection("last"))
    assert reached == set(range(12))


def test_counting_the_frames_of_a_gif_can_be_cancelled() -> None:
    """Only a walk through the whole file tells how many there are: some minutes for half a gigabyte."""
    data = animation("GIF", 2)
    second = data.rindex(b"\x21\xf9")  # its graphic control extension
    many = data[:second] + data[second:-1] * 20_000 + data[-1:]
    asked = 0

    def ask() -> bool:
        nonlocal asked
        asked += 1
        return asked > 1000

    with pytest.raises(CancelledError):
        load_frames([MediaItem(many, "a.gif")], Selection("first"), max_side=16, watch=Watch(is_cancelled=ask))
    assert asked == 1001


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
@pytest.mark.parametrize("method", ["all", "interval", "first-max"])
def test_any_number_of_frames_may_be_asked_of_an_animation(kind: str, method: SelectMethod) -> None:
    select = Selection(method, max_frames=10**12, frame_interval=1)
    frames = load(animation(kind, 5), select=select)
    assert frames.names == tuple(f"photo#{i}" for i in range(5))
    with pytest.raises(InvalidInputError, match="more than 4 views"):
        load_frames([MediaItem(animation(kind, 5), "a")], select, max_side=16, limits=MediaLimits(views=4))


def _truncated_jpeg() -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    data = save(Image.fromarray(noise), "JPEG")
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: b"", "photo is empty"),
        (lambda: b"#EXTM3U\n/etc/passwd\n" * 9, "looks like text"),
        (lambda: bytes(range(256)) * 4, "no known format"),
        (lambda: save(Image.new("RGB", (1, 1)), "PNG"), "1x1 pixels; each side must be at least 16"),
        (lambda: save(Image.new("RGB", (4000, 40)), "PNG"), "scaled to 640x6"),
        (lambda: header_only_png(30000, 30000), "900000000 pixels; the limit is 100000000"),
        (lambda: header_only_png(40, 40), "cannot be decoded completely"),
        (_truncated_jpeg, "cannot be decoded completely"),
        (lambda: save(halves(), "AVIF").replace(b"iloc", b"xloc"), "photo is not a picture"),
        (lambda: save(halves(), "JPEG")[:30], "starts like a picture but is broken"),
        (lambda: save(Image.fromarray(np.ones((20, 20), np.float32)), "TIFF"), "floating-point"),
        (lambda: b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "HEIC"),
    ],
)
def test_bad_pictures_are_named(make: Callable[[], bytes], message: str) -> None:
    with pytest.raises(InvalidInputError, match="photo") as caught:
        load(make())
    assert message in str(caught.value)
    assert caught.value.field == "MEDIA[0]"


def test_pillows_own_limit_does_not_interfere() -> None:
    with pytest.raises(InvalidInputError, match="decoded completely"):  # past the size check, into the missing pixels
        load_frames([MediaItem(header_only_png(20000, 20000), "x")], max_side=64, limits=MediaLimits(pixels=10**9))


def test_no_media_and_too_many_views_say_the_limit() -> None:
    with pytest.raises(InvalidInputError, match="no media"):
        load_frames([], max_side=64)
    item = MediaItem(save(halves(), "PNG"), "a")
    assert len(load_frames([item] * 3, max_side=64, limits=MediaLimits(views=3)).frames) == 3
    with pytest.raises(InvalidInputError, match="more than 2 views") as caught:
        load_frames([item] * 3, max_side=64, limits=MediaLimits(views=2))
    assert caught.value.field == "MEDIA"


def test_the_field_tells_which_item() -> None:
    good = MediaItem(save(halves(), "PNG"), "good.png")
    with pytest.raises(InvalidInputError, match=r"bad\.png") as caught:
        load_frames([good, MediaItem(b"\x89PNG\r\n\x1a\n", "bad.png")], max_side=64)
    assert caught.value.field == "MEDIA[1]"


def test_pixels_come_from_the_first_page_of_a_tiff() -> None:
    data = save(halves(), "TIFF", save_all=True, append_images=[Image.new("RGB", (64, 32))])
    assert load(data, select=Selection("last")).names == ("photo",)
    assert torch.equal(load(data).frame(0), torch.from_numpy(np.array(halves())))
