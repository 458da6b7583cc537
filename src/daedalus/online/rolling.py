"""Rolling features from recent events, by the engine and the specs that train: what the skeleton would write now."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from daedalus.catalog.model import SECONDS_PER_DAY
from daedalus.errors import DefinitionError, did_you_mean
from daedalus.online.arrays import one_array
from daedalus.online.instants import US
from daedalus.online.layout import RecordLayout
from daedalus.online.model import EventIndex, EventRequest
from daedalus.online.static_columns import static_join, with_static_columns
from daedalus.pipelines.days.rolling_tiers import (
    TimeUnit,
    history_columns,
    history_inputs,
    in_own_ticks,
    relation_specs,
    spine_columns,
)
from daedalus.pipelines.operators import TICK, Join, PointInTimeJoin, RollingAggregate, Scan
from daedalus.pipelines.run_sources import own_ticks_per_second
from daedalus.storage.view_source import UNIT_US, needs_nanoseconds

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from daedalus.catalog.aggregation import AggregationSpec
    from daedalus.catalog.model import FeatureViewDef
    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.online.model import OnlineStore
    from daedalus.online.static_columns import StaticJoin
    from daedalus.pipelines.operators import OperatorPipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class RollingPlan:
    """What a service's rolling features need.

    Attributes:
        operators: the pipeline's own, each with the specs to compute.
        indexes: per operator and spec, the events that it reads.
        spine: the spine view.
        unit: of times and windows.
        names: the rolling features.
        views: those that hold the events, by name.
        statics: per operator and spec, the columns that are joined to its history and that it reads.
    """

    operators: tuple[RollingAggregate | PointInTimeJoin, ...]
    indexes: tuple[tuple[EventIndex, ...], ...]
    spine: FeatureViewDef
    unit: TimeUnit
    names: tuple[str, ...]
    views: Mapping[str, FeatureViewDef]
    statics: tuple[tuple[tuple[StaticJoin, ...], ...], ...]

    @classmethod
    def of(cls, pipeline: OperatorPipeline, spine: FeatureViewDef, catalog: FeatureCatalog) -> RollingPlan:
        """The plan of a service's pipeline.

        Raises:
            DefinitionError: a spec reads more than the events of a view, as they are.
        """
        operators, indexes, statics = [], [], []
        behind: dict[str, FeatureViewDef] = {}
        fine, own = needs_nanoseconds(spine), own_ticks_per_second(spine)
        for operator in pipeline:
            if isinstance(operator, RollingAggregate | PointInTimeJoin) and operator.specs:
                histories = [_history_behind(pipeline, operator, spec, catalog) for spec in operator.specs]
                views = [view for view, _ in histories]
                fine = fine or any(needs_nanoseconds(view) for view in views)
                behind |= {view.name: view for view in views}
                operators.append(operator)
                statics.append(tuple(joins for _, joins in histories))
                # A window that is rounded up reaches back further than it says.
                rounded = in_own_ticks(operator.specs, own)
                indexes.append(tuple(_index(view, spec) for view, spec in zip(views, rounded, strict=True)))
        return cls(
            operators=tuple(operators),
            indexes=tuple(indexes),
            spine=spine,
            unit=TimeUnit(10**9 if fine else 10**6, own),
            names=tuple(spec.name for operator in operators for spec in operator.specs),
            views=behind,
            statics=tuple(statics),
        )

    def all_indexes(self) -> tuple[EventIndex, ...]:
        """Every index once, kept as long as its longest window."""
        return merged(index for indexes in self.indexes for index in indexes)

    def _specs(self) -> Iterator[tuple[AggregationSpec, EventIndex, tuple[StaticJoin, ...]]]:
        """Every spec with its events and the columns joined to them."""
        for operator, indexes, statics in zip(self.operators, self.indexes, self.statics, strict=True):
            yield from zip(operator.specs, indexes, statics, strict=True)

    def request_columns(self) -> dict[str, str]:
        """The columns that a request must have, and what for."""
        needed: dict[str, str] = {}
        for spec, _, joins in self._specs():
            for name in spec.group_by:
                needed.setdefault(name, f"rolling:{spec.name} groups by it")
            if spec.exclude_self and spec.value_column:
                join = _join_of(spec.value_column, joins)
                for name in [spec.value_column] if join is None else [column for column, _ in join.on]:
                    needed.setdefault(name, f"rolling:{spec.name} leaves out the candidate")
        return needed

    def completed(
        self, store: OnlineStore, rows: pa.Table, events: Sequence[pa.Table], as_of: dt.datetime
    ) -> tuple[pa.Table, list[pa.Table]]:
        """The request's rows and the events with the columns that are joined before aggregation.

        Takes another round trip where a spec reads such a column, since it is the events that tell whose.
        """
        of_rows: dict[StaticJoin, None] = {}
        of_events: dict[tuple[str, tuple[str, ...]], dict[StaticJoin, None]] = {}
        for spec, index, joins in self._specs():
            of_events.setdefault((index.view, index.keys), {}).update(dict.fromkeys(joins))
            own = _join_of(spec.value_column or "", joins) if spec.exclude_self else None
            of_rows |= {} if own is None else {own: None}
        wanted = [
            (table, tuple(of_events[index.view, index.keys]))
            for index, table in zip(self.all_indexes(), events, strict=True)
        ]
        first, *others = with_static_columns(store, [(rows, tuple(of_rows)), *wanted], as_of)
        return first, others

    def requests(self, rows: pa.Table, now_us: int) -> list[EventRequest]:
        """What to read for these rows; `rows` has `request_columns`, in the spine's types."""
        return [
            EventRequest(
                index=index,
                keys=self._keys(index, rows),
                since_us=None
                if index.keep_seconds is None
                else now_us - math.ceil(index.keep_seconds * US) - US,
                until_us=now_us,
            )
            for index in self.all_indexes()
        ]

    def _keys(self, index: EventIndex, rows: pa.Table) -> list[pa.Array]:
        """The values by which the rows find events: of every set of columns that some spec groups by."""
        named = dict.fromkeys(
            spec.group_by
            for spec, own, _ in self._specs()
            if own.view == index.view and own.keys == index.keys
        )
        return [
            _stacked([one_array(rows.column(names[place])) for names in named])
            for place in range(len(index.keys))
        ]

    def columns(self, rows: pa.Table, events: Sequence[pa.Table], now_us: int) -> dict[str, pa.Array]:
        """One array per rolling feature, by name: its value for each row as of now.

        Args:
            rows: the entities, with `request_columns`.
            events: what the store answered to `requests`; both `completed`.
            now_us: the instant, in microseconds since 1970.
        """
        scale = self.unit.of_ticks // US
        step = self.unit.of_ticks // min(self.unit.of_spine, self.unit.of_ticks)
        now = now_us * scale - now_us * scale % step
        spine = rows.append_column(TICK, pa.array(np.full(rows.num_rows, now, np.int64)))
        by_index = {
            (index.view, index.keys): table for index, table in zip(self.all_indexes(), events, strict=True)
        }
        found: dict[str, pa.Array] = {}
        for operator, indexes in zip(self.operators, self.indexes, strict=True):
            # Specs of one history that group alike read the same events.
            groups: dict[tuple[str, tuple[str, ...]], list[AggregationSpec]] = {}
            for spec, index in zip(operator.specs, indexes, strict=True):
                groups.setdefault((index.view, index.keys), []).append(spec)
            for key, specs in groups.items():
                found |= self._aggregate(operator, specs, spine, by_index[key], self.views[key[0]])
        return found

    def _aggregate(
        self,
        operator: RollingAggregate | PointInTimeJoin,
        specs: list[AggregationSpec],
        spine: pa.Table,
        events: pa.Table,
        view: FeatureViewDef,
    ) -> dict[str, pa.Array]:
        from daedalus.compute import aggregate_relations

        own = replace(operator, specs=tuple(specs))
        ticks = _ticks(event_times(view, events), self.unit.of_ticks)
        with_ticks = events.append_column(TICK, ticks)
        histories = {
            view: with_ticks.select([*dict.fromkeys([*names, TICK])])
            for view, names in history_columns(own).items()
        }
        resolved = relation_specs(tuple(specs), self.unit)
        arrays = aggregate_relations(
            spine.select(spine_columns(resolved, spine.column_names)),
            resolved,
            histories={None: with_ticks.select([TICK]), **histories},
            engine=operator.rolling_engine,
            duckdb_config={"threads": "1"},
        )
        return {spec.name: array for spec, array in zip(specs, arrays, strict=True)}


