"""Batches: every row once, in order or well mixed, whatever the shards; little memory."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daedalus.errors import DefinitionError, ExecutionError
from daedalus.metadata.days import DayStore
from daedalus.reading.arrays import to_numpy
from daedalus.reading.days import open_days
from reading.days import START, days_of, numbered, write_day

SIZES = [[700, 333], [0], [5, 2048, 1]]
ROWS = 700 + 333 + 5 + 2048 + 1


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return days_of(tmp_path_factory.mktemp("days"), SIZES, row_group=256)


def numbers(batches) -> list[int]:
    return [n for batch in batches for n in batch.column("n").to_pylist()]


@pytest.mark.parametrize("batch_size", [1, 7, 256, 1000, 10_000])
def test_without_a_seed_the_order_is_that_of_the_days(data, batch_size):
    batches = list(data.batches(batch_size))
    assert numbers(batches) == list(range(ROWS))
    assert {batch.num_rows for batch in batches[:-1]} <= {batch_size}
    assert len(batches) == len(data.batches(batch_size))
    full = list(data.batches(batch_size, drop_last=True))
    assert len(full) == len(data.batches(batch_size, drop_last=True)) == ROWS // batch_size


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    world_size=st.integers(1, 7),
    workers=st.integers(1, 4),
    batch_size=st.integers(1, 900),
    seed=st.none() | st.integers(0, 9),
    epoch=st.integers(0, 3),
    even=st.booleans(),
    shuffle_rows=st.integers(1, 3000),
)
def test_shards_are_disjoint_and_together_everything(
    data, world_size, workers, batch_size, seed, epoch, even, shuffle_rows
):
    ranks, lengths = [], set()
    for rank in range(world_size):
        stream = data.batches(
            batch_size, seed=seed, rank=rank, world_size=world_size, even=even, shuffle_rows=shuffle_rows
        )
        stream.set_epoch(epoch)
        parts = [stream.for_worker(worker, workers) for worker in range(workers)]
        read = [list(part) for part in parts]
        assert [len(part) for part in parts] == [len(batches) for batches in read]
        lengths.add(sum(map(len, read)))
        ranks.append([n for batches in read for n in numbers(batches)])
        assert len(ranks[-1]) == stream.rows
    seen = list(itertools.chain(*ranks))
    assert len(seen) == len(set(seen)) == (ROWS - ROWS % world_size if even else ROWS)
    if even:
        assert len(lengths) == 1
        assert len({len(rank) for rank in ranks}) == 1
    else:
        assert max(map(len, ranks)) - min(map(len, ranks)) <= 1
        assert sorted(seen) == list(range(ROWS))


def test_rows_stay_whole_when_shuffled(data):
    table = pa.Table.from_batches(data.batches(100, seed=3)).sort_by("n")
    assert table.equals(numbered(0, ROWS))


def test_a_seed_and_an_epoch_make_one_order(data):
    def order(seed, epoch=0):
        stream = data.batches(64, seed=seed)
        stream.set_epoch(epoch)
        return numbers(stream)

    assert order(1) == order(1)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1, 2) for epoch in (0, 1)}) == 6
    stream = data.batches(64, seed=1)
    assert numbers(stream) == numbers(stream)  # each iteration begins anew


def test_shuffling_mixes_row_groups(tmp_path):
    """A batch draws from several groups, and neighbours end up far apart."""
    data = days_of(tmp_path, [[4096]] * 8, row_group=512)
    batches = list(data.batches(256, seed=0, shuffle_rows=4096))
    groups = [len({n // 512 for n in batch.column("n").to_pylist()}) for batch in batches]
    assert np.mean(groups) >= 6
    place = np.argsort(numbers(batches))
    assert np.median(np.abs(np.diff(place))) > 500


def test_memory_does_not_grow_with_the_data(tmp_path):
    store = DayStore(tmp_path)
    wide = pa.table(
        {"n": np.arange(16_384), "v": pa.FixedSizeListArray.from_arrays(np.ones(16_384 * 64), 64)}
    )
    days = [START.replace(day=day) for day in range(1, 7)]
    for day in days:
        write_day(store, day, [wide], row_group=2048)
    data = open_days("s", "skeleton", store, days)
    total = wide.nbytes * len(days)
    before, most, rows = pa.total_allocated_bytes(), 0, 0
    for batch in data.batches(512, seed=1, shuffle_rows=4096):
        rows += batch.num_rows
        most = max(most, pa.total_allocated_bytes() - before)
    assert rows == data.rows == 16_384 * 6
    assert most < total / 4, (most, total)


def test_columns_are_read_alone_and_in_their_order(data):
    chosen = data.select(["text", "n"])
    assert chosen.columns == ("text", "n")
    (batch, *_) = chosen.batches(3)
    assert batch.to_pydict() == {"text": [None, "t1", "t2"], "n": [0, 1, 2]}
    with pytest.raises(DefinitionError, match="there is no column 'nn'"):
        data.select(["nn"])
    with pytest.raises(DefinitionError, match="named twice"):
        data.select(["n", "n"])


def test_names_with_dots_and_quotes_are_read(tmp_path):
    store = DayStore(tmp_path / "a b%20'ü\"")
    table = pa.table({"a": [1], "a.b": [2], 'q"': [3], "é": [[4]]})
    write_day(store, START, [table])
    data = open_days("s", "skeleton", store, [START])
    for columns in (["a"], ["a.b", "a"], ['q"', "é"]):
        (batch,) = data.select(columns).batches()
        assert batch.to_pydict() == table.select(columns).to_pydict()
    assert data.arrow().to_table().equals(table)
    assert data.polars().collect().to_arrow().to_pydict() == table.to_pydict()


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"rank": 2, "world_size": 2},
        {"rank": -1},
        {"world_size": 0},
        {"seed": -1},
        {"shuffle_rows": 0},
    ],
)
def test_wrong_options_are_refused(data, options):
    with pytest.raises(DefinitionError, match="must"):
        data.batches(**options)
    with pytest.raises(DefinitionError, match="must not be negative"):
        data.batches().set_epoch(-1)


def test_a_day_that_is_written_anew_meanwhile_is_refused(tmp_path):
    data = days_of(tmp_path, [[10], [10]])
    stream = data.batches(4)
    write_day(DayStore(tmp_path), START.replace(day=2), [numbered(0, 10)])
    with pytest.raises(ExecutionError, match="written anew") as caught:
        list(stream)
    assert caught.value.day == "2026-05-02"


def test_days_of_different_columns_are_refused(tmp_path):
    store = DayStore(tmp_path)
    other = START.replace(day=2)
    write_day(store, START, [numbered(0, 3)])
    write_day(store, other, [numbered(0, 3).drop_columns("text")])
    with pytest.raises(ExecutionError, match="not those of 2026-05-01: text"):
        open_days("s", "skeleton", store, [START, other])


@pytest.mark.parametrize("place", [100, -8])
def test_a_broken_file_is_an_error_that_names_the_day(tmp_path, place):
    """Broken without a trace: neither size nor time of change tell."""
    data = days_of(tmp_path, [[1000]])
    path = data.files[0].path
    before = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(place, os.SEEK_END if place < 0 else os.SEEK_SET)
        file.write(b"\xff" * (4 if place < 0 else 3000))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ExecutionError, match="cannot be read") as caught:
        list(data.batches())
    assert caught.value.day == "2026-05-01"


# ------------------------------------------------------------------ arrays


def test_arrays_keep_every_value():
    big = 2**63 - 1
    batch = pa.record_batch(
        {
            "id": pa.array([big, None, -big], pa.int64()),
            "h": pa.array([np.float16(1.5), None, np.float16("nan")], pa.float16()),
            "b": pa.array([True, None, False]),
            "t": pa.array([0, None, 86_400_000_000], pa.timestamp("us")),
            "s": pa.array(["a", None, ""]),
            "l": pa.array([[big], None, [1, 2]], pa.list_(pa.int64())),
            "v": pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float16())),
            "f": pa.array([None, [1, 2], None], pa.list_(pa.int32(), 2)),
            "w": pa.array([["x"], [], None], pa.list_(pa.string())),
            "st": pa.array([{"a": 1}, None, {"a": 2}]),
        }
    )
    out = to_numpy(batch, {"v": 2})
    assert out["id"].dtype == np.int64
    assert out["id"].tolist() == [big, 0, -big]
    assert out["h"].dtype == np.float16
    assert out["h"][0] == 1.5
    assert np.isnan(out["h"][1:]).all()
    assert out["b"].tolist() == [True, False, False]
    assert out["t"].astype(str).tolist() == [
        "1970-01-01T00:00:00.000000",
        "NaT",
        "1970-01-02T00:00:00.000000",
    ]
    assert out["s"].tolist() == ["a", None, ""]
    assert (out["l"].tolist(), out["l.offsets"].tolist()) == ([big, 1, 2], [0, 1, 1, 3])
    assert out["v"].tolist() == [[1, 2], [0, 0], [3, 4]]
    assert out["f"].tolist() == [[0, 0], [1, 2], [0, 0]]
    assert out["w"].tolist() == [["x"], [], None]
    assert out["st"].tolist() == [{"a": 1}, None, {"a": 2}]
    assert out["id.valid"].tolist() == [True, False, True]
    # A slice is read from where it begins.
    cut = to_numpy(batch.slice(1), {"v": 2})
    for name in ("id", "b", "v", "f", "id.valid"):
        assert cut[name].tolist() == out[name][1:].tolist()
    assert (cut["l"].tolist(), cut["l.offsets"].tolist()) == ([1, 2], [0, 0, 2])


def test_a_list_of_another_length_than_declared_is_refused():
    with pytest.raises(ExecutionError, match="column v holds a list of 3 items, its dimension is 2"):
        to_numpy(pa.record_batch({"v": [[1.0, 2.0, 3.0]]}), {"v": 2})


def test_a_column_that_cannot_be_null_has_no_mask():
    schema = pa.schema([pa.field("n", pa.int64(), nullable=False)])
    assert set(to_numpy(pa.record_batch([pa.array([1])], schema=schema))) == {"n"}


def test_numpy_batches_are_the_record_batches(data):
    batches = data.numpy(500, seed=4)
    batches.set_epoch(2)
    stream = data.batches(500, seed=4)
    stream.set_epoch(2)
    assert len(batches) == len(stream)
    assert [batch["n"].tolist() for batch in batches] == [batch.column("n").to_pylist() for batch in stream]
