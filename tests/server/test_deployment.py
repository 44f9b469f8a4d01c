"""What the real Triton makes of a deployment file: small models under the names of ours, one server for all tests."""

import re
import shutil
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
import yaml
from tritonclient.utils import InferenceServerException

from gen3c_server.deployment import Deployment, ModelSettings, launch_flags
from gen3c_server.launcher import EmbeddedServer, ServeOptions
from gen3c_server.model_config import leaf_config, service_config
from tests.server import small_leaf
from tests.server.small_leaf import CALL_S, SAID, signature

DEPLOYMENT = """
models:
  dit: {batching: {max_batch_size: 4, max_delay_ms: 30}, warm_up: true}
  vggt: {queue: {size: 2}}
  geometry: {queue: {size: 8, timeout_s: 0.25}}
  conditioner: {instances: 2}
  video_encoder: {resources: {turn: 1}}
  video_decoder: {resources: {turn: 1}}
resources: {turn: 1, spare: 2}  # a flag for each, needed or not
gpu_resources: {idle: 1}
"""

LEAF = """
from gen3c.program import LocalProgram
from gen3c_server.leaf import LeafModel
from small_leaf import Slow, signature

class TritonPythonModel(LeafModel):
    def open(self, serving, name):
        return signature(name), LocalProgram(Slow(), signature(name))
"""

# The same without torch, which takes a second to import; one request after another. All open the same metrics.
PLAIN = """
import os, time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.calls = 0
        kinds = {"small_calls_total": pb_utils.MetricFamily.COUNTER, "small_pid": pb_utils.MetricFamily.GAUGE}
        self.families = [pb_utils.MetricFamily(name=n, description="of a test", kind=kind) for n, kind in kinds.items()]
        self.counter, self.gauge = (family.Metric(labels={"model": args["model_name"]}) for family in self.families)

    def execute(self, requests):
        return [self.answer(request, len(requests)) for request in requests]

    def answer(self, request, rows):
        self.calls += 1
        self.counter.increment(1)
        self.gauge.set(os.getpid())
        started = time.monotonic_ns() // 1_000_000
        time.sleep(CALL_S)
        x, fps = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("X", "FPS"))
        said = np.array([[os.getpid(), rows, started, time.monotonic_ns() // 1_000_000, self.calls]])
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", x * fps), pb_utils.Tensor("INFO", said)])
"""


@dataclass(frozen=True)
class Answer:
    """Of one request of one row."""

    out: float
    pid: int
    rows: int  # in the call that it was part of
    started_ms: int
    ended_ms: int
    calls: int  # of its process, up to this one


def write_repository(folder: Path, deployment: Deployment) -> None:
    for name in deployment.models:
        settings, version = deployment.settings(name, "cpu"), folder / name / "1"
        version.mkdir(parents=True)
        own = ModelSettings() if name in ("geometry", "conditioner") else settings
        text = leaf_config(signature(name), platform="python", device="cpu", sizes={}, settings=own)
        if own is not settings:
            text = service_config(text, settings, "cpu")
        (folder / name / "config.pbtxt").write_text(text)
        (version / "model.py").write_text(LEAF if name == "dit" else PLAIN.replace("CALL_S", str(CALL_S)))
    shutil.copy(small_leaf.__file__, folder / "dit" / "1")


@pytest.fixture(scope="module")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server of six small models."""
    deployment = Deployment.model_validate(yaml.safe_load(DEPLOYMENT))
    repository = tmp_path_factory.mktemp("deployment") / "model_repository"
    write_repository(repository, deployment)
    with EmbeddedServer(ServeOptions(repository, triton_flags=launch_flags(deployment))) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="module")
def small(small_server: EmbeddedServer) -> str:
    """Its address."""
    return small_server.grpc_url


@pytest.fixture(scope="module")
def first_call(small: str) -> Answer:
    """The first request that the leaf with a warm-up gets."""
    return ask(small, "dit", [1.0])[0]  # type: ignore[return-value]


def ask(
    url: str, models: str | Sequence[str], values: Sequence[float], fps: Sequence[float] = ()
) -> list[Answer | str]:
    """One request for each value, at the same time: its answer or its error's message."""
    names = [models] * len(values) if isinstance(models, str) else models
    rates = fps or [2.0] * len(values)
    with triton.InferenceServerClient(url) as client, ThreadPoolExecutor(len(values)) as pool:

        def one(name: str, x: float, rate: float) -> Answer | str:
            inputs = []
            for tensor, value in (("X", x), ("FPS", rate)):
                inputs.append(triton.InferInput(tensor, [1, 1], "FP32"))
                inputs[-1].set_data_from_numpy(np.array([[value]], np.float32))
            try:
                result = client.infer(name, inputs)
            except InferenceServerException as error:
                return str(error)
            return Answer(float(result.as_numpy("OUT")[0, 0]), *(int(n) for n in result.as_numpy("INFO")[0]))

        return list(pool.map(one, names, values, rates))


