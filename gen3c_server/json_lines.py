"""Log lines as JSON: one object a line, for those who read logs with programs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Literal, get_args

LogFormat = Literal["text", "json"]
LOG_FORMATS: tuple[LogFormat, ...] = get_args(LogFormat)

_START = '{"time": "'


def json_line(event: str, **fields: str | float | None) -> str:
    """An object with `time` (UTC, RFC 3339, milliseconds), `event` and those `fields` that are not None.

    Characters outside ASCII and line breaks are escaped, so that one event is one line whatever a field holds.
    """
    time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    told = {name: value for name, value in fields.items() if value is not None}
    return json.dumps({"time": time, "event": event, **told})


def is_json_line(line: str) -> bool:
    """Whether `line` was made by `json_line`."""
    if not line.startswith(_START):
        return False
    try:
        return "event" in json.loads(line)
    except ValueError:
        return False
