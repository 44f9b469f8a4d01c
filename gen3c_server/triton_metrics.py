"""Families of metrics in Triton's registry, on its metrics port. Imported inside the server only."""

from collections.abc import Callable

import triton_python_backend_utils as pb_utils

from gen3c_server.metrics import Family, Metric


def open_family(family: Family) -> Callable[[dict[str, str]], Metric]:
    """The `gen3c_server.metrics.OpenFamily` of a model's process.

    A family that another process of this server has opened, or did before it ended, is the same one: counters go on.
    """
    kind = getattr(pb_utils.MetricFamily, family.kind.upper())
    opened = pb_utils.MetricFamily(name=family.name, description=family.help, kind=kind)

    def series(labels: dict[str, str]) -> Metric:
        buckets = {"buckets": list(family.buckets)} if family.buckets else {}
        metric: Metric = opened.Metric(labels=labels, **buckets)
        return metric

    return series
