"""A peer that speaks the wire contract and does no work: `prompt` is the name of a script below and its argument."""

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from gen3c_client.contract import ARTIFACT_FILES, Artifact, Done, Error, JobSpec, Notice, Progress

Response = tuple[Any, bytes]
PART_BYTES = 1000


class TritonPythonModel:
    """Answers one job at a time."""

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            _serve(request)


def _serve(request: Any) -> None:
    sender = request.get_response_sender()
    spec = JobSpec.model_validate_json(_bytes(request, "SPEC")[0])
    script, _, argument = spec.prompt.partition(" ")
    error = None
    for event, blob in _SCRIPTS[script or "ok"](request, spec, argument):
        tensors = [pb_utils.Tensor("EVENT", np.array([event.model_dump_json().encode()], object))]
        if blob:
            tensors.append(pb_utils.Tensor("BLOB", np.array([blob], object)))
        sender.send(pb_utils.InferenceResponse(tensors))
        error = event if isinstance(event, Error) else None
    if error is not None:
        code = getattr(pb_utils.TritonError, error.code, pb_utils.TritonError.INTERNAL)
        status = pb_utils.InferenceResponse(error=pb_utils.TritonError(f"{error.code}: {error.message}", code))
        # One send: Triton 24.10 dies of a final flag after an error if the caller set `triton_grpc_error`.
        sender.send(status, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
    else:
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _ok(request: Any, spec: JobSpec, _argument: str) -> Iterator[Response]:
    """Every artifact asked for, in parts; the content tells what arrived."""
    yield Progress(stage="media", step=1, total=1), b""
    yield Notice(message="untrained weights: the picture means nothing"), b""
    media = _bytes(request, "MEDIA")
    tensors = [t for t in (pb_utils.get_input_tensor_by_name(request, n) for n in ("CAMERAS_W2C", "CAMERAS_K")) if t]
    received = {
        "media": [hashlib.sha256(m).hexdigest() for m in media],
        "cameras": [t.as_numpy().tolist() for t in tensors],
        "geometry": [len(g) for g in _bytes(request, "GEOMETRY")],
        "spec": spec.model_dump(),
        "traceparent": json.loads(request.parameters() or "{}").get("traceparent"),
    }
    for step in range(3):
        yield Progress(stage="denoise", step=step + 1, total=3, eta_s=float(2 - step)), b""
    for name in spec.save:
        yield from _artifact(name, f"{name} of seed {spec.seed} ".encode() * 200)
    provenance = {"received": received, "preset": "peer", "weights": {"dit": "untrained, seed 0"}}
    yield Done(seed=spec.seed, timings_s={"denoise": 0.5}, provenance=provenance), b""


def _slow(request: Any, _spec: JobSpec, argument: str) -> Iterator[Response]:
    """Steps without end; leaves a file at `argument` when the job is cancelled. After a part of a result."""
    yield next(_artifact("video", b"x" * 5000))
    for step in range(600):
        yield Progress(stage="denoise", step=step, total=600, eta_s=60.0 - step / 10), b""
        time.sleep(0.1)
        if request.is_cancelled():
            Path(argument).write_text(f"cancelled after step {step}")
            return


def _error(_request: Any, _spec: JobSpec, argument: str) -> Iterator[Response]:
    code, _, field = argument.partition(" ")
    yield from ((a, b) for a, b in _artifact("video", b"whole, and then it fails"))
    yield Error(code=code, message="num_frames is 7, legal are 25, 49", field=field or None), b""


def _raise(_request: Any, _spec: JobSpec, argument: str) -> Iterator[Response]:
    """What the server may do without an error event."""
    if argument == "status":
        raise pb_utils.TritonModelException("DEADLINE: the job ran over its 5 seconds")
    yield Progress(stage="media", step=0, total=1), b""
    raise ValueError("a bug")


def _die(_request: Any, _spec: JobSpec, argument: str) -> Iterator[Response]:
    """The whole server is killed, as by the kernel when memory is out."""
    yield Progress(stage="denoise", step=1, total=3), b""
    time.sleep(0.3)
    os.kill(int(argument), signal.SIGKILL)
    time.sleep(60)


def _damaged(_request: Any, _spec: JobSpec, argument: str) -> Iterator[Response]:
    for event, blob in _artifact("video", b"y" * 2500):
        if argument == "sha" and event.part == 2:
            yield event, b"z" + blob[1:]
        elif argument == "short" and event.part == 3:
            yield event, blob[1:]
        elif argument != "lost" or event.part != 2:
            yield event, blob
    yield Done(seed=1, timings_s={}, provenance={}), b""


def _stranger(_request: Any, _spec: JobSpec, argument: str) -> Iterator[Response]:
    blob = b"not yours"
    digest = hashlib.sha256(blob).hexdigest()
    yield Artifact(name=argument, media_type="text/plain", sha256=digest, size=len(blob)), blob


def _silent(_request: Any, _spec: JobSpec, _argument: str) -> Iterator[Response]:
    yield Progress(stage="media", step=1, total=1), b""


_SCRIPTS = {f.__name__[1:]: f for f in (_ok, _slow, _error, _raise, _die, _damaged, _stranger, _silent)}


def _artifact(name: str, content: bytes) -> Iterator[Response]:
    file, media_type = ARTIFACT_FILES[name]
    parts = [content[i : i + PART_BYTES] for i in range(0, len(content), PART_BYTES)]
    digest = hashlib.sha256(content).hexdigest()
    for i, part in enumerate(parts):
        event = Artifact(
            name=file, media_type=media_type, sha256=digest, size=len(content), part=i + 1, parts=len(parts)
        )
        yield event, part


def _bytes(request: Any, name: str) -> list[bytes]:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return [] if tensor is None else list(tensor.as_numpy().ravel())
