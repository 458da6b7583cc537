"""Rolling aggregation over relations of a day, on the tier that the operator declares."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from daedalus.catalog.model import SECONDS_PER_DAY
from daedalus.errors import DaedalusError, ExecutionError
from daedalus.pipelines.operators import ROW, TICK, Engine, RollingAggregate

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from daedalus.catalog.aggregation import AggregationSpec
    from daedalus.pipelines.operators import PointInTimeJoin

_HIST = re.compile(r"""\bhist\s*\.\s*(?:"((?:[^"]|"")+)"|([^\W\d][\w$]*))""", re.IGNORECASE)


def relation_specs(
    specs: tuple[AggregationSpec, ...], ticks_per_second: int, spine_ticks: int
) -> tuple[AggregationSpec, ...]:
    """The specs as they read `__t`.

    Windows and delays are rounded to ticks of the spine's own time column before they are counted in the finer
    ticks of `__t`, so that a millisecond column keeps its millisecond windows.
    """
    unit = {1_000_000: "us", 1_000_000_000: "ns"}[ticks_per_second]
    return tuple(
        dataclasses.replace(
            spec,
            timestamp_column=TICK,
            history_timestamp_column=TICK if spec.history_view else None,
            timestamp_unit=unit,
            window_days=None
            if spec.window_days is None
            else round(spec.window_days * SECONDS_PER_DAY * spine_ticks) / spine_ticks / SECONDS_PER_DAY,
            delay_seconds=round(spec.delay_seconds * spine_ticks) / spine_ticks,
        )
        for spec in specs
    )


def history_inputs(operator: RollingAggregate | PointInTimeJoin) -> dict[str | None, str]:
    """History name (None is the spine's own) to the input relation that holds it."""
    if isinstance(operator, RollingAggregate):
        own, others = operator.inputs[1], operator.inputs[2:]
        named = {view: relation for (view, _), relation in zip(operator.histories, others, strict=True)}
        return {None: own, **named}
    right = operator.inputs[1]
    return {None: right} | {spec.history_view: right for spec in operator.specs}


def history_columns(operator: RollingAggregate | PointInTimeJoin) -> dict[str | None, tuple[str, ...]]:
    """Per history that specs read: the columns they need, sorted."""
    wanted: dict[str | None, set[str]] = {}
    for spec in operator.specs:
        columns = wanted.setdefault(spec.history_view, {TICK, ROW})
        columns |= set(spec.history_group_by or spec.group_by)
        columns |= {spec.value_column} if spec.value_column else set()
        if spec.condition:
            columns |= set(_named_columns(spec.condition))
    return {view: tuple(sorted(columns)) for view, columns in wanted.items()}


def _named_columns(condition: str) -> list[str]:
    """The columns that a condition reads as `hist.name`: quoted or plain, and anything alike, which is harmless."""
    return [quoted.replace('""', '"') or plain for quoted, plain in _HIST.findall(condition)]


def spine_columns(specs: tuple[AggregationSpec, ...], available: Mapping[str, Any]) -> list[str]:
    """The columns of the computed rows that an Arrow engine needs."""
    wanted = {TICK, *(key for spec in specs for key in spec.group_by)}
    wanted |= {spec.value_column for spec in specs if spec.exclude_self and spec.value_column}
    return [name for name in available if name in wanted]


def aggregate_rows(
    operator: RollingAggregate | PointInTimeJoin,
    rows: pa.Table,
    histories: Mapping[str | None, pa.Table],
    *,
    ticks_per_second: int,
    spine_ticks: int,
    duckdb_config: Mapping[str, str],
) -> list[pa.Array]:
    """One array per spec of the operator, for `rows` (in order), on the operator's Arrow or distributed tier.

    Raises:
        ExecutionError: names the operator.
    """
    specs = relation_specs(operator.specs, ticks_per_second, spine_ticks)
    call = {
        "spine": rows,
        "specs": specs,
        "histories": dict(histories),
        "row_number": ROW,
        "engine": operator.rolling_engine,
        "duckdb_config": dict(duckdb_config),
    }
    try:
        if operator.engine is Engine.PYTHONIC:
            return _on_ray(call)
        return _aggregate(call)
    except DaedalusError as error:
        raise ExecutionError(
            error.what, where=error.where, hint=error.hint, operator=operator.name
        ) from error


def _aggregate(call: dict[str, Any]) -> list[pa.Array]:
    from daedalus.compute import aggregate_relations

    arrays: list[pa.Array] = aggregate_relations(
        call["spine"],
        call["specs"],
        histories=call["histories"],
        row_number=call["row_number"],
        engine=call["engine"],
        duckdb_config=call["duckdb_config"],
    )
    return arrays


def _on_ray(call: dict[str, Any]) -> list[pa.Array]:
    """The same call as a task of the run's Ray session."""
    import ray

    from daedalus.pipelines.enrich_runtime import ensure_ray

    ensure_ray()
    arrays: list[pa.Array] = ray.get(ray.remote(_aggregate).remote(call))
    return arrays
