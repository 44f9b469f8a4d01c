"""`gen3c generate`: files in, one job, files out."""

import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from gen3c_client import options as o
from gen3c_client.connection import read_access_key, tls_of_options
from gen3c_client.contract import Done, Info, JobSpec, Notice, Progress, TraceParent
from gen3c_client.errors import ClientError, InputError
from gen3c_client.interrupt import interruptible
from gen3c_client.job import build_spec, parse_save
from gen3c_client.media_files import IMAGE_EXTENSIONS, find_media, read_media
from gen3c_client.outputs import ArtifactWriter
from gen3c_client.progress import duration, file_size, make_reporter, print_json
from gen3c_client.transport import DEFAULT_URL, ArtifactData, Client, check_upload


@dataclass(frozen=True)
class _Job:
    """All that is settled before a byte is sent."""

    client: Client
    media: list[Path]
    spec: JobSpec
    geometry: bytes | None
    writer: ArtifactWriter
    timeout: float | None


def generate(
    inputs: o.Inputs,
    path: o.CameraPath = None,
    rotation: o.Rotation = None,
    distance: o.Distance = None,
    cameras: o.Cameras = None,
    select: o.Select = None,
    max_frames: o.MaxFrames = None,
    frame_interval: o.FrameInterval = None,
    step_size: o.StepSize = None,
    fit: o.Fit = None,
    geometry: o.Geometry = None,
    geometry_file: o.GeometryFile = None,
    min_confidence: o.MinConfidence = None,
    vggt_confidence: o.VggtConfidence = None,
    vggt_drop_lowest: o.VggtDropLowest = None,
    scale: o.Scale = None,
    num_frames: o.NumFrames = None,
    fps: o.Fps = None,
    prompt: o.Prompt = None,
    negative_prompt: o.NegativePrompt = None,
    seed: o.Seed = None,
    steps: o.Steps = None,
    guidance: o.Guidance = None,
    fusion: o.Fusion = None,
    foreground_masking: o.ForegroundMasking = None,
    preset: o.Preset = None,
    output: o.Output = None,
    save: o.Save = "video",
    force: o.Force = False,
    dry_run: o.DryRun = False,
    as_json: o.AsJson = False,
    quiet: o.Quiet = False,
    url: o.Url = DEFAULT_URL,
    timeout: o.Timeout = None,
    tls: o.UseTls = False,
    tls_ca: o.TlsCa = None,
    tls_certificate: o.TlsCertificate = None,
    tls_key: o.TlsKey = None,
    tls_name: o.TlsName = None,
    access_key_file: o.AccessKeyFile = None,
) -> None:
    """Make a video along a camera path from photos or videos of one static scene.

    [b]Examples[/b]

    [dim]# ten photos, camera moving left[/dim]
    gen3c generate photos/ --path left

    [dim]# every 15th frame of a video, zooming in, with the point cloud[/dim]
    gen3c generate room.mp4 --select interval --frame-interval 15 --path zoom_in --save video,points

    [dim]# your own path, and a check before anything is sent[/dim]
    gen3c generate "photos/*.jpg" --cameras path.json --output out/tour --dry-run
    """
    errors = Console(stderr=True)
    flags = {
        "preset": preset,
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "select.method": select,
        "select.step_size": step_size,
        "select.frame_interval": frame_interval,
        "select.max_frames": max_frames,
        "fit": fit,
        "geometry.provider": _provider(geometry, geometry_file),
        "geometry.min_confidence": min_confidence,
        "geometry.vggt_confidence": vggt_confidence,
        "geometry.vggt_drop_lowest": vggt_drop_lowest,
        "geometry.scale": scale,
        "path.kind": path,
        "path.rotation": rotation,
        "path.distance": distance,
        "num_frames": num_frames,
        "fps": fps,
        "seed": seed,
        "steps": steps,
        "guidance": guidance,
        "fusion": fusion,
        "foreground_masking": foreground_masking,
        "save": parse_save(save),
    }
    chosen = tls_of_options(tls=tls, ca=tls_ca, certificate=tls_certificate, key=tls_key, name=tls_name)
    client = Client(url, chosen, read_access_key(access_key_file) if access_key_file is not None else None)
    job = _prepare(client, inputs, flags, cameras, geometry_file, output, timeout, force=force)
    if dry_run:
        _print_plan(job, as_json=as_json)
        return
    _execute(job, errors, as_json=as_json, quiet=quiet)


def _provider(geometry: str | None, geometry_file: Path | None) -> str | None:
    if geometry == "file" and geometry_file is None:
        raise InputError("--geometry file needs --geometry-file FILE.", "--geometry-file")
    if geometry_file is not None and geometry not in (None, "file"):
        raise InputError(f"--geometry-file has no effect with --geometry {geometry}; it applies to --geometry file.")
    return "file" if geometry_file is not None else geometry


