"""The `gen3c` model: takes jobs, queues them, streams their events. Imported inside the server only."""

import json
import logging
import os
import secrets
import threading
from collections.abc import Callable

import triton_python_backend_utils as pb_utils
from gen3c_client.contract import TRACE_PARAMETER, Done, TraceParent

from gen3c.generator.rollout import Programs
from gen3c.generator.signatures import DIT, VIDEO_DECODER, VIDEO_ENCODER
from gen3c_server.errors import JobError
from gen3c_server.gpu_memory import releasing
from gen3c_server.inputs import JobInputs, read_inputs
from gen3c_server.job_queue import Job, JobQueue
from gen3c_server.job_report import JobReport
from gen3c_server.job_tokens import JobTokens
from gen3c_server.job_trace import JobTrace, NoTrace, Trace
from gen3c_server.metrics import PENDING, RUNNING, Recorder
from gen3c_server.pipeline import Services, check_prompts, run_job
from gen3c_server.probe import probe_graph
from gen3c_server.response_stream import ResponseStream
from gen3c_server.services import ConditionerModel, GeometryModel
from gen3c_server.serving import Serving
from gen3c_server.tensors import request_values
from gen3c_server.traces import Traces
from gen3c_server.triton_metrics import open_family

logger = logging.getLogger("gen3c")

CLOSE_TIMEOUT_S = 5.0
LAST_METRICS_S = 1.0


class JobModel:
    """Base of the model's `TritonPythonModel`.

    `execute` only checks and queues, so a bad request is answered at once whatever is running. A request with the
    parameter `probe` calls every other model once and answers with `done`; it passes the queue.
    """

    def initialize(self, args: dict[str, str]) -> None:
        logging.basicConfig(format="gen3c %(levelname)s %(message)s")
        self._serving = serving = Serving.of(args)
        self._settings = settings = serving.settings
        settings.apply_threads()
        # What can be refused comes before what takes memory of a GPU.
        serving.check_foreign()
        self._weights = {"dit": serving.weights(DIT.name), "vae": serving.weights(VIDEO_DECODER.name)}
        self._text = serving.text_encoder()
        self._programs = Programs(
            dit=serving.leaf(DIT.name),
            video_encoder=serving.near(VIDEO_ENCODER.name),
            video_decoder=releasing(serving.near(VIDEO_DECODER.name), settings.device),
            conditioner=ConditionerModel(),
            seed_frames=serving.seed_frames,
            device=settings.device,
        )
        self._probing = threading.Lock()
        self._probe_callers: list[ResponseStream] = []
        self._traces = Traces(settings.otlp_endpoint, args["model_name"])
        self._recorder = Recorder(open_family)
        self._tokens = JobTokens(settings.run_dir)
        self._queue = JobQueue(
            self._tokens,
            queued=settings.limits.queued_jobs,
            workers=settings.deployment.running_jobs,
            on_change=self._on_change,
        )

    def execute(self, requests: list["pb_utils.InferenceRequest"]) -> None:
        for request in requests:
            stream = ResponseStream(request.get_response_sender())
            try:
                parameters = json.loads(request.parameters() or "{}")
                if parameters.get("probe"):
                    self._start_probe(stream)
                else:
                    self._take(request, stream, TraceParent.parse(parameters.get(TRACE_PARAMETER)))
            except Exception as error:
                stream.fail(JobError.of(error))

    def finalize(self) -> None:
        self._queue.close(CLOSE_TIMEOUT_S)
        self._recorder.close(LAST_METRICS_S)
        self._traces.close()

    def _take(self, request: "pb_utils.InferenceRequest", stream: ResponseStream, parent: TraceParent | None) -> None:
        write = _write_line if self._settings.log_format == "json" else None
        tracer = self._traces.tracer
        trace: Trace = NoTrace(parent) if tracer is None else JobTrace(tracer, parent)
        report = JobReport(
            secrets.token_hex(8), request.request_id(), stream, self._recorder.record, write, trace=trace
        )
        try:
            inputs = read_inputs(request_values(request), self._settings.preset, self._settings.limits)
            check_prompts(inputs.spec, self._settings.preset, self._text)  # refused before the job waits
            report.describe(media=len(inputs.media), frames=inputs.num_frames)
            limit = self._settings.limits.job_seconds
            timeout_s = min(limit, inputs.spec.timeout_s or limit)
            self._queue.submit(Job(report.id, report, self._work(inputs, report), timeout_s))
        except Exception as error:
            report.fail(JobError.of(error))

    def _on_change(self, running: int, waiting: int) -> None:
        self._recorder.record(RUNNING, running)
        self._recorder.record(PENDING, waiting)

    def _work(self, inputs: JobInputs, report: JobReport) -> Callable[[Job], None]:
        def work(job: Job) -> None:
            report.begin()
            services = Services(
                preset=self._settings.preset,
                limits=self._settings.limits,
                geometry=GeometryModel(job.id, self._settings.progress_dir),
                programs=self._programs,
                text=self._text,
                weights=self._weights,
            )
            with report.trace.calls():
                run_job(inputs, services, job.send, job.should_stop)

        return work

    def _start_probe(self, stream: ResponseStream) -> None:
        # One at a time: probes pass the queue, so a crowd of them would slow down the job that runs.
        with self._probing:
            self._probe_callers.append(stream)
            if len(self._probe_callers) > 1:
                return  # the one under way answers all
        threading.Thread(target=self._probe, daemon=True).start()

    def _probe(self) -> None:
        failure: JobError | None = None
        try:
            # A reconstruction occupies its model for a minute; the job that waits for it tells that it is alive.
            probe_graph(
                self._serving,
                self._programs,
                with_geometry=not self._queue.is_busy(),
                is_stopping=lambda: self._tokens.is_draining() or self._tokens.is_restarting(),
            )
        except Exception as error:
            failure = JobError.of(error)
        with self._probing:
            callers, self._probe_callers = self._probe_callers, []
        for stream in callers:
            try:
                if failure is not None:
                    stream.fail(failure)
                else:
                    stream.send(Done(seed=0, timings_s={}, provenance={"probe": True, "weights": dict(self._weights)}))
                    stream.finish(None)
            except Exception:
                logger.exception("a probe could not be answered")


def _write_line(line: str) -> None:
    """To standard error, which is Triton's log, in one piece: other processes write to it."""
    os.write(2, f"{line}\n".encode())
