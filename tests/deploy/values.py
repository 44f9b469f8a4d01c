"""Values laid over one another."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

Values = dict[str, Any]


def merged(*layers: Mapping[str, Any]) -> Values:
    """As Helm lays one file of values over another."""
    result: Values = {}
    for layer in layers:
        for key, value in layer.items():
            under = result.get(key)
            result[key] = (
                merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else deepcopy(value)
            )
    return result
