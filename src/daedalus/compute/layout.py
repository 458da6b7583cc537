"""Where the eligible rows of every spine row lie: one sort, one sweep per window, one prefix sum per filter.

A history sorted by (group, time, row) holds what a spine row may see in one slice [low, high). Engines find
the order and the slice's two ends over the *unfiltered* history; a filter (condition, NULL values) then keeps
some positions, and counting the kept ones before each end moves both ends. So specs that share groups and
time share the sort, those with the same window share the ends, and those with the same filter the kept rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

import numpy as np

from daedalus.catalog.model import SECONDS_PER_DAY
from daedalus.errors import DefinitionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from daedalus.catalog.aggregation import AggregationSpec

_LOWEST = np.iinfo(np.int64).min
_SIGN = np.uint64(1 << 63)


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Rows of one relation as an engine sees them: a dense group, an instant, and whether both are there."""

    group: NDArray[np.int32]
    time: NDArray[np.int64]
    valid: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A history in (group, time, row) order, and the spine rows that look at it.

    Attributes:
        order: history rows (with group and time) in that order.
        start: where each group begins in `order`; one more entry than groups.
        time: the time of each row of `order`.
        spine: the spine rows.
        spine_order: the spine rows (with group and time) by (group, time).
        ticks: ticks per second of the time column.
    """

    order: NDArray[np.int32]
    start: NDArray[np.int64]
    time: NDArray[np.int64]
    spine: Points
    spine_order: NDArray[np.int32]
    ticks: int


class Finder(Protocol):
    """What an engine does: sort, and find the ends of slices. Everything else is shared."""

    def order(self, points: Points, groups: int) -> NDArray[np.int32]:
        """The valid rows by (group, time, row)."""

    def positions(self, layout: Layout, bound: NDArray[np.int64], *, inclusive: bool) -> NDArray[np.int32]:
        """Per spine row the first position of its group with time >= bound (> bound when `inclusive`).

        The end of the group when there is none; anything for spine rows that are not valid. Bounds rise with
        the spine's time within a group.
        """


@dataclass(frozen=True, slots=True)
class Ends:
    """Per spine row the slice [low, high) of the history it may see; equal when it sees nothing."""

    low: NDArray[np.int32]
    high: NDArray[np.int32]


def make_layout(
    finder: Finder,
    *,
    spine: Points,
    history: Points,
    groups: int,
    ticks: int,
    row_number: NDArray[np.int64] | None,
) -> Layout:
    """Sort the history, and the spine unless it is the history itself.

    `row_number` breaks ties between history rows of one instant; None takes their position.
    """
    if row_number is None:
        order = finder.order(history, groups)
    else:
        numbered = np.argsort(row_number, kind="stable").astype(np.int32)
        shuffled = Points(
            group=history.group[numbered], time=history.time[numbered], valid=history.valid[numbered]
        )
        order = numbered[finder.order(shuffled, groups)]
    spine_order = order if spine is history else finder.order(spine, groups)
    start = np.zeros(groups + 1, np.int64)
    np.cumsum(np.bincount(history.group[order], minlength=groups), out=start[1:])
    return Layout(
        order=order,
        start=start,
        time=history.time[order],
        spine=spine,
        spine_order=spine_order,
        ticks=ticks,
    )


def window_ticks(spec: AggregationSpec, ticks: int) -> int | None:
    """The window in ticks of the time column, None for the whole past; refuses what rounds to nothing."""
    if spec.window_days is None:
        return None
    window = round(Fraction(spec.window_days) * SECONDS_PER_DAY * ticks)
    if window < 1 and not spec.include_current:
        raise DefinitionError(
            f"window_days is {spec.window_days}, less than one tick of the time column",
            where=spec.where,
            hint="Widen the window",
        )
    return window


def delay_ticks(spec: AggregationSpec, ticks: int) -> int:
    """The delay in ticks of the time column."""
    return round(Fraction(spec.delay_seconds) * ticks)


def find_high(finder: Finder, layout: Layout, delay: int, *, include_current: bool) -> NDArray[np.int32]:
    """Where each row's past ends: at its own time (minus the delay), included or not."""
    read, _ = _earlier(layout.spine.time, delay)
    high = finder.positions(layout, read, inclusive=include_current)
    return _blank(layout, high, delay)


def find_low(finder: Finder, layout: Layout, delay: int, window: int | None) -> NDArray[np.int32]:
    """Where each row's window begins."""
    if window is None:
        low = layout.start[np.maximum(layout.spine.group, 0)].astype(np.int32)
    else:
        bound, _ = _earlier(layout.spine.time, delay + window)
        low = finder.positions(layout, bound, inclusive=False)
    return _blank(layout, low, delay)


def _earlier(time: NDArray[np.int64], ticks: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """`time - ticks`, stopping at the lowest instant there is, and where it had to stop."""
    if ticks == 0:
        return time, np.zeros(len(time), np.bool_)
    if ticks > np.iinfo(np.uint64).max:
        return np.full(len(time), _LOWEST), np.ones(len(time), np.bool_)
    # Counted from the lowest instant, as unsigned numbers: nothing can overflow.
    since = time.view(np.uint64) ^ _SIGN
    stopped = since < np.uint64(ticks)
    moved = np.where(stopped, np.uint64(0), since - np.uint64(ticks))
    return (moved ^ _SIGN).view(np.int64), stopped


def _blank(layout: Layout, position: NDArray[np.int32], delay: int) -> NDArray[np.int32]:
    """The positions, 0 for rows that see nothing: no group, no time, or a reading time before all time."""
    seeing = layout.spine.valid
    if delay:
        seeing = seeing & ~_earlier(layout.spine.time, delay)[1]
    return np.where(seeing, position, np.int32(0)).astype(np.int32, copy=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The history rows that a filter keeps, in the layout's order.

    Attributes:
        rows: their row numbers in the history table.
        start: where each group begins among them.
        before: per position of the layout (and its end), how many kept rows lie before it.
    """

    rows: NDArray[np.int32]
    start: NDArray[np.int64]
    before: NDArray[np.int32] | None

    def ends(self, ends: Ends) -> Ends:
        """A slice of the whole history as a slice of the kept rows."""
        if self.before is None:
            return ends
        return Ends(self.before[ends.low], self.before[ends.high])


def select(layout: Layout, keep: NDArray[np.bool_] | None) -> Selection:
    """The rows of the history for which `keep` is True; None keeps them all."""
    if keep is None or keep.all():
        return Selection(rows=layout.order, start=layout.start, before=None)
    kept = keep[layout.order]
    before = np.zeros(len(kept) + 1, np.int32)
    np.cumsum(kept, out=before[1:])
    return Selection(rows=layout.order[kept], start=before[layout.start].astype(np.int64), before=before)
