"""The few HTTP calls that the launcher makes to its own server."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ServerFacts:
    """What a running server says of itself."""

    version: str
    models: list[str]


def is_ready(url: str, headers: Mapping[str, str]) -> bool:
    """Whether the server at `host:port` answers and all its models are loaded."""
    try:
        return _call(url, "GET", "/v2/health/ready", headers)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def server_facts(url: str, headers: Mapping[str, str]) -> ServerFacts:
    """Version and model names. Raises OSError or HTTPException when the server does not answer."""
    version = json.loads(_call(url, "GET", "/v2", headers)[1])["version"]
    index = json.loads(_call(url, "POST", "/v2/repository/index", headers)[1])
    return ServerFacts(version, sorted(entry["name"] for entry in index))


def _call(url: str, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(url, timeout=2.0)
    try:
        connection.request(method, path, headers=dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
