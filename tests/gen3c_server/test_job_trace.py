"""Spans of a job from what is told of it, and what a process does with them."""

import subprocess
import sys
import time

import pytest
from gen3c_client.contract import TRACE_PARAMETER, TraceParent
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from gen3c.errors import InvalidInputError
from gen3c_server.errors import JobError
from gen3c_server.job_trace import JobTrace
from gen3c_server.traces import LAST_SPANS_S, MOST_PENDING, Traces, calling, check_endpoint

PARENT = TraceParent("a" * 32, "b" * 16)


class Kept:
    """A job's trace, and its spans that have ended."""

    def __init__(self, parent: TraceParent | None = PARENT) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.trace = JobTrace(provider.get_tracer("test"), parent)

    @property
    def spans(self) -> list[ReadableSpan]:
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def tree(self) -> list[str]:
        """Names below the job's, `parent/child`, in the order of their beginning; checks that they nest."""
        by_id = {span.get_span_context().span_id: span for span in self.spans}
        names = []
        for span in self.spans:
            parent = by_id.get(span.parent.span_id) if span.parent else None
            if parent is None:
                continue
            assert (parent.start_time or 0) <= (span.start_time or 0) <= (span.end_time or 0) <= (parent.end_time or 0)
            names.append(span.name if parent.name == "gen3c.job" else f"{parent.name}/{span.name}")
        return names


def call(model: str, seconds: float = 0.0) -> str:
    with calling(model) as parameters:
        time.sleep(seconds)
        return parameters[TRACE_PARAMETER]


def test_stages_of_two_chunks_and_the_calls_in_them() -> None:
    kept = Kept()
    trace = kept.trace
    trace.accept()
    trace.begin()
    with trace.calls():
        call("text_encoder")  # before any stage has been named
        trace.step("media", is_last=True)
        call("geometry")
        trace.step("geometry", is_last=False)
        trace.step("geometry", is_last=True)
        for chunk in range(2):
            trace.step("condition", is_last=False)
            call("conditioner")
            trace.step("condition", is_last=chunk == 1)
            # Between two stages, of which the first may go on: it does until the call's end.
            call("video_encoder", 0.01)
            trace.step("denoise", is_last=False)
            call("dit")
            trace.step("denoise", is_last=chunk == 1)
    trace.end(None)
    assert kept.tree() == [
        *("queued", "media", "media/text_encoder", "geometry", "geometry/geometry"),
        *("condition", "condition/conditioner", "condition/video_encoder", "denoise", "denoise/dit"),
        *("condition", "condition/conditioner", "denoise", "denoise/video_encoder", "denoise/dit"),
    ]
    kinds = {span.name: span.kind for span in kept.spans}
    assert (kinds["gen3c.job"], kinds["media"], kinds["dit"]) == (SpanKind.SERVER, SpanKind.INTERNAL, SpanKind.CLIENT)


def test_all_is_in_the_caller_s_trace_and_a_call_carries_its_own_span_on() -> None:
    kept = Kept()
    with kept.trace.calls():
        carried = TraceParent.parse(call("dit"))
    kept.trace.end(None)
    (dit,) = [span for span in kept.spans if span.name == "dit"]
    assert carried == TraceParent(PARENT.trace_id, f"{dit.get_span_context().span_id:016x}")
    assert {f"{span.get_span_context().trace_id:032x}" for span in kept.spans} == {PARENT.trace_id}
    assert kept.tree() == ["work", "work/dit"]
    assert kept.trace.trace_id == PARENT.trace_id


def test_jobs_without_a_caller_s_trace_have_one_each() -> None:
    first, second = Kept(None).trace.trace_id, Kept(None).trace.trace_id
    assert len({first, second, "0" * 32}) == 3


def test_a_call_that_fails_says_with_what_code_and_not_in_what_words() -> None:
    kept = Kept()
    kept.trace.begin()
    with kept.trace.calls():
        with pytest.raises(JobError), calling("geometry"):
            raise JobError("INVALID_ARG", "no matches in 'a secret'")
        assert calling("geometry") is not None
    kept.trace.end("Internal error; the log has the details under 0a1b.")
    spans = {span.name: span for span in kept.spans}
    assert dict(spans["geometry"].attributes or {})["error.type"] == "INVALID_ARG"
    assert not spans["geometry"].status.is_ok
    assert spans["gen3c.job"].status.description == "Internal error; the log has the details under 0a1b."
    assert "secret" not in "".join(span.to_json() for span in kept.spans)


def test_a_call_outside_of_a_job_carries_nothing() -> None:
    with calling("dit") as parameters:
        assert parameters == {}


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from gen3c_server.traces import Traces\nimport gen3c_server.job_report\n"
        "traces = Traces(None, 'gen3c'); traces.close(1)\n"
        "with traces.answering('geometry', '{}'): pass"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_collector_that_is_gone_holds_up_neither_spans_nor_the_end() -> None:
    traces = Traces("http://127.0.0.1:1/v1/traces", "gen3c")
    assert traces.tracer is not None
    began = time.monotonic()
    for _ in range(2 * MOST_PENDING):
        traces.tracer.start_span("dit").end()
    assert time.monotonic() - began < 3  # microseconds each, on a busy machine more
    began = time.monotonic()
    traces.close()
    assert time.monotonic() - began < LAST_SPANS_S + 0.5


@pytest.mark.parametrize("url", ["collector:4318", "http://collector:4318", "grpc://collector:4317/v1", "/v1/traces"])
def test_what_is_no_endpoint_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match=r"legal: a full URL of OTLP over HTTP"):
        check_endpoint(url)


def test_an_endpoint_without_the_packages_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.setattr("gen3c_server.traces.find_spec", _missing)
    with pytest.raises(InvalidInputError, match=r"pip install .gen3c-triton\[traces\]"):
        check_endpoint("http://collector:4318/v1/traces")


def _missing(name: str) -> None:
    raise ModuleNotFoundError(name)
