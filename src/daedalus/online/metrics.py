"""What this process did with the online store, as counters in Prometheus' text format."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from daedalus.online.model import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

REGISTRY = CollectorRegistry()
ROWS = Counter(
    "daedalus_online_rows", "Rows written to the online store.", ("table", "result"), registry=REGISTRY
)
EVENTS = Counter(
    "daedalus_online_events", "Events appended to the online store.", ("view", "result"), registry=REGISTRY
)
ENTITIES = Counter(
    "daedalus_online_entities", "Entities read, by what was found.", ("table", "status"), registry=REGISTRY
)
ERRORS = Counter("daedalus_online_errors", "Calls that failed.", ("operation",), registry=REGISTRY)
SECONDS = Histogram(
    "daedalus_online_seconds",
    "Seconds at the store.",
    ("operation",),
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
    registry=REGISTRY,
)
_children: dict[tuple[str, int], Any] = {}
_operations: dict[str, Any] = {}


def metrics_text() -> str:
    """Everything counted so far."""
    return generate_latest(REGISTRY).decode()


@contextlib.contextmanager
def timed(operation: str) -> Iterator[None]:
    """Count a call and the time it took."""
    started = time.perf_counter()
    try:
        yield
    except Exception:
        ERRORS.labels(operation).inc()
        raise
    finally:
        if operation not in _operations:
            _operations[operation] = SECONDS.labels(operation)
        _operations[operation].observe(time.perf_counter() - started)


def count_statuses(table: str, status: NDArray[np.uint8]) -> None:
    """Count what was found."""
    for one in Status:
        number = int((status == one).sum()) if one or status.any() else len(status)
        if number:
            child = _children.get((table, one))
            if child is None:
                child = _children[(table, one)] = ENTITIES.labels(table, one.name.lower())
            child.inc(number)
        if one is Status.FOUND and number == len(status):
            return
