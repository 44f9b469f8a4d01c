import dataclasses

import pytest

from gen3c.errors import InvalidInputError
from gen3c.presets import GEN3C_7B, PRESETS, TINY, get_preset


def test_latents_of_one_chunk() -> None:
    assert TINY.latent_shape == (4, 24, 40)
    assert GEN3C_7B.latent_shape == (16, 88, 160)
    assert dataclasses.replace(TINY, height=32, width=48, chunk_frames=9).latent_shape == (2, 4, 6)


@pytest.mark.parametrize(
    ("preset", "frames", "chunks"),
    [(TINY, 25, 1), (TINY, 49, 2), (TINY, 73, 3), (GEN3C_7B, 121, 1), (GEN3C_7B, 241, 2), (GEN3C_7B, 1211 - 10, 10)],
)
def test_legal_numbers_of_frames(preset, frames: int, chunks: int) -> None:
    assert preset.chunks(frames) == chunks


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_chunks_undo_the_number_of_frames_and_nothing_between_is_legal(preset) -> None:
    step = preset.chunk_frames - 1
    for frames in range(-1, 4 * step):
        if frames >= preset.chunk_frames and (frames - 1) % step == 0:
            assert preset.chunk_frames + (preset.chunks(frames) - 1) * step == frames
        else:
            with pytest.raises(InvalidInputError):
                preset.chunks(frames)


@pytest.mark.parametrize(
    ("frames", "legal"),
    [(0, "25"), (1, "25"), (24, "25"), (26, "25 or 49"), (48, "25 or 49"), (50, "49 or 73"), (-7, "25")],
)
def test_other_numbers_are_refused_with_the_nearest_legal_ones(frames: int, legal: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        TINY.chunks(frames)
    assert str(caught.value) == (
        f"num_frames is {frames}, but preset tiny makes 25 + k*24 frames; the nearest legal count is {legal}."
    )
    assert caught.value.field == "spec.num_frames"


def test_presets_have_sizes_that_the_networks_can_take() -> None:
    for name, preset in PRESETS.items():
        t, h, w = preset.latent_shape
        assert preset.name == name
        assert (preset.height, preset.width, preset.chunk_frames) == (8 * h, 8 * w, 8 * t - 7)
        assert h % 2 == w % 2 == 0, "the transformer takes patches of 2x2 latent cells"
        assert all(size <= limit for size, limit in zip((t, h, w), preset.dit.max_size, strict=True))
        assert preset.height / preset.width <= 1


def test_presets_by_name() -> None:
    assert get_preset("tiny") is TINY
    with pytest.raises(InvalidInputError, match="'huge'; legal: tiny, gen3c-7b") as caught:
        get_preset("huge")
    assert caught.value.field == "preset"
