import json
from datetime import UTC, datetime

from gen3c_server.json_lines import is_json_line, json_line


def test_a_line_is_an_object_with_time_and_event() -> None:
    line = json_line("job_ended", outcome="completed", seconds=1.5, message=None)
    fields = json.loads(line)
    at = datetime.fromisoformat(fields.pop("time"))
    assert abs((datetime.now(UTC) - at).total_seconds()) < 10
    assert fields == {"event": "job_ended", "outcome": "completed", "seconds": 1.5}
    assert is_json_line(line)


def test_whatever_a_field_holds_it_stays_one_line() -> None:
    line = json_line("server", message='two\nlines, "quoted", \u2028 and é')
    assert line.isascii()
    assert line.splitlines() == [line]


def test_other_lines_are_told_apart() -> None:
    for line in ("", "{}", "I1127 started", '{"time": "now"}', '{"time": "now", "event": 1', json_line("a")[:-1]):
        assert not is_json_line(line)
