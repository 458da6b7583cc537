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
    delay_ticks,
    find_high,
    find_low,
    make_layout,
    select,
    window_ticks,
)
from daedalus.errors import ExecutionError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

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
        histories: the history of each `history_view`; None is the history of specs that name none, usually
            the spine itself.
        row_number: a column of the histories that breaks ties instead of the row's position.
    """

    def __init__(
        self,
        spine: pa.Table,
        histories: Mapping[str | None, pa.Table],
        *,
        finder: Finder,
        session: Session,
        row_number: str | None = None,
    ) -> None:
        self.spine = spine
        self.histories = histories
        self.memo = Memo()
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
        key = ("layout", *_layout_key(spec))
        return self.memo.get(key, lambda: self._make_layout(spec))

    def _make_layout(self, spec: AggregationSpec) -> Layout:
        time = self.spine_column(spec.timestamp_column)
        unit = time.type.unit if pa.types.is_timestamp(time.type) else spec.timestamp_unit
        same = (
            self.histories[spec.history_view] is self.spine
            and spec.history_keys == spec.group_by
            and spec.history_time == spec.timestamp_column
        )
        own = [[self.spine_column(name)] for name in spec.group_by]
        if not same:
            for arrays, name in zip(own, spec.history_keys, strict=True):
                arrays.append(self.history_column(spec.history_view, name))
        numbers, groups = columns.dense_numbers(own)
        spine = _points(numbers[0], time)
        history = spine
        if not same:
            history = _points(numbers[1], self.history_column(spec.history_view, spec.history_time))
        return make_layout(
            self._finder,
            spine=spine,
            history=history,
            groups=groups,
            ticks=TICKS_PER_SECOND[unit],
            row_number=self._row_numbers(spec.history_view),
        )

    def _row_numbers(self, view: str | None) -> NDArray[np.int64] | None:
        if self._row_number is None or self._row_number not in self.histories[view].column_names:
            return None
        return columns.integers(self.history_column(view, self._row_number)).astype(np.int64, copy=False)

    def selection_key(self, spec: AggregationSpec) -> tuple[Hashable, ...]:
        """What makes two specs keep the same history rows: columns without NULLs filter nothing."""
        return (*_layout_key(spec), spec.condition, spec.value_column if self._has_nulls(spec) else None)

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
        past = (*_layout_key(spec), delay, spec.include_current)
        high = self.memo.get(
            ("high", *past),
            lambda: find_high(self._finder, layout, delay, include_current=spec.include_current),
        )
        low = self.memo.get(
            ("low", *_layout_key(spec), delay, window),
            lambda: find_low(self._finder, layout, delay, window),
        )
        selection = self.selection(spec)
        key = ("ends", *past, window, *self.selection_key(spec))
        return self.memo.get(key, lambda: selection.ends(Ends(low, high)))

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
        history, _ = self.keys(spec, ordered=ordered)
        key = ("kept keys", *self.selection_key(spec), spec.value_column, ordered, spec.exclude_self)
        return self.memo.get(key, lambda: history.keys[self.selection(spec).rows])


def _layout_key(spec: AggregationSpec) -> tuple[Hashable, ...]:
    names = (spec.group_by, spec.history_keys, spec.timestamp_column, spec.history_time)
    return (spec.history_view, *names, spec.timestamp_unit)


def _points(group: NDArray[np.int32], time: pa.Array) -> Points:
    present = columns.validity(time)
    instants = columns.joint_keys([time])[0].keys
    return Points(group=group, time=instants, valid=present & (group >= 0))
