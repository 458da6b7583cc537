"""Operations whose value is a list: positions first, then one gather into a list column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from daedalus.catalog.aggregation import Operation
from daedalus.compute import columns
from daedalus.errors import ExecutionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from daedalus.compute.view import View

MAX_ITEMS_PER_COLUMN = 2**31 - 1
#: Room for so many distinct elements to a row, while there may be more: memory costs only once it is written to.
_USUAL_ITEMS = 64


def collect(view: View) -> pa.Array:
    """The eligible values of every spine row, oldest first."""
    source = _kept_values(view)
    if view.own is None:
        return _contiguous(view, source)
    return _without_own(view, source)


def prepare_list(view: View) -> None:
    """Set aside what `collect` copies from."""
    _kept_values(view)
    if view.own is not None:
        view.jump()


def _kept_values(view: View) -> NDArray[Any]:
    """What the gather copies: the kept values' bits where they have a fixed width, else their rows."""
    from daedalus.compute import _kernels

    raw = columns.fixed_width_view(view.values())
    rows = view.selection.rows
    return rows if raw is None else view.memo("bits", lambda: _kernels.take(raw, rows))


def _contiguous(view: View, source: NDArray[Any]) -> pa.Array:
    from daedalus.compute import _list_kernels

    low, high = view.ends.low, view.ends.high
    lengths = np.minimum(high - low, np.int32(view.limit))
    offsets = _offsets(lengths, view.spec.where)
    out = np.empty(offsets[-1], source.dtype)
    _list_kernels.copy_slices(source, high - lengths, offsets, out)
    return _list_array(view, offsets, out)


def _without_own(view: View, source: NDArray[Any]) -> pa.Array:
    from daedalus.compute import _list_kernels

    lengths, exact = _counted_without_own(view)
    offsets = _offsets(lengths, view.spec.where)
    out = np.empty(offsets[-1], source.dtype)
    own, _ = view.own_arrays()
    _list_kernels.copy_others(source, view.keys(), view.jump(), view.ends.high, own, exact, offsets, out)
    return _list_array(view, offsets, out)


def _counted_without_own(view: View) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """How many rows are kept, and whether none of them was left out."""
    from daedalus.compute import _list_kernels

    low, high = view.ends.low, view.ends.high
    own, has_own = view.own_arrays()
    lengths, exact = np.empty(view.size, np.int32), np.empty(view.size, np.bool_)
    _list_kernels.count_others(view.keys(), view.jump(), low, high, own, has_own, view.limit, lengths, exact)
    return lengths, exact


def list_lengths(view: View, places: NDArray[np.int64]) -> pa.Array:
    """How long the lists of some spine rows are, without making them."""
    if view.spec.operation is Operation.FLATTEN_DISTINCT:
        return pa.array(_recent(view, places).lengths)
    some = view.rows(places)
    if some.own is not None:
        return pa.array(_counted_without_own(some)[0])
    return pa.array(np.minimum(some.ends.high - some.ends.low, np.int32(some.limit)))


def _offsets(lengths: NDArray[np.int32], where: str) -> NDArray[np.int32]:
    total = int(lengths.sum(dtype=np.int64))
    if total > MAX_ITEMS_PER_COLUMN:
        raise ExecutionError(
            f"the lists hold {total} values, more than the {MAX_ITEMS_PER_COLUMN} of one Arrow list column",
            where=where,
            hint="Set max_items, shorten the window, or aggregate fewer rows at a time",
        )
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _list_array(view: View, offsets: NDArray[np.int32], gathered: NDArray[Any]) -> pa.Array:
    """The list column over gathered bits or rows."""
    values = view.values()
    if columns.fixed_width_view(values) is not None:
        items = _of_bits(gathered, values.type)
    else:
        items = take(view, values, gathered)
    return as_lists(items, offsets)


def take(view: View, values: pa.Array, rows: NDArray[Any]) -> pa.Array:
    """The values at these rows."""
    try:
        return values.take(pa.array(rows))
    except pa.ArrowException as exc:
        raise ExecutionError(
            f"the values do not fit in one Arrow column: {exc}",
            where=view.spec.where,
            hint="Cast the value column to its large type, set max_items, or aggregate fewer rows at a time",
        ) from exc


def as_lists(items: pa.Array, offsets: NDArray[np.int32]) -> pa.Array:
    """A `list<item>` column from its items and offsets."""
    kind = pa.list_(pa.field("item", items.type))
    return pa.ListArray.from_arrays(pa.array(offsets), items, type=kind)


@dataclass(frozen=True, slots=True)
class _Recent:
    """Per spine row the positions found[begin : begin + length] of its most recently seen distinct elements.

    Newest first, among the elements of the kept lists, one list after the other.
    """

    begin: NDArray[np.int64]
    lengths: NDArray[np.int32]
    found: NDArray[np.int32]
    elements: pa.Array


