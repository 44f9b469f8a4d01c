"""A whole job in this process: the real networks on a small raster, without Triton."""

import io
import json
import math
import tempfile
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gen3c_client.contract import Artifact, CameraFile, Done, Event, GeometryOptions, Limits, Notice, Progress
from PIL import Image

from gen3c.conditioning import Cameras, ViewConditioner
from gen3c.errors import CancelledError, InvalidInputError
from gen3c.generator.rollout import Programs
from gen3c.generator.signatures import DIT, VIDEO_DECODER, VIDEO_ENCODER
from gen3c.generator.text import EmptyText
from gen3c.generator.vae import VideoDecoder, VideoEncoder
from gen3c.generator.weights import load_dit, load_vae
from gen3c.geometry.files import read_geometry
from gen3c.geometry.types import Frames, Geometry, Watch
from gen3c.growth import NoDepthError
from gen3c.media import decode_video
from gen3c.ply import read_ply
from gen3c.program import LocalProgram
from gen3c_server.inputs import read_inputs
from gen3c_server.pipeline import Services, run_job
from tests import walls
from tests.walls import SMALL

UNTRAINED = "untrained weights (seed 0)"
FILES = {
    "video": "video.mp4",
    "warps": "warps.mp4",
    "points": "points.ply",
    "cameras": "cameras.json",
    "geometry": "geometry.npz",
}


@cache
def programs() -> Programs:
    vae, _ = load_vae(SMALL, untrained_seed=0)
    dit, _ = load_dit(SMALL, untrained_seed=0)
    encoder = LocalProgram(VideoEncoder(vae), VIDEO_ENCODER)
    decoder = LocalProgram(VideoDecoder(vae), VIDEO_DECODER)
    return Programs(LocalProgram(dit, DIT), encoder, decoder, ViewConditioner(encoder))


def geometry_of_file(frames: Frames, options: GeometryOptions, file: bytes | None, watch: Watch) -> Geometry:
    assert options.provider == "file"
    watch.step("geometry", 0, 1)
    result = replace(read_geometry(file or b"", frames), warnings=("the wall is flat.",))
    watch.step("geometry", 1, 1)
    return result


def services(**changes: Any) -> Services:
    plain = Services(SMALL, Limits(), geometry_of_file, programs(), EmptyText(SMALL.dit), {"vae": "vae", "dit": "dit"})
    return replace(plain, **changes)


def png(shift: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(walls.photo(shift).numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def npz(shifts: tuple[int, ...]) -> bytes:
    """The wall at depth 2 in the file's unit."""
    n = len(shifts)
    w2c = torch.stack([walls.pose(shift) for shift in shifts])
    w2c[:, :3, 3] *= 2
    buffer = io.BytesIO()
    depth = np.full((n, SMALL.height, SMALL.width), 2.0)
    np.savez(buffer, depth=depth, w2c=w2c.numpy(), K=walls.intrinsics().repeat(n, 1, 1).numpy())
    return buffer.getvalue()


@dataclass
class Outcome:
    events: list[Event] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)

    def emit(self, event: Event, blob: bytes | None) -> None:
        self.events.append(event)
        assert (blob is not None) == isinstance(event, Artifact)
        if isinstance(event, Artifact):
            self.files[event.name] = self.files.get(event.name, b"") + (blob or b"")

    @property
    def notices(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Notice)]

    @property
    def progress(self) -> list[Progress]:
        return [event for event in self.events if isinstance(event, Progress)]

    @property
    def done(self) -> Done:
        done = self.events[-1]
        assert isinstance(done, Done)
        return done


def run(
    spec: dict[str, Any] | None = None,
    shifts: tuple[int, ...] = (0, 10),
    cancel_after: float = math.inf,
    outcome: Outcome | None = None,
    w2c: torch.Tensor | None = None,
    **changes: Any,
) -> Outcome:
    """One job of two steps; cancelled once `cancel_after` events have come."""
    outcome = outcome or Outcome()
    text = spec_json({"geometry": {"provider": "file"}, "steps": 2, **(spec or {})})
    wire: dict[str, Any] = {
        "MEDIA": [png(shift) for shift in shifts],
        "SPEC": [text],
        "GEOMETRY": [npz(shifts)],
        **({} if w2c is None else {"CAMERAS_W2C": w2c}),
    }
    inputs = read_inputs(wire, SMALL, Limits())
    run_job(inputs, services(**changes), outcome.emit, lambda: len(outcome.events) >= cancel_after)
    return outcome


