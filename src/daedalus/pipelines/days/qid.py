"""Integer ids of sessions, numbered once and for ever in `qid_map.parquet` at the output root.

An operational id: it depends on the order in which runs met the sessions, so it is outside content hashes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from daedalus.errors import ExecutionError
from daedalus.metadata.days import flush
from daedalus.sql.identifiers import quote_ident, quote_literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    import polars as pl
    import pyarrow as pa

MAP_NAME = "qid_map.parquet"
LOCK_SECONDS = 60


def map_path(output_root: Path) -> Path:
    """Where the map lives."""
    return output_root / MAP_NAME


def qid_map_sql(output_root: Path, columns: tuple[str, ...], session_type: str) -> str:
    """A relation of (session, qid) under the given column names; empty before the first run.

    Sessions are kept as text, for services with sessions of different types share the map.
    """
    session, qid = (quote_ident(name) for name in columns)
    path = map_path(output_root)
    if not path.exists():
        return (
            f"(SELECT CAST(NULL AS {session_type}) AS {session}, CAST(NULL AS BIGINT) AS {qid} WHERE false)"
        )
    rows = f"read_parquet({quote_literal(str(path))})"
    value = f"TRY_CAST(session AS {session_type})"
    # '01' of another service is not this one's session 1.
    return f"(SELECT {value} AS {session}, qid AS {qid} FROM {rows} WHERE CAST({value} AS VARCHAR) = session)"


def number_sessions(output_root: Path, sessions_by_day: Iterable[pa.Table]) -> int:
    """Give the sessions that the map lacks the next numbers, in the order they come; returns how many.

    Args:
        output_root: where the map lives.
        sessions_by_day: one table per day, ascending; its one column holds each row's session as text, in the
            day's total order, NULLs allowed.

    The map is committed in one step, and written only when it grew.
    """
    import polars as pl

    path = map_path(output_root)
    with _locked(path):
        known = _read(path)
        grown = known
        for table in sessions_by_day:
            met = pl.DataFrame({"session": pl.from_arrow(table.column(0))}).drop_nulls()
            fresh = met.unique(maintain_order=True).join(
                grown, on="session", how="anti", maintain_order="left"
            )
            first = _next(grown)
            numbered = fresh.with_columns((pl.int_range(pl.len(), dtype=pl.Int64) + first).alias("qid"))
            grown = pl.concat([grown, numbered.select("session", "qid")])
        if grown.height > known.height:
            _commit(grown, path)
        return grown.height - known.height


def _commit(grown: pl.DataFrame, path: Path) -> None:
    """Put the grown map in the place of the old one, on the disk itself: no number is ever given twice."""
    import polars as pl

    part = path.with_name(f".{path.name}.new")  # whoever holds the lock may write over what a killed run left
    try:
        grown.write_parquet(part, compression="zstd")
        flush(part)
        part.replace(path)
        flush(path.parent)
    except (OSError, pl.exceptions.PolarsError) as error:
        part.unlink(missing_ok=True)
        raise ExecutionError(
            f"the session map cannot be written: {error}",
            where=str(path),
            hint="Free space or fix the permissions, then run again; the map is as it was",
        ) from error


class DenseNumbers:
    """One day's sessions as 0, 1, 2 ... in order of first appearance, for trainers that want no gaps.

    Fed with the day's rows in order, chunk by chunk; the result depends on the day's rows alone. Days share
    numbers: (`dt`, `qid`) names a session, `qid` does not.

    Example:
        >>> import pyarrow as pa
        >>> numbers = DenseNumbers()
        >>> numbers.renumber(pa.array([70, 70, None, 3])).to_pylist()
        [0, 0, None, 1]
        >>> numbers.renumber(pa.array([3, 71])).to_pylist()
        [1, 2]
    """

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}

    def renumber(self, qids: pa.Array | pa.ChunkedArray) -> pa.Array:
        """The chunk's numbers from the map, made dense; NULL stays NULL."""
        import pyarrow as pa

        whole = qids.combine_chunks() if isinstance(qids, pa.ChunkedArray) else qids
        encoded = whole.dictionary_encode()
        # One look-up per session of the chunk, none per row.
        dense = [self._numbers.setdefault(qid, len(self._numbers)) for qid in encoded.dictionary.to_pylist()]
        return pa.array(dense, pa.int64()).take(encoded.indices)


def _next(known: pl.DataFrame) -> int:
    largest = known["qid"].max()
    return largest + 1 if isinstance(largest, int) else 0


def _read(path: Path) -> pl.DataFrame:
    import polars as pl

    if not path.exists():
        return pl.DataFrame(schema={"session": pl.String, "qid": pl.Int64})
    try:
        return pl.read_parquet(path).select(pl.col("session").cast(pl.String), pl.col("qid").cast(pl.Int64))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ExecutionError(
            f"the session map cannot be read: {error}", where=str(path), hint="Restore it from a backup"
        ) from error


def _locked(path: Path) -> AbstractContextManager[None]:
    import contextlib

    @contextlib.contextmanager
    def hold() -> Iterator[None]:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path.with_name(f".{path.name}.lock"))
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise ExecutionError(
                "another run is numbering sessions", where=str(path), hint="Try again when it is done"
            ) from None
        except OSError as error:
            raise ExecutionError(
                f"the output root cannot be written: {error.strerror or error}",
                where=str(path.parent),
                hint="Set output_root to a folder that can be written",
            ) from error
        try:
            yield
        finally:
            lock.release()

    return hold()
