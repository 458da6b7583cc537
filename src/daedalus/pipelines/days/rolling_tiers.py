"""Rolling aggregation over relations of a day, on the tier that the operator declares."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
from typing import TYPE_CHECKING, Any

from daedalus.catalog.model import SECONDS_PER_DAY
from daedalus.errors import DaedalusError, ExecutionError
from daedalus.pipelines.operators import TICK, Engine, RollingAggregate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import pyarrow as pa

    from daedalus.catalog.aggregation import AggregationSpec
    from daedalus.pipelines.operators import PointInTimeJoin

_HIST = re.compile(r"""\bhist\s*\.\s*(?:"((?:[^"]|"")+)"|([^\W\d][\w$]*))""", re.IGNORECASE)

#: More days than timestamps can be apart.
_ENDLESS_DAYS = 1e9


@dataclasses.dataclass(frozen=True, slots=True)
class TimeUnit:
    """Ticks per second: of `__t`, and of the spine view's own time column, which windows are rounded to."""

    of_ticks: int
    of_spine: int


def in_own_ticks(specs: tuple[AggregationSpec, ...], own: int) -> tuple[AggregationSpec, ...]:
    """The specs with windows and delays of whole ticks of the spine's own time column, `own` per second."""
    return tuple(
        dataclasses.replace(
            spec,
            window_days=None
            if spec.window_days is None or spec.window_days > _ENDLESS_DAYS
            else round(spec.window_days * SECONDS_PER_DAY * own) / own / SECONDS_PER_DAY,
            delay_seconds=round(spec.delay_seconds * own) / own,
        )
        for spec in specs
    )


def relation_specs(specs: tuple[AggregationSpec, ...], unit: TimeUnit) -> tuple[AggregationSpec, ...]:
    """The specs as they read `__t`.

    Windows and delays are rounded to ticks of the spine's own time column before they are counted in the finer
    ticks of `__t`, so that a millisecond column keeps its millisecond windows.
    """
    name = {1_000_000: "us", 1_000_000_000: "ns"}[unit.of_ticks]
    return tuple(
        dataclasses.replace(
            spec,
            timestamp_column=TICK,
            history_timestamp_column=TICK if spec.history_view else None,
            timestamp_unit=name,
        )
        for spec in in_own_ticks(specs, unit.of_spine)
    )


def history_inputs(operator: RollingAggregate | PointInTimeJoin) -> dict[str | None, str]:
    """History name (None is the spine's own) to the input relation that holds it."""
    if isinstance(operator, RollingAggregate):
        own, others = operator.inputs[1], operator.inputs[2:]
        named: dict[str | None, str] = {
            view: relation for (view, _), relation in zip(operator.histories, others, strict=True)
        }
        return {None: own, **named}
    right = operator.inputs[1]
    return {None: right} | {spec.history_view: right for spec in operator.specs}


def history_columns(operator: RollingAggregate | PointInTimeJoin) -> dict[str | None, tuple[str, ...]]:
    """Per history that specs read: the columns they need, sorted."""
    wanted: dict[str | None, set[str]] = {}
    for spec in operator.specs:
        columns = wanted.setdefault(spec.history_view, {TICK})
        columns |= set(spec.history_group_by or spec.group_by)
        columns |= {spec.value_column} if spec.value_column else set()
        if spec.condition:
            columns |= set(_named_columns(spec.condition))
    return {view: tuple(sorted(columns)) for view, columns in wanted.items()}


def _named_columns(condition: str) -> list[str]:
    """The columns that a condition reads as `hist.name`: quoted or plain, and anything alike, which is harmless."""
    return [quoted.replace('""', '"') or plain for quoted, plain in _HIST.findall(condition)]


def spine_columns(specs: Iterable[AggregationSpec], available: Iterable[str]) -> list[str]:
    """The columns of the computed rows that an Arrow engine needs."""
    specs = tuple(specs)
    wanted = {TICK, *(key for spec in specs for key in spec.group_by)}
    wanted |= {spec.value_column for spec in specs if spec.exclude_self and spec.value_column}
    return [name for name in available if name in wanted]


def aggregate_rows(
    operator: RollingAggregate | PointInTimeJoin,
    rows: pa.Table,
    histories: Mapping[str | None, pa.Table],
    unit: TimeUnit,
    duckdb_config: Mapping[str, str],
) -> list[pa.Array]:
    """One array per spec of the operator, for `rows` (in order), on the operator's Arrow or distributed tier.

    Raises:
        ExecutionError: names the operator.
    """
    call = _call(operator, rows, histories, unit, duckdb_config)
    with blamed_on(operator):
        return run_on_ray(_aggregate, call) if operator.engine is Engine.PYTHONIC else _aggregate(call)


def _call(
    operator: RollingAggregate | PointInTimeJoin,
    rows: pa.Table,
    histories: Mapping[str | None, pa.Table],
    unit: TimeUnit,
    duckdb_config: Mapping[str, str],
) -> dict[str, Any]:
    return {
        "spine": rows,
        "specs": relation_specs(operator.specs, unit),
        "histories": dict(histories),
        "engine": operator.rolling_engine,
        "duckdb_config": dict(duckdb_config),
    }


@contextlib.contextmanager
def blamed_on(operator: RollingAggregate | PointInTimeJoin) -> Iterator[None]:
    """An error of the engine becomes one that names the operator."""
    try:
        yield
    except DaedalusError as error:
        raise ExecutionError(
            error.what, where=error.where, hint=error.hint, operator=operator.name
        ) from error


def _aggregate(call: dict[str, Any]) -> list[pa.Array]:
    from daedalus.compute import aggregate_relations

    arrays: list[pa.Array] = aggregate_relations(**call)
    return arrays


def run_on_ray(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a worker of the run's Ray session; its own errors come back as they are."""
    from daedalus.pipelines.enrich.runtime import ensure_ray

    ensure_ray()
    import ray

    try:
        return ray.get(ray.remote(_call_with_path).remote(sys.path, function, *arguments))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


def _call_with_path(path: list[str], function: Callable[..., Any], *arguments: Any) -> Any:
    """In a worker: modules that the driver finds are found here, too."""
    sys.path += [entry for entry in path if entry not in sys.path]
    return function(*arguments)
