"""One job from media to artifacts. Knows the models only as services, so it runs the same in a server and in a test."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Protocol, cast

import torch
from gen3c_client.contract import (
    ArtifactName,
    Done,
    Event,
    GeometryOptions,
    Info,
    JobSpec,
    Limits,
    Notice,
    Progress,
    Stage,
)
from pydantic import JsonValue
from torch import Tensor

from gen3c.conditioning import Cameras, ConditionOptions
from gen3c.generator.rollout import Programs, RolloutOptions, rollout
from gen3c.generator.text import TextEncoder
from gen3c.geometry.types import Frames, Geometry, Watch
from gen3c.media import MediaItem, MediaLimits, Selection, VideoWriter, load_frames
from gen3c.presets import Preset
from gen3c.scene import Scene, build_scene
from gen3c.seed import seed_frame
from gen3c_server import artifacts
from gen3c_server.inputs import JobInputs, target_cameras

X264_SPEED = "veryfast"  # the whole job waits for it; of the picture it costs less than a change of crf by two
POOR_COVERAGE = 0.3  # below this mean share of covered pixels the user is told


class GeometryService(Protocol):
    """Depth and cameras of frames, by the provider that the job asks for."""

    def __call__(self, frames: Frames, options: GeometryOptions, file: bytes | None, watch: Watch) -> Geometry: ...


@dataclass(frozen=True)
class Services:
    """Everything that a job calls."""

    preset: Preset
    limits: Limits
    geometry: GeometryService
    programs: Programs
    text: TextEncoder
    weights: dict[str, str]  # network -> where its weights came from


Emit = Callable[[Event, bytes | None], None]


def check_prompts(spec: JobSpec, preset: Preset, text: TextEncoder) -> None:
    """Raises InvalidInputError for a prompt that cannot be encoded, without encoding any."""
    text.check(spec.prompt, "spec.prompt")
    if spec.negative_prompt is not None or _guidance(spec, preset) > 0:
        text.check(_negative_prompt(spec, text), "spec.negative_prompt")


def run_job(inputs: JobInputs, services: Services, emit: Emit, is_cancelled: Callable[[], bool]) -> None:
    """Do the job; every result goes to `emit`. Raises InvalidInputError, CancelledError or a service's error."""
    spec, preset = inputs.spec, services.preset
    meter = _Meter(emit)
    watch = Watch(is_cancelled, meter.progress)
    text, negative_text = _encode_prompts(spec, preset, services.text, emit)

    frames = _load_media(inputs, services, emit, watch)
    geometry = services.geometry(frames, spec.geometry, inputs.geometry, watch)
    for note in geometry.notes:
        emit(Info(message=note), None)
    for warning in geometry.warnings:
        emit(Notice(message=warning), None)
    scene = build_scene(frames, geometry, (preset.height, preset.width), spec.fit, spec.geometry.scale)
    cameras = target_cameras(inputs, scene)

    options = RolloutOptions(
        seed=spec.seed,
        steps=spec.steps or preset.steps,
        guidance=_guidance(spec, preset),
        fps=spec.fps,
        condition=ConditionOptions(
            spec.fusion,
            spec.foreground_masking,
            spec.geometry.min_confidence,
            preview_fps=spec.fps if "warps" in spec.save else None,
        ),
    )
    first, notice = seed_frame(scene, cameras, spec.geometry.min_confidence)
    if notice:
        emit(Notice(message=notice), None)
    untrained = sorted(name for name, source in services.weights.items() if "untrained" in source)
    if untrained:
        emit(Notice(message=f"untrained weights: {', '.join(untrained)}. The video is noise, not a picture."), None)

    previews: list[list[bytes]] = [[] for _ in scene.views]
    coverage: list[Tensor] = []
    with VideoWriter(preset.height, preset.width, spec.fps, preset=X264_SPEED, comment=_comment(untrained)) as writer:
        for chunk in rollout(scene, cameras, first, text, negative_text, services.programs, preset, options, watch):
            for frame in chunk.frames:
                writer.add(frame)
            for notice in chunk.notices:
                emit(Notice(message=notice), None)
            # A grown cache has the newest frame before the scene's own view.
            own = slice(-len(scene.views), None)
            coverage.append(chunk.views.coverage[own].mean(1))
            for i, preview in enumerate(chunk.views.previews[own]):
                previews[i].append(preview)
        seen = torch.stack(coverage).mean(0)  # [v]
        best = float(seen.max())
        if best < POOR_COVERAGE:
            emit(Notice(message=f"the path sees little of the scene: no view covers more than {best:.0%} of it."), None)
        _emit_artifacts(inputs, services.limits, emit, watch, scene, cameras, geometry, frames, writer, previews)
    provenance = _provenance(inputs, services, geometry, scene, seen)
    # What the spec left to the deployment.
    provenance["effective"] = {"steps": options.steps, "guidance": options.guidance}
    timings = {stage: round(seconds, 3) for stage, seconds in meter.timings.items()}
    emit(Done(seed=spec.seed, timings_s=timings, provenance=provenance), None)