def spec_json(spec: dict[str, Any]) -> bytes:
    return json.dumps(spec).encode()


def test_stages_come_in_order_and_their_steps_never_go_back() -> None:
    outcome = run({"num_frames": 17, "save": list(FILES)})
    stages = [stage for stage, _ in groupby(event.stage for event in outcome.progress)]
    assert stages == ["media", "geometry", *["condition", "denoise", "decode"] * 2, "encode"]
    for stage in set(stages):
        steps = [event for event in outcome.progress if event.stage == stage]
        assert len({event.total for event in steps}) == 1
        assert [event.step for event in steps] == sorted(event.step for event in steps)
        assert steps[0].step == 0
        assert steps[-1].step == steps[-1].total
        assert steps[-1].eta_s == 0
        assert all(event.eta_s is None or event.eta_s >= 0 for event in steps)
    assert isinstance(outcome.events[-1], Done)


@pytest.mark.parametrize("save", [["video"], ["cameras"], ["points", "geometry"], ["warps", "video"], list(FILES)])
def test_only_the_artifacts_that_were_asked_for(save: list[str]) -> None:
    outcome = run({"save": save})
    assert set(outcome.files) == {FILES[name] for name in save}
    events = [event for event in outcome.events if isinstance(event, Artifact)]
    assert all(event.size == len(outcome.files[event.name]) for event in events)
    for name in {"video", "warps"} & set(save):
        assert len(list(decode_video(outcome.files[FILES[name]]))) == SMALL.chunk_frames


