"""Other futures: copies of a view in which what happens from an instant on is another story.

A third of the later rows is gone, a third says something else, and rows of the past come again. What was known
before the instant stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daedalus.catalog.aggregation import TICKS_PER_SECOND
from daedalus.sql.identifiers import quote_ident, quote_literal
from daedalus.trust.copies import INSTANT, ROW_ID

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import duckdb

    from daedalus.trust.copies import ViewCopy

#: Rows of the past that come again; the newest.
_ECHOES = 20_000
_HOUR = 3_600
_TICK_OF = {"TIMESTAMP_S": 1, "TIMESTAMP_MS": 1_000, "TIMESTAMP_NS": 1_000_000_000}


class Poisoner:
    """Writes poisoned copies.

    Args:
        connection: any DuckDB connection.
        ticks: per second.
        cut: the instant, in ticks.
        protected: numbers of spine rows at the cut that stay.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, ticks: int, cut: int, protected: Iterable[int] = ()
    ) -> None:
        self._connection = connection
        self._ticks = ticks
        self._cut = cut
        self._protected = ", ".join(str(row) for row in protected) or "-1"

    def future(self, copy: ViewCopy, target: Path, *, events: bool, protect: bool = False) -> Path:
        """Change what happens from the cut on.

        Args:
            copy: the clean copy.
            target: the file to write.
            events: the rows are events, which come again as they were; versions come again with other values.
            protect: keep the protected rows.
        """
        stays = f"{INSTANT} < {self._cut} OR {INSTANT} IS NULL"
        if protect:
            stays += f" OR {ROW_ID} IN ({self._protected})"
        source = f"read_parquet({quote_literal(str(copy.file))})"
        time = copy.view.field(copy.view.timestamp_field)
        later = f"{self._cut} + (a.n % 5) * (a.n % {3 * _HOUR}) * {self._ticks}"
        when = self._value_sql(time.dtype, copy.view.source.timestamp_unit, later)
        echoed = {copy.view.timestamp_field: when}
        if copy.view.source.created_field in copy.columns:
            echoed[copy.view.source.created_field] = self._created_at_cut(copy)
        again = f"SELECT {self._select(copy, echoed, rotated=not events)} FROM echo a JOIN echo b ON {_NEXT}"
        parts = [
            f"SELECT {self._select(copy, {}, rotated=False, row=f'a.{ROW_ID}')} FROM past a",
            f"SELECT {self._select(copy, {}, rotated=False, row=f'a.{ROW_ID}')} FROM later a WHERE n % 3 = 0",
            f"SELECT {self._select(copy, {}, rotated=True, row=f'a.{ROW_ID}')} FROM later a JOIN later b "
            f"ON {_NEXT} WHERE a.n % 3 = 1",
            again,
        ]
        if copy.view.source.created_field in copy.columns and not events:
            known_late = {copy.view.source.created_field: self._created_at_cut(copy)}
            parts.append(
                f"SELECT {self._select(copy, known_late, rotated=True)} FROM echo a JOIN echo b ON {_NEXT}"
            )
        return self._write(
            target,
            f"WITH src AS (SELECT * FROM {source}), past AS (SELECT * FROM src WHERE {stays}), "
            f"later AS ({_numbered(f'SELECT * FROM src WHERE NOT ({stays})')}), "
            f"echo AS ({_numbered(_newest('past', 'true'))}) " + " UNION ALL BY NAME ".join(parts),
        )

    def corrections(self, copy: ViewCopy, target: Path, *, events: bool) -> Path:
        """Change what is known of the past, as corrections and late arrivals after the cut would.

        Versions say something else; events of the last day come twice.
        """
        source = f"read_parquet({quote_literal(str(copy.file))})"
        own = f"a.{ROW_ID}"
        if events:
            recent = f"{INSTANT} < {self._cut} AND {INSTANT} >= {self._cut - 86_400 * self._ticks}"
            late = f"SELECT {self._select(copy, {}, rotated=False)} FROM echo a"
            body = (
                f"SELECT {self._select(copy, {}, rotated=False, row=own)} FROM src a UNION ALL BY NAME {late}"
            )
            echo = _numbered(_newest("src", recent))
            return self._write(target, f"WITH src AS (SELECT * FROM {source}), echo AS ({echo}) {body}")
        rotated = f"SELECT {self._select(copy, {}, rotated=True, row=own)} FROM rows a JOIN rows b ON {_NEXT}"
        if copy.view.timestamp_field:
            # Late versions, too: a history has more rows then.
            again = self._select(copy, {}, rotated=True)
            rotated += f" UNION ALL BY NAME SELECT {again} FROM rows a JOIN rows b ON {_NEXT}"
            rotated += f" WHERE a.{INSTANT} < {self._cut}"
        return self._write(target, f"WITH rows AS ({_numbered(f'SELECT * FROM {source}')}) {rotated}")

    # ------------------------------------------------------------------ SQL

    def _select(
        self, copy: ViewCopy, replaced: dict[str, str], *, rotated: bool, row: str = "-a.n - 1"
    ) -> str:
        """The columns: keys and times of `a`, the others of `b` where they are rotated."""
        source = copy.view.source
        fixed = {source.timestamp_field, source.created_field, source.sequence_field, *copy.view.join_keys}
        items = []
        for name in copy.columns:
            origin = "b" if rotated and name not in fixed else "a"
            value = replaced.get(name, f"{origin}.{quote_ident(name)}")
            items.append(f"{value} AS {quote_ident(name)}")
        return ", ".join([*items, f"{row} AS {ROW_ID}"])

    def _created_at_cut(self, copy: ViewCopy) -> str:
        field = copy.view.field(copy.view.source.created_field)
        return self._value_sql(field.dtype, copy.view.source.timestamp_unit, str(self._cut))

    def _value_sql(self, dtype: str, unit: str, ticks: str) -> str:
        """Ticks as a value of a time column, rounded up to what it can hold."""
        if dtype == "DATE":
            days = f"(({ticks}) + {86_400 * self._ticks - 1}) // {86_400 * self._ticks}"
            return f"(DATE '1970-01-01' + CAST({days} AS INTEGER))"
        if dtype.startswith("TIMESTAMP"):
            per_second = _TICK_OF.get(dtype, 1_000_000)
            if per_second == 1_000_000_000 or self._ticks == per_second == 1_000_000:
                whole = f"({ticks})"
            else:
                step = max(1, self._ticks // per_second)
                whole = f"(({ticks}) + {step - 1}) // {step} * {step}"
            if self._ticks == 1_000_000_000:
                return f"CAST(make_timestamp_ns(CAST({whole} AS BIGINT)) AS {dtype})"
            return f"CAST(make_timestamp(CAST({whole} AS BIGINT)) AS {dtype})"
        per_second = TICKS_PER_SECOND[unit]
        step = max(1, self._ticks // per_second)
        return f"CAST((({ticks}) + {step - 1}) // {step} * {max(1, per_second // self._ticks)} AS {dtype})"

    def _write(self, target: Path, sql: str) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        self._connection.execute(f"COPY ({sql}) TO {quote_literal(str(target))} (FORMAT parquet)")
        return target


_NEXT = "b.n = (a.n + 1 + a.total // 2) % a.total"


def _numbered(sql: str) -> str:
    return f"SELECT *, row_number() OVER (ORDER BY {ROW_ID}) - 1 AS n, count(*) OVER () AS total FROM ({sql})"


def _newest(relation: str, condition: str) -> str:
    return f"SELECT * FROM {relation} WHERE {condition} ORDER BY {ROW_ID} DESC LIMIT {_ECHOES}"
