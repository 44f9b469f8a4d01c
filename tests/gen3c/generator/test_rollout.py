from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import pytest
import torch
from torch import Tensor

from gen3c.conditioning import Cameras, ConditionOptions, Contribution, ViewConditioner
from gen3c.errors import CancelledError, InvalidInputError
from gen3c.fusion import Pool
from gen3c.generator.rollout import Chunk, Programs, RolloutOptions, rollout
from gen3c.generator.signatures import DIT, VIDEO_DECODER, VIDEO_ENCODER
from gen3c.generator.vae import VideoDecoder, VideoEncoder
from gen3c.generator.weights import load_dit, load_vae
from gen3c.geometry.types import Watch
from gen3c.program import LocalProgram, Program, Signature
from gen3c.scene import SourceView
from tests import walls
from tests.walls import SMALL

OPTIONS = RolloutOptions(seed=1, steps=2, guidance=0.0, fps=24.0, condition=ConditionOptions())
SCENE = walls.scene((0, 10))
# The steps that a chunk reports, and how often the network is called after each.
STAGES = ["condition"] * 3 + ["denoise"] * 3 + ["decode"] * 2
CALLS = [0] * 3 + [1, 1, 0] + [0] * 2


@cache
def networks() -> dict[str, torch.nn.Module]:
    vae, _ = load_vae(SMALL, untrained_seed=0)
    dit, _ = load_dit(SMALL, untrained_seed=0)
    return {"dit": dit, "video_encoder": VideoEncoder(vae), "video_decoder": VideoDecoder(vae)}


