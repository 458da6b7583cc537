"""What this process did with the online store, as counters in Prometheus' text format."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from daedalus.online.model import Status

if TYPE_CHECKING:
    from daedalus.online.model import TableValues

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
_children: dict[tuple[str, Status], Any] = {}
_operations: dict[str, Any] = {}


def metrics_text() -> str:
    """Everything counted so far."""
    return generate_latest(REGISTRY).decode()


class timed:
    """Count a call and the time it took."""

    __slots__ = ("_operation", "_started")

    def __init__(self, operation: str) -> None:
        self._operation = operation

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        seconds = time.perf_counter() - self._started
        if error is not None:
            ERRORS.labels(self._operation).inc()
        child = _operations.get(self._operation)
        if child is None:
            child = _operations[self._operation] = SECONDS.labels(self._operation)
        child.observe(seconds)


def count_statuses(values: TableValues) -> None:
    """Count what was found."""
    table, status = values.table.name, values.status
    if values.all_found:
        _entities(table, Status.FOUND).inc(len(status))
        return
    for one in Status:
        number = int((status == one).sum())
        if number:
            _entities(table, one).inc(number)


def _entities(table: str, status: Status) -> Any:
    child = _children.get((table, status))
    if child is None:
        child = _children[(table, status)] = ENTITIES.labels(table, status.name.lower())
    return child
