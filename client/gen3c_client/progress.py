"""How a job looks while it runs: bars on a terminal, lines in a log, JSON for programs, or nothing."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from gen3c_client.contract import Info, Notice, Progress, Stage

_LINE_SECONDS = 10.0  # between two lines of one stage in a log
_STAGE_TEXT: dict[Stage, str] = {
    "queued": "waiting in the queue",
    "media": "reading media",
    "geometry": "geometry",
    "condition": "rendering views",
    "denoise": "denoising",
    "decode": "decoding",
    "encode": "encoding",
}


class Reporter(Protocol):
    """Shows the events of one job. A context manager around it; `close` ends the display early."""

    def sending(self, size: int, count: int) -> None:
        """The job of `count` files and `size` bytes leaves."""

    def progress(self, event: Progress) -> None:
        """A stage moved on."""

    def notice(self, event: Notice | Info) -> None:
        """The server has something to say."""

    def close(self) -> None:
        """Nothing more is shown. Safe to call twice."""


class BarReporter:
    """One bar a stage, with the time that the stage took or the job has left."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._tasks: dict[Stage, TaskID] = {}
        self._active: Stage | None = None
        self._bars = Bars(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description:<20}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[steps]:>9}"),
            _TimeColumn(clock),
            TextColumn("[dim]{task.fields[message]}[/]"),
            console=console,
            get_time=clock,
        )
        self._bars.start()

    def sending(self, size: int, count: int) -> None:
        self._bars.console.print(_sending_text(size, count), highlight=False)

    def progress(self, event: Progress) -> None:
        if event.stage != self._active and self._active is not None:
            self._settle(self._active)
        self._active = event.stage
        if event.stage not in self._tasks:
            text = _STAGE_TEXT[event.stage]
            self._tasks[event.stage] = self._bars.add_task(text, total=None, steps="", message="", ends_at=None)
        waiting = event.stage == "queued" or event.total < 1
        self._bars.update(
            self._tasks[event.stage],
            completed=event.step,
            total=None if waiting else event.total,
            steps="" if waiting else f"{event.step}/{event.total}",
            message=event.message,
            ends_at=None if event.eta_s is None else self._clock() + event.eta_s,
        )

    def notice(self, event: Notice | Info) -> None:
        text = _escape(event.message)
        shown = f"[yellow]Note:[/] {text}" if isinstance(event, Notice) else f"[dim]{text}[/]"
        self._bars.console.print(shown, highlight=False)

    def close(self) -> None:
        self._bars.stop()

    def _settle(self, stage: Stage) -> None:
        """A stage that another follows is over, whatever its last count was; long videos may come back to it."""
        task = self._tasks[stage]
        total = next(t.total for t in self._bars.tasks if t.id == task)
        self._bars.update(task, total=total or 1, completed=total or 1, ends_at=None, message="")


class LineReporter:
    """A line when a stage begins, when it ends, and every ten seconds in between: for logs and pipes."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._stage: Stage | None = None
        self._printed_at = 0.0

    def sending(self, size: int, count: int) -> None:
        self._print(_sending_text(size, count))

    def progress(self, event: Progress) -> None:
        now = self._clock()
        is_end = event.total > 0 and event.step >= event.total
        if event.stage == self._stage and not is_end and now - self._printed_at < _LINE_SECONDS:
            return
        self._stage, self._printed_at = event.stage, now
        count = f" {event.step}/{event.total}" if event.total > 0 and event.stage != "queued" else ""
        left = f", about {duration(event.eta_s)} left" if event.eta_s is not None else ""
        message = f" ({event.message})" if event.message else ""
        self._print(f"{_STAGE_TEXT[event.stage]}{count}{left}{message}")

    def notice(self, event: Notice | Info) -> None:
        self._print(f"note: {event.message}" if isinstance(event, Notice) else event.message)

    def close(self) -> None:
        pass

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class JsonReporter:
    """Every event as one JSON line on standard output."""

    def sending(self, size: int, count: int) -> None:
        pass

    def progress(self, event: Progress) -> None:
        print_json(event.model_dump())

    def notice(self, event: Notice | Info) -> None:
        print_json(event.model_dump())

    def close(self) -> None:
        pass


class QuietReporter:
    """Shows nothing."""

    def sending(self, size: int, count: int) -> None:
        pass

    def progress(self, event: Progress) -> None:
        pass

    def notice(self, event: Notice | Info) -> None:
        pass

    def close(self) -> None:
        pass


def make_reporter(console: Console, *, as_json: bool, quiet: bool) -> Reporter:
    """The reporter that fits: bars only where `console` is a terminal."""
    if as_json:
        return JsonReporter()
    if quiet:
        return QuietReporter()
    return BarReporter(console) if console.is_terminal else LineReporter(console)


def print_json(event: Mapping[str, Any]) -> None:
    """One event on one line of standard output, at once."""
    sys.stdout.write(json.dumps(event, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def duration(seconds: float) -> str:
    """`4.2 s`, `1:05 min` or `2:03:04 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02} h"
    return f"{minutes}:{rest:02} min" if minutes else f"{rest} s"


def file_size(size: int) -> str:
    """`812 B`, `3.4 kB`, `5.1 MB` ..."""
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}" if unit != "B" else f"{size} B"
        value /= 1000
    return f"{value:.3g} GB"


class _TimeColumn(ProgressColumn):
    """Seconds a finished stage took; for the running one the time to the job's end, else to its own."""

    max_refresh = 0.5

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock = clock

    def render(self, task: Task) -> Text:
        if task.finished:
            return Text(duration(task.finished_time or 0).rjust(14), style="dim")
        ends_at = task.fields["ends_at"]
        if ends_at is not None:
            return Text(f"{duration(max(0.0, ends_at - self._clock()))} left".rjust(14), style="cyan")
        if task.time_remaining is not None:
            return Text(f"{duration(task.time_remaining)} left".rjust(14), style="cyan")
        return Text(duration(task.elapsed or 0).rjust(14), style="cyan")


def _sending_text(size: int, count: int) -> str:
    return f"Sending {count} file{'s' if count != 1 else ''}, {file_size(size)}"


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
