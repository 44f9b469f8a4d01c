import hashlib
import io
import subprocess
import sys

import av
import pytest
import torch
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.media import Mosaic, VideoWriter, decode_video, encode_video

COLORS = [(200, 50, 20), (20, 180, 60), (30, 40, 220), (128, 128, 128), (250, 240, 10)]


def solid(color: tuple[int, int, int], height: int = 64, width: int = 96) -> Tensor:
    return torch.tensor(color, dtype=torch.uint8).expand(height, width, 3).contiguous()


def noise(frames: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (64, 96, 3), dtype=torch.uint8, generator=generator) for _ in range(frames)]


def test_colours_and_order_survive() -> None:
    back = list(decode_video(encode_video([solid(c) for c in COLORS], 24)))
    assert len(back) == len(COLORS)
    for frame, color in zip(back, COLORS, strict=True):
        # limited-range 8-bit YUV resolves about 1.5 levels; the wrong matrix would be off by 10 and more
        assert frame.float().mean((0, 1)).tolist() == pytest.approx(color, abs=3)


def test_the_file_plays_everywhere() -> None:
    data = encode_video([solid(c) for c in COLORS], 29.97, comment="untrained weights")
    assert data.find(b"moov") < data.find(b"mdat")
    with av.open(io.BytesIO(data)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert container.metadata["comment"] == "untrained weights"
        assert float(container.streams.video[0].average_rate) == pytest.approx(29.97, abs=1e-3)


def test_the_same_frames_give_the_same_bytes_in_another_process() -> None:
    code = (
        "import hashlib, sys; sys.path.insert(0, sys.argv[1]); import test_media_out as t;"
        "print(hashlib.sha256(t.encode_video(t.noise(30), 24)).hexdigest())"
    )
    folder = __file__.rsplit("/", 1)[0]
    other = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True).stdout
    assert hashlib.sha256(encode_video(noise(30), 24)).hexdigest() == other.strip()


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="95x64"):
        VideoWriter(64, 95, 24)
    with pytest.raises(InvalidInputError, match="fps is 0"):
        VideoWriter(64, 96, 0)
    with pytest.raises(InvalidInputError, match="at least one frame"):
        encode_video([], 24)
    with VideoWriter(64, 96, 24) as writer, pytest.raises(InvalidInputError, match=r"\[64, 98, 3\]"):
        writer.add(solid(COLORS[0], 64, 98))


def test_a_mosaic_shows_every_view_in_its_place() -> None:
    videos = [encode_video([solid(c)] * 3, 24) for c in COLORS]
    frames = list(Mosaic([decode_video(v) for v in videos]).frames())
    assert len(frames) == 3
    assert frames[0].shape == (2 * 64, 3 * 96, 3)
    for i, color in enumerate(COLORS):
        row, column = divmod(i, 3)
        tile = frames[2][row * 64 + 8 : row * 64 + 56, column * 96 + 8 : column * 96 + 88]
        assert tile.float().mean((0, 1)).tolist() == pytest.approx(color, abs=4)
    assert int(frames[0][64:, 192:].max()) == 0


def test_a_mosaic_labels_and_shrinks() -> None:
    videos = [encode_video([solid((0, 0, 0))] * 2, 24) for _ in range(2)]
    frame = next(iter(Mosaic([decode_video(v) for v in videos], labels=["0", "1"], max_width=128).frames()))
    assert frame.shape == (42, 128, 3)
    assert int(frame[21:, :32].max()) > 200
    encoded = Mosaic([decode_video(v) for v in videos], labels=["0", "1"]).encode(24)
    assert len(list(decode_video(encoded))) == 2


def test_a_mosaic_of_unequal_videos_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="1 of 2 ended early"):
        list(Mosaic([[solid(COLORS[0])] * n for n in (2, 3)]).frames())
    with pytest.raises(InvalidInputError, match="at least one video"):
        Mosaic([])


def test_the_same_frames_give_the_same_bytes_whatever_memory_holds() -> None:
    """Noisy pictures, as untrained networks make them, found x264's lookahead to depend on what memory held before."""
    g = torch.Generator().manual_seed(0)
    frames = [(torch.rand(192, 320, 3, generator=g) * 255).byte() for _ in range(25)]
    encodings = set()
    for i in range(8):
        clutter = [bytes(((i + 1) * 7919 * k) % 2_000_000) for k in range(20)]
        encodings.add(encode_video(frames, 24))
        del clutter
    assert len(encodings) == 1
