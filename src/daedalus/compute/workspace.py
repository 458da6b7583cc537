"""What the specs of one call share: columns, keys, layouts, slices, masks and filtered values."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import pyarrow as pa

from daedalus.catalog.aggregation import TICKS_PER_SECOND
from daedalus.compute import columns
from daedalus.compute.conditions import condition_fragment, condition_mask
from daedalus.compute.layout import (
    Ends,
    Layout,
    Points,
    Selection,
    Sorted,
    delay_ticks,
    find_ends,
    select,
    sort_points,
    window_ticks,
)
from daedalus.errors import ExecutionError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from numpy.typing import NDArray

    from daedalus.catalog.aggregation import AggregationSpec
    from daedalus.compute.columns import Keys
    from daedalus.compute.conditions import Session
    from daedalus.compute.layout import Finder

#: Positions are int32.
MAX_ROWS = 2**31 - 2

T = TypeVar("T")


class Memo:
    """Values made once per key, also when threads ask at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[Hashable, tuple[threading.Lock, list[Any]]] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of `key`, made by the first who asks."""
        with self._lock:
            lock, made = self._made.setdefault(key, (threading.Lock(), []))
        with lock:
            if not made:
                made.append(make())
            return cast("T", made[0])


class Workspace:
    """One call's tables and everything derived from them that more than one spec can use.

    Args:
        specs: all that are going to be computed.
        histories: the history of each `history_view`; None is the history of specs that name none, usually
            the spine itself.
        row_number: a column of the histories that breaks ties instead of the row's position.
    """

    def __init__(
        self,
        spine: pa.Table,
        histories: Mapping[str | None, pa.Table],
        specs: Sequence[AggregationSpec],
        *,
        finder: Finder,
        session: Session,
        row_number: str | None = None,
    ) -> None:
        self.spine = spine
        self.histories = histories
        self.memo = Memo()
        self._specs = specs
        self._finder = finder
        self._session = session
        self._row_number = row_number
        for table in (spine, *histories.values()):
            if table.num_rows > MAX_ROWS:
                raise ExecutionError(
                    f"a table has {table.num_rows} rows, more than {MAX_ROWS}",
                    where="aggregate_pit_table",
                    hint="Aggregate fewer days or a share of the keys at a time",
                )

    def history_column(self, view: str | None, name: str) -> pa.Array:
        """A history column in one piece."""
        table = self.histories[view]
        if table is self.spine:
            return self.spine_column(name)
        return self.memo.get(("history", view, name), lambda: columns.whole(table[name]))

    def spine_column(self, name: str) -> pa.Array:
        """A spine column in one piece."""
        return self.memo.get(("spine", name), lambda: columns.whole(self.spine[name]))

    def layout(self, spec: AggregationSpec) -> Layout:
        """The history of the spec by (group, time, row)."""
        key = ("layout", *layout_key(spec))
        return self.memo.get(key, lambda: self._make_layout(spec))

    def _make_layout(self, spec: AggregationSpec) -> Layout:
        time = self.spine_column(spec.timestamp_column)
        unit = time.type.unit if pa.types.is_timestamp(time.type) else spec.timestamp_unit
        number = self._row_numbers(spec.history_view)
        numbers, groups = self._numbers(spec)
        spine, ordered = self._sorted_spine(spec, numbers[None], groups)
        history = ordered
        if not self._own_history(spec):
            points = _points(
                numbers[_source(spec)], self.history_column(spec.history_view, spec.history_time)
            )
            history = sort_points(self._finder, points, groups, number)
        elif number is not None:
            history = sort_points(self._finder, spine, groups, number)
        return Layout(
            order=history.order,
            start=history.start,
            time=history.time,
            spine=spine,
            spine_order=ordered.order,
            ticks=TICKS_PER_SECOND[unit],
        )

    def _own_history(self, spec: AggregationSpec) -> bool:
        """Whether the spec's history is the spine itself, by the same keys and time."""
        return (
            self.histories[spec.history_view] is self.spine
            and spec.history_keys == spec.group_by
            and spec.history_time == spec.timestamp_column
        )

    def _sorted_spine(
        self, spec: AggregationSpec, numbers: NDArray[np.int32], groups: int
    ) -> tuple[Points, Sorted]:
        """The spine's rows, and the same sorted: once for all histories whose groups are numbered together."""

        def make() -> tuple[Points, Sorted]:
            points = _points(numbers, self.spine_column(spec.timestamp_column))
            return points, sort_points(self._finder, points, groups)

        return self.memo.get(("sorted spine", self._numbered(spec), spec.timestamp_column), make)

    def _numbers(self, spec: AggregationSpec) -> tuple[dict[_Source | None, NDArray[np.int32]], int]:
        """Each row's group, of the spine under None and of every history, and how many groups there are."""
        sources = self._numbered(spec)

        def make() -> tuple[dict[_Source | None, NDArray[np.int32]], int]:
            arrays = [[self.spine_column(name)] for name in spec.group_by]
            for view, names in sources[1]:
                for of_key, name in zip(arrays, names, strict=True):
                    of_key.append(self.history_column(view, name))
            numbers, groups = columns.dense_numbers(arrays)
            return dict(zip([None, *sources[1]], numbers, strict=True)), groups

        return self.memo.get(("numbers", sources), make)

    def _numbered(self, spec: AggregationSpec) -> tuple[tuple[str, ...], tuple[_Source, ...]]:
        """The keys, and the histories whose groups are numbered with the spine's: those with keys of its types.

        A history with keys of other types is numbered alone with the spine, for they are compared in a common type.
        """
        if self._own_history(spec):
            return spec.group_by, ()
        alike = [one for one in self._specs if one.group_by == spec.group_by and not self._own_history(one)]
        plain = tuple(dict.fromkeys(_source(one) for one in alike if self._has_spine_types(one)))
        return spec.group_by, plain if _source(spec) in plain else (_source(spec),)

    def _has_spine_types(self, spec: AggregationSpec) -> bool:
        history = self.histories[spec.history_view].schema
        pairs = zip(spec.group_by, spec.history_keys, strict=True)
        return all(self.spine.schema.field(own).type == history.field(name).type for own, name in pairs)

    def _row_numbers(self, view: str | None) -> NDArray[np.int64] | None:
        if self._row_number is None or self._row_number not in self.histories[view].column_names:
            return None
        return columns.integers(self.history_column(view, self._row_number)).astype(np.int64, copy=False)

    def selection_key(self, spec: AggregationSpec) -> tuple[Hashable, ...]:
        """What makes two specs keep the same history rows: columns without NULLs filter nothing."""
        return (*layout_key(spec), spec.condition, spec.value_column if self._has_nulls(spec) else None)

    def _has_nulls(self, spec: AggregationSpec) -> bool:
        return spec.value_column is not None and not self._present(spec).all()

    def _present(self, spec: AggregationSpec) -> NDArray[np.bool_]:
        """Per history row whether there is a value."""
        view, name = spec.history_view, spec.value_column or ""
        values = self.history_column(view, name)
        return self.memo.get(("valid", view, name), lambda: columns.validity(values))

    def selection(self, spec: AggregationSpec) -> Selection:
        """The history rows that pass the condition and have a value."""
        key = ("selection", *self.selection_key(spec))
        return self.memo.get(key, lambda: select(self.layout(spec), self._mask(spec)))

    def _mask(self, spec: AggregationSpec) -> NDArray[np.bool_] | None:
        view = spec.history_view
        mask = None
        if spec.condition is not None:
            mask = self.memo.get(("condition", view, spec.condition), lambda: self._condition(spec))
        if self._has_nulls(spec):
            mask = self._present(spec) if mask is None else mask & self._present(spec)
        return mask

    def _condition(self, spec: AggregationSpec) -> NDArray[np.bool_]:
        table = self.histories[spec.history_view]
        fragment = condition_fragment(spec, table.schema)
        assert fragment is not None  # noqa: S101 - asked for only when there is a condition
        return condition_mask(self._session, spec, fragment, table)

    def ends(self, spec: AggregationSpec) -> Ends:
        """Per spine row its slice of the selection."""
        layout = self.layout(spec)
        delay, window = delay_ticks(spec, layout.ticks), window_ticks(spec, layout.ticks)
        past = (*layout_key(spec), delay, spec.include_current)

        def find() -> dict[int | None, Ends]:
            alike = [one for one in self._specs if _past(one) == _past(spec)]
            windows = list(dict.fromkeys(window_ticks(one, layout.ticks) for one in alike))
            current = spec.include_current
            return find_ends(self._finder, layout, delay, windows, include_current=current)

        ends = self.memo.get(("all ends", *past), find)[window]
        selection = self.selection(spec)
        key = (*past, *self.selection_key(spec))
        low = self.memo.get(("low", window, *key), lambda: selection.positions(ends.low))
        high = self.memo.get(("high", *key), lambda: selection.positions(ends.high))
        return Ends(low, high)

    def keys(self, spec: AggregationSpec, *, ordered: bool = False) -> tuple[Keys, Keys | None]:
        """The value column as comparable keys: of the history, and of the spine when `exclude_self` asks."""
        name = spec.value_column or ""
        arrays = [self.history_column(spec.history_view, name)]
        same = self.histories[spec.history_view] is self.spine
        if spec.exclude_self and not same:
            arrays.append(self.spine_column(name))
        key = ("keys", spec.history_view, name, ordered, len(arrays))
        found = self.memo.get(key, lambda: columns.joint_keys(arrays, ordered=ordered))
        return found[0], (found[-1] if spec.exclude_self else None)

    def kept_keys(self, spec: AggregationSpec, *, ordered: bool = False) -> NDArray[np.int64]:
        """The keys of the selection's rows."""
        from daedalus.compute import _kernels

        history, _ = self.keys(spec, ordered=ordered)
        key = ("kept keys", *self.selection_key(spec), spec.value_column, ordered, spec.exclude_self)
        return self.memo.get(key, lambda: _kernels.take(history.keys, self.selection(spec).rows))


def _past(spec: AggregationSpec) -> tuple[Hashable, ...]:
    return (*layout_key(spec), spec.delay_seconds, spec.include_current)


#: A history, and its key columns.
_Source = tuple[str | None, tuple[str, ...]]


def _source(spec: AggregationSpec) -> _Source:
    return spec.history_view, spec.history_keys


def layout_key(spec: AggregationSpec) -> tuple[Hashable, ...]:
    """What makes two specs read the same history in the same order."""
    names = (spec.group_by, spec.history_keys, spec.timestamp_column, spec.history_time)
    return (spec.history_view, *names, spec.timestamp_unit)


def _points(group: NDArray[np.int32], time: pa.Array) -> Points:
    present = columns.validity(time)
    instants = columns.joint_keys([time])[0].keys
    return Points(group=group, time=instants, valid=present & (group >= 0))
