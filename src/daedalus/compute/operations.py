"""From slices to values: what each operation makes of the rows a spine row may see.

Every function takes a `View` and returns the spec's column. Values come out of the Arrow input by position,
so they keep their type and bits; only counts, sums, means and seconds are computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from daedalus.catalog.aggregation import Operation
from daedalus.compute import columns, lists
from daedalus.compute.checks import output_field
from daedalus.compute.exclusion import Narrowed, narrow
from daedalus.errors import ExecutionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from daedalus.compute.view import View

#: Rows with more own occurrences than this leave them out by the wavelet matrix instead of gap by gap.
FEW_GAPS = 8
_WORD = np.int64(0xFFFF_FFFF)


def compute_column(view: View) -> pa.Array:
    """The spec's value for every spine row."""
    column = _OPERATIONS[view.spec.operation](view)
    kind = output_field(view.spec, view.history_schema).type
    return column if column.type == kind else column.cast(kind)


def compute_rows(view: View, places: NDArray[np.int64] | None) -> pa.Array:
    """The spec's value for the spine rows at `places`; None is all of them.

    Lists are gathered for these rows alone; values of a fixed size are computed once for all rows.
    """
    if places is None:
        return compute_column(view)
    if view.spec.operation is Operation.LIST:
        return compute_column(view.rows(places))
    if view.spec.operation is Operation.FLATTEN_DISTINCT:
        return lists.flatten_distinct(view, places)
    key = ("column", view.spec)
    return view.workspace.memo.get(key, lambda: compute_column(view)).take(pa.array(places))


def prepare_rows(view: View) -> None:
    """Make what `compute_rows` of any rows needs: lists are gathered from it a piece at a time."""
    if view.spec.operation is Operation.LIST:
        lists.prepare_list(view)
    elif view.spec.operation is Operation.FLATTEN_DISTINCT:
        lists.prepare_distinct(view)


def _count(view: View) -> pa.Array:
    return pa.array(narrow(view).counts)


def _count_distinct(view: View) -> pa.Array:
    from daedalus.compute import _kernels

    narrowed = narrow(view)
    keys = view.keys()
    places, start = view.occurrences()[0], view.selection.start
    earlier = view.memo("earlier same", lambda: _kernels.previous_same(places, keys, start))
    out = np.zeros(view.size, np.int64)
    _kernels.count_distinct(
        earlier,
        start,
        view.layout.spine_order,
        view.layout.spine.group,
        narrowed.low,
        narrowed.high,
        out,
    )
    return pa.array(out - (narrowed.own_count > 0))


def _first(view: View) -> pa.Array:
    narrowed = narrow(view)
    place = narrowed.low.copy()
    if view.own is not None:
        keys = view.keys()
        following = view.memo("next other", lambda: _next_other(view))
        inside = narrowed.high > narrowed.low
        at = np.where(inside, place, 0)
        own = inside & view.own.valid
        own[own] = keys[at[own]] == view.own.keys[own]
        place[own] = following[place[own]]
    return _pick(view, np.where(narrowed.counts > 0, place, -1))


def _next_other(view: View) -> NDArray[np.int32]:
    from daedalus.compute import _list_kernels

    keys = np.ascontiguousarray(view.keys()[::-1])
    backwards: NDArray[np.int32] = _list_kernels.previous_other(keys)
    return np.int32(len(keys) - 1) - backwards[::-1]


def _last_place(view: View) -> NDArray[np.int32]:
    """The position of each row's newest eligible row, -1 for none."""
    low, high = view.ends.low, view.ends.high
    place = np.where(high > low, high - 1, -1).astype(np.int32)
    if view.own is None:
        return place
    jump = view.jump()
    own = (place >= 0) & view.own.valid
    own[own] = view.keys()[place[own]] == view.own.keys[own]
    place[own] = jump[place[own]]
    return np.where(place >= low, place, np.int32(-1))


def _last(view: View) -> pa.Array:
    return _pick(view, _last_place(view))


def _seconds_since_last(view: View) -> pa.Array:
    place = _last_place(view)
    found = place >= 0
    rows = view.selection.rows[place[found]]
    now, then = view.layout.spine.time[found], view.history_time()[rows]
    # The difference of two instants fits in 64 unsigned bits, and the past lies before the present.
    elapsed = now.view(np.uint64) - then.view(np.uint64)
    seconds = np.zeros(view.size, np.float64)
    seconds[found] = elapsed.astype(np.float64) / float(view.layout.ticks)
    return pa.array(seconds, mask=~found)


def _extreme(view: View) -> pa.Array:
    from daedalus.compute import _kernels

    largest = view.spec.operation is Operation.MAX
    keys = view.keys(ordered=True)
    narrowed = narrow(view)
    best, other = view.memo(("extremes", largest), lambda: _kernels.extreme_tree(keys, largest))
    own, has_own = view.own_arrays(ordered=True)
    place = np.empty(view.size, np.int32)
    _kernels.extremes(keys, largest, best, other, narrowed.low, narrowed.high, own, has_own, place)
    return _pick(view, place)


