"""The three ways to sort a history and to find where slices end: compiled loops, DuckDB, Polars.

All of them see the same dense integers and answer the same positions; see `daedalus.compute.layout.Finder`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from daedalus.compute.conditions import Session
    from daedalus.compute.layout import Bound, Layout, Points

#: No two instants are further apart.
_MOST_TICKS = (1 << 64) - 1


class KernelFinder:
    """Counting sort by group, then one walk over each group for all bounds."""

    def sort(self, points: Points, start: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The valid rows by (group, time, row), and their times."""
        from daedalus.compute import _kernels

        order, time = _kernels.sort_rows(points.group, points.time, points.valid, start)
        return order, time

    def positions(self, layout: Layout, bounds: Sequence[Bound]) -> list[NDArray[np.int32]]:
        """Where each row's bounds fall in its group."""
        from daedalus.compute import _kernels

        spine = layout.spine
        out = np.zeros((len(bounds), len(spine.time)), np.int32)
        ticks = np.array([min(bound.ticks, _MOST_TICKS) for bound in bounds], np.uint64)
        inclusive = np.array([bound.inclusive for bound in bounds])
        points = (spine.group, spine.time)
        _kernels.sweep(layout.spine_order, points, ticks, inclusive, layout.start, layout.time, out)
        return list(out)


class DuckDBFinder:
    """Sorting in SQL, over registered integer columns."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def sort(self, points: Points, start: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The valid rows by (group, time, row), and their times."""
        del start
        rows = np.flatnonzero(points.valid).astype(np.int32)
        order = self._sorted(g=points.group[rows], t=points.time[rows], kind=np.zeros_like(rows), n=rows)
        return order, points.time[order]

    def positions(self, layout: Layout, bounds: Sequence[Bound]) -> list[NDArray[np.int32]]:
        """Where each row's bounds fall."""
        return [self._positions(layout, bound) for bound in bounds]

    def _positions(self, layout: Layout, bound: Bound) -> NDArray[np.int32]:
        """History and bounds sorted together, history rows counted on the way.

        Not an ASOF join: over registered Arrow tables, whose size DuckDB does not know, it can choose a
        nested loop, which is quadratic.
        """
        asked = layout.spine_order
        size = len(layout.order)
        group = np.repeat(np.arange(len(layout.start) - 1, dtype=np.int32), np.diff(layout.start))
        kind = np.concatenate(
            [np.full(size, 1, np.int32), np.full(len(asked), 2 * bound.inclusive, np.int32)]
        )
        found = self._sorted(
            g=np.concatenate([group, layout.spine.group[asked]]),
            t=np.concatenate([layout.time, bound.times(layout.spine.time)[asked]]),
            kind=kind,
            n=np.concatenate([np.full(size, -1, np.int32), asked]),
        )
        is_past = found < 0
        before = np.cumsum(is_past, dtype=np.int32)
        out = np.zeros(len(layout.spine.time), np.int32)
        out[found[~is_past]] = before[~is_past]
        return out

    def _sorted(self, **arrays: NDArray[Any]) -> NDArray[np.int32]:
        """Column `n` in the order of (g, t, kind, n)."""
        query = "SELECT n FROM daedalus_points ORDER BY g, t, kind, n"
        with self._session.lock:
            connection = self._session.connection
            connection.register("daedalus_points", pa.table({key: pa.array(arrays[key]) for key in arrays}))
            try:
                found: NDArray[np.int32] = connection.execute(query).to_arrow_table()["n"].to_numpy()
            finally:
                connection.unregister("daedalus_points")
        return found


class PolarsFinder:
    """Sorting and as-of joins in Polars."""

    def sort(self, points: Points, start: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The valid rows by (group, time, row), and their times."""
        import polars as pl

        del start
        rows = np.flatnonzero(points.valid).astype(np.int32)
        frame = pl.DataFrame({"g": points.group[rows], "t": points.time[rows], "n": rows})
        found = frame.sort("g", "t", "n")
        return found["n"].to_numpy(), found["t"].to_numpy()

    def positions(self, layout: Layout, bounds: Sequence[Bound]) -> list[NDArray[np.int32]]:
        """Where each row's bounds fall in its group."""
        return [self._positions(layout, bound) for bound in bounds]

    def _positions(self, layout: Layout, bound: Bound) -> NDArray[np.int32]:
        """Behind the newest row that lies before the bound."""
        import polars as pl

        rows = layout.spine_order
        group = np.repeat(np.arange(len(layout.start) - 1, dtype=np.int32), np.diff(layout.start))
        # The join may match any of equal times: the last row of each instant stands for it.
        last = np.ones(len(group), np.bool_)
        last[:-1] = (group[1:] != group[:-1]) | (layout.time[1:] != layout.time[:-1])
        ends = np.flatnonzero(last).astype(np.int32)
        past = pl.DataFrame({"g": group[ends], "t": layout.time[ends], "p": ends + np.int32(1)})
        times = bound.times(layout.spine.time)
        asked = pl.DataFrame({"g": layout.spine.group[rows], "t": times[rows], "n": rows})
        found = asked.set_sorted("g").join_asof(
            past.set_sorted("g"),
            on="t",
            by="g",
            strategy="backward",
            allow_exact_matches=bound.inclusive,
            check_sortedness=False,
        )
        matched = found["p"].is_not_null().to_numpy()
        out = layout.start[np.maximum(layout.spine.group, 0)].astype(np.int32)
        out[found["n"].to_numpy()[matched]] = found["p"].drop_nulls().to_numpy()
        return out
