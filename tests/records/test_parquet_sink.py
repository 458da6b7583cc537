"""Files of a day depend on its rows alone: not on the batches they come in, nor on threads and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from daedalus.storage.sinks import parquet
from daedalus.storage.sinks.parquet import ParquetSink

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "SHARD_ROWS", 8)
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 4)


def written(folder: Path, rows: int, batch: int, **limits: int) -> tuple[object, list[bytes]]:
    folder.mkdir()
    table = pa.table({"a": range(rows), "l": [[n, n] for n in range(rows)]})
    sink = ParquetSink(folder, table.schema, **limits)
    for start in range(0, max(rows, 1), batch):
        sink.write(table.slice(start, batch))
    result = sink.close()
    return result, [(folder / name).read_bytes() for name, _ in result.files]


@pytest.mark.parametrize(
    ("rows", "groups"),
    [
        (0, [[0]]),
        (1, [[1]]),
        (4, [[4]]),
        (5, [[4, 1]]),
        (8, [[4, 4]]),
        (9, [[4, 4], [1]]),
        (12, [[4, 4], [4]]),
        (23, [[4, 4], [4, 4], [4, 3]]),
    ],
)
def test_shards_and_row_groups_are_of_fixed_sizes(tmp_path: Path, rows: int, groups: list[list[int]]) -> None:
    first = written(tmp_path / "first", rows, batch=100)
    for number, limits in enumerate([{"threads": 1, "groups": 1}, {"threads": 3, "groups": 3}]):
        assert written(tmp_path / f"{number}", rows, batch=3, **limits) == first
    files = [pq.ParquetFile(path) for path in sorted((tmp_path / "first").iterdir())]
    found = [
        [file.metadata.row_group(at).num_rows for at in range(file.metadata.num_row_groups)] for file in files
    ]
    assert found == groups
    assert first[0].row_count == rows  # type: ignore[attr-defined]
    assert pa.concat_tables([file.read() for file in files])["a"].to_pylist() == list(range(rows))


def test_rows_that_cannot_be_written_end_the_day(tmp_path: Path) -> None:
    sink = ParquetSink(tmp_path / "not there", pa.schema({"a": pa.int64()}), groups=1)
    with pytest.raises(OSError, match="not there"):
        sink.write(pa.table({"a": range(30)}))
    sink.abort()