def merged(indexes: Iterable[EventIndex]) -> tuple[EventIndex, ...]:
    """Indexes of the same events once, each kept as long as the longest needs."""
    found: dict[tuple[str, tuple[str, ...]], EventIndex] = {}
    for index in indexes:
        key = (index.view, index.keys)
        before = found.get(key)
        if before is None or before.keep_seconds is None:
            found[key] = before or index
        elif index.keep_seconds is None or index.keep_seconds > before.keep_seconds:
            found[key] = index
    return tuple(found.values())


def event_times(view: FeatureViewDef, rows: pa.Table) -> pa.ChunkedArray:
    """The event times of a view's rows as timestamps in UTC; NULL for a view without time."""
    if not view.timestamp_field:
        return pa.chunked_array([pa.nulls(rows.num_rows, pa.timestamp("us", "UTC"))])
    column = rows.column(view.timestamp_field)
    unit = "ns" if needs_nanoseconds(view) else "us"
    if pa.types.is_integer(column.type):
        scale = round(UNIT_US[view.source.timestamp_unit] * (1000 if unit == "ns" else 1))
        ticks = pa.array(
            [None if one is None else one * scale for one in column.to_pylist()], pa.timestamp(unit, "UTC")
        )
        return pa.chunked_array([ticks])
    return column.cast(pa.timestamp(unit)).cast(pa.timestamp(unit, "UTC"))


