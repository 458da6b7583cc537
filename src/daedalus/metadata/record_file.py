"""The file that run records stand in: SQLite in WAL mode, made whole or not at all, never changed when it is broken."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING

from filelock import FileLock

from daedalus.errors import ExecutionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE_NAME = "metadata.sqlite"
LOGS_FOLDER = "_runs"
FORMAT = 1
_APPLICATION_ID = 0x44414544  # "DAED"
_BUSY_MS = 60_000
_CHECKED_BYTES = 64 << 20

_SCHEMA = f"""
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY, kind TEXT NOT NULL, service TEXT NOT NULL, version TEXT NOT NULL,
    request TEXT NOT NULL, attempt INTEGER NOT NULL, started_at TEXT NOT NULL, facts TEXT NOT NULL
) STRICT;
CREATE INDEX runs_by_service ON runs (service, started_at);
CREATE TABLE events (
    event_id INTEGER PRIMARY KEY, run_id TEXT NOT NULL REFERENCES runs, at TEXT NOT NULL,
    kind TEXT NOT NULL, name TEXT NOT NULL, payload TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_run ON events (run_id, kind);
CREATE TRIGGER runs_stay BEFORE UPDATE ON runs BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER runs_remain BEFORE DELETE ON runs BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER events_stay BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER events_remain BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'append-only'); END;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {FORMAT};
"""


class RecordFile:
    """The file under one run root.

    Args:
        root: the run root.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.path = root / FILE_NAME

    def create(self) -> None:
        """Make the file, whole or not at all, unless it is there."""
        if self.path.exists():
            return
        try:
            (self._root / LOGS_FOLDER).mkdir(parents=True, exist_ok=True)
            with FileLock(self._root / LOGS_FOLDER / ".create.lock"):
                if self.path.exists():
                    return
                for left in self._root.glob(f".{FILE_NAME}.*"):  # of one that was killed here
                    left.unlink()
                part = self._root / f".{FILE_NAME}.{os.getpid()}.new"
                with contextlib.closing(sqlite3.connect(part)) as connection:
                    connection.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
                    connection.execute("PRAGMA journal_mode = WAL")
                part.rename(self.path)
        except OSError as error:
            raise self._unwritable(error.strerror or str(error)) from error
        except sqlite3.Error as error:
            raise self._unwritable(str(error)) from error

    @contextlib.contextmanager
    def connected(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection of its own; a writing one is one transaction."""
        self._require_whole()
        try:
            with contextlib.closing(self._open(write=write)) as connection:
                self._require_format(connection)
                if write:
                    connection.execute("PRAGMA synchronous = FULL")
                    connection.execute("BEGIN IMMEDIATE")
                yield connection
                if write:
                    connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if write and "malformed" not in str(error):
                raise self._unwritable(str(error)) from error
            raise self._broken(str(error)) from error
        except sqlite3.DatabaseError as error:
            raise self._broken(str(error)) from error

    def _open(self, *, write: bool) -> sqlite3.Connection:
        modes = ["rw"] if write else ["rw", "ro", "ro&immutable=1"]
        for mode in modes:
            connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode={mode}",
                uri=True,
                timeout=_BUSY_MS / 1000,
                isolation_level=None,
            )
            connection.row_factory = sqlite3.Row
            try:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            except sqlite3.OperationalError:  # a folder that cannot be written: read what is in the file
                connection.close()
                if mode == modes[-1]:
                    raise
                continue
            return connection
        raise AssertionError("unreachable")

    def _require_format(self, connection: sqlite3.Connection) -> None:
        if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
            raise self._broken("another program wrote it")
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found > FORMAT:
            raise ExecutionError(
                f"a newer Daedalus wrote these records (format {found}, this version reads {FORMAT})",
                where=str(self.path),
                hint="Install that version, or choose another output_root; the file was left as it is",
            )

    def _require_whole(self) -> None:
        """A file that is shorter than its header says lost rows, unless its log still holds them."""
        wal = self.path.with_name(FILE_NAME + "-wal")
        try:
            # In this order: a log that is gone by now was written back before.
            with self.path.open("rb") as file:
                header = file.read(100)
            logged = _size(wal) > 0
            size = self.path.stat().st_size
        except FileNotFoundError:
            raise self._broken("it is gone") from None
        except OSError as error:
            raise self._broken(error.strerror or str(error)) from error
        page = int.from_bytes(header[16:18], "big")
        pages = int.from_bytes(header[28:32], "big")
        if len(header) < 100 or (not logged and size < (65_536 if page == 1 else page) * pages):
            raise self._broken("it is cut off")

    def check_whole(self, connection: sqlite3.Connection) -> None:
        """Look at every page before a run begins, while that takes no time."""
        if self.path.stat().st_size <= _CHECKED_BYTES:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise self._broken(str(found).splitlines()[0])

    def _broken(self, why: str) -> ExecutionError:
        return ExecutionError(
            f"the run records cannot be read: {why}",
            where=str(self.path),
            hint="It was left as it is: restore it from a backup, or move it aside and a new one is begun; "
            "the days and their manifests do not depend on it",
        )

    def _unwritable(self, why: str) -> ExecutionError:
        return ExecutionError(
            f"the run cannot be recorded: {why}",
            where=str(self.path),
            hint="Free space there or make the folder writable, or choose another one with --output-root",
        )


def _size(file: Path) -> int:
    """Its bytes; none when it is not there, for the last one to close a log removes it."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
