"""Finished days made of literal rows, in as many files and row groups as a test wants."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from daedalus.metadata.days import DayManifest, DayStore
from daedalus.reading.days import TrainingData, open_days

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

START = dt.date(2026, 5, 1)


def numbered(first: int, rows: int) -> pa.Table:
    """Rows that are told apart by `n`."""
    n = np.arange(first, first + rows)
    return pa.table(
        {
            "n": pa.array(n, pa.int64()),
            "items": pa.array([list(range(one % 4)) for one in n], pa.list_(pa.int64())),
            "text": pa.array([None if one % 3 == 0 else f"t{one}" for one in n], pa.string()),
        }
    )


def write_day(store: DayStore, day: dt.date, files: Sequence[pa.Table], row_group: int = 1024) -> None:
    """A complete day of these files."""
    names = [f"part-{index}-0.parquet" for index in range(len(files))]
    with store.locked(day):
        folder = store.begin(day)
        for name, table in zip(names, files, strict=True):
            pq.write_table(table, folder / name, row_group_size=row_group)
        manifest = DayManifest(
            day=day.isoformat(),
            schema=tuple((field.name, str(field.type)) for field in files[0].schema),
            row_count=sum(table.num_rows for table in files),
            ts_min="",
            ts_max="",
            content_hash="",
            fingerprint={},
            files=tuple((name, (folder / name).stat().st_size) for name in names),
        )
        store.commit(day, folder, manifest)


def days_of(root: Path, sizes: Sequence[Sequence[int]], row_group: int = 1024) -> TrainingData:
    """Days from 2026-05-01 on, with numbered rows: for each day the rows of each of its files."""
    store, first = DayStore(root), 0
    days = [START + dt.timedelta(days=index) for index in range(len(sizes))]
    for day, files in zip(days, sizes, strict=True):
        tables = []
        for rows in files:
            tables.append(numbered(first, rows))
            first += rows
        write_day(store, day, tables, row_group)
    return open_days("s", "skeleton", store, days)
