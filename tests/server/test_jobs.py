"""Good jobs through the real server."""

import io
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from gen3c_client.contract import CameraFile, JobSpec, Limits
from gen3c_client.transport import Client
from torch import Tensor

from gen3c.conditioning import ViewConditioner
from gen3c.exported.manifest import Manifest
from gen3c.exported.program import open_artifact
from gen3c.fusion import FUSION_MODES
from gen3c.generator.rollout import Programs
from gen3c.generator.signatures import DIT, VIDEO_DECODER, VIDEO_ENCODER
from gen3c.generator.text import EmptyText
from gen3c.geometry.files import read_geometry
from gen3c.media import decode_video
from gen3c.networks import WeightSource, network
from gen3c.ply import read_ply
from gen3c.presets import TINY
from gen3c.program import LocalProgram, Program
from gen3c_server.inputs import read_inputs
from gen3c_server.pipeline import Services, run_job
from tests.server.conftest import HEIGHT, WIDTH, SmallJob, clip, collect, picture, png, run

ALL = ["video", "warps", "points", "cameras", "geometry"]


def test_a_job_gives_every_artifact_and_tells_its_progress(client: Client) -> None:
    job = SmallJob(views=3)
    result = run(client, job, save=ALL)
    video = list(decode_video(result.files["video.mp4"]))
    assert len(video) == TINY.chunk_frames
    assert video[0].shape == (HEIGHT, WIDTH, 3)
    assert len(list(decode_video(result.files["warps.mp4"]))) == TINY.chunk_frames
    points, colors = read_ply(result.files["points.ply"])
    assert len(points) == len(colors) > 0.9 * 3 * HEIGHT * WIDTH
    assert abs(float(points[:, 2].mean()) - 1) < 1e-4  # the wall is at the centre depth
    stages = list(dict.fromkeys(p.stage for p in result.progress))
    assert stages == ["queued", "media", "geometry", "condition", "denoise", "decode", "encode"]
    assert [p.step for p in result.progress if p.stage == "denoise"] == [0, 1, 2]
    assert not any("untrained" in notice for notice in result.notices)
    assert result.done.provenance["weights"]
    assert sum(result.done.timings_s.values()) > 0


def test_warps_show_where_each_view_is_seen(client: Client) -> None:
    """View 0 at its own pose is its photo; the path to the left empties its left edge."""
    path = {"kind": "left", "distance": 0.3, "rotation": "no_rotation"}  # 72 px in the last frame
    result = run(client, SmallJob(views=1), save=["warps"], path=path)
    frames = list(decode_video(result.files["warps.mp4"]))
    photo = torch.from_numpy(np.array(picture(0)))
    label = slice(0, HEIGHT - 40)  # the tile's label is below
    luma = torch.tensor([0.2126, 0.7152, 0.0722])  # colour is at half resolution in the video
    error = ((frames[0][label].float() - photo[label].float()) @ luma).abs().mean()
    assert error < 3  # grey levels, after two generations of H.264 at crf 16 and 20
    assert frames[-1][label, :60].float().mean() < 10
    assert frames[-1][label, 90:].float().mean() > 60


def test_cameras_json_is_a_camera_file_for_the_next_job(client: Client) -> None:
    job = SmallJob()
    first = run(client, job, save=["cameras", "video"], path={"kind": "clockwise", "distance": 0.2})
    file = CameraFile.model_validate_json(first.files["cameras.json"])
    again = run(client, job, save=["video"], path=None, cameras=json.loads(file.model_dump_json()))
    assert again.files["video.mp4"] == first.files["video.mp4"]


def test_geometry_npz_is_a_geometry_file_for_the_next_job(client: Client) -> None:
    job = SmallJob()
    first = run(client, job, save=["geometry", "points"])
    spec = job.job_spec(save=["points"])
    again = collect(client.generate(job.media, spec, geometry=first.files["geometry.npz"]))
    assert again.files["points.ply"] == first.files["points.ply"]
    assert set(np.load(io.BytesIO(first.files["geometry.npz"])).files) == {"depth", "confidence", "w2c", "K", "sizes"}


def test_two_chunks_make_one_video(client: Client) -> None:
    result = run(client, SmallJob(), num_frames=49, save=["video", "warps", "cameras"])
    assert len(list(decode_video(result.files["video.mp4"]))) == 49
    assert len(list(decode_video(result.files["warps.mp4"]))) == 49
    assert len(json.loads(result.files["cameras.json"])["poses"]) == 49
    denoise = [p.step for p in result.progress if p.stage == "denoise"]
    assert denoise == sorted(denoise)
    assert denoise[-1] == 4