def flatten_distinct(view: View, places: NDArray[np.int64] | None = None) -> pa.Array:
    """The most recently seen distinct elements of every spine row's lists, oldest first."""
    from daedalus.compute import _list_kernels

    recent = _recent(view, places)
    offsets = _offsets(recent.lengths, view.spec.where)
    raw = columns.fixed_width_view(recent.elements)
    source = np.arange(len(recent.elements), dtype=np.int32) if raw is None else raw
    out = np.empty(offsets[-1], source.dtype)
    _list_kernels.copy_backwards(source, recent.found, recent.begin, offsets, out)
    if raw is None:
        return as_lists(take(view, recent.elements, out), offsets)
    return as_lists(_of_bits(out, recent.elements.type), offsets)


def _recent(view: View, places: NDArray[np.int64] | None) -> _Recent:
    """Every spine row's are found once, for the longest window of the specs alike.

    A shorter window sees the newest of them.
    """
    from daedalus.compute import _kernels, _list_kernels

    _, first, flat = view.memo("elements", lambda: _elements(view))
    widest = view.widest
    begin, lengths, found = prepare_distinct(widest)
    low, high = view.ends.low, view.ends.high
    if places is not None:
        begin, lengths = _kernels.take(begin, places), _kernels.take(lengths, places)
        low, high = _kernels.take(low, places), _kernels.take(high, places)
    if widest is not view:
        lengths = lengths.copy()
        since = np.where(high > low, _kernels.take(first, low), first[-1])
        _list_kernels.count_since(found, begin, since, lengths)
    return _Recent(begin, lengths, found, flat)


def prepare_distinct(view: View) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Where each spine row's elements begin, how many there are, and all rows' elements."""
    from daedalus.compute import _list_kernels

    elements, first, _ = view.memo("elements", lambda: _elements(view))

    def find() -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        begin, lengths = np.zeros(view.size, np.int64), np.zeros(view.size, np.int32)
        most = _list_kernels.most_distinct(first, view.ends.low, view.ends.high, view.limit)
        found = _list_kernels.recent_distinct(
            elements,
            first,
            view.selection.start,
            view.layout.spine_order,
            view.layout.spine.group,
            view.ends.low,
            view.ends.high,
            view.limit,
            min(most, _USUAL_ITEMS * view.size),
            lengths,
            begin,
        )
        return begin, lengths, found

    return view.memo(("recent distinct", view.spec), find)


def _elements(view: View) -> tuple[NDArray[np.int32], NDArray[np.int64], pa.Array]:
    """The kept lists' elements in order: their dense numbers, where each list begins, the values."""
    kept = take_rows(view.values(), view.selection.rows)
    if not pa.types.is_list(kept.type):
        kept = kept.cast(pa.large_list(kept.type.value_type))
    flat = kept.flatten()
    lengths = pc.list_value_length(kept).to_numpy(zero_copy_only=False)
    first = np.zeros(len(kept) + 1, np.int64)
    np.cumsum(lengths, out=first[1:])
    numbers, _ = columns.dense_numbers([[flat]])
    return numbers[0], first, flat


def take_rows(array: pa.Array, places: NDArray[Any]) -> pa.Array:
    """`array.take(places)`; lists of values of a fixed width are copied slice by slice, which is faster."""
    from daedalus.compute import _kernels, _list_kernels

    if not pa.types.is_list(array.type):
        return array.take(pa.array(places))
    items = array.values
    raw = None if items.null_count else columns.fixed_width_view(items)
    if raw is None or not _kernels.take(columns.validity(array), places).all():
        return array.take(pa.array(places))
    begin = array.offsets.to_numpy()
    lengths = _kernels.take(np.diff(begin), places)
    offsets = _offsets(lengths, "aggregate_pit_table")
    out = np.empty(offsets[-1], raw.dtype)
    _list_kernels.copy_slices(raw, _kernels.take(begin, places), offsets, out)
    return as_lists(_of_bits(out, items.type), offsets)


def _of_bits(bits: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Values of a fixed width from their bits; none is NULL."""
    return pa.Array.from_buffers(kind, len(bits), [None, pa.py_buffer(bits)])


def newest_items(array: pa.Array, lengths: NDArray[np.int32]) -> pa.Array:
    """The last so many items of every list; no list is NULL.

    Example:
        >>> newest_items(pa.array([[1, 2, 3], []]), np.array([2, 0], np.int32)).to_pylist()
        [[2, 3], []]
    """
    from daedalus.compute import _list_kernels

    items = array.values
    raw = None if items.null_count else columns.fixed_width_view(items)
    offsets = _offsets(lengths, "aggregate_pit_table")
    source = np.arange(len(items), dtype=np.int64) if raw is None else raw
    out = np.empty(offsets[-1], source.dtype)
    _list_kernels.copy_slices(source, array.offsets.to_numpy()[1:] - lengths, offsets, out)
    if raw is None:
        return as_lists(items.take(pa.array(out)), offsets)
    return as_lists(_of_bits(out, items.type), offsets)
