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
    from collections.abc import Sequence

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
        spine: the spine rows, numbered like the history's groups.
        spine_order: the spine rows (with group and time) by (group, time).
        ticks: ticks per second of the time column.
    """

    order: NDArray[np.int32]
    start: NDArray[np.int64]
    time: NDArray[np.int64]
    spine: Points
    spine_order: NDArray[np.int32]
    ticks: int


@dataclass(frozen=True, slots=True)
class Bound:
    """An instant so many ticks before each spine row, or the lowest there is.

    Attributes:
        inclusive: whether rows of that very instant lie before the bound.
    """

    ticks: int
    inclusive: bool = False

    def times(self, time: NDArray[np.int64]) -> NDArray[np.int64]:
        """The instant for each spine row's time."""
        return _earlier(time, self.ticks)[0]


class Finder(Protocol):
    """What an engine does: sort, and find the ends of slices. Everything else is shared."""

    def sort(self, points: Points, start: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The valid rows by (group, time, row), and their times; `start` is where each group begins."""

    def positions(self, layout: Layout, bounds: Sequence[Bound]) -> list[NDArray[np.int32]]:
        """Per bound and spine row, the first position of its group with time >= bound (> when inclusive).

        The end of the group when there is none; anything for spine rows that are not valid.
        """


@dataclass(frozen=True, slots=True)
class Ends:
    """Per spine row the slice [low, high) of the history it may see; equal when it sees nothing."""

    low: NDArray[np.int32]
    high: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Sorted:
    """Rows by (group, time, row): their numbers, where each group begins, and their times."""

    order: NDArray[np.int32]
    start: NDArray[np.int64]
    time: NDArray[np.int64]


def sort_points(
    finder: Finder, points: Points, groups: int, row_number: NDArray[np.int64] | None = None
) -> Sorted:
    """The rows that have a group and a time, sorted.

    `row_number` breaks ties between rows of one instant; None takes their position.
    """
    from daedalus.compute import _kernels

    start = _kernels.count_groups(points.group, points.valid, groups)
    if row_number is None:
        order, time = finder.sort(points, start)
        return Sorted(order, start, time)
    numbered = np.argsort(row_number, kind="stable").astype(np.int32)
    shuffled = Points(group=points.group[numbered], time=points.time[numbered], valid=points.valid[numbered])
    order, time = finder.sort(shuffled, start)
    return Sorted(numbered[order], start, time)


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


def find_ends(
    finder: Finder, layout: Layout, delay: int, windows: Sequence[int | None], *, include_current: bool
) -> dict[int | None, Ends]:
    """Each row's slice of the history for each window: up to its own time (minus the delay), included or not."""
    narrow = [window for window in windows if window is not None]
    bounds = [Bound(delay, include_current), *(Bound(delay + window) for window in narrow)]
    high, *lows = (_blank(layout, found, delay) for found in finder.positions(layout, bounds))
    ends: dict[int | None, Ends] = {window: Ends(low, high) for window, low in zip(narrow, lows, strict=True)}
    if None in windows:
        first = layout.start[np.maximum(layout.spine.group, 0)].astype(np.int32)
        ends[None] = Ends(_blank(layout, first, delay), high)
    return ends


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
    if seeing.all():
        return position
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

    def positions(self, places: NDArray[np.int32]) -> NDArray[np.int32]:
        """Positions in the whole history as positions among the kept rows."""
        from daedalus.compute import _kernels

        return places if self.before is None else _kernels.take(self.before, places)


def select(layout: Layout, keep: NDArray[np.bool_] | None) -> Selection:
    """The rows of the history for which `keep` is True; None keeps them all."""
    from daedalus.compute import _kernels

    if keep is None or keep.all():
        return Selection(rows=layout.order, start=layout.start, before=None)
    rows, before = _kernels.keep_rows(layout.order, keep)
    return Selection(rows=rows, start=before[layout.start].astype(np.int64), before=before)
