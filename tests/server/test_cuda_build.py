"""A repository of target `cuda` on a GPU: it serves what eager PyTorch computes there. Skipped without one.

Compiling takes minutes; GEN3C_TEST_BUILDS names a folder where `gen3c-export build --target cuda` has been before.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from gen3c_client.contract import Limits
from gen3c_client.transport import Client
from torch import Tensor

from gen3c.conditioning import ViewConditioner
from gen3c.exported.manifest import REPOSITORY, VERSION_FOLDER, Manifest
from gen3c.exported.program import open_artifact
from gen3c.generator.rollout import Programs
from gen3c.generator.signatures import DIT, VIDEO_DECODER, VIDEO_ENCODER
from gen3c.generator.text import EmptyText
from gen3c.geometry.files import read_geometry
from gen3c.media import decode_video
from gen3c.networks import WeightSource, network
from gen3c.presets import TINY
from gen3c.program import LocalProgram, Program
from gen3c_export.build import BuildOptions, build
from gen3c_export.verify import verify
from gen3c_server.canary import check
from gen3c_server.inputs import read_inputs
from gen3c_server.launch import Wishes, plan
from gen3c_server.launcher import EmbeddedServer, ServeOptions
from gen3c_server.pipeline import Services, run_job
from tests.server.conftest import SmallJob, run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

SOURCE = WeightSource(TINY)
DEVICE = torch.device("cuda")
LEAST_PSNR = 40.0  # dB: two right answers in bfloat16 differ by their roundings, and so do their videos


@pytest.fixture(scope="module")
def cuda_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = os.environ.get("GEN3C_TEST_BUILDS")
    return build(BuildOptions(SOURCE, "cuda", Path(out) if out else tmp_path_factory.mktemp("builds")))


def test_every_package_agrees_with_pytorch(cuda_build: Path) -> None:
    verdicts = list(verify(cuda_build, SOURCE, seed=11))
    for verdict in verdicts:
        print(verdict)
    assert {verdict.program for verdict in verdicts} == {"dit", "video_encoder", "video_decoder"}
    assert all(verdict.ok for verdict in verdicts)
    assert Manifest.read(cuda_build).gpu is not None


def test_a_job_gives_the_video_of_eager_pytorch(cuda_build: Path, tmp_path: Path) -> None:
    """The server's file is that of the same packages in this process, whose frames are those of eager PyTorch.

    Files alone would not do: what little differs between two videos of noise is multiplied by the video encoder.
    """
    job, changes = SmallJob(), {"steps": 12, "guidance": 0.5, "fusion": "ranked_concat"}
    planned = plan(Wishes(None, cuda_build, None, None, None, None, None), print)
    options = ServeOptions(
        planned.models,
        environment=planned.environment,
        triton_flags=planned.flags,
        log_path=tmp_path / "triton.log",
        start_timeout_s=240,
    )
    with EmbeddedServer(options) as server:
        server.wait_ready(check)
        served = run(Client(server.grpc_url), job, **changes).files["video.mp4"]
    manifest = Manifest.read(cuda_build)

    def eager(name: str) -> Program:
        return LocalProgram(network(name).load(SOURCE, DEVICE, torch.bfloat16), network(name).signature)

    def package(name: str) -> Program:
        place = cuda_build / REPOSITORY / name / VERSION_FOLDER
        return open_artifact(manifest.artifacts[name], network(name).signature, place, DEVICE, threads=1)

    frames, file = _in_process(job, changes, package)
    expected, _ = _in_process(job, changes, eager)
    psnr, same = _psnr(frames, expected), _psnr(_decoded(served), _decoded(file))
    print(f"packages against eager PyTorch: {psnr:.1f} dB; served file against the packages' own: {same:.1f} dB")
    assert expected.std() > 20  # a grey picture would agree with anything
    assert psnr > LEAST_PSNR
    assert same > LEAST_PSNR


def _psnr(found: Tensor, expected: Tensor) -> float:
    error = (found.double() - expected.double()).square().mean()
    return float(10 * torch.log10(255**2 / error.clamp(min=1e-9)))


def _decoded(file: bytes) -> Tensor:
    return torch.stack(list(decode_video(file)))


def _in_process(job: SmallJob, changes: dict[str, object], make: Callable[[str], Program]) -> tuple[Tensor, bytes]:
    """The job without a server, on the same GPU: its frames [t,h,w,3] before they become a file, and the file."""
    frames: list[Tensor] = []
    encoder, decoder = make(VIDEO_ENCODER.name), make(VIDEO_DECODER.name)

    def decode(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = decoder(inputs)
        frames.append(outputs["VIDEO"][0].cpu())
        return outputs

    services = Services(
        preset=TINY,
        limits=Limits(),
        geometry=lambda frames, options, file, watch: read_geometry(file or b"", frames),
        programs=Programs(make(DIT.name), encoder, decode, ViewConditioner(encoder, DEVICE), device=DEVICE),
        text=EmptyText(TINY.dit),
        weights={"dit": "transformer", "vae": "vae"},
    )
    spec = job.job_spec(**changes).model_dump_json().encode()
    wire = {"MEDIA": job.media, "SPEC": [spec], "GEOMETRY": [job.geometry]}
    blobs: list[bytes] = []
    run_job(read_inputs(wire, TINY, Limits()), services, lambda _, blob: blobs.append(blob or b""), lambda: False)
    return torch.cat(frames).float(), next(blob for blob in blobs if len(blob) > 1000)
