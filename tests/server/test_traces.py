"""Traces of jobs in the real server, as a collector gets them."""

import itertools
import re
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from gen3c_client.contract import TRACE_PARAMETER, Progress, TraceParent
from gen3c_client.transport import Client

from gen3c_server.canary import check
from gen3c_server.launch import Wishes, plan
from gen3c_server.launcher import EmbeddedServer, ServeOptions
from gen3c_server.metrics import STAGES
from gen3c_server.traces import EXPORT_TIMEOUT_S
from tests.server.conftest import SmallJob, collect, picture, png, raw_job, run
from tests.server.otlp import Collector, Span, collector
from tests.server.test_metrics import log
from tests.test_docs import DOCS, section

STEPS, VIEWS = 2, 3
NOBODY = "http://127.0.0.1:1/v1/traces"


@pytest.fixture(scope="module")
def traced(built: Path) -> Iterator[tuple[EmbeddedServer, Collector]]:
    with collector() as found, started(built, found.url) as server:
        server.wait_ready(check)
        yield server, found


def started(built: Path, endpoint: str) -> EmbeddedServer:
    planned = plan(Wishes(None, built, None, None, None, None, None), print)
    environment = {**planned.environment, "GEN3C_LOG_FORMAT": "json", "GEN3C_OTLP_ENDPOINT": endpoint}
    return EmbeddedServer(ServeOptions(planned.models, environment=environment, triton_flags=planned.flags))


def trace_of(found: Collector, trace_id: str, *also: str) -> list[Span]:
    """The spans of a trace once its job's is there, and one of a model for each time that `also` names it.

    Each process sends its own, when it is time.
    """

    def is_whole(spans: list[Span]) -> bool:
        there = Counter((span.name, span.model) for span in spans if span.trace_id == trace_id)
        return Counter([("gen3c.job", "gen3c"), *((name, name) for name in also)]) <= there

    return [span for span in found.wait(is_whole) if span.trace_id == trace_id]


def children(spans: list[Span], parent: Span) -> list[Span]:
    """In the order of their beginning; each within its parent."""
    found = sorted((span for span in spans if span.parent_id == parent.span_id), key=lambda span: span.start)
    assert all(parent.holds(span) for span in found), (parent, found)
    return found


def test_a_job_is_one_trace_across_all_models_under_the_caller_s_id(traced: tuple[EmbeddedServer, Collector]) -> None:
    server, found = traced
    parent, job = TraceParent.new(), SmallJob(views=VIEWS)
    spec = job.job_spec(steps=STEPS, geometry={"provider": "vggt"}, save=["video", "points"])
    done = collect(Client(server.grpc_url).generate(job.media, spec, trace=parent)).done
    spans = trace_of(found, parent.trace_id, "geometry", *["conditioner"] * VIEWS)

    (root,) = [span for span in spans if span.name == "gen3c.job"]
    assert root.parent_id == parent.parent_id
    facts = {name: root.attributes[f"gen3c.{name}"] for name in ("outcome", "views", "frames", "media", "request_id")}
    assert facts == {"outcome": "completed", "views": VIEWS, "frames": 25, "media": VIEWS, "request_id": ""}
    documented = re.findall(r"`(gen3c\.[a-z_]+)`", section(DOCS / "deployment.md", "Traces"))
    assert {*root.attributes, "gen3c.code", "gen3c.job"} == set(documented)
    stages = children(spans, root)
    assert [span.name for span in stages] == ["queued", *STAGES]
    for before, after in itertools.pairwise(stages):
        assert before.end <= after.start
    for span in stages[1:]:
        assert span.end - span.start == pytest.approx(done.timings_s[span.name], abs=0.5)
    called = {span.name: children(spans, span) for span in stages}
    assert {stage: Counter(span.name for span in calls) for stage, calls in called.items() if calls} == {
        "geometry": {"geometry": 1},
        "condition": {"conditioner": VIEWS},
        "denoise": {"dit": STEPS},
    }
    # In the other processes: what they did, and what they called themselves.
    (geometry,) = children(spans, called["geometry"][0])
    assert (geometry.name, geometry.model) == ("geometry", "geometry")
    assert [(span.name, span.model) for span in children(spans, geometry)] == [("vggt", "geometry")]
    for call in called["condition"]:
        assert [(span.name, span.model) for span in children(spans, call)] == [("conditioner", "conditioner")]
    assert {span.service for span in spans} == {"gen3c"}
    assert len(spans) == 1 + len(stages) + (1 + 1 + 1) + 2 * VIEWS + STEPS  # nothing hangs elsewhere
    assert not any(span.failed for span in spans)


