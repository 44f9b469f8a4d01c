"""One job over one gRPC stream: `Client.generate` sends it, yields what happens, and cancels it when closed.

The stream is used through tritonclient's generated stubs rather than its callback API: iterating the call in the
caller's own thread gives status codes, deadlines and Ctrl-C for nothing, and closing it can never wait for the server.
"""

import struct
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gen3c_client.connection import Access, Tls
from gen3c_client.contract import (
    TRACE_PARAMETER,
    Artifact,
    Done,
    Error,
    Info,
    JobSpec,
    Notice,
    Progress,
    TraceParent,
    parse_event,
)
from gen3c_client.errors import InputError, JobError, describe
from gen3c_client.status import error_of_message, error_of_rpc

if TYPE_CHECKING:
    import grpc
    from numpy.typing import NDArray
    from tritonclient.grpc import service_pb2

DEFAULT_URL = "127.0.0.1:8001"
MODEL_NAME = "gen3c"
MAX_MESSAGE_BYTES = 2**31 - 1  # what a gRPC message can be, and what Triton accepts
_ENVELOPE_BYTES = 2**20  # room for names, shapes and the protobuf frame
# Triton counts more than a ping in five minutes as abuse; this finds a vanished host in under six.
_KEEPALIVE_MS = 310_000


@dataclass(frozen=True)
class ArtifactData:
    """One part of a result file; parts of one file come in order. See `outputs.ArtifactWriter`."""

    artifact: Artifact
    data: bytes


JobEvent = Progress | Notice | Info | ArtifactData | Done


class Client:
    """Runs jobs on a gen3c server.

    A client holds no connection: every job has its own and closes it, for an open stream would keep a server from
    stopping. Safe to share between threads. Nothing is ever sent twice.

    Args:
        url: `host:port` of the server's gRPC endpoint.
        tls: None for plain text.
        access_key: what the server wants to see, if it does (`connection.read_access_key`).

    Raises:
        InputError: `url` is no `host:port`, or a certificate cannot be read.
    """

    def __init__(self, url: str = DEFAULT_URL, tls: Tls | None = None, access_key: str | None = None) -> None:
        if "://" in url or not url.rpartition(":")[2].isdigit():
            raise InputError(
                f"The URL must be host:port of the gRPC endpoint, such as {DEFAULT_URL}, got {url!r}.", "--url"
            )
        self.url = url
        self._access = Access.of(tls, access_key)

    def generate(
        self,
        media: Sequence[bytes],
        spec: JobSpec,
        *,
        cameras_w2c: "NDArray[Any] | None" = None,  # [t,4,4]
        cameras_k: "NDArray[Any] | None" = None,  # [t,3,3]
        geometry: bytes | None = None,
        timeout: float | None = None,
        trace: TraceParent | None = None,
    ) -> Generator[JobEvent, None, None]:
        """Runs one job. The inputs are checked now; the job is sent when the first event is asked for.

        Closing the generator (also by an exception in the caller, as Ctrl-C) cancels the job at the server, which
        stops at its next step. Wrap it in `contextlib.closing` where the loop may be left early.

        Args:
            media: encoded images and videos, in order; element 0 gives view 0.
            spec: everything else.
            cameras_w2c: the camera path, OpenCV world-to-camera, one pose for each of the t output frames.
            cameras_k: intrinsics in pixels of the output raster, with `cameras_w2c`.
            geometry: an npz (docs/contract.md) for geometry provider `file`.
            timeout: seconds for the whole job, waiting in the queue included.
            trace: what the job is part of, for a server that keeps traces; None: a new trace.

        Yields:
            events in the order of the server; the last is `Done`.

        Raises:
            InputError: at once, for inputs that cannot be sent.
            JobError: while iterating. `code` says whether the server refused the input (INVALID_ARG), is gone
                (UNAVAILABLE), gave the job up (CANCELLED), ran out of time (DEADLINE) or failed (INTERNAL).
        """
        if not media:
            raise InputError("A job needs at least one image or video, got none.", "media")
        if timeout is not None and not timeout > 0:
            raise InputError(f"The timeout must be more than 0 seconds, got {timeout:g}.", "--timeout")
        if cameras_w2c is not None:
            from gen3c_client.camera_file import check_camera_arrays

            check_camera_arrays(cameras_w2c, cameras_k)
        elif cameras_k is not None:
            raise InputError("cameras_k needs cameras_w2c.", "cameras_k")
        if (geometry is not None) != (spec.geometry.provider == "file"):
            has = "is given" if geometry is not None else "is missing"
            raise InputError(f"Geometry {has}, and the geometry provider is '{spec.geometry.provider}'.", "geometry")
        check_upload(sum(map(len, media)) + len(geometry or b""))
        request = _job_request(media, spec, cameras_w2c, cameras_k, geometry)
        request.parameters[TRACE_PARAMETER].string_param = str(trace or TraceParent.new())
        return self._run(request, timeout)

    def _run(self, request: "service_pb2.ModelInferRequest", timeout: float | None) -> Generator[JobEvent, None, None]:
        import grpc
        from tritonclient.grpc import service_pb2_grpc

        failure: Error | None = None
        done: Done | None = None
        started = False
        with self._channel() as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            call = stub.ModelStreamInfer(iter([request]), timeout=timeout, metadata=[*self._access.headers().items()])
            try:
                for event in self._events(call):
                    started = True
                    if isinstance(event, Error):
                        failure = event
                    elif isinstance(event, Done):
                        done = event
                    else:
                        yield event
            except grpc.RpcError as e:
                if done is None and failure is None:
                    raise error_of_rpc(e, self.url, access=self._access, timeout=timeout, started=started) from e
            except JobError:
                if failure is None:
                    raise
            finally:
                call.cancel()  # no effect on a call that has ended
        if failure is not None:
            raise JobError(failure.message, failure.code, failure.field)
        if done is None:
            raise JobError(f"The server at {self.url} ended the job without a result and without an error.")
        yield done

    def _events(self, call: Iterator[Any]) -> Iterator[JobEvent | Error]:
        """The events in a stream of Triton responses. Raises JobError at its end, if one of them is an error.

        Not before: a stream that is cancelled with the rest of it on its way may keep Triton from stopping.
        """
        error: JobError | None = None
        for message in call:
            if message.error_message:
                error = error or error_of_message(message.error_message, self.url)
                continue
            response = message.infer_response
            names = [output.name for output in response.outputs]
            contents = dict(zip(names, response.raw_output_contents, strict=True))
            if "EVENT" in contents:  # an empty response only ends the stream
                yield _parse(contents["EVENT"], contents.get("BLOB"))
        if error is not None:
            raise error

    def _channel(self) -> "grpc.Channel":
        options = [
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", 20_000),
        ]
        return self._access.channel(self.url, options)