def test_large_artifacts_come_in_parts() -> None:
    outcome = run({"save": ["points"]}, limits=Limits(artifact_part_bytes=10_000))
    parts = [event for event in outcome.events if isinstance(event, Artifact)]
    assert [event.part for event in parts] == list(range(1, len(parts) + 1))
    assert len(parts) == -(-parts[0].size // 10_000) > 1
    assert len(outcome.files["points.ply"]) == parts[0].size


def test_two_chunks_make_17_frames_of_video_and_warps() -> None:
    files = run({"num_frames": 17, "save": ["video", "warps"]}).files
    assert len(list(decode_video(files["video.mp4"]))) == 17
    assert len(list(decode_video(files["warps.mp4"]))) == 17


def test_a_grown_cache_adds_no_view_to_the_answer() -> None:
    """From one photo, chunk 2 knows chunk 1's last frame as well; chunk 3 says that it knows nothing more."""
    estimates = 0

    def depth(
        _frames: torch.Tensor, _cameras: Cameras, shown: torch.Tensor, _watch: Watch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal estimates
        estimates += 1
        if estimates == 2:
            raise NoDepthError("it is dark")
        return shown, (shown > 0).float()

    outcome = run({"num_frames": 25, "save": ["warps"]}, shifts=(0,), programs=replace(programs(), depth=depth))
    assert estimates == 2
    assert "chunk 3 is made from what was known to chunk 2: chunk 2 adds nothing, as it is dark." in outcome.notices
    assert len(outcome.done.provenance["view_coverage"]) == 1  # type: ignore[arg-type]
    assert len(list(decode_video(outcome.files["warps.mp4"]))) == 25


def test_done_tells_how_the_video_was_made() -> None:
    done = run({"seed": 7, "fusion": "ranked_concat", "names": ["a", "b"]}).done
    assert done.seed == 7
    assert set(done.timings_s) == {"media", "geometry", "condition", "denoise", "decode", "encode"}
    assert all(seconds >= 0 for seconds in done.timings_s.values())
    made = done.provenance
    assert made["preset"] == "tiny"
    assert made["weights"] == {"vae": "vae", "dit": "dit"}
    assert made["scene_unit"] == 2.0
    assert (made["views"], made["num_frames"]) == (2, 9)
    assert made["geometry"] == {"provider": "file"}
    assert isinstance(made["versions"], dict)
    assert set(made["versions"]) == {"gen3c-triton", "torch", "diffusers"}
    assert made["effective"] == {"steps": 2, "guidance": 0.0}
    spec = made["spec"]
    assert isinstance(spec, dict)
    assert spec["fusion"] == "ranked_concat"
    assert "names" not in spec, "names of files are the user's business"


def poses(shift: float) -> torch.Tensor:
    return walls.pose(shift).repeat(SMALL.chunk_frames, 1, 1)


def test_the_coverage_of_every_view_is_told() -> None:
    outcome = run(w2c=poses(4.5))
    assert outcome.done.provenance["view_coverage"] == [round(44 / 48, 4), round(43 / 48, 4)]


@pytest.mark.parametrize(
    ("scale", "unit", "end"), [("center_depth", 2.0, 2 * 0.3 * 8 / 9), ("reference", 1.0, 0.3 * 8 / 9)]
)
def test_the_length_of_a_path_in_the_file_s_unit_follows_the_scale(scale: str, unit: float, end: float) -> None:
    """The wall is at depth 2. The camera of frame 8 of 9 stands at 8/9 of the path."""
    path = {"kind": "left", "rotation": "no_rotation", "distance": 0.3}
    outcome = run({"geometry": {"provider": "file", "scale": scale}, "path": path, "save": ["cameras", "points"]})
    assert outcome.done.provenance["scene_unit"] == unit
    file = CameraFile.model_validate_json(outcome.files["cameras.json"])
    assert file.poses is not None
    assert file.poses[-1].w2c[0][3] * unit == pytest.approx(end)
    points, _ = read_ply(outcome.files["points.ply"])
    assert float(points[:, 2].mean()) * unit == pytest.approx(2.0)


def test_a_path_from_view_0_with_trained_weights_needs_no_notice() -> None:
    assert run().notices == ["the wall is flat."]  # what geometry had to say


def test_untrained_weights_are_told_in_the_stream_and_in_the_file() -> None:
    outcome = run(weights={"vae": "vae.safetensors", "dit": UNTRAINED})
    assert [notice for notice in outcome.notices if "untrained weights: dit." in notice]
    assert b"untrained weights: dit" in outcome.files["video.mp4"]
    assert b"untrained" not in run().files["video.mp4"]


@pytest.mark.parametrize(("shift", "told"), [(36.5, True), (30.5, False)])
def test_poor_coverage_is_told_with_the_figure(shift: float, told: bool) -> None:
    """One view: 12 or 18 of 48 columns; the line is at 30 %."""
    notices = run(shifts=(0,), w2c=poses(shift)).notices
    assert ("the path sees little of the scene: no view covers more than 25% of it." in notices) == told
    assert any("starts at no source view" in notice for notice in notices)


def test_a_cancelled_job_stops_at_every_step_and_leaves_no_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error is held here, as a log would hold it, so nothing is cleaned up by chance."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    events = len(run({"save": ["video", "warps"]}).events)
    caught = []
    for after in range(events - 1):  # all but `done`, which takes no step
        outcome = Outcome()
        with pytest.raises(CancelledError) as error:
            run({"save": ["video", "warps"]}, cancel_after=after, outcome=outcome)
        caught.append(error)
        assert len(outcome.events) <= after + 1, "a notice may come, a step may not"
        assert not any(isinstance(event, Done) for event in outcome.events)
        assert list(tmp_path.iterdir()) == []


def test_a_job_without_video_leaves_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert set(run({"save": ["cameras"]}).files) == {"cameras.json"}
    assert list(tmp_path.iterdir()) == []


def test_a_prompt_without_a_text_encoder_is_refused_before_any_work() -> None:
    outcome = Outcome()
    with pytest.raises(InvalidInputError, match="no text encoder"):
        run({"prompt": "a red house"}, outcome=outcome)
    assert outcome.events == []


def test_the_same_job_gives_the_same_files() -> None:
    save = {"save": list(FILES)}
    first, again, other = run(save), run(save), run({**save, "seed": 2})
    assert first.files == again.files
    assert other.files["video.mp4"] != first.files["video.mp4"]
    assert other.files["points.ply"] == first.files["points.ply"]