@dataclass
class Recorder:
    """The real networks; keeps what they were given and what they gave."""

    encoded: list[Tensor] = field(default_factory=list)
    denoised: list[dict[str, Tensor]] = field(default_factory=list)
    decoded: list[Tensor] = field(default_factory=list)
    conditioned: list[tuple[SourceView, Cameras]] = field(default_factory=list)
    steps: list[tuple[str, int, int]] = field(default_factory=list)

    def programs(self) -> Programs:
        def local(signature: Signature) -> LocalProgram:
            return LocalProgram(networks()[signature.name], signature)

        def dit(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
            self.denoised.append(dict(inputs))
            return local(DIT)(inputs)

        def encoder(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
            self.encoded.append(inputs["VIDEO"])
            return local(VIDEO_ENCODER)(inputs)

        def decoder(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
            outputs = local(VIDEO_DECODER)(inputs)
            self.decoded.append(outputs["VIDEO"][0])
            return outputs

        return Programs(dit, encoder, decoder, self._conditioner(local(VIDEO_ENCODER)))

    def _conditioner(self, encoder: Program):
        inner = ViewConditioner(encoder)

        def conditioner(
            view: SourceView, cameras: Cameras, options: ConditionOptions, pool: Pool | None, keep: Tensor | None = None
        ) -> Contribution:
            self.conditioned.append((view, cameras))
            return inner(view, cameras, options, pool, keep)

        return conditioner


def run(
    frames: int,
    options: RolloutOptions = OPTIONS,
    recorder: Recorder | None = None,
    watch: Watch | None = None,
) -> list[Chunk]:
    recorder = recorder or Recorder()
    text = torch.zeros(1, SMALL.dit.text_tokens, SMALL.dit.text_dim)
    path = walls.cameras([i + 0.5 for i in range(frames)])
    watch = watch or Watch(on_progress=lambda *step: recorder.steps.append(step))
    first = SCENE.views[0].image[None]
    return list(rollout(SCENE, path, first, text, text, recorder.programs(), SMALL, options, watch))


def video(chunks: list[Chunk]) -> Tensor:
    return torch.cat([chunk.frames for chunk in chunks])


@pytest.mark.parametrize(("frames", "lengths"), [(9, [9]), (17, [9, 8]), (25, [9, 8, 8])])
def test_chunks_make_as_many_frames_as_there_are_cameras(frames: int, lengths: list[int]) -> None:
    chunks = run(frames)
    assert [len(chunk.frames) for chunk in chunks] == lengths
    assert video(chunks).shape == (frames, SMALL.height, SMALL.width, 3)
    assert video(chunks).dtype == torch.uint8
    assert all(chunk.views.coverage.shape == (2, SMALL.chunk_frames) for chunk in chunks)


def test_a_chunk_starts_from_the_last_frame_of_the_one_before_shown_once() -> None:
    recorder = Recorder()
    chunks = run(25, recorder=recorder)
    seeds = [x[0, :, 0] for x in recorder.encoded]
    assert all((x[:, :, 1:] == 0).all() for x in recorder.encoded)  # the seed, then grey
    assert torch.equal(seeds[0], SCENE.views[0].image)
    for k in (1, 2):
        last = chunks[k - 1].frames[-1]
        assert torch.equal(last, recorder.decoded[k - 1][-1])
        assert torch.equal(seeds[k], last.permute(2, 0, 1) / 127.5 - 1)
        assert torch.equal(chunks[k].frames, recorder.decoded[k][1:])


def test_frame_i_of_three_chunks_is_the_picture_at_camera_i() -> None:
    """No jump at a seam: its frame is the last of the chunk before, once, and what follows continues from it."""
    recorder = Recorder()
    shown = video(run(25, recorder=recorder))
    step = SMALL.chunk_frames - 1
    seams = [step, 2 * step]
    for i in range(25):
        k = 0 if i == 0 else (i - 1) // step  # a seam belongs to the chunk that ends there
        assert torch.equal(shown[i], recorder.decoded[k][i - k * step])
        _, cameras = recorder.conditioned[2 * k]
        assert torch.equal(cameras.w2c[i - k * step], walls.cameras([i + 0.5]).w2c[0])
    for k, i in enumerate(seams, start=1):
        assert torch.equal(recorder.encoded[k][0, :, 0], shown[i].permute(2, 0, 1) / 127.5 - 1)
        assert (shown == shown[i]).flatten(1).all(1).nonzero().flatten().tolist() == [i]


def test_the_conditioner_sees_every_view_along_the_cameras_of_the_chunk() -> None:
    recorder = Recorder()
    run(25, recorder=recorder)
    path = walls.cameras([i + 0.5 for i in range(25)])
    assert len(recorder.conditioned) == 3 * 2
    for call, (view, cameras) in enumerate(recorder.conditioned):
        k, i = divmod(call, 2)
        assert view is SCENE.views[i]
        assert torch.equal(cameras.w2c, path.w2c[8 * k : 8 * k + 9])
        assert torch.equal(cameras.K, path.K[8 * k : 8 * k + 9])


def test_the_network_is_given_the_condition_of_its_chunk() -> None:
    recorder = Recorder()
    chunks = run(17, recorder=recorder)
    for k, chunk in enumerate(chunks):
        for call in recorder.denoised[k * OPTIONS.steps : (k + 1) * OPTIONS.steps]:
            assert torch.equal(call["CACHE"], chunk.views.cache)
            assert call["FPS"].tolist() == [[24.0]]
    assert not torch.equal(chunks[0].views.cache, chunks[1].views.cache)


def test_every_chunk_has_noise_of_its_own() -> None:
    recorder = Recorder()
    run(17, recorder=recorder)
    first, second = (recorder.denoised[k * OPTIONS.steps]["LATENT"][:, :, 1:] for k in (0, 1))
    assert first.std() == pytest.approx(1, abs=0.1)
    assert (first - second).std() == pytest.approx(2**0.5, abs=0.15)  # independent


def test_a_seed_gives_one_video() -> None:
    first = video(run(17))
    assert torch.equal(video(run(17)), first)
    torch.manual_seed(5)
    torch.rand(3)
    assert torch.equal(video(run(17)), first), "the global generator plays a part"
    assert not torch.equal(video(run(17, replace(OPTIONS, seed=2))), first)


def test_the_first_chunk_does_not_depend_on_how_many_follow() -> None:
    assert torch.equal(run(25)[0].frames, run(9)[0].frames)


@pytest.mark.parametrize(("guidance", "calls"), [(0.0, 3), (1.0, 6)])
def test_guidance_doubles_the_calls_of_the_network(guidance: float, calls: int) -> None:
    recorder = Recorder()
    run(9, replace(OPTIONS, guidance=guidance, steps=3), recorder)
    assert len(recorder.denoised) == calls
    without_cache = [call for call in recorder.denoised if (call["CACHE"] == 0).all()]
    assert len(without_cache) == calls - 3


def test_steps_count_over_the_whole_video() -> None:
    recorder = Recorder()
    run(25, recorder=recorder)
    stages = {
        stage: [(n, total) for name, n, total in recorder.steps if name == stage] for stage, _, _ in recorder.steps
    }
    assert stages["condition"] == [(n, 6) for n in (0, 1, 2, 2, 3, 4, 4, 5, 6)]
    assert stages["denoise"] == [(n, 6) for n in (0, 1, 2, 2, 3, 4, 4, 5, 6)]
    assert stages["decode"] == [(n, 3) for n in (0, 1, 1, 2, 2, 3)]
    assert [name for name, _, _ in recorder.steps] == 3 * STAGES


@pytest.mark.parametrize("after", range(2 * len(STAGES)))
def test_every_step_is_a_place_to_stop(after: int) -> None:
    recorder = Recorder()

    def is_cancelled() -> bool:
        return len(recorder.steps) == after

    with pytest.raises(CancelledError):
        run(17, recorder=recorder, watch=Watch(is_cancelled, lambda *step: recorder.steps.append(step)))
    assert len(recorder.steps) == after
    assert len(recorder.denoised) == sum((2 * CALLS)[:after])


def test_chunks_come_as_they_are_done() -> None:
    """A caller can write the first chunk before the second is begun."""
    recorder = Recorder()
    text = torch.zeros(1, SMALL.dit.text_tokens, SMALL.dit.text_dim)
    path = walls.cameras([0.5] * 17)
    first = SCENE.views[0].image[None]
    stream = rollout(SCENE, path, first, text, text, recorder.programs(), SMALL, OPTIONS, Watch())
    next(stream)
    assert len(recorder.denoised) == OPTIONS.steps
    assert len(recorder.decoded) == 1


def test_an_illegal_number_of_cameras_is_refused_before_any_work() -> None:
    recorder = Recorder()
    with pytest.raises(InvalidInputError, match="9 or 17"):
        run(12, recorder=recorder)
    assert recorder.steps == []
    assert recorder.conditioned == []