def _encode_prompts(spec: JobSpec, preset: Preset, encode: TextEncoder, emit: Emit) -> tuple[Tensor, Tensor]:
    """Embeddings of the prompt and of the negative one, [1,tokens,text_dim] each; zeros for one that is not read."""
    check_prompts(spec, preset, encode)

    def warn(message: str) -> None:
        emit(Notice(message=message), None)

    text = encode(spec.prompt, warn, "spec.prompt")
    if _guidance(spec, preset) > 0:
        # The deployment's own negative prompt is nothing that the job's author can shorten.
        told = None if spec.negative_prompt is None else warn
        return text, encode(_negative_prompt(spec, encode), told, "spec.negative_prompt")
    if spec.negative_prompt:
        warn("the negative prompt has no effect at guidance 0.")
    return text, torch.zeros_like(text)


def _guidance(spec: JobSpec, preset: Preset) -> float:
    return preset.guidance if spec.guidance is None else spec.guidance


def _negative_prompt(spec: JobSpec, text: TextEncoder) -> str:
    return text.default_negative_prompt if spec.negative_prompt is None else spec.negative_prompt


def _load_media(inputs: JobInputs, services: Services, emit: Emit, watch: Watch) -> Frames:
    spec, limits = inputs.spec, services.limits
    loaded = load_frames(
        [MediaItem(data, name) for data, name in zip(inputs.media, inputs.names, strict=True)],
        Selection(spec.select.method, spec.select.step_size, spec.select.frame_interval, spec.select.max_frames),
        max_side=services.preset.geometry_side,
        limits=MediaLimits(pixels=limits.pixels, views=limits.views),
        watch=watch,
    )
    for warning in loaded.warnings:
        emit(Notice(message=warning), None)
    return loaded.frames


def _emit_artifacts(
    inputs: JobInputs,
    limits: Limits,
    emit: Emit,
    watch: Watch,
    scene: Scene,
    cameras: Cameras,
    geometry: Geometry,
    frames: Frames,
    writer: VideoWriter,
    previews: list[list[bytes]],
) -> None:
    spec = inputs.spec
    make: dict[ArtifactName, Callable[[], bytes]] = {
        "video": writer.finish,
        "warps": lambda: artifacts.warps(previews, spec.fps),
        "points": lambda: artifacts.points(scene, spec.geometry.min_confidence),
        "cameras": lambda: artifacts.cameras(cameras, scene.size, spec.fps),
        "geometry": lambda: artifacts.geometry(geometry, frames),
    }
    wanted = [name for name in make if name in spec.save]
    for i, name in enumerate(wanted):
        watch.step("encode", i, len(wanted))
        for event, part in artifacts.in_parts(name, make[name](), limits.artifact_part_bytes):
            emit(event, part)
    watch.step("encode", len(wanted), len(wanted))


def _provenance(
    inputs: JobInputs, services: Services, geometry: Geometry, scene: Scene, seen: Tensor
) -> dict[str, JsonValue]:
    """What made the result, for whoever wants to make it again."""
    return {
        "preset": services.preset.name,
        "weights": dict(services.weights),
        "text_encoder": services.text.source,
        "versions": {name: metadata.version(name) for name in ("gen3c-triton", "torch", "diffusers")},
        "geometry": geometry.info,  # type: ignore[dict-item]
        "scene_unit": scene.unit,
        "views": len(scene.views),
        "num_frames": inputs.num_frames,
        "view_coverage": [round(float(c), 4) for c in seen],
        "spec": inputs.spec.model_dump(mode="json", exclude={"names"}),
    }


def _comment(untrained: list[str]) -> str:
    made = "made by gen3c-triton"
    return f"{made}; untrained weights: {', '.join(untrained)}" if untrained else made


class _Meter:
    """Turns steps into progress events with the time left in their stage, and keeps the seconds by stage.

    A step tells of work just done, so the time since the step before it belongs to its stage. A stage may be written
    `stage/part`: the part becomes the event's message.
    """

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._last = time.monotonic()
        self._parts: dict[str, float] = {}
        self.timings: dict[str, float] = {}

    def progress(self, name: str, step: int, total: int) -> None:
        now = time.monotonic()
        stage, _, part = name.partition("/")
        for table, key in ((self.timings, stage), (self._parts, name)):
            table[key] = table.get(key, 0.0) + now - self._last
        self._last = now
        # What a part has left says little of its stage.
        eta = self._parts[name] / step * (total - step) if step and not part else None
        self._emit(Progress(stage=cast(Stage, stage), step=step, total=total, eta_s=eta, message=part), None)
