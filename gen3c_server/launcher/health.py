"""The few HTTP calls that the launcher makes to its own server."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass


@dataclass(frozen=True)
class ServerFacts:
    """What a running server says of itself."""

    version: str
    models: list[str]


def is_ready(url: str) -> bool:
    """Whether the server at `host:port` answers and all its models are loaded."""
    try:
        return _call(url, "GET", "/v2/health/ready")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def server_facts(url: str) -> ServerFacts:
    """Version and model names. Raises OSError or HTTPException when the server does not answer."""
    version = json.loads(_call(url, "GET", "/v2")[1])["version"]
    index = json.loads(_call(url, "POST", "/v2/repository/index")[1])
    return ServerFacts(version, sorted(entry["name"] for entry in index))


def _call(url: str, method: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(url, timeout=2.0)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
