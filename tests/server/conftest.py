"""The real server with the real graph, and small jobs for it."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gen3c_client.contract import Done, Event, JobSpec, Notice, Progress, parse_event
from gen3c_client.transport import ArtifactData, Client
from PIL import Image
from safetensors.torch import save_file

from gen3c.generator.t5 import NETWORK_FOLDER
from gen3c.generator.weights import load_dit, load_vae
from gen3c.geometry.vggt.weights import VggtSource, load_vggt
from gen3c.media import encode_video
from gen3c.networks import UNTRAINED_SEED
from gen3c.presets import TINY, VGGT_TINY
from gen3c_server.canary import check
from gen3c_server.launch import Wishes, plan
from gen3c_server.launcher import EmbeddedServer, ServeOptions
from gen3c_server.repository import default_model_repository
from tests.gen3c.generator.checkpoint_files import save_transformer, save_vae
from tests.small_dit import reading_text
from tests.tiny_t5 import write_encoder

WIDTH, HEIGHT = 320, 192


@pytest.fixture(scope="session")
def server(built: Path) -> Iterator[EmbeddedServer]:
    """One server for all tests that leave it alive: what `gen3c serve` starts, the networks exported."""
    planned = plan(Wishes(None, built, None, None, None, None, None), print)
    environment = {**planned.environment, "GEN3C_LOG_FORMAT": "json"}
    options = ServeOptions(planned.models, environment=environment, triton_flags=planned.flags)
    with EmbeddedServer(options) as server:
        server.wait_ready(check)
        yield server


@dataclass(frozen=True)
class Weighted:
    """A server of the source tree, whose networks run in PyTorch."""

    server: EmbeddedServer
    checkpoints: Path  # the weights that a server without a checkpoint directory would draw, and a text encoder


@pytest.fixture(scope="session")
def weighted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weighted]:
    """One server with weights of every network, as if trained."""
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    vae, _ = load_vae(TINY, untrained_seed=UNTRAINED_SEED)
    dit = reading_text(load_dit(TINY, untrained_seed=UNTRAINED_SEED)[0])
    save_transformer(checkpoints, TINY, dit.transformer.state_dict())
    save_vae(checkpoints, TINY, vae.state_dict())
    write_encoder(checkpoints / NETWORK_FOLDER)
    vggt = vggt_weights(tmp_path_factory.mktemp("vggt") / "model.safetensors")
    environment = {"GEN3C_CHECKPOINTS": str(checkpoints), "GEN3C_VGGT": str(vggt)}
    with EmbeddedServer(ServeOptions(default_model_repository(), environment=environment)) as server:
        server.wait_ready(check)
        yield Weighted(server, checkpoints)


def vggt_weights(path: Path, **changed: torch.Tensor) -> Path:
    """A file of VGGT's weights, as if trained."""
    tensors = load_vggt(VggtSource(VGGT_TINY, None), untrained_seed=3).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in (tensors | changed).items()}, path)
    return path


@pytest.fixture
def client(server: EmbeddedServer) -> Client:
    return Client(server.grpc_url)


def picture(shift: int = 0, height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> Image.Image:
    """A smooth random texture, moved left by `shift` px."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 8 + 2, (width + 200) // 8, generator=g)
    fine = torch.nn.functional.interpolate(coarse, (height, width + 200), mode="bicubic")[0].clamp(0, 1)
    window = fine[:, :, shift : shift + width].permute(1, 2, 0)
    return Image.fromarray((window * 255).round().byte().numpy())


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def clip(frames: int = 9) -> bytes:
    """An mp4 of the texture moving by 3 px a frame."""
    return encode_video([torch.from_numpy(np.array(picture(3 * i))) for i in range(frames)], 24)


@dataclass
class SmallJob:
    """Views of a textured wall at depth 2, with its geometry: a job of seconds, without reconstruction."""

    views: int = 2
    spec: dict[str, Any] = field(default_factory=dict)

    @property
    def media(self) -> list[bytes]:
        return [png(picture(10 * i)) for i in range(self.views)]

    @property
    def geometry(self) -> bytes:
        n, focal = self.views, 250.0
        w2c = np.tile(np.eye(4), (n, 1, 1))
        w2c[:, 0, 3] = [-10 * i * 2.0 / focal for i in range(n)]
        K = np.array([[focal, 0, (WIDTH - 1) / 2], [0, focal, (HEIGHT - 1) / 2], [0, 0, 1]])
        buffer = io.BytesIO()
        np.savez(buffer, depth=np.full((n, HEIGHT, WIDTH), 2.0, np.float32), w2c=w2c, K=np.tile(K, (n, 1, 1)))
        return buffer.getvalue()

    def job_spec(self, **changes: Any) -> JobSpec:
        base: dict[str, Any] = {"geometry": {"provider": "file"}, "steps": 2}
        return JobSpec.model_validate({**base, **self.spec, **changes})


@dataclass
class Result:
    """What a job gave."""

    files: dict[str, bytes]
    progress: list[Progress]
    notices: list[str]
    done: Done


def run(client: Client, job: SmallJob, **changes: Any) -> Result:
    return collect(client.generate(job.media, job.job_spec(**changes), geometry=job.geometry))


def collect(events: Iterator[Any]) -> Result:
    files: dict[str, bytes] = {}
    progress, notices, done = [], [], None
    for event in events:
        match event:
            case ArtifactData(artifact, data):
                files[artifact.name] = files.get(artifact.name, b"") + data
            case Progress():
                progress.append(event)
            case Notice(message=message):
                notices.append(message)
            case Done():
                done = event
    assert done is not None
    return Result(files, progress, notices, done)


def raw_job(
    url: str,
    spec: bytes,
    media: Sequence[bytes],
    *,
    request_id: str = "",
    parameters: dict[str, str | int] | None = None,
    metadata: dict[str, str] | None = None,
    **tensors: np.ndarray,
) -> tuple[list[Event], str | None]:
    """A job past every check of our client: the events, and the error that ended the stream."""
    import queue

    import tritonclient.grpc as triton

    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    inputs = []
    for name, value in {"MEDIA": list(media), "SPEC": [spec], **tensors}.items():
        array = value if isinstance(value, np.ndarray) else np.array(value, dtype=np.object_)
        tensor = triton.InferInput(name, array.shape, "FP32" if array.dtype == np.float32 else "BYTES")
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    events: list[Event] = []
    with triton.InferenceServerClient(url) as peer:
        peer.start_stream(lambda result, error: answers.put((result, error)), headers=metadata)
        peer.async_stream_infer(
            "gen3c", inputs, request_id=request_id, parameters=parameters, enable_empty_final_response=True
        )
        try:
            while True:
                result, error = answers.get(timeout=120)
                if error is not None:
                    return events, error.message()
                if result.as_numpy("EVENT") is not None:
                    events.append(parse_event(result.as_numpy("EVENT")[0]))
                if result.get_response().parameters["triton_final_response"].bool_param:
                    return events, None
        finally:
            peer.stop_stream(cancel_requests=True)
