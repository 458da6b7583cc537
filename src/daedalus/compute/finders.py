"""The three ways to sort a history and to find where slices end: compiled loops, DuckDB, Polars.

All of them see the same dense integers and answer the same positions; see `daedalus.compute.layout.Finder`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from daedalus.compute.conditions import Session
    from daedalus.compute.layout import Layout, Points


class KernelFinder:
    """Counting sort by group, then one walk over each group per bound."""

    def order(self, points: Points, groups: int) -> NDArray[np.int32]:
        """The valid rows by (group, time, row)."""
        from daedalus.compute import _kernels

        start = np.zeros(groups + 1, np.int64)
        found: NDArray[np.int32] = _kernels.order_rows(points.group, points.time, points.valid, groups, start)
        return found

    def positions(self, layout: Layout, bound: NDArray[np.int64], *, inclusive: bool) -> NDArray[np.int32]:
        """Where each row's bound falls in its group."""
        from daedalus.compute import _kernels

        out = np.zeros(len(bound), np.int32)
        spine = layout.spine
        _kernels.sweep(layout.spine_order, spine.group, bound, layout.start, layout.time, inclusive, out)
        return out


class DuckDBFinder:
    """Sorting and as-of joins in SQL over registered integer columns."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def order(self, points: Points, groups: int) -> NDArray[np.int32]:
        """The valid rows by (group, time, row)."""
        del groups
        rows = np.flatnonzero(points.valid).astype(np.int32)
        table = _table(g=points.group[rows], t=points.time[rows], n=rows)
        return self._run("SELECT n FROM daedalus_points ORDER BY g, t, n", daedalus_points=table)

    def positions(self, layout: Layout, bound: NDArray[np.int64], *, inclusive: bool) -> NDArray[np.int32]:
        """Where each row's bound falls in its group: behind the newest row that lies before the bound."""
        rows = np.flatnonzero(layout.spine.valid).astype(np.int32)
        places = np.arange(len(layout.order), dtype=np.int32)
        group = np.repeat(np.arange(len(layout.start) - 1, dtype=np.int32), np.diff(layout.start))
        before = ">=" if inclusive else ">"
        # An as-of join may match any of equal times, so each (group, time) is made unique first.
        query = f"""
            WITH ends AS (SELECT g, t, max(p) + 1 AS p FROM daedalus_past GROUP BY g, t)
            SELECT asked.n, ends.p
            FROM daedalus_asked AS asked
            ASOF JOIN ends ON asked.g = ends.g AND asked.t {before} ends.t
        """
        found = self._table(
            query,
            daedalus_past=_table(g=group, t=layout.time, p=places),
            daedalus_asked=_table(g=layout.spine.group[rows], t=bound[rows], n=rows),
        )
        out = layout.start[np.maximum(layout.spine.group, 0)].astype(np.int32)
        out[found.column(0).to_numpy()] = found.column(1).to_numpy()
        return out

    def _run(self, query: str, **tables: pa.Table) -> NDArray[np.int32]:
        found: NDArray[np.int32] = self._table(query, **tables).column(0).to_numpy()
        return found.astype(np.int32, copy=False)

    def _table(self, query: str, **tables: pa.Table) -> pa.Table:
        connection = self._session.connection
        for name, table in tables.items():
            connection.register(name, table)
        try:
            return connection.execute(query).to_arrow_table()
        finally:
            for name in tables:
                connection.unregister(name)


class PolarsFinder:
    """Sorting and as-of joins in Polars."""

    def order(self, points: Points, groups: int) -> NDArray[np.int32]:
        """The valid rows by (group, time, row)."""
        import polars as pl

        del groups
        rows = np.flatnonzero(points.valid).astype(np.int32)
        frame = pl.DataFrame({"g": points.group[rows], "t": points.time[rows], "n": rows})
        found: NDArray[np.int32] = frame.sort("g", "t", "n")["n"].to_numpy()
        return found

    def positions(self, layout: Layout, bound: NDArray[np.int64], *, inclusive: bool) -> NDArray[np.int32]:
        """Where each row's bound falls in its group: behind the newest row that lies before the bound."""
        import polars as pl

        rows = layout.spine_order
        group = np.repeat(np.arange(len(layout.start) - 1, dtype=np.int32), np.diff(layout.start))
        places = np.arange(len(layout.order), dtype=np.int32)
        past = pl.DataFrame({"g": group, "t": layout.time, "p": places + 1})
        ends = past.unique(["g", "t"], keep="last", maintain_order=True)
        asked = pl.DataFrame({"g": layout.spine.group[rows], "t": bound[rows], "n": rows})
        found = asked.set_sorted("g").join_asof(
            ends,
            on="t",
            by="g",
            strategy="backward",
            allow_exact_matches=inclusive,
            check_sortedness=False,
        )
        matched = found["p"].is_not_null().to_numpy()
        out = layout.start[np.maximum(layout.spine.group, 0)].astype(np.int32)
        out[found["n"].to_numpy()[matched]] = found["p"].drop_nulls().to_numpy()
        return out


def _table(**arrays: NDArray[Any]) -> pa.Table:
    return pa.table({name: pa.array(values) for name, values in arrays.items()})
