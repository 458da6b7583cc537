"""How a service's rolling specs are divided among operators and tiers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daedalus.catalog.aggregation import AggregationSpec, Operation
from daedalus.catalog.dtypes import to_duckdb
from daedalus.catalog.model import SECONDS_PER_DAY
from daedalus.compute.sql_tier import sql_refusal
from daedalus.errors import DefinitionError, did_you_mean
from daedalus.pipelines.operators import Engine
from daedalus.sql.fragments import parse_fragment, require_boolean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from daedalus.catalog.model import FeatureColumnRef, FeatureViewDef, Lookback
    from daedalus.pipelines.compiling.columns import ContractColumns
    from daedalus.pipelines.compiling.request import CompileRequest

_FLOATS = frozenset({"FLOAT", "DOUBLE", "HALF_FLOAT"})
_Group = tuple[str, Engine, tuple[AggregationSpec, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecPlan:
    """The needed specs, checked against the columns they read, and the tier each runs on.

    Attributes:
        engine_name: `compute.engine`; the SQL tier is DuckDB's, so another engine runs as an Arrow UDF.
    """

    columns: ContractColumns
    specs: tuple[AggregationSpec, ...]
    engine_name: str

    @classmethod
    def of(cls, columns: ContractColumns, request: CompileRequest) -> SpecPlan:
        """Check every needed spec; DefinitionError with all problems."""
        plan = cls(
            columns=columns, specs=tuple(columns.rolling_specs()), engine_name=request.config.compute.engine
        )
        problems = [problem for spec in plan.specs for problem in plan._problems(spec)]
        if problems:
            raise DefinitionError.gather(list({str(problem): problem for problem in problems}.values()))
        return plan

    def _problems(self, spec: AggregationSpec) -> Iterable[DefinitionError]:
        """Unknown columns of one spec, with near matches."""
        where = self.columns.spec_place(spec)
        view = spec.history_view
        if view is not None and view not in self.columns.catalog.views:
            known = list(self.columns.catalog.views)
            yield DefinitionError(
                f"unknown history_view {view!r}", where=where, hint=did_you_mean(view, known)
            )
            return
        spine = self.columns.history_types(None)
        history = self.columns.history_types(view)
        keys = spec.history_group_by or spec.group_by
        wanted = [(name, spine) for name in spec.group_by] + [(name, history) for name in keys]
        if spec.value_column:
            wanted.append((spec.value_column, history))
            if spec.exclude_self:
                wanted.append((spec.value_column, spine))
        for name, known_types in wanted:
            if name not in known_types:
                yield DefinitionError(
                    f"unknown column {name!r}", where=where, hint=self._mend(name, known_types)
                )
        expected = self.columns.spine.timestamp_field
        if not spec.means_time(expected, spine):
            yield DefinitionError(
                f"timestamp_column is {spec.timestamp_column!r}, the spine's time is {expected!r}",
                where=where,
                hint="Leave the key out",
            )
        if view is not None:
            yield from self._history_time_problems(spec, self.columns.catalog.view(view), where)
        yield from _float_keys(spec.group_by, spine, where)
        yield from _float_keys(keys, history, where)
        try:
            self._check_condition(spec, history, f"{where}, condition")
        except DefinitionError as error:
            yield error

    def _check_condition(self, spec: AggregationSpec, history: Mapping[str, str], where: str) -> None:
        """It reads columns of the history, and is boolean."""
        columns = self.columns.condition_columns(spec, history)
        types = {name: to_duckdb(history[name]) for name in columns if history[name]}
        if spec.condition is not None and len(types) == len(columns):
            fragment = parse_fragment(spec.condition, columns=history, where=where, qualifier="hist")
            require_boolean(fragment, types, where)

    @staticmethod
    def _history_time_problems(
        spec: AggregationSpec, view: FeatureViewDef, where: str
    ) -> Iterable[DefinitionError]:
        """A history is read by its view's own event time, whatever it is called."""
        if not view.timestamp_field:
            yield DefinitionError(
                f"history_view {view.name!r} has no timestamp_field",
                where=where,
                hint="Declare one in the view",
            )
        elif spec.history_timestamp_column not in (None, view.timestamp_field):
            yield DefinitionError(
                f"history_timestamp_column is {spec.history_timestamp_column!r}, but the event time of view "
                f"{view.name!r} is {view.timestamp_field!r}",
                where=where,
                hint="Leave the key out; for another time declare a second view on the same source",
            )

    def _mend(self, name: str, known: Iterable[str]) -> str:
        for join in self.columns.service.views:
            if self.columns.catalog.view(join.view).has_field(name):
                return f"Add {join.alias}:{name} to the service's static_columns to join it before rolling"
        return did_you_mean(name, known)

    # ------------------------------------------------------------------ time

    @property
    def lookback_seconds(self) -> float:
        """The longest window plus delay of the bounded specs over the spine's own history."""
        own = [reach_seconds(spec) for spec in self.specs if spec.history_view is None]
        return max((reach for reach in own if reach is not None), default=0.0)

    def history_lookback(self, view: str) -> float | None:
        """The same over one history view; None when a spec reads all of its past."""
        reaches = [reach_seconds(spec) for spec in self.specs if spec.history_view == view]
        bounded = [reach for reach in reaches if reach is not None]
        return max(bounded) if len(bounded) == len(reaches) else None

    def history_columns(self, view: str) -> tuple[str, ...]:
        """The fields of a history view that its specs read, in the view's order."""
        wanted: set[str] = set()
        types = self.columns.history_types(view)
        for spec in self.specs:
            if spec.history_view == view:
                wanted |= set(spec.history_group_by or spec.group_by)
                wanted |= {spec.value_column} if spec.value_column else set()
                wanted |= set(self.columns.condition_columns(spec, types))
        return tuple(name for name in types if name in wanted)

    # ------------------------------------------------------------------ tiers

    def refusal(self, spec: AggregationSpec) -> str | None:
        """Why a spec cannot run in SQL here; None when it can."""
        if self.engine_name != "duckdb":
            return f"compute.engine is {self.engine_name}"
        return sql_refusal(spec)

    def windowed(self) -> list[_Group]:
        """(operator name, tier, specs) for specs with a window, or over a history view."""
        return self._split("rolling", [spec for spec in self.specs if not _is_cumulative(spec)])

    def cumulative(self) -> list[_Group]:
        """(operator name, tier, specs) for specs over the spine's whole past."""
        return self._split("cumulative", list(self.all_cumulative()))

    def all_cumulative(self) -> tuple[AggregationSpec, ...]:
        """The specs over the spine's whole past."""
        return tuple(spec for spec in self.specs if _is_cumulative(spec))

    def _split(self, name: str, specs: list[AggregationSpec]) -> list[_Group]:
        in_sql = tuple(spec for spec in specs if self.refusal(spec) is None)
        in_arrow = tuple(spec for spec in specs if self.refusal(spec) is not None)
        groups: list[_Group] = []
        if in_sql:
            groups.append((name, Engine.SQL, in_sql))
        if in_arrow:
            groups.append((f"{name}_udf" if in_sql else name, Engine.SQL_ARROW_UDF, in_arrow))
        return groups

    # ------------------------------------------------------------------ cumulative history

    def read_static(self, specs: Iterable[AggregationSpec]) -> bool:
        """Whether one of the specs reads a static column of its history."""
        static = {self.columns.names[ref] for ref in self.columns.service.static_columns}
        return any(static & self.columns.spec_columns(spec) for spec in specs)

    def shared_predicate(self, specs: Iterable[AggregationSpec]) -> str:
        """What the source may leave out: rows that no spec's condition takes. Empty when one takes all."""
        types = self.columns.history_types(None)
        conditions: dict[str, None] = {}
        for spec in specs:
            if spec.condition is None:
                return ""
            where = f"{self.columns.spec_place(spec)}, condition"
            fragment = parse_fragment(spec.condition, columns=types, where=where, qualifier="hist")
            conditions[fragment.render()] = None
        return " OR ".join(conditions)

    def lookback_spec(self, lookback: Lookback) -> AggregationSpec:
        """A lookback as an aggregation: a list over the items' first appearances."""
        view = self.columns.catalog.view(lookback.view)
        return AggregationSpec(
            name=lookback.name,
            group_by=tuple(self.columns.names[self._spine_ref(column)] for column, _ in lookback.on),
            operation=Operation.LIST,
            value_column=lookback.value_column,
            timestamp_column=self.columns.spine.timestamp_field,
            window_days=lookback.window_days,
            max_items=lookback.max_items,
            history_view=lookback.view,
            history_group_by=tuple(key for _, key in lookback.on),
            history_timestamp_column=view.timestamp_field,
        )

    def _spine_ref(self, column: str) -> FeatureColumnRef:
        for ref in self.columns.names:
            if ref.view == self.columns.spine.name and ref.column == column:
                return ref
        raise DefinitionError(
            f"unknown spine column {column!r}", hint=did_you_mean(column, self.columns.history_types(None))
        )


def _float_keys(names: Iterable[str], types: Mapping[str, str], where: str) -> Iterable[DefinitionError]:
    for name in dict.fromkeys(names):
        if types.get(name) in _FLOATS:
            yield DefinitionError(
                f"group_by {name!r} is {types[name]}; floats do not identify anything",
                where=where,
                hint="Group by an integer or a text",
            )


def _is_cumulative(spec: AggregationSpec) -> bool:
    return spec.window_days is None and spec.history_view is None


def reach_seconds(spec: AggregationSpec) -> float | None:
    """How far before a row a spec looks: window plus delay; None is the whole past."""
    if spec.window_days is None:
        return None
    # A reach that no float holds is still one that reaches everything.
    return float(min(spec.window_days * SECONDS_PER_DAY + spec.delay_seconds, sys.float_info.max))
