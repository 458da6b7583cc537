"""Results under limits: an admitted statement runs here, and Quack then sends the finished rows.

Quack has no limit on time or size, and nothing from outside can interrupt a statement that it runs. So the hook
runs the statement on a connection of its own, with a watchdog, and hands Quack a table that holds the result.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import duckdb

    from daedalus.serving.authorization import Admitted
    from daedalus.serving.settings import Limits

SCHEMA = "staged"
_BATCH_ROWS = 2048
#: A result is read by the statement that follows at once, and a dropped table stays until its readers are done.
_KEPT_SECONDS = 10.0


class LimitError(Exception):
    """A statement broke a limit, or failed; the message is for the client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A finished result: the SQL that reads it, and its size."""

    sql: str
    rows: int
    result_bytes: int


class Stage:
    """Runs statements and keeps their results for the moment that Quack needs to send them.

    Args:
        connection: of the serving session; statements run on cursors of it.
        limits: of one statement and of all.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, limits: Limits) -> None:
        self._connection = connection
        self._limits = limits
        self._places = threading.BoundedSemaphore(limits.concurrent)
        self._kept: deque[tuple[float, str, int]] = deque()
        self._kept_bytes = 0
        self._lock = threading.Lock()
        connection.execute(f"CREATE SCHEMA {SCHEMA}")

    @property
    def kept_bytes(self) -> int:
        """What the results hold that are not dropped yet."""
        return self._kept_bytes

    def run(self, admitted: Admitted) -> Staged:
        """Run one statement to its end.

        Raises:
            LimitError: it took too long, made too much, or failed.
        """
        deadline = time.monotonic() + self._limits.seconds
        self.sweep()
        if self._kept_bytes >= self._limits.result_bytes * self._limits.concurrent:
            raise LimitError("the server is busy: too many results wait to be fetched")
        if not self._places.acquire(timeout=self._limits.seconds):
            raise LimitError(f"the server is busy: no place within {self._limits.seconds:g} s")
        try:
            return self._within(admitted, deadline)
        finally:
            self._places.release()

    def _within(self, admitted: Admitted, deadline: float) -> Staged:
        import duckdb

        cursor = self._connection.cursor()
        late, done = threading.Event(), threading.Event()

        def watch() -> None:
            done.wait(max(deadline - time.monotonic(), 0))
            # An interrupt between two statements is lost, so it is repeated until the work has ended.
            while not done.wait(0.05):
                late.set()
                with contextlib.suppress(duckdb.Error):
                    cursor.interrupt()

        watchdog = threading.Thread(target=watch, name="quack-watchdog", daemon=True)
        watchdog.start()
        try:
            result = self._read(cursor, admitted.sql)
            if late.is_set():
                raise LimitError(self._too_late())
            return self._keep(cursor, result)
        except duckdb.Error as error:
            raise LimitError(self._too_late() if late.is_set() else _plain(error)) from None
        finally:
            done.set()
            watchdog.join()
            cursor.close()

    def _read(self, cursor: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
        """The result; reading stops at the first row or byte too many."""
        reader = cursor.execute(sql).to_arrow_reader(_BATCH_ROWS)
        batches: list[pa.RecordBatch] = []
        rows = size = 0
        for batch in reader:
            batches.append(batch)
            rows += batch.num_rows
            size += batch.nbytes
            if rows > self._limits.rows:
                raise LimitError(
                    f"the result has more than {self._limits.rows} rows. Ask for fewer keys at a time"
                )
            if size > self._limits.result_bytes:
                raise LimitError(
                    f"the result has more than {self._limits.result_bytes} bytes. Ask for fewer keys or columns"
                )
        table = pa.Table.from_batches(batches, reader.schema)
        return table.rename_columns(_apart(table.column_names))

    def _keep(self, cursor: duckdb.DuckDBPyConnection, result: pa.Table) -> Staged:
        # Nobody can name what they were not told.
        name = f"{SCHEMA}.r{secrets.token_hex(16)}"
        cursor.register("result", result)
        cursor.execute(f"CREATE TABLE {name} AS FROM result")
        cursor.unregister("result")
        with self._lock:
            self._kept.append((time.monotonic(), name, result.nbytes))
            self._kept_bytes += result.nbytes
        return Staged(sql=f"FROM memory.{name}", rows=result.num_rows, result_bytes=result.nbytes)

    def drain(self) -> None:
        """Wait until nothing runs any more, at most as long as a statement may take; nothing new is run after it."""
        deadline = time.monotonic() + self._limits.seconds
        for _ in range(self._limits.concurrent):
            self._places.acquire(timeout=max(deadline - time.monotonic(), 0))

    def sweep(self, *, everything: bool = False) -> None:
        """Drop the results whose moment has passed."""
        import duckdb

        now = time.monotonic()
        old = []
        with self._lock:
            while self._kept and (everything or now - self._kept[0][0] > _KEPT_SECONDS):
                _, name, size = self._kept.popleft()
                self._kept_bytes -= size
                old.append(name)
        if old:
            with self._connection.cursor() as cursor:
                for name in old:
                    with contextlib.suppress(duckdb.Error):
                        cursor.execute(f"DROP TABLE IF EXISTS {name}")

    def _too_late(self) -> str:
        return f"the statement took longer than {self._limits.seconds:g} s and was stopped"


def _plain(error: Exception) -> str:
    """DuckDB's message without drawings of a query that the client never wrote."""
    return str(error).partition("\n")[0][:500]


def _apart(names: list[str]) -> list[str]:
    """The names, each once: a table takes no two that differ in case alone.

    >>> _apart(["a", "A", "b", "a"])
    ['a', 'A_1', 'b', 'a_2']
    """
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        one, number = name, 0
        while one.lower() in taken:
            number += 1
            one = f"{name}_{number}"
        taken.add(one.lower())
        found.append(one)
    return found