def answers(found: Sequence[Answer | str]) -> list[Answer]:
    return [answer for answer in found if isinstance(answer, Answer)]


def errors(found: Sequence[Answer | str]) -> list[str]:
    return [error for error in found if isinstance(error, str)]


def calls(found: Sequence[Answer]) -> dict[tuple[int, int], list[Answer]]:
    """The requests of each call."""
    groups: dict[tuple[int, int], list[Answer]] = {}
    for answer in found:
        groups.setdefault((answer.pid, answer.calls), []).append(answer)
    return groups


def test_info_is_what_the_answer_says() -> None:
    assert tuple(Answer.__dataclass_fields__)[1:] == SAID


def test_a_warm_up_runs_before_ready(first_call: Answer) -> None:
    assert first_call.calls == 3  # after one of a row and one of a full batch


@pytest.mark.usefixtures("first_call")
def test_calls_are_put_together_and_rows_come_back_to_their_owners(small: str) -> None:
    found = answers(ask(small, "dit", [float(i) for i in range(8)]))
    assert [answer.out for answer in found] == [2.0 * i for i in range(8)]
    made = calls(found)
    assert len(made) <= 5  # 2 or 3 as a rule, more on a busy machine; 8 without batching
    assert all(len(group) == group[0].rows for group in made.values())


@pytest.mark.usefixtures("first_call")
def test_calls_of_two_frame_rates_stay_apart(small: str) -> None:
    found = answers(ask(small, "dit", [1.0] * 8, [24.0, 30.0] * 4))
    assert [answer.out for answer in found] == [24.0, 30.0] * 4
    assert all(len({answer.out for answer in group}) == 1 for group in calls(found).values())


@pytest.mark.usefixtures("first_call")
def test_one_bad_request_costs_its_neighbours_nothing(small: str) -> None:
    found = ask(small, "dit", [1.0, 2.0, -3.0, 4.0])
    assert [answer.out for answer in answers(found)] == [2.0, 4.0, 8.0]
    assert found[2] == "[StatusCode.INVALID_ARGUMENT] INVALID_ARG: X is -3; legal: from 0."


def test_without_batching_every_request_is_a_call(small: str) -> None:
    """Also with `dynamic_batching` at max_batch_size 0, which is how a queue is bounded."""
    found = answers(ask(small, "vggt", [1.0, 2.0]))
    assert [answer.rows for answer in found] == [1, 1]
    assert len(calls(found)) == 2


def test_a_full_queue_refuses_at_once(small: str) -> None:
    started = time.monotonic()
    found = ask(small, "vggt", [1.0] * 8)
    refused = errors(found)
    # Two that wait, and the one in work if it was taken up in time; more where they come late.
    assert 2 <= len(answers(found)) <= 6
    assert all("UNAVAILABLE" in error and "Exceeds maximum queue size" in error for error in refused)
    assert time.monotonic() - started < 8 * CALL_S + 1  # the stall of a bounded queue, at most 0.5 s a call, included


def test_a_call_that_waits_too_long_is_refused(small: str) -> None:
    refused = errors(ask(small, "geometry", [1.0] * 8))
    assert 1 <= len(refused) <= 7
    assert all("UNAVAILABLE" in error and "Request timeout expired" in error for error in refused)


def test_instances_are_processes_that_work_at_the_same_time(small: str) -> None:
    found = answers(ask(small, "conditioner", [1.0] * 6))
    assert len(found) == 6
    assert len({answer.pid for answer in found}) == 2
    assert overlaps(found) > 0


def test_instances_share_the_series_of_a_metric(small_server: EmbeddedServer) -> None:
    """Counters add up; a gauge is what was set last, which is why the job model has one instance."""
    found = answers(ask(small_server.grpc_url, "conditioner", [1.0] * 6))
    by_process = {answer.pid: answer.calls for answer in sorted(found, key=lambda answer: answer.calls)}
    assert len(by_process) == 2
    with urllib.request.urlopen(f"http://{small_server.metrics_url}/metrics", timeout=10) as page:
        values = dict(re.findall(r'^(small_\w+){model="conditioner"} (\d+)$', page.read().decode(), re.MULTILINE))
    assert int(values["small_calls_total"]) == sum(by_process.values())
    assert int(values["small_pid"]) in by_process


def test_models_that_share_a_resource_take_turns(small: str) -> None:
    found = answers(ask(small, ["video_encoder", "video_decoder"] * 3, [1.0] * 6))
    assert len(found) == 6
    assert len({answer.pid for answer in found}) == 2
    assert overlaps(found) == 0


def test_models_that_share_nothing_do_not(small: str) -> None:
    assert overlaps(answers(ask(small, ["video_encoder", "conditioner"] * 3, [1.0] * 6))) > 0


def overlaps(found: Sequence[Answer]) -> int:
    """How many calls began before the one before them had ended."""
    spans = sorted((answer.started_ms, answer.ended_ms) for answer in found)
    return sum(after[0] < before[1] for before, after in pairwise(spans))
