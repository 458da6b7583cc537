"""What footers say: time ranges of every unit, and files whose types do not go together."""

from __future__ import annotations

import decimal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from daedalus.errors import CompileError, SourceError
from daedalus.storage.sources.local_files import LocalFiles, parquet_paths
from daedalus.storage.sources.parquet import ParquetSource
from pipelines.tiny import DAYS, EVENTS, at, column, tiny
from support.project import write_project


@pytest.mark.parametrize(
    ("unit", "ticks", "us"),
    [
        ("s", [-1, 2], (-1_000_000, 2_000_000)),
        ("ms", [-1, 2], (-1_000, 2_000)),
        ("us", [-1, 2], (-1, 2)),
        ("ns", [-1, 1_999], (-1, 1)),
        ("us", [-(2**63) + 1, 2**63 - 1], (-(2**63) + 1, 2**63 - 1)),
    ],
)
def test_the_range_of_a_time_column(tmp_path: Path, unit: str, ticks: list[int], us: tuple[int, int]) -> None:
    values = pa.array(ticks, pa.int64()).cast(pa.timestamp(unit))
    pq.write_table(pa.table({"ts": values}), tmp_path / "a.parquet")
    (file,) = LocalFiles(str(tmp_path), "w").describe()
    assert file.times == (("ts", *us),)
    assert file.integers == ()