def check_upload(size: int) -> None:
    """Refuses what no gRPC message can hold; `size` is of all media and geometry together, in bytes.

    Raises:
        InputError: too large, with the figure.
    """
    legal = MAX_MESSAGE_BYTES - _ENVELOPE_BYTES
    if size > legal:
        raise InputError(
            f"The upload is {size:,} bytes; a gRPC message can hold {legal:,}. Send fewer or smaller files."
        )


def _parse(event_tensor: bytes, blob_tensor: bytes | None) -> JobEvent | Error:
    try:
        event = parse_event(_first_element(event_tensor))
    except ValidationError as e:
        raise JobError(f"The server sent an event that this client does not know: {describe(e)}.") from e
    if not isinstance(event, Artifact):
        return event
    if blob_tensor is None:
        raise JobError(f"The server announced {event.name} without its content.")
    return ArtifactData(event, _first_element(blob_tensor))


def _job_request(
    media: Sequence[bytes],
    spec: JobSpec,
    cameras_w2c: "NDArray[Any] | None",  # [t,4,4]
    cameras_k: "NDArray[Any] | None",  # [t,3,3]
    geometry: bytes | None,
) -> "service_pb2.ModelInferRequest":
    import numpy as np
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name=MODEL_NAME)

    def add(name: str, datatype: str, shape: Sequence[int], content: bytes) -> None:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(content)

    add("MEDIA", "BYTES", [len(media)], _bytes_tensor(media))
    add("SPEC", "BYTES", [1], _bytes_tensor([spec.model_dump_json(exclude_none=True).encode()]))
    for name, array in (("CAMERAS_W2C", cameras_w2c), ("CAMERAS_K", cameras_k)):
        if array is not None:
            add(name, "FP32", array.shape, np.ascontiguousarray(array, dtype="<f4").tobytes())
    if geometry is not None:
        add("GEOMETRY", "BYTES", [1], _bytes_tensor([geometry]))
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    return request


def _bytes_tensor(elements: Sequence[bytes]) -> bytes:
    """Triton's wire form of a BYTES tensor: each element after its length, 4 bytes little endian."""
    return b"".join(part for element in elements for part in (struct.pack("<I", len(element)), element))


def _first_element(tensor: bytes) -> bytes:
    (length,) = struct.unpack_from("<I", tensor)
    return tensor[4 : 4 + length]