def _prepare(
    client: Client,
    inputs: Sequence[str],
    flags: dict[str, Any],
    cameras: Path | None,
    geometry_file: Path | None,
    output: Path | None,
    timeout: float | None,
    *,
    force: bool,
) -> _Job:
    """Every check that can be made without the server."""
    from gen3c_client.camera_file import load_camera_file  # numpy, which --help can do without
    from gen3c_client.geometry_file import load_geometry_file

    if timeout is not None and not timeout > 0:
        raise InputError(f"--timeout must be more than 0 seconds, got {timeout:g}.", "--timeout")
    media = find_media(inputs)
    path = load_camera_file(cameras) if cameras is not None else None
    spec = build_spec(flags, path, [file.name for file in media])
    stills = all(file.suffix.lower() in IMAGE_EXTENSIONS for file in media)
    geometry = load_geometry_file(geometry_file, len(media) if stills else None) if geometry_file is not None else None
    check_upload(sum(file.stat().st_size for file in media) + len(geometry or b""))
    folder = output if output is not None else Path("outputs") / _job_name(inputs[0], media[0])
    return _Job(client, media, spec, geometry, ArtifactWriter(folder, spec.save, force=force), timeout)


def _job_name(first_input: str, first_file: Path) -> str:
    folder = Path(first_input).expanduser()
    return folder.resolve().name if folder.is_dir() else first_file.stem


def _print_plan(job: _Job, *, as_json: bool) -> None:
    sizes = {str(path): path.stat().st_size for path in job.media}
    spec = job.spec.model_dump(exclude_none=True)
    if as_json:
        outputs = [str(path) for path in job.writer.targets]
        print_json({"event": "dry_run", "url": job.client.url, "media": sizes, "spec": spec, "outputs": outputs})
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[b]To {escape(job.client.url)}[/]: {len(sizes)} files, {file_size(sum(sizes.values()))}")
    for name, size in sizes.items():
        console.print(f"  {escape(name)}  [dim]{file_size(size)}[/]")
    if job.geometry is not None:
        console.print(f"  geometry  [dim]{file_size(len(job.geometry))}[/]")
    console.print("[b]Job[/]")
    console.print_json(job.spec.model_dump_json(exclude_none=True))
    console.print("[b]Results[/]")
    for path in job.writer.targets:
        console.print(f"  {escape(str(path))}")
    console.print("Nothing was sent (--dry-run).")


def _execute(job: _Job, errors: Console, *, as_json: bool, quiet: bool) -> None:
    started = time.monotonic()
    notices: list[Notice] = []
    done: Done | None = None
    with interruptible(job.writer.discard), job.writer as writer:
        contents = read_media(job.media)
        trace = TraceParent.parse(os.environ.get("TRACEPARENT")) or TraceParent.new()
        events = job.client.generate(contents, job.spec, geometry=job.geometry, timeout=job.timeout, trace=trace)
        reporter = make_reporter(errors, as_json=as_json, quiet=quiet)
        with closing(events), closing(reporter):
            reporter.sending(sum(map(len, contents)) + len(job.geometry or b""), len(contents))
            del contents
            for event in events:
                match event:
                    case Progress():
                        reporter.progress(event)
                    case Notice():
                        reporter.notice(event)
                        notices.append(event)
                    case Info():
                        reporter.notice(event)
                    case ArtifactData():
                        path = writer.add(event)
                        if as_json and path is not None:
                            print_json({**event.artifact.model_dump(), "path": str(path)})
                    case Done():
                        done = event
        paths = writer.commit()
    if done is None:
        raise ClientError("The job ended without a result.")
    if as_json:
        print_json({**done.model_dump(), "trace_id": trace.trace_id})
    elif quiet:
        _print_notices(errors, notices)
    else:
        _print_summary(Console(highlight=False, soft_wrap=True), paths, done, time.monotonic() - started)
        _print_notices(errors, notices)


def _print_summary(console: Console, paths: Sequence[Path], done: Done, seconds: float) -> None:
    for path in paths:
        console.print(f"{escape(str(path))}  [dim]{file_size(path.stat().st_size)}[/]")
    stages = ", ".join(f"{stage} {duration(s)}" for stage, s in done.timings_s.items() if s >= 0.1)
    console.print(f"Seed {done.seed}, {duration(seconds)}" + (f" [dim]({stages})[/]" if stages else ""))
    weights = done.provenance.get("weights")
    if isinstance(weights, dict):
        made_by = ", ".join(f"{network}: {source}" for network, source in weights.items())
        console.print(f"Preset {done.provenance.get('preset')}, weights {escape(made_by)}")
    geometry = done.provenance.get("geometry")
    if isinstance(geometry, dict):
        # Which network, whether views agree: what a user compares between runs. The rest is in --json.
        told = [str(geometry["weights"])] if "weights" in geometry else []
        told += [f"views agree on {share:.0%}"] if isinstance(share := geometry.get("agreement"), float) else []
        console.print(f"Geometry {escape(', '.join([str(geometry.get('provider')), *told]))}")


def _print_notices(console: Console, notices: Sequence[Notice]) -> None:
    """Once more at the end, where they are read: that weights are untrained decides what a video is worth."""
    for message in dict.fromkeys(notice.message for notice in notices):
        console.print(f"[bold yellow]NOTE:[/] {escape(message)}", highlight=False, soft_wrap=True)
