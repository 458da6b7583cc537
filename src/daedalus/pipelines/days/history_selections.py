"""What rolling aggregates read of shared history: per event day and condition, its rows, mapped as they lie.

Each target day reads the same rows of most of its event days. They are picked once, from the event day's file, and
kept beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

import pyarrow as pa
import xxhash

from daedalus.pipelines.days.history_files import files_sql, flushed
from daedalus.pipelines.scratch import scratch_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from daedalus.pipelines.days.relation_graph import RelationGraph

_READ_ROWS = 131_072
#: Bytes of history below which reading it is no work.
LEAST_BYTES = 8 << 20


class HistorySelections:
    """The files of one target day's history, and what was picked from them.

    Args:
        files: Parquet, in time order.
        graph: reads them.
        parts: prefix of the folders in which files are begun.
    """

    def __init__(self, files: Sequence[Path], graph: RelationGraph, parts: str) -> None:
        self._files = files
        self._graph = graph
        self._parts = parts

    def read(self, items: str, where: str, relation: str) -> pa.Table | None:
        """Rows of all files in order; None where they are few, or cannot be kept.

        Args:
            items: SELECT items over `hist`.
            where: a WHERE clause over `hist`, or empty.
            relation: what errors name.
        """
        chosen = xxhash.xxh3_64(json.dumps([items, where]).encode()).hexdigest()
        tables: list[pa.Table] = []
        try:
            if sum(file.stat().st_size for file in self._files) < LEAST_BYTES:
                return None
            for file in self._files:
                path = file.with_name(f"{file.stem}-{chosen}.arrow")
                rows = _mapped(path)
                if rows is None:
                    self._make(path, f"SELECT {items} FROM {files_sql([file])} AS hist{where}", relation)
                    rows = _mapped(path)
                if rows is None:
                    return None
                tables.append(rows)
        except OSError:
            return None
        return pa.concat_tables(tables)

    def _make(self, path: Path, sql: str, relation: str) -> None:
        with scratch_folder(path.parent, self._parts) as parts, self._graph.in_order():
            with self._graph.profile.statement(
                self._graph.connection, relation, lambda: self._graph.composed(relation)
            ):
                reader = self._graph.stream(sql, relation, _READ_ROWS)
                part = parts / path.name
                with pa.OSFile(str(part), "wb") as file, pa.ipc.new_file(file, reader.schema) as writer:
                    for batch in self._graph.profile.waiting(self._graph.batches(reader, relation)):
                        writer.write_batch(batch)
            flushed(part).replace(path)


def _mapped(path: Path) -> pa.Table | None:
    """The rows of a file; None where there is none, or it is broken."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    with contextlib.suppress(OSError):  # another user's
        os.utime(path)
    return table
