"""Reading Triton's log: the part that matters to a person, and why a start failed."""

from __future__ import annotations

import re
from pathlib import Path

# Normal on a machine without a GPU, or said again by the launcher in better words.
_HARMLESS = re.compile(
    r"CudaDriverHelper|pinned memory|pinned system memory|NVML|DCGM|CUDA memory pool|chttp2_server|"
    r"Non-graceful termination"
)
_WARNING_OR_ERROR = re.compile(r"^[WE]\d{4} [\d:.]+ +\d+ [\w.]+:\d+\] ?\"?(.*?)\"?$")
_TABLE = re.compile(r"^(\||\+-)|^\s*$")
_TRACEBACK = re.compile(r"(?:\\n|\n)+At:.*", re.DOTALL)
_STATUS = re.compile(r"^(?:Internal|Invalid argument|Unavailable|Not found|Unsupported)(?::| -) ")
_FAILED = (
    # The parser's own words precede Triton's, which only say that there was something.
    re.compile(
        r"Error parsing text-format inference\.ModelConfig: (?P<reason>.+)\n"
        r".*Poll failed for model directory '(?P<model>[^']+)'"
    ),
    re.compile(r"failed to load '(?P<model>[^']+)' version \d+: (?P<reason>.+?)\"?$", re.MULTILINE),
    re.compile(r"failed to load model '(?P<model>[^']+)': (?P<reason>.+?)\"?$", re.MULTILINE),
    re.compile(r"Poll failed for model directory '(?P<model>[^']+)': (?P<reason>.+?)\"?$", re.MULTILINE),
)
_BUSY = re.compile(r"Socket '(?P<address>[^']+)' already in use")
_UNLOADING = re.compile(r"Found (\d+) live models and (\d+) in-flight non-inference requests")
_LOADING = re.compile(r"loading: ([^:\s\"]+):\d+")
_LOADED = re.compile(r"(?:successfully loaded|failed to load) '([^']+)'")


class LogReader:
    """Reads what has been written to a log since this server started; earlier servers' lines are not seen."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = self._position = path.stat().st_size if path.exists() else 0

    def text(self) -> str:
        """Everything that this server wrote."""
        with self.path.open("rb") as file:
            file.seek(self._start)
            return file.read().decode(errors="replace")

    def new_lines(self) -> list[str]:
        """The complete lines since the last call."""
        with self.path.open("rb") as file:
            file.seek(self._position)
            data = file.read()
        end = data.rfind(b"\n") + 1
        self._position += end
        return data[:end].decode(errors="replace").splitlines()


def all_unloaded(text: str) -> bool:
    """Whether a server that stops has nothing left to end: no model and no request."""
    counts = _UNLOADING.findall(text)
    return bool(counts) and counts[-1] == ("0", "0")


def of_interest(line: str) -> str | None:
    """The message of a warning or an error that an operator should see, without its traceback; else None."""
    match = _WARNING_OR_ERROR.match(line)
    if match is None or _HARMLESS.search(line):
        return None
    return without_traceback(match[1])


def without_traceback(message: str) -> str:
    """Cuts the Python traceback that the python backend appends to an error."""
    return _TRACEBACK.sub("", message).strip()


def failed_models(text: str) -> dict[str, str]:
    """Model -> why it did not load, as the model said it."""
    failed: dict[str, str] = {}
    for pattern in _FAILED:
        for match in pattern.finditer(text):
            reason = _STATUS.sub("", without_traceback(match["reason"]))
            failed.setdefault(match["model"], reason.replace("\\n", " "))
    return failed


def busy_address(text: str) -> str | None:
    """The `host:port` that Triton found in use."""
    match = _BUSY.search(text)
    return match["address"] if match else None


def loading_models(text: str) -> list[str]:
    """The models whose loading has begun and not ended."""
    return sorted(set(_LOADING.findall(text)) - set(_LOADED.findall(text)))


def last_lines(text: str, count: int = 8) -> str:
    """The last lines without the tables that Triton draws, cut to a readable width, one `  | ` each."""
    lines = [line for line in text.splitlines() if not _TABLE.match(line) and not _HARMLESS.search(line)]
    return "\n".join(f"  | {without_traceback(line)[:300]}" for line in lines[-count:])