def _ticks(times: pa.ChunkedArray, per_second: int) -> pa.ChunkedArray:
    unit = "ns" if per_second == 10**9 else "us"
    return times.cast(pa.timestamp(unit, "UTC")).cast(pa.int64())


def _stacked(columns: list[pa.Array]) -> pa.Array:
    """One column after the other: of one type, or whole numbers of several widths."""
    kinds = {column.type for column in columns}
    if len(kinds) > 1:
        small = all(pa.types.is_integer(kind) and not pa.types.is_uint64(kind) for kind in kinds)
        columns = [column.cast(pa.int64() if small else pa.decimal128(38)) for column in columns]
    return pa.concat_arrays(columns)


def _join_of(column: str, joins: Iterable[StaticJoin]) -> StaticJoin | None:
    """The join that adds a column."""
    return next((join for join in joins if column in join.names), None)


def _history_behind(
    pipeline: OperatorPipeline,
    operator: RollingAggregate | PointInTimeJoin,
    spec: AggregationSpec,
    catalog: FeatureCatalog,
) -> tuple[FeatureViewDef, tuple[StaticJoin, ...]]:
    """The view whose events a spec reads, and the joined columns that it reads; refused when more makes its history."""
    relation = history_inputs(operator)[spec.history_view]
    read = set(history_columns(replace(operator, specs=(spec,)))[spec.history_view])
    made: Any = pipeline.producer(relation)
    joins: list[StaticJoin] = []
    while not isinstance(made, Scan):
        # A join never changes the rows, so one that adds nothing the spec reads is passed over.
        idle = isinstance(made, Join | PointInTimeJoin) and not read & {name for name, _ in made.columns}
        idle = idle and not getattr(made, "marker", "") and getattr(made, "how", "left") == "left"
        join = None if idle else static_join(pipeline, made, catalog, spec.name)
        if join is None and not idle:
            raise DefinitionError(
                f"rolling:{spec.name} cannot come from events alone: its history passes {made.op_kind} {made.name!r}",
                where=f"service {pipeline.service}, online.rolling",
                hint="The embedding coverage filter is not applied online: write rolling: materialized",
            )
        joins += [] if join is None else [join]
        made = pipeline.producer(made.inputs[0])
    view = catalog.view(made.source_ref)
    added = {name for join in joins for name in join.names}
    own = {*spec.history_keys, *(name for join in joins for name, _ in join.on)}
    own |= {spec.value_column} - added if spec.value_column else set()
    for name in sorted(own):
        if not view.has_field(name):
            raise DefinitionError(
                f"rolling:{spec.name} reads {name!r}, which view {view.name} lacks",
                where=f"service {pipeline.service}, online.rolling",
                hint=did_you_mean(name, [one.name for one in view.fields]),
            )
    return view, tuple(joins)


def _index(view: FeatureViewDef, spec: AggregationSpec) -> EventIndex:
    dtypes = {one.name: one.dtype for one in view.fields}
    keep = None if spec.window_days is None else spec.window_days * SECONDS_PER_DAY + spec.delay_seconds
    keys = [(name, dtypes[name]) for name in spec.history_keys]
    return EventIndex(
        view=view.name,
        layout=RecordLayout(
            f"events of view {view.name}",
            keys=keys,
            fields=[(one.name, one.dtype) for one in view.fields if one.name not in spec.history_keys],
        ),
        entity_keys=tuple(view.join_keys),
        time_field=view.timestamp_field,
        created_field=view.source.created_field,
        sequence_field=view.source.sequence_field,
        keep_seconds=keep,
    )
