"""What the user sees while a job runs."""

import io
import json

import pytest
from gen3c_client.contract import Notice, Progress, Stage
from gen3c_client.progress import BarReporter, JsonReporter, LineReporter, Reporter, duration, file_size, make_reporter
from rich.console import Console


class Clock:
    """Time that moves when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=100, color_system=None), text


def step(stage: Stage, number: int, total: int, eta: float | None = None, message: str = "") -> Progress:
    return Progress(stage=stage, step=number, total=total, eta_s=eta, message=message)


def test_a_log_gets_a_line_for_every_stage_its_end_and_each_ten_seconds() -> None:
    to, text = console(terminal=False)
    clock = Clock()
    reporter = LineReporter(to, clock)
    reporter.sending(2_500_000, 3)
    reporter.progress(step("queued", 2, 0, message="2 jobs ahead"))
    for i in range(1, 36):
        clock.now += 1
        reporter.progress(step("denoise", i, 35, eta=(35 - i) * 2.0))
    reporter.notice(Notice(message="untrained [weights]"))
    assert text.getvalue().splitlines() == [
        "Sending 3 files, 2.5 MB",
        "waiting in the queue (2 jobs ahead)",
        "denoising 1/35, about 1:08 min left",
        "denoising 11/35, about 48 s left",
        "denoising 21/35, about 28 s left",
        "denoising 31/35, about 8.0 s left",
        "denoising 35/35, about 0.0 s left",
        "note: untrained [weights]",
    ]


def test_bars_show_each_stage_with_the_time_it_took_or_the_job_has_left() -> None:
    to, text = console(terminal=True)
    clock = Clock()
    reporter = BarReporter(to, clock)
    reporter.progress(step("geometry", 0, 4))
    clock.now += 3
    reporter.progress(step("geometry", 4, 4))
    reporter.progress(step("denoise", 10, 35, eta=125))
    clock.now += 5
    reporter.close()
    last = text.getvalue().rsplit("geometry", 1)[1].splitlines()
    assert "4/4" in last[0]
    assert "3.0 s" in last[0]
    assert "denoising" in last[1]
    assert "10/35" in last[1]
    assert "2:00 min left" in last[1]


def test_a_stage_may_come_again_and_a_queue_has_no_end() -> None:
    to, text = console(terminal=True)
    reporter = BarReporter(to, Clock())
    for event in (step("queued", 1, 3), step("condition", 4, 4), step("denoise", 35, 35), step("condition", 1, 4)):
        reporter.progress(event)
    reporter.close()
    assert "1/4" in text.getvalue().rsplit("rendering views", 1)[1].splitlines()[0]
    assert "1/3" not in text.getvalue()


def test_programs_get_the_events_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = JsonReporter()
    reporter.sending(1, 1)
    reporter.progress(step("denoise", 1, 3, eta=2.5))
    reporter.notice(Notice(message="größer"))
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert Progress.model_validate(events[0]) == step("denoise", 1, 3, eta=2.5)
    assert Notice.model_validate(events[1]).message == "größer"


@pytest.mark.parametrize(
    ("terminal", "as_json", "quiet", "kind"),
    [
        (True, False, False, "BarReporter"),
        (False, False, False, "LineReporter"),
        (True, True, False, "JsonReporter"),
        (True, False, True, "QuietReporter"),
    ],
)
def test_the_reporter_fits_the_place(terminal: bool, as_json: bool, quiet: bool, kind: str) -> None:
    reporter: Reporter = make_reporter(console(terminal=terminal)[0], as_json=as_json, quiet=quiet)
    reporter.close()
    reporter.close()
    assert type(reporter).__name__ == kind


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.24, "4.2 s"), (59.7, "1:00 min"), (65, "1:05 min"), (3723, "1:02:03 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(999, "999 B"), (3400, "3.4 kB"), (5_100_000, "5.1 MB"), (2 * 10**9, "2 GB")]
)
def test_sizes(size: int, text: str) -> None:
    assert file_size(size) == text