@pytest.mark.parametrize("fusion", FUSION_MODES)
def test_every_fusion_mode_runs_and_masking_too(client: Client, fusion: str) -> None:
    job = SmallJob(views=3)
    assert run(client, job, fusion=fusion, foreground_masking=True).files["video.mp4"]


def test_a_path_that_starts_elsewhere_is_told(client: Client) -> None:
    w2c = np.tile(np.eye(4, dtype=np.float32), (25, 1, 1))
    w2c[:, 1, 3] = 0.2
    job = SmallJob()
    result = collect(client.generate(job.media, job.job_spec(), geometry=job.geometry, cameras_w2c=w2c))
    assert any("starts at no source view" in notice for notice in result.notices)


def test_a_path_that_sees_nothing_is_told(client: Client) -> None:
    w2c = np.tile(np.diag([-1.0, 1, -1, 1]).astype(np.float32), (25, 1, 1))  # looking back
    job = SmallJob()
    result = collect(client.generate(job.media, job.job_spec(), geometry=job.geometry, cameras_w2c=w2c))
    assert any("sees little" in notice for notice in result.notices)


def test_the_same_request_gives_the_same_video_whatever_ran_before(client: Client) -> None:
    job = SmallJob()
    first = run(client, job, seed=7)
    other = run(client, SmallJob(views=3), seed=8, steps=3, guidance=1.0)
    again = run(client, job, seed=7)
    assert again.files["video.mp4"] == first.files["video.mp4"]
    assert other.files["video.mp4"] != first.files["video.mp4"]
    assert run(client, job, seed=9).files["video.mp4"] != first.files["video.mp4"]


class Watched:
    """A program whose answers are kept."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.answers: list[Tensor] = []

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = self._program(inputs)
        self.answers += outputs.values()
        return outputs


def without_a_server(
    job: SmallJob, spec: JobSpec, program: Callable[[str], Program]
) -> tuple[list[Tensor], list[Tensor]]:
    """The frames of the job's only artifact, run in this process: as the decoder gives them, and after H.264."""
    encoder, decoder = program(VIDEO_ENCODER.name), Watched(program(VIDEO_DECODER.name))
    services = Services(
        preset=TINY,
        limits=Limits(),
        geometry=lambda frames, options, file, watch: read_geometry(file or b"", frames),
        programs=Programs(program(DIT.name), encoder, decoder, ViewConditioner(encoder)),
        text=EmptyText(TINY.dit),
        weights={"dit": "transformer", "vae": "vae"},
    )
    wire = {"MEDIA": job.media, "SPEC": [spec.model_dump_json().encode()], "GEOMETRY": [job.geometry]}
    blobs: list[bytes] = []
    run_job(read_inputs(wire, TINY, Limits()), services, lambda _, blob: blobs.append(blob or b""), lambda: False)
    (video,) = [blob for blob in blobs if len(blob) > 1000]
    (decoded,) = decoder.answers
    return list(decoded[0]), list(decode_video(video))


def farthest(ours: list[Tensor], theirs: list[Tensor]) -> int:
    """In grey levels, of the pixel that differs most."""
    return max(int((a.int() - b.int()).abs().max()) for a, b in zip(ours, theirs, strict=True))


def test_the_server_computes_what_the_library_does(client: Client, built: Path) -> None:
    """Without Triton, the built networks give the same file, and those in PyTorch the same frames but for roundings."""
    job, cpu = SmallJob(), torch.device("cpu")
    manifest, threads = Manifest.read(built), len(os.sched_getaffinity(0))
    spec = job.job_spec(guidance=0.5, fusion="ranked_concat")

    def exported(name: str) -> Program:
        place = built / "model_repository" / name / "1"
        return open_artifact(manifest.artifacts[name], network(name).signature, place, cpu, threads)

    def eager(name: str) -> Program:
        return LocalProgram(network(name).load(WeightSource(TINY), cpu, torch.float32), network(name).signature)

    frames, video = without_a_server(job, spec, exported)
    served = list(decode_video(run(client, job, guidance=0.5, fusion="ranked_concat").files["video.mp4"]))
    assert farthest(served, video) == 0
    assert farthest(without_a_server(job, spec, eager)[0], frames) <= 1
    assert torch.stack(frames).float().std() > 10, "grey frames would all be alike"


def test_images_and_videos_mix(client: Client) -> None:
    job = SmallJob(views=3)
    media = [png(picture(0)), clip(9)]
    spec = job.job_spec(select={"method": "first-max", "step_size": 4, "max_frames": 2})
    result = collect(client.generate(media, spec, geometry=job.geometry))
    assert result.done.provenance["views"] == 3
    assert math.isclose(float(str(result.done.provenance["scene_unit"])), 2.0, rel_tol=1e-4)