def test_nanoseconds_need_no_pandas(tmp_path: Path) -> None:
    values = pa.array([1_700_000_000_123_456_789], pa.int64()).cast(pa.timestamp("ns"))
    pq.write_table(pa.table({"ts": values, "n": [1]}), tmp_path / "a.parquet")
    code = (
        "import sys; from daedalus.storage.sources.local_files import LocalFiles;"
        "(file,) = LocalFiles(sys.argv[1], 'w').describe();"
        "print(file.times, file.integers, 'pandas' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "(('ts', 1700000000123456, 1700000000123456),) (('n', 1, 1),) False\n"


def test_what_writers_leave_behind_is_no_part_of_a_folder_nor_of_a_glob(tmp_path: Path) -> None:
    for name in ("a", "day/b", "_c", ".d", "_temporary/e", "day/.f/g", "_new/h"):
        path = tmp_path / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def named(path: str) -> list[str]:
        found = [Path(name).relative_to(tmp_path) for name in parquet_paths(f"{tmp_path}{path}")]
        return [name.with_suffix("").as_posix() for name in found]

    assert named("") == named("/**/*.parquet") == ["a", "day/b"]
    assert named("/*.parquet") == ["a"]
    # What the definition spells out is meant.
    assert named("/_new") == named("/_new/*.parquet") == ["_new/h"]
    assert named("/_c.parquet") == ["_c"]


def test_a_key_of_a_folder_is_a_column_and_what_it_ends_with_is_none(tmp_path: Path) -> None:
    for day, names in (("01", ("t", "n")), ("02", ("n",))):
        folder = tmp_path / "run=5" / f"dt=2026-05-{day}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({name: [1] for name in names}), folder / "a.parquet")
    source = ParquetSource(str(tmp_path / "run=5"), where="w")
    source.require_columns(["n", "dt", "DT", "run"])
    with duckdb.connect() as connection:
        assert list(source.schema(connection)) == ["t", "n", "dt", "run"]
    with pytest.raises(SourceError, match=r"dt=2026-05-02/a\.parquet has no column 't'"):
        source.require_columns(["t"])


CENTS = pa.decimal128(18, 2)
ROUNDED: list[tuple[Any, pa.DataType, pa.DataType]] = [
    (2**53 + 1, pa.int64(), pa.float64()),
    (2**64 - 1, pa.uint64(), pa.float64()),
    (2**24 + 1, pa.int32(), pa.float32()),
    (decimal.Decimal("0.01"), CENTS, pa.float64()),
    ([2**53 + 1], pa.list_(pa.int64()), pa.list_(pa.float64())),
]


@pytest.mark.parametrize(("value", "exact", "floats"), ROUNDED)
def test_files_that_would_be_rounded_together_are_refused(
    tmp_path: Path, value: Any, exact: pa.DataType, floats: pa.DataType
) -> None:
    dtype = "HUGEINT[]" if pa.types.is_list(exact) else "DECIMAL(38,2)"
    fields = [*EVENTS["fields"][:3], {"name": "score", "dtype": dtype, "optional": True}]
    data = {
        f"events/{DAYS[0]}.parquet": column("score", [value, None], exact),
        f"events/{DAYS[1]}.parquet": column("score", [None] * 3, floats, DAYS[1]),
    }
    project = tiny(tmp_path, events_view={"fields": fields}, service={"columns": ["events:score"]}, data=data)
    with pytest.raises(SourceError, match=rf"view events .*column 'score' is .* in .*{DAYS[0]}\.parquet"):
        project.run("s", [DAYS[0]])


@pytest.mark.parametrize(
    ("values", "exact", "floats"),
    [
        ([2**53, -(2**53)], pa.int64(), pa.float64()),
        ([2**24, -(2**24)], pa.int64(), pa.float32()),
        ([2**31 - 1, None], pa.int32(), pa.float64()),
        ([None, None], pa.int8(), pa.float32()),
    ],
)
def test_whole_numbers_beside_floats_that_have_room_for_them_are_read(
    tmp_path: Path, values: list[Any], exact: pa.DataType, floats: pa.DataType
) -> None:
    fields = [*EVENTS["fields"][:3], {"name": "score", "dtype": "BIGINT", "optional": True}]
    data = {
        f"events/{DAYS[0]}.parquet": column("score", values, exact),
        f"events/{DAYS[1]}.parquet": column("score", [1.0, None, 3.0], floats, DAYS[1]),
    }
    service = {"columns": ["events:seq", "events:score"], "session_column": ""}
    run = tiny(tmp_path, events_view={"fields": fields}, service=service, data=data).run("s", DAYS[:2])
    assert [row["score"] for row in run.rows(DAYS[0])] == values
    assert [row["score"] for row in run.rows(DAYS[1])] == [1, None, 3]


def test_uuids_are_keys_and_features(tmp_path: Path) -> None:
    ids = [f"0a1b2c3d-0000-0000-0000-{n:012x}" for n in range(2)]
    times = pa.array([at("2026-05-01 08:00"), at("2026-05-01 09:00")], pa.timestamp("us"))
    events = {
        "name": "events",
        "entity": "device",
        "source": {"path": "events", "timestamp_field": "ts"},
        "fields": [{"name": "token", "dtype": "UUID"}],
    }
    devices = {
        "name": "devices",
        "entity": "device",
        "source": {"path": "devices", "timestamp_field": "ts"},
        "fields": [{"name": "owner", "dtype": "UUID"}],
    }
    tokens = {
        "name": "tokens",
        "group_by": ["device_id"],
        "timestamp_column": "ts",
        "value_column": "token",
        "operation": "list",
        "window_days": 3,
    }
    service = {
        "name": "s",
        "version": "2026-05-01",
        "spine": "events",
        "views": [{"view": "devices", "join": "asof"}],
        "aggregation_specs": [tokens],
        "columns": ["events:device_id", "events:token", "devices:owner", "rolling:tokens"],
    }
    project = write_project(
        tmp_path,
        views=[events, devices],
        services=[service],
        entities={"entities": [{"name": "device", "keys": [{"name": "device_id", "dtype": "UUID"}]}]},
        data={
            "events/a.parquet": pa.table({"device_id": [ids[0]] * 2, "ts": times, "token": [ids[1], None]}),
            "devices/a.parquet": pa.table({"device_id": ids[:1], "ts": times.slice(0, 1), "owner": ids[1:]}),
        },
    )
    one, other = map(uuid.UUID, ids)
    assert project.run("s", DAYS[:1]).rows(DAYS[0]) == [
        {"device_id": one, "token": other, "owner": None, "tokens": []},
        {"device_id": one, "token": None, "owner": other, "tokens": [other]},
    ]


def test_an_interval_is_no_output(tmp_path: Path) -> None:
    fields = [*EVENTS["fields"][:3], {"name": "score", "dtype": "INTERVAL", "optional": True}]
    project = tiny(tmp_path, events_view={"fields": fields}, service={"columns": ["events:score"]})
    with pytest.raises(CompileError, match=r"service s .*'score' is INTERVAL, which Parquet does not have"):
        project.run("s", DAYS[:1])