def test_the_log_names_the_trace_and_a_refused_job_has_one(traced: tuple[EmbeddedServer, Collector]) -> None:
    server, found = traced
    spec = b'{"names": ["secret.png"], "prompt": "a secret"}'
    raw_job(server.grpc_url, spec, [png(picture())], request_id="traced-1")
    (line,) = log(server, "traced-1")
    (span,) = [span for span in trace_of(found, line["trace_id"]) if span.name == "gen3c.job"]
    assert span.parent_id == ""
    assert span.attributes["gen3c.job_id"] == line["job_id"]
    assert (span.attributes["gen3c.outcome"], span.attributes["gen3c.code"]) == ("invalid", "INVALID_ARG")
    assert "secret" not in str(span)


def test_a_trace_may_come_as_the_metadata_of_the_call(traced: tuple[EmbeddedServer, Collector]) -> None:
    server, found = traced
    parent = TraceParent.new()
    raw_job(server.grpc_url, b"{", [], request_id="metadata", metadata={"traceparent": str(parent)})
    assert log(server, "metadata")[-1]["trace_id"] == parent.trace_id
    (span,) = trace_of(found, parent.trace_id)
    assert span.parent_id == parent.parent_id


@pytest.mark.parametrize("sent", ["00-0-0-01", f"00-{'0' * 32}-{'1' * 16}-01", 7])
def test_what_is_no_trace_of_a_caller_begins_one(traced: tuple[EmbeddedServer, Collector], sent: str | int) -> None:
    server, found = traced
    request_id = f"no trace {sent}"
    raw_job(server.grpc_url, b"{", [], request_id=request_id, parameters={TRACE_PARAMETER: sent})
    (line,) = log(server, request_id)
    assert [(span.name, span.parent_id) for span in trace_of(found, line["trace_id"])] == [("gen3c.job", "")]


def test_a_trace_that_is_not_sampled_is_not_sent(traced: tuple[EmbeddedServer, Collector]) -> None:
    server, found = traced
    quiet, loud = TraceParent("a" * 32, "b" * 16, sampled=False), TraceParent.new()
    for trace in (quiet, loud):
        raw_job(server.grpc_url, b"{", [], request_id=trace.trace_id, parameters={TRACE_PARAMETER: str(trace)})
        assert log(server, trace.trace_id)[-1]["trace_id"] == trace.trace_id
    trace_of(found, loud.trace_id)
    assert quiet.trace_id not in {span.trace_id for span in found.spans}


def test_a_cancelled_job_s_spans_end_with_it(traced: tuple[EmbeddedServer, Collector]) -> None:
    server, found = traced
    trace, job = TraceParent.new(), SmallJob()
    events = Client(server.grpc_url).generate(job.media, job.job_spec(steps=500), geometry=job.geometry, trace=trace)
    with closing(events):
        for event in events:
            if isinstance(event, Progress) and event.stage == "denoise" and event.step:
                break
    spans = trace_of(found, trace.trace_id)
    (root,) = [span for span in spans if span.name == "gen3c.job"]
    assert root.attributes["gen3c.outcome"] == "cancelled"
    assert children(spans, root)[-1].name == "denoise"
    assert not root.failed
    assert "decode" not in {span.name for span in spans}


@pytest.mark.slow
def test_a_collector_that_is_gone_or_silent_costs_a_job_and_a_stop_nothing(built: Path) -> None:
    silent = threading.Event()
    with collector(answers=silent) as found:
        for endpoint in (NOBODY, found.url):
            with started(built, endpoint) as server:
                server.wait_ready(check)
                client, job = Client(server.grpc_url), SmallJob()
                took = []
                for _ in range(4):
                    began = time.monotonic()
                    assert "video.mp4" in run(client, job).files
                    took.append(time.monotonic() - began)
                began = time.monotonic()
                server.stop()
                stopped = time.monotonic() - began
                print(endpoint, [round(seconds, 2) for seconds in took], f"stop {stopped:.1f} s")
                # An export that jobs waited for would take its whole limit.
                assert statistics.median(took) < min(took) + EXPORT_TIMEOUT_S / 2
                assert stopped < server.options.exit_timeout_s
        silent.set()
        assert np.all([span.name for span in found.spans])
