"""What each value of a row must be, the obvious way: every rule of the semantics over plain Python rows.

Shares no code with the engines and the operators. Each value comes with its evidence: the rows behind it, and
those near by that do not count, each with the reason.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

from daedalus.catalog.aggregation import Operation
from daedalus.catalog.model import JoinMode, Unset
from daedalus.catalog.services import spec_dtype
from daedalus.trust.brute_values import is_same, value_of
from daedalus.trust.day_facts import NUMBER, TIME, by_key, instant_ns, span_ns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daedalus.catalog.aggregation import AggregationSpec
    from daedalus.catalog.model import FeatureColumnRef, Lookback, ServiceColumn, ViewJoin
    from daedalus.pipelines.compiling.columns import ContractColumns
    from daedalus.trust.day_facts import DayFacts, Row

_SECOND = 10**9
_DAY = 86_400 * _SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A value and what it is made of.

    Attributes:
        used: the rows behind it, oldest first.
        excluded: (row, reason) of rows of the same key that do not count, in order of time.
        view: the view that they are rows of.
    """

    value: Any
    view: str
    used: tuple[Row, ...] = ()
    excluded: tuple[tuple[Row, str], ...] = ()


class BruteForce:
    """The values of some rows of the day.

    Args:
        facts: where rows are.
        rows: the spine rows in question; covered ones.
        evidence: whether rows outside the windows are wanted, with their reasons.
    """

    def __init__(self, facts: DayFacts, rows: Sequence[Row], *, evidence: bool = True) -> None:
        self._evidence = evidence
        self._facts = facts
        self._columns: ContractColumns = facts.columns
        self._history: dict[tuple[str | None, tuple[str, ...]], dict[tuple[Any, ...], list[Row]]] = {}
        self._passing: dict[str, set[int]] = {}
        self._views: dict[str, dict[tuple[Any, ...], list[Row]]] = {}
        self.rows = [dict(row) for row in rows]
        self._add_static(self.rows)

    # ------------------------------------------------------------------ lookups

    def _load(self, join: ViewJoin, rows: Sequence[Row]) -> dict[tuple[Any, ...], list[Row]]:
        keys = self._columns.join_keys(join)
        wanted = {tuple(row[left] for left, _ in keys) for row in rows}
        found = self._facts.matching(join.view, [right for _, right in keys], wanted)
        return by_key(found, [right for _, right in keys])

    def lookup(self, join: ViewJoin, row: Row, versions: dict[tuple[Any, ...], list[Row]]) -> Evidence:
        """The version that a row finds; the value is that version, or None."""
        view = self._columns.catalog.view(join.view)
        key = tuple(row[left] for left, _ in self._columns.join_keys(join))
        known = versions.get(key, []) if None not in key else []
        excluded: list[tuple[Row, str]] = []
        seen = []
        for version in known:
            reason = self._unseen(version, row, join) if join.join is JoinMode.ASOF else ""
            if reason:
                excluded.append((version, reason))
            else:
                seen.append(version)
        found = seen[-1] if seen else None
        excluded += [(version, "a newer version is there") for version in seen[:-1]]
        if found is not None and view.ttl_seconds is not None and view.timestamp_field:
            limit = row[TIME] - round(Fraction(view.ttl_seconds) * _SECOND)
            if found[TIME] is not None and found[TIME] < limit:
                excluded.append((found, "older than the view's ttl"))
                found = None
        return Evidence(
            value=found,
            view=join.view,
            used=() if found is None else (found,),
            excluded=tuple(sorted(excluded, key=lambda one: one[0][NUMBER])),
        )

    def _unseen(self, version: Row, row: Row, join: ViewJoin) -> str:
        view = self._columns.catalog.view(join.view)
        if not view.timestamp_field:
            return ""
        time, now = version[TIME], row[TIME]
        if time is None:
            return "it has no time"
        if time >= now:
            return "same instant" if time == now else "in the future"
        if time >= now - round(Fraction(view.delay_seconds) * _SECOND):
            return "had not arrived (delay_seconds)"
        created = view.source.created_field
        if not created:
            return ""
        known = instant_ns(version[created], view.field(created).dtype, view.source.timestamp_unit)
        if known is None:
            return "nobody knows when it became known"
        return "not known yet (created_field)" if known >= now else ""

    def _add_static(self, rows: Sequence[Row]) -> None:
        """Columns that are joined before aggregation."""
        for alias, pairs in self._columns.static_by_alias().items():
            join = self._columns.join(alias)
            versions = self._load(join, rows)
            for row in rows:
                found = self.lookup(join, row, versions).value
                for name, column in pairs:
                    row[name] = None if found is None else found[column]

    def joined(self, ref: FeatureColumnRef) -> list[Evidence]:
        """A joined view's column for each row."""
        join = self._columns.join(ref.view)
        if join.alias not in self._views:
            self._views[join.alias] = self._load(join, self.rows)
        found = [self.lookup(join, row, self._views[join.alias]) for row in self.rows]
        return [
            Evidence(
                value=None if one.value is None else one.value[ref.column],
                view=one.view,
                used=one.used,
                excluded=one.excluded,
            )
            for one in found
        ]

    # ------------------------------------------------------------------ rolling

    def _history_of(self, spec: AggregationSpec) -> dict[tuple[Any, ...], list[Row]]:
        """The rows of the history by key."""
        keys = tuple(spec.history_keys)
        place = (spec.history_view, keys)
        if place not in self._history:
            if spec.history_view is not None:
                wanted = {tuple(row[name] for name in spec.group_by) for row in self.rows}
                rows = self._facts.matching(spec.history_view, keys, wanted)
            else:
                # Keys that are joined cannot be asked for in the spine.
                own = [name for name in keys if self._columns.spine.has_field(name)]
                wanted = {tuple(row[name] for name in own) for row in self.rows}
                rows = self._facts.covered(self._facts.matching(self._columns.spine.name, own, wanted))
                self._add_static(rows)
            self._history[place] = by_key(rows, keys)
        return self._history[place]

    def _passes(self, spec: AggregationSpec, history: dict[tuple[Any, ...], list[Row]]) -> set[int]:
        """The numbers of the history's rows for which the condition is TRUE."""
        if spec.name not in self._passing:
            rows = [row for found in history.values() for row in found]
            types = self._columns.history_types(spec.history_view)
            where = f"spec {spec.name}, condition"
            kept = self._facts.holds(spec.condition or "true", rows, types, where)
            self._passing[spec.name] = {row[NUMBER] for row, keep in zip(rows, kept, strict=True) if keep}
        return self._passing[spec.name]

    def rolled(self, spec: AggregationSpec) -> list[Evidence]:
        """A rolling column for each row."""
        history = self._history_of(spec)
        passing = None if spec.condition is None else self._passes(spec, history)
        return [self._aggregated(spec, row, history, passing) for row in self.rows]

    def _aggregated(
        self,
        spec: AggregationSpec,
        row: Row,
        history: dict[tuple[Any, ...], list[Row]],
        passing: set[int] | None,
    ) -> Evidence:
        key = tuple(row[name] for name in spec.group_by)
        used, excluded = [], []
        spine = self._columns.spine
        until = row[TIME] - span_ns(Fraction(spec.delay_seconds), spine)
        low = None
        if spec.window_days is not None:
            low = until - span_ns(Fraction(spec.window_days) * 86_400, spine)
        rows = history.get(key, []) if None not in key else []
        if not self._evidence:
            first = 0 if low is None else bisect_left(rows, low, key=_time)
            rows = rows[first : bisect_right(rows, until, key=_time)]
        for one in rows:
            if one[TIME] is not None and (reason := _out_of_window(spec, one[TIME], row[TIME], until, low)):
                excluded.append((one, reason))
                continue
            reason = self._ineligible(spec, row, one, passing)
            if reason:
                excluded.append((one, reason))
            else:
                used.append(one)
        if spec.max_items is not None and spec.operation is not Operation.FLATTEN_DISTINCT:
            excluded += [(one, f"over max_items ({spec.max_items})") for one in used[: -spec.max_items]]
            used = used[-spec.max_items :]
        return Evidence(
            value=value_of(spec, row, used),
            view=spec.history_view or self._columns.spine.name,
            used=tuple(used),
            excluded=tuple(sorted(excluded, key=lambda one: one[0][NUMBER])),
        )

    def _ineligible(self, spec: AggregationSpec, row: Row, one: Row, passing: set[int] | None) -> str:
        """Why a history row of the same key, inside the window, does not count; empty when it does."""
        if one[TIME] is None:
            return "it has no time"
        if passing is not None and one[NUMBER] not in passing:
            return "condition is not true"
        if spec.value_column is None:
            return ""
        value = one[spec.value_column]
        if value is None:
            return "the value is NULL"
        if (
            spec.exclude_self
            and row[spec.value_column] is not None
            and is_same(value, row[spec.value_column])
        ):
            return "the row's own value (exclude_self)"
        return ""

    # ------------------------------------------------------------------ lookbacks and ages

    def looked_back(self, lookback: Lookback) -> list[Evidence]:
        """A lookback for each row."""
        theirs = [right for _, right in lookback.on]
        wanted = {tuple(row[left] for left, _ in lookback.on) for row in self.rows}
        items = by_key(self._facts.matching(lookback.view, theirs, wanted), theirs)
        return [self._listed(lookback, row, items) for row in self.rows]

    def _listed(self, lookback: Lookback, row: Row, items: dict[tuple[Any, ...], list[Row]]) -> Evidence:
        key = tuple(row[left] for left, _ in lookback.on)
        used: list[Row] = []
        excluded: list[tuple[Row, str]] = []
        met: set[Any] = set()
        low = None
        if lookback.window_days is not None:
            low = row[TIME] - span_ns(Fraction(lookback.window_days) * 86_400, self._columns.spine)
        for item in items.get(key, []) if None not in key else []:
            value = item[lookback.value_column]
            if item[TIME] is None or value is None:
                excluded.append((item, "it has no time" if item[TIME] is None else "the value is NULL"))
            elif value in met:
                excluded.append((item, "not its first appearance"))
            else:
                met.add(value)
                reason = _outside(item[TIME], row[TIME], low)
                if reason:
                    excluded.append((item, reason))
                else:
                    used.append(item)
        if lookback.max_items is not None:
            excluded += [
                (one, f"over max_items ({lookback.max_items})") for one in used[: -lookback.max_items]
            ]
            used = used[-lookback.max_items :]
        return Evidence(
            value=[item[lookback.value_column] for item in used],
            view=lookback.view,
            used=tuple(used),
            excluded=tuple(sorted(excluded, key=lambda one: one[0][NUMBER])),
        )

    def aged(self, created: FeatureColumnRef) -> list[Evidence]:
        """Whole days from a creation to each row; None where it is unknown or later."""
        columns = self._columns
        if created.view == columns.spine.name:
            view = columns.spine
            found = [Evidence(value=row[created.column], view=view.name, used=(row,)) for row in self.rows]
        else:
            view = columns.catalog.view(columns.join(created.view).view)
            found = self.joined(created)
        dtype = view.field(created.column).dtype
        ages = []
        for row, one in zip(self.rows, found, strict=True):
            at = instant_ns(one.value, dtype, view.source.timestamp_unit)
            # Ages count in microseconds, as the documents' SQL does.
            days = None if at is None else (row[TIME] // 1_000 - at // 1_000) // (_DAY // 1_000)
            known = at is not None and at // 1_000 <= row[TIME] // 1_000
            ages.append(
                Evidence(value=days if known else None, view=one.view, used=one.used, excluded=one.excluded)
            )
        return ages

    # ------------------------------------------------------------------ everything that the contract needs

    @cached_property
    def assembled(self) -> dict[str, list[Evidence]]:
        """Every assembled column that outputs and expressions read: one evidence per row."""
        columns = self._columns
        found: dict[str, list[Evidence]] = {}
        for ref in columns.needed:
            if ref.view in ("embedding", "derived"):
                continue
            name = columns.names.get(ref, ref.column)
            if ref.view == "rolling":
                found[name] = self.rolled(columns.specs[ref.column])
            elif ref.view == "lookback":
                found[name] = self.looked_back(
                    next(one for one in columns.lookbacks() if one.name == ref.column)
                )
            elif ref.view == "age":
                age = next(one for one in columns.service.age_columns if one.name == ref.column)
                found[name] = self.aged(age.created)
            elif ref.view == columns.spine.name:
                found[name] = [
                    Evidence(value=row[ref.column], view=ref.view, used=(row,)) for row in self.rows
                ]
            else:
                found[name] = self.joined(ref)
        return found

    @cached_property
    def finished(self) -> tuple[dict[str, list[Any]], dict[str, str]]:
        """Assembled columns after derivation and curation, and their dtypes as far as they are known."""
        columns = self._columns
        values = {name: [one.value for one in found] for name, found in self.assembled.items()}
        types = {name: columns.dtypes.get(name, "") for name in values}
        for name in columns.needed_in("rolling"):
            types[name] = spec_dtype(columns.specs[name], columns.history_types(None), columns.catalog)
        steps = [(step.name, step.sql) for step in columns.derived()]
        steps += [(step.column, step.sql) for step in columns.service.curation]
        for name, sql in steps:
            values[name] = self._computed(name, sql, values, types)
            types[name] = columns.dtypes.get(name, "")
        return values, {name: dtype for name, dtype in types.items() if dtype}

    def _computed(
        self, name: str, sql: str, values: dict[str, list[Any]], types: dict[str, str]
    ) -> list[Any]:
        rows = [dict(zip(values, one, strict=True)) for one in zip(*values.values(), strict=True)]
        known = {column: dtype for column, dtype in types.items() if dtype}
        return self._facts.computed(sql, rows, known, name)

    def dropped(self) -> list[list[str]]:
        """The names of the content filters that drop each row."""
        values, types = self.finished
        found: list[list[str]] = [[] for _ in self.rows]
        for step in self._columns.service.content_filter:
            for names, keep in zip(found, self._computed(step.name, step.sql, values, types), strict=True):
                if keep is not True:
                    names.append(step.name)
        return found

    def outputs(self) -> dict[str, list[Any]]:
        """The contract's columns that do not come from embeddings, after derivation, curation and defaults."""
        values, _ = self.finished
        return {
            column.name: self._filled(column, values)
            for column in self._columns.service.columns
            if column.ref is not None and column.ref.view != "embedding"
        }

    def _filled(self, column: ServiceColumn, values: dict[str, list[Any]]) -> list[Any]:
        ref = column.ref
        if ref is None:
            return []
        found = values[self._columns.names.get(ref, ref.column)]
        absent = self._is_absent(ref)
        if column.default is Unset.UNSET or not (absent or not column.nullable):
            return found
        return [column.default if value is None else value for value in found]

    def _is_absent(self, ref: FeatureColumnRef) -> bool:
        """Whether the source lacks the (optional) field."""
        if ref.view == self._columns.spine.name:
            view = ref.view
        elif any(join.alias == ref.view for join in self._columns.service.views):
            view = self._columns.join(ref.view).view
        else:
            return False
        return ref.column not in self._facts.copy(view).columns


def _out_of_window(spec: AggregationSpec, time: int, now: int, until: int, low: int | None) -> str:
    """Why a time is outside a row's window; empty when it is inside."""
    if time > until or (time == until and not spec.include_current):
        if time < now:
            return "had not arrived (delay_seconds)"
        return "same instant" if time == now else "in the future"
    return f"before the window ({spec.window_days:g} d)" if low is not None and time < low else ""


def _time(row: Row) -> int:
    """A row's time; rows without one come first."""
    return -(1 << 80) if row[TIME] is None else int(row[TIME])


def _outside(time: int, now: int, low: int | None) -> str:
    if time >= now:
        return "same instant" if time == now else "in the future"
    return "before the window" if low is not None and time < low else ""
