"""One whole job of benchmarks/h200.py: photos and geometry in, a video out; in this process, or through Triton."""

import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from gen3c_client.contract import Done, Event, GeometryOptions, JobSpec, Limits, NamedPath
from gen3c_client.transport import ArtifactData, Client
from torch import Tensor
from tritonclient.grpc import InferenceServerClient

from benchmarks import full_size
from gen3c.cameras import camera_path
from gen3c.conditioning import Cameras, Conditioner, Contribution, ViewConditioner
from gen3c.generator.rollout import Programs
from gen3c.generator.signatures import DIT, VIDEO_DECODER, VIDEO_ENCODER
from gen3c.generator.text import EmptyText
from gen3c.generator.vae import VideoDecoder, VideoEncoder
from gen3c.geometry.files import read_geometry
from gen3c.geometry.types import Frames, Geometry, Watch
from gen3c.presets import Preset
from gen3c.program import LocalProgram, Program
from gen3c_server.canary import check
from gen3c_server.inputs import read_inputs
from gen3c_server.launcher import EmbeddedServer, ServeOptions
from gen3c_server.pipeline import Services, run_job
from gen3c_server.repository import default_model_repository

PATH = NamedPath(kind="left", distance=0.1)
START_TIMEOUT_S = 240.0


def path(preset: Preset) -> Cameras:
    """The cameras of the job, in the frame of view 0; metres, as the views."""
    w2c = camera_path(PATH.kind, preset.chunk_frames, torch.eye(4), distance=PATH.distance, center_depth=5.0)
    return Cameras(w2c, full_size.intrinsics(preset).expand(preset.chunk_frames, -1, -1))


def spec(preset: Preset, steps: int) -> JobSpec:
    """What is asked for. Guidance 1, the released default: two evaluations a step."""
    return JobSpec(geometry=GeometryOptions(provider="file"), path=PATH, steps=steps, guidance=1.0, preset=preset.name)


class _Timed:
    """Seconds that calls take, by name; waits for the device after each."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}

    def program(self, name: str, inner: Program) -> Program:
        def call(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return self._measured(name, lambda: inner(inputs))

        return call

    def conditioner(self, inner: Conditioner) -> Conditioner:
        def call(*arguments: Any) -> Contribution:
            return self._measured("conditioner", lambda: inner(*arguments))

        return call

    def _measured(self, name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        self.calls[name] = self.calls.get(name, 0) + 1
        return result


def in_process(preset: Preset, device: torch.device, views: int, steps: int) -> dict[str, Any]:
    """The job in this process, as a server does it but without one."""
    networks = full_size.random_networks(preset, device)
    timed = _Timed(device)
    encoder = LocalProgram(VideoEncoder(networks.vae), VIDEO_ENCODER)
    programs = Programs(
        dit=timed.program("dit", LocalProgram(networks.dit, DIT)),
        video_encoder=timed.program("seed_encoder", encoder),
        video_decoder=timed.program("decoder", LocalProgram(VideoDecoder(networks.vae), VIDEO_DECODER)),
        conditioner=timed.conditioner(ViewConditioner(timed.program("encoder", encoder), device)),
        device=device,
    )

    def geometry(frames: Frames, options: GeometryOptions, file: bytes | None, watch: Watch) -> Geometry:  # noqa: ARG001
        return read_geometry(file or b"", frames)

    source = full_size.source_views(views, preset)
    wire: dict[str, Any] = {
        "MEDIA": full_size.photos(source),
        "SPEC": [spec(preset, steps).model_dump_json().encode()],
        "GEOMETRY": [full_size.geometry_file(source)],
    }
    services = Services(preset, Limits(), geometry, programs, EmptyText(preset.dit), {"dit": "random", "vae": "random"})
    events: list[Event] = []
    start = time.perf_counter()
    run_job(read_inputs(wire, preset, Limits()), services, lambda event, _: events.append(event), lambda: False)
    wall = time.perf_counter() - start
    done = events[-1]
    assert isinstance(done, Done)
    inside = sum(timed.seconds[name] for name in ("dit", "seed_encoder", "decoder", "conditioner"))
    return {
        "wall_s": wall,
        "inside_s": inside,
        "outside_share": 1 - inside / wall,
        "seconds": timed.seconds,
        "calls": timed.calls,
        "stages_s": done.timings_s,
        "peak_gib": torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0,
        "reserved_gib": torch.cuda.max_memory_reserved(device) / 2**30 if device.type == "cuda" else 0.0,
    }


def served(preset: Preset, device: torch.device, views: int, steps: int) -> dict[str, Any]:
    """The job through the real Triton with the client, and how long the server's models computed for it."""
    source = full_size.source_views(views, preset)
    media, geometry = full_size.photos(source), full_size.geometry_file(source)
    with tempfile.TemporaryDirectory(prefix="gen3c-bench-") as folder:
        checkpoints = Path(folder) / "checkpoints"
        full_size.save_checkpoint(full_size.random_networks(preset, device), checkpoints, preset)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        environment = {"GEN3C_PRESET": preset.name, "GEN3C_DEVICE": str(device), "GEN3C_CHECKPOINTS": str(checkpoints)}
        log = Path(folder) / "triton.log"
        options = ServeOptions(
            default_model_repository(), environment=environment, start_timeout_s=START_TIMEOUT_S, log_path=log
        )
        start = time.perf_counter()
        try:
            with EmbeddedServer(options) as server, _GpuMemory(device) as memory:
                server.wait_ready(lambda url: check(url, START_TIMEOUT_S))
                started = time.perf_counter() - start
                print(f"ready after {started:.1f} s", flush=True)
                result = _one_job(server.grpc_url, media, spec(preset, steps), geometry)
                print(f"done, {memory.peak_mib / 1024:.1f} GiB at most: {result}", flush=True)
        except Exception:
            print(log.read_text()[-8000:], flush=True)
            raise
    return {"start_s": started, **result, "gpu_used_gib": memory.peak_mib / 1024}


def _one_job(url: str, media: list[bytes], job: JobSpec, geometry: bytes) -> dict[str, Any]:
    before = _computed(url)
    start = time.perf_counter()
    done, size = None, 0
    for event in Client(url).generate(media, job, geometry=geometry, timeout=560):
        if isinstance(event, Done):
            done = event
        elif isinstance(event, ArtifactData):
            size += len(event.data)
    wall = time.perf_counter() - start
    assert done is not None
    computed = {name: seconds - before[name] for name, seconds in _computed(url).items()}
    # The first picture's encoding and the decoding run in the job's own process: the stage `decode`.
    inside = computed["dit"] + computed["conditioner"] + done.timings_s["decode"]
    return {
        "wall_s": wall,
        "inside_s": inside,
        "outside_share": 1 - inside / wall,
        "computed_s": computed,
        "stages_s": done.timings_s,
        "video_bytes": size,
    }


def _computed(url: str) -> dict[str, float]:
    """Seconds that each model has computed, by Triton's own statistics."""
    with InferenceServerClient(url) as client:
        models = client.get_inference_statistics(as_json=True)["model_stats"]
    return {m["name"]: int(m["inference_stats"]["compute_infer"].get("ns", 0)) / 1e9 for m in models}


class _GpuMemory:
    """What all processes together take of the GPU at most, asked twice a second."""

    def __init__(self, device: torch.device) -> None:
        self.peak_mib = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True) if device.type == "cuda" else None

    def __enter__(self) -> "_GpuMemory":
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _follow(self) -> None:
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while not self._stop.wait(0.5):
            used = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
            self.peak_mib = max(self.peak_mib, int(used))
