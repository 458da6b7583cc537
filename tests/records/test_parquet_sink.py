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


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["x" * 512] * 4, pa.string()),
        ([["y" * 256, None, "y" * 256]] * 4, pa.list_(pa.string())),
        ([{"b": b"z" * 512}] * 4, pa.struct([("b", pa.binary())])),
        ([[("k", "v" * 511)]] * 4, pa.map_(pa.string(), pa.string())),
        ([["w" * 512]] * 4, pa.list_(pa.string(), 1)),
    ],
)
def test_pages_of_long_texts_stay_small(values: list[object], kind: pa.DataType) -> None:
    long = pa.table({"a": [1, 2, 3, 4], "t": pa.array(values, kind)})
    assert parquet._batch_for(long) == parquet._PAGE_BYTES // 513
    assert parquet._batch_for(long.slice(1, 2)) == parquet._batch_for(long)
    assert parquet._batch_for(long.slice(0, 0)) == parquet._MOST_VALUES
    assert parquet._batch_for(long.select(["a"])) == parquet._MOST_VALUES


def test_texts_that_become_longer_end_their_row_group_sooner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_LEAST_VALUES", 1)
    monkeypatch.setattr(parquet, "_MOST_VALUES", 4)
    monkeypatch.setattr(parquet, "_PAGE_BYTES", 40)
    texts = ["a"] * 4 + ["b" * 100] * 4 + ["c" * 8] * 4 + ["d" * 30] * 4 + ["e" * 100] * 8
    table = pa.table({"t": texts})
    sink = ParquetSink(tmp_path, table.schema)
    sink.write(table)
    sink.close()
    files = [pq.ParquetFile(path) for path in sorted(tmp_path.iterdir())]
    assert [file.metadata.num_row_groups for file in files] == [1 + 4, 2, 2]
    assert pa.concat_tables([file.read() for file in files])["t"].to_pylist() == texts
