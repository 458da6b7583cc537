"""Which columns of a shard are written with a dictionary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from daedalus.storage.sinks.encodings import dictionary_columns
from daedalus.storage.sinks.parquet import ParquetSink

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 5_000


def lists(items: np.ndarray) -> pa.Array:
    """Four items to a row."""
    return pa.ListArray.from_arrays(
        pa.array(np.arange(0, len(items) + 1, 4, dtype=np.int32)), pa.array(items)
    )


def shard() -> pa.Table:
    numbers = np.random.default_rng(7)
    ids = numbers.integers(0, 2**62, 1_000)
    return pa.table(
        {
            "rising": lists(np.repeat(np.arange(ROWS), 4)),
            "random ids": lists(ids[numbers.integers(0, 1_000, 4 * ROWS)]),
            "texts": pa.array([["a", "b"]] * ROWS),
            "nested": pa.array([[[1], [2]]] * ROWS),
            "few": pa.array([[1]] * ROWS),
            "struct": pa.array([{"x": 1, "y": ["z"]}] * ROWS),
            "map": pa.array([[("k", 1)]] * ROWS, pa.map_(pa.string(), pa.int64())),
        }
    )


def test_lists_that_repeat_are_plain_and_all_other_columns_keep_their_dictionary(tmp_path: Path) -> None:
    table = shard()
    named = dictionary_columns(table)
    sink = ParquetSink(tmp_path, table.schema)
    sink.write(table)
    sink.close()
    group = pq.ParquetFile(tmp_path / "part-0-0.parquet").metadata.row_group(0)
    columns = [group.column(at) for at in range(group.num_columns)]
    plain = [column.path_in_schema for column in columns if "RLE_DICTIONARY" not in column.encodings]
    assert plain == ["rising.list.element"]
    assert named == [column.path_in_schema for column in columns if column.path_in_schema not in plain]
    assert pq.read_table(tmp_path / "part-0-0.parquet").equals(table)


def test_a_shard_without_rows_has_dictionaries() -> None:
    assert dictionary_columns(shard().slice(0, 0)) is True
