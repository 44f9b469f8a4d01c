"""What an operator sees of jobs in the real server: its metrics port, and the log."""

import json
import re
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gen3c_client.contract import Done, Progress
from gen3c_client.transport import Client

from gen3c.presets import TINY
from gen3c_server.json_lines import is_json_line
from gen3c_server.launcher import EmbeddedServer
from gen3c_server.metrics import FAMILIES, OUTCOMES, STAGES
from tests.monitoring import OF_GPUS, alerts, queries
from tests.server.conftest import SmallJob, picture, png, raw_job

STEPS = 2
Series = dict[str, float]  # `name{label="value"}` -> value


def exposition(server: EmbeddedServer) -> str:
    with urllib.request.urlopen(f"http://{server.metrics_url}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def scrape(server: EmbeddedServer) -> Series:
    """All series of ours."""
    return {name: float(value) for name, value in re.findall(r"^(gen3c_\S+) (\S+)$", exposition(server), re.MULTILINE)}


def at_rest(server: EmbeddedServer) -> Series:
    """All series once no job of an earlier test is left; a job is counted before it leaves the gauges."""
    deadline = time.monotonic() + 10
    while (now := scrape(server))["gen3c_jobs_running"] or now["gen3c_jobs_pending"]:
        assert time.monotonic() < deadline, now
        time.sleep(0.02)
    return now


def changes(server: EmbeddedServer, before: Series, done: Callable[[Series], bool]) -> Series:
    """What has changed since `before`, once `done` of it; metrics come a moment after a job's last answer."""
    deadline = time.monotonic() + 10
    while True:
        now = scrape(server)
        changed = {name: value - before[name] for name, value in now.items() if value != before[name]}
        if done(changed):
            return changed
        assert time.monotonic() < deadline, changed
        time.sleep(0.02)


def outcomes(changed: Series) -> Series:
    return {name: changed.get(f'gen3c_jobs_total{{outcome="{name}"}}', 0.0) for name in OUTCOMES}


def only(outcome: str, count: int = 1) -> Series:
    return {name: float(count if name == outcome else 0) for name in OUTCOMES}


def log(server: EmbeddedServer, request_id: str) -> list[dict[str, Any]]:
    """The lines of one request, once the last is there."""
    deadline = time.monotonic() + 10
    while True:
        lines = [json.loads(line) for line in server.log_path.read_text().splitlines() if is_json_line(line)]
        found = [line for line in lines if line["request_id"] == request_id]
        if found and found[-1]["event"] == "job_ended":
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def test_all_series_are_there_with_their_help_and_kind(server: EmbeddedServer) -> None:
    text = exposition(server)
    names = set(scrape(server))
    for family in FAMILIES:
        assert f"# HELP {family.name} {family.help}\n# TYPE {family.name} {family.kind}\n" in text
        labels = [f'{{{family.label}="{value}"}}' for value in family.values] or [""]
        suffixes = ("_count", "_sum") if family.kind == "histogram" else ("",)
        expected = {f"{family.name}{suffix}{label}" for suffix in suffixes for label in labels}
        assert expected == {name for name in names if re.fullmatch(rf"{family.name}(_count|_sum)?(\{{.*)?", name)}
        buckets = [name for name in names if name.startswith(f"{family.name}_bucket")]
        assert len(buckets) == (len(labels) * (len(family.buckets) + 1) if family.buckets else 0)


def test_triton_has_what_the_dashboard_asks_of_it(server: EmbeddedServer) -> None:
    told = set(re.findall(r"^# TYPE (nv_\w+) ", exposition(server), re.MULTILINE))
    asked = {name for query in (*queries(), *alerts()) for name in query.metrics if name.startswith("nv_")}
    assert asked - told == OF_GPUS  # which are Triton's own names of what is not here: its documentation


def test_a_completed_job_is_measured_and_logged(server: EmbeddedServer) -> None:
    before, job = at_rest(server), SmallJob(views=3)
    spec = job.job_spec(steps=STEPS).model_dump_json().encode()
    geometry = np.array([job.geometry], dtype=np.object_)
    events, error = raw_job(server.grpc_url, spec, job.media, request_id="shop-1", GEOMETRY=geometry)
    done = events[-1]
    assert error is None
    assert isinstance(done, Done)

    changed = changes(server, before, lambda found: sum(outcomes(found).values()) > 0)
    assert outcomes(changed) == only("completed")
    for stage in STAGES:
        assert changed[f'gen3c_stage_duration_seconds_count{{stage="{stage}"}}'] == 1
        measured = changed[f'gen3c_stage_duration_seconds_sum{{stage="{stage}"}}']
        # An event is sent a moment after it was timed for the caller, a longer one on a busy machine.
        assert measured == pytest.approx(done.timings_s[stage], abs=0.5)
    assert changed["gen3c_denoise_step_duration_seconds_count"] == STEPS
    steps = changed["gen3c_denoise_step_duration_seconds_sum"]
    assert 0 < steps <= changed['gen3c_stage_duration_seconds_sum{stage="denoise"}']
    assert changed["gen3c_job_duration_seconds_count"] == changed["gen3c_job_wait_seconds_count"] == 1
    seconds = changed["gen3c_job_duration_seconds_sum"]
    assert seconds == pytest.approx(sum(done.timings_s.values()), abs=1)
    assert (changed["gen3c_job_source_views_sum"], changed["gen3c_job_source_views_count"]) == (3, 1)
    assert (changed["gen3c_job_frames_sum"], changed["gen3c_job_frames_count"]) == (TINY.chunk_frames, 1)
    assert changed['gen3c_job_source_views_bucket{le="4"}'] == 1
    assert 'gen3c_job_source_views_bucket{le="2"}' not in changed

    lines = log(server, "shop-1")
    assert [line["event"] for line in lines] == ["job_accepted", *["stage_done"] * len(STAGES), "job_ended"]
    assert len({line["job_id"] for line in lines}) == 1
    assert [line["stage"] for line in lines[1:-1]] == list(STAGES)
    assert {name: lines[0][name] for name in ("media", "frames", "jobs_ahead", "level")} == {
        "media": 3,
        "frames": TINY.chunk_frames,
        "jobs_ahead": 0,
        "level": "info",
    }
    assert lines[-1]["outcome"] == "completed"
    assert lines[-1]["seconds"] == pytest.approx(seconds, abs=0.01)


def test_a_refused_job_is_counted_and_its_words_are_not_logged(server: EmbeddedServer) -> None:
    before = at_rest(server)
    spec = b'{"names": ["secret.png"], "prompt": "a secret"}'  # a server without a text encoder takes no prompt
    _, error = raw_job(server.grpc_url, spec, [png(picture())], request_id="shop-2")
    assert error is not None
    assert error.startswith("INVALID_ARG")
    changed = changes(server, before, lambda found: sum(outcomes(found).values()) > 0)
    assert outcomes(changed) == only("invalid")
    assert len(changed) == 1
    (line,) = log(server, "shop-2")
    assert (line["event"], line["outcome"], line["code"]) == ("job_ended", "invalid", "INVALID_ARG")
    assert "secret" not in json.dumps(line)
    raw_job(server.grpc_url, spec, [b"secret"], request_id="x" * 5000 + "\n")
    assert log(server, "x" * 128)


def test_a_running_and_a_waiting_job_are_seen_and_then_cancelled(server: EmbeddedServer, client: Client) -> None:
    before, job = at_rest(server), SmallJob()
    running = client.generate(job.media, job.job_spec(steps=500), geometry=job.geometry)
    for event in running:
        if isinstance(event, Progress) and event.stage == "denoise":
            break
    waiting = client.generate(job.media, job.job_spec(), geometry=job.geometry)
    assert isinstance(next(waiting), Progress)
    changed = changes(server, before, lambda found: "gen3c_jobs_pending" in found)
    assert (changed["gen3c_jobs_running"], changed["gen3c_jobs_pending"]) == (1, 1)
    waiting.close()
    running.close()
    changed = changes(server, before, lambda found: outcomes(found) == only("cancelled", 2))
    changed = changes(server, before, lambda found: not {"gen3c_jobs_running", "gen3c_jobs_pending"} & set(found))
    assert "gen3c_job_duration_seconds_count" not in changed
    assert changed["gen3c_job_wait_seconds_count"] == 1
    assert 'gen3c_stage_duration_seconds_count{stage="denoise"}' not in changed
    ended = [json.loads(line) for line in server.log_path.read_text().splitlines() if is_json_line(line)][-2:]
    assert [(line["event"], line["outcome"], line.get("stage")) for line in ended] == [
        ("job_ended", "cancelled", None),
        ("job_ended", "cancelled", "denoise"),
    ]
