"""A DuckDB file as a sink: `"<service>"."training"`, one transaction per day."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from daedalus.sql.identifiers import quote_ident, quote_literal
from daedalus.storage.sinks.tables import TableSink


class DuckDBFileSink(TableSink):
    """Writes a service's days into a DuckDB file, which has one writer at a time.

    `place` is the file's path; the file and its folder are made when they are missing.
    """

    format: ClassVar[str] = "duckdb"

    def _open(self) -> None:
        Path(self.resolved).parent.mkdir(parents=True, exist_ok=True)
        self.connection.execute(f"ATTACH {quote_literal(self.resolved)} AS {quote_ident(self.alias)}")