def _sum(view: View) -> pa.Array:
    kind = output_field(view.spec, view.history_schema).type
    narrowed = narrow(view)
    empty = narrowed.counts == 0
    if pa.types.is_floating(kind):
        sums, scaled = _float_sum(view, narrowed)
        with np.errstate(over="ignore"):
            return pa.array(np.where(scaled, np.ldexp(sums, 64), sums), mask=empty)
    top, rest = _integer_sum(view, narrowed)
    outside = (top < -(1 << 31)) | (top >= 1 << 31)
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise ExecutionError(
            f"the sum of {view.spec.value_column!r} at spine row {row} is "
            f"{(int(top[row]) << 32) + int(rest[row])}, outside int64",
            where=view.spec.where,
            hint="Cast the column to DOUBLE, or narrow the window",
        )
    return pa.array((top << 32) | rest, mask=empty)


def _mean(view: View) -> pa.Array:
    narrowed = narrow(view)
    counts = np.maximum(narrowed.counts, 1).astype(np.float64)
    values = view.values()
    if pa.types.is_integer(columns.plain_type(values.type)):
        top, rest = _integer_sum(view, narrowed)
        means = (top.astype(np.float64) * 2.0**32 + rest.astype(np.float64)) / counts
    else:
        sums, scaled = _float_sum(view, narrowed)
        with np.errstate(over="ignore", invalid="ignore"):
            means = np.where(scaled, np.ldexp(sums / counts, 64), sums / counts)
    return pa.array(means, mask=narrowed.counts == 0)


def _integer_sum(view: View, narrowed: Narrowed) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Exact sums as (multiples of 2**32, the rest below it): words of 32 bits cannot overflow int64."""
    kept = columns.integers(view.values())[view.selection.rows]
    words = ((kept >> kept.dtype.type(32)).astype(np.int64), (kept & kept.dtype.type(_WORD)).astype(np.int64))
    sums = []
    for word in words:
        before = np.zeros(len(word) + 1, np.int64)
        np.cumsum(word, out=before[1:])
        total = before[narrowed.high] - before[narrowed.low]
        if view.own is not None:
            mine = narrowed.own_count > 0
            place = view.occurrences()[0][narrowed.begin[mine]]
            total[mine] -= word[place] * narrowed.own_count[mine]
        sums.append(total)
    top, rest = sums
    return top + (rest >> 32), rest & _WORD


def _float_sum(view: View, narrowed: Narrowed) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Pairwise sums; where the mask says so, of values over 2**64, for the plain sum is not finite."""
    kept = columns.floats(view.values())[view.selection.rows]
    with np.errstate(over="ignore", invalid="ignore"):
        sums = _sum_slices(view, narrowed, kept)
        scaled = ~np.isfinite(sums) & (narrowed.counts > 0)
        if scaled.any():
            small = _sum_slices(view, narrowed, np.ldexp(kept, -64))
            scaled &= np.isfinite(small)
            sums = np.where(scaled, small, sums)
    return sums, scaled


def _sum_slices(view: View, narrowed: Narrowed, kept: NDArray[np.float64]) -> NDArray[np.float64]:
    from daedalus.compute import _kernels

    sums = np.empty(view.size, np.float64)
    places = view.occurrences()[0] if view.own is not None else np.zeros(0, np.int32)
    tree = _kernels.sum_tree(kept)
    _kernels.float_sums(
        tree, narrowed.low, narrowed.high, places, narrowed.begin, narrowed.end, FEW_GAPS, sums
    )
    many = np.flatnonzero(narrowed.own_count > FEW_GAPS)
    if len(many):
        numbers = view.occurrences()[1]
        _kernels.sums_without(
            kept.copy(),
            numbers.copy(),
            int(numbers.max()).bit_length(),
            many,
            narrowed.low[many],
            narrowed.high[many],
            numbers[places[narrowed.begin[many]]],
            sums,
        )
    return sums


def _pick(view: View, place: NDArray[np.int32]) -> pa.Array:
    """The value at each position of the selection, NULL where it is negative."""
    missing = place < 0
    if len(view.selection.rows) == 0:
        return pa.nulls(view.size, view.values().type)
    rows = view.selection.rows[np.where(missing, 0, place)]
    return view.values().take(pa.array(rows, mask=missing))


_OPERATIONS: dict[Operation, Callable[[View], Any]] = {
    Operation.LIST: lists.collect,
    Operation.COUNT: _count,
    Operation.COUNT_DISTINCT: _count_distinct,
    Operation.FLATTEN_DISTINCT: lists.flatten_distinct,
    Operation.FIRST: _first,
    Operation.LAST: _last,
    Operation.MIN: _extreme,
    Operation.MAX: _extreme,
    Operation.SUM: _sum,
    Operation.MEAN: _mean,
    Operation.SECONDS_SINCE_LAST: _seconds_since_last,
}
