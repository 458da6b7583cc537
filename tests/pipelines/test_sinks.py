"""Finished days in a DuckDB file and in a DuckLake: the same rows in order, whole or absent, never doubled."""

from __future__ import annotations

import datetime as dt
import secrets
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from daedalus.errors import CompileError, DefinitionError, ExecutionError
from daedalus.pipelines.operators import SinkFormat
from daedalus.pipelines.publish import open_sink
from daedalus.storage.duckdb_extensions import load_extensions
from daedalus.storage.sinks import tables
from daedalus.storage.sinks.duckdb_file import DuckDBFileSink
from daedalus.storage.sinks.ducklake import DuckLakeSink
from daedalus.storage.sinks.tables import Partition, StagedRows
from pipelines.tiny import DAYS, SERVICE, at, column, tiny
from support.project import run_and_die

if TYPE_CHECKING:
    from pathlib import Path

    from support.project import Project, Run

FORMATS = ("duckdb", "ducklake")
DAY = DAYS[1]


def table_of(project: Project, format_: str, day: str, service: str = "s", **place: str) -> pa.Table:
    """The day's rows as the sink gives them back."""
    sink = open_sink(SinkFormat(format_), service, project.config(), **place)
    with sink as opened:
        return opened.connection.execute(opened.rows_sql(of_day(day))).to_arrow_table()


def of_day(day: str) -> Partition:
    return Partition(column="dt", dtype="DATE", value=day)


def sink_results(run: Run) -> dict[str, tuple[str, int]]:
    return {day.day: (day.state, day.rows) for day in run.result.days if day.stage == "sink"}


@pytest.mark.parametrize("format_", FORMATS)
def test_days_are_in_the_table_in_order_and_a_second_run_adds_nothing(tmp_path, format_):
    project = tiny(tmp_path, sink={"format": format_})
    first = project.run("s")
    assert sink_results(first) == {day: ("written", len(first.rows(day))) for day in DAYS}
    for day in DAYS:
        assert table_of(project, format_, day).to_pylist() == first.rows(day)
    second = project.run("s")
    assert {state for state, _ in sink_results(second).values()} == {"up to date"}
    assert table_of(project, format_, DAY).to_pylist() == first.rows(DAY)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_day_that_was_computed_again_is_replaced(tmp_path, format_):
    project = tiny(tmp_path, sink={"format": format_})
    project.run("s")
    project.write(f"events/{DAY}.parquet", column("event", ["like", "like", "like"], pa.string(), DAY))
    again = project.run("s")
    # The later day's lists are computed anew, too; the earlier day is not touched.
    assert sink_results(again)[DAYS[0]][0] == "up to date"
    assert sink_results(again)[DAY] == ("written", 3)
    assert table_of(project, format_, DAY).to_pylist() == again.rows(DAY)


def test_the_lake_keeps_every_version_and_says_which_run_made_it(tmp_path):
    project = tiny(tmp_path, sink={"format": "ducklake"})
    run = project.run("s", [DAY])
    before = [row["event"] for row in run.rows(DAY)]
    snapshot = next(day.snapshot for day in run.result.days if day.stage == "sink")
    project.write(f"events/{DAY}.parquet", column("event", ["like", "like", "like"], pa.string(), DAY))
    after = [row["event"] for row in project.run("s", [DAY]).rows(DAY)]
    assert after != before
    with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as reader:
        load_extensions(reader, "sqlite", "ducklake")
        reader.execute(f"ATTACH 'ducklake:sqlite:{tmp_path}/out/lake.sqlite' AS lake (READ_ONLY)")
        old = reader.execute(
            f'SELECT event FROM lake.s.training AT (VERSION => {snapshot}) ORDER BY "__row"'
        ).fetchall()
        assert [row[0] for row in old] == before
        message, extra = reader.execute(
            f"SELECT commit_message, commit_extra_info FROM lake.snapshots() WHERE snapshot_id = {snapshot}"
        ).fetchone()
        run_id = reader.execute("SELECT run_id FROM lake.s.training_days").fetchone()[0]
        files = reader.execute("SELECT data_file FROM ducklake_list_files('lake', 'training', schema => 's')")
        assert "dt=2026-05-02" in files.fetchone()[0]
    assert message.startswith(f"s {DAY}, run ")
    assert f'"dt": "{DAY}"' in extra
    assert run_id not in extra


# ------------------------------------------------------------------ the schema over time


@pytest.mark.parametrize("format_", FORMATS)
def test_columns_are_added_and_types_grow(tmp_path, format_):
    columns = SERVICE["columns"]
    narrow = [
        {"ref": "events:score", "dtype": "INTEGER", "default": 3} if isinstance(c, dict) else c
        for c in columns
    ]
    project = tiny(tmp_path, sink={"format": format_}, service={"columns": narrow[:6]})
    before = project.run("s")
    wide = [
        {"ref": "events:score", "dtype": "BIGINT", "default": 3} if isinstance(c, dict) else c
        for c in columns
    ]
    project.define("feature_services", SERVICE | {"columns": wide})
    project.run("s", [DAY])
    table = table_of(project, format_, DAY)
    assert table.schema.field("score").type == pa.int64()
    assert table["liked"].to_pylist() == project.run("s", [DAY]).table(DAY)["liked"].to_pylist()
    old = table_of(project, format_, DAYS[0])
    assert old["liked"].to_pylist() == [None, None]
    assert old["score"].to_pylist() == [3, 3]
    assert before.rows(DAYS[0])[0]["score"] == 3
    # A day of the narrower contract still fits the wider table.
    project.define("feature_services", SERVICE | {"columns": [*narrow[:6], *columns[6:]]})
    project.run("s", [DAYS[2]])
    assert table_of(project, format_, DAYS[2]).schema.field("score").type == pa.int64()


@pytest.mark.parametrize(
    ("format_", "columns", "message"),
    [
        ("duckdb", SERVICE["columns"][:-1], "column 'seen' that the rows no longer have.*DROP COLUMN"),
        (
            "ducklake",
            [*SERVICE["columns"][:-1], {"ref": "rolling:seen", "dtype": "DOUBLE"}],
            "column 'seen' is BIGINT in the table and DOUBLE in the rows.*Declare dtype BIGINT",
        ),
    ],
)
def test_other_changes_are_refused_and_nothing_is_lost(tmp_path, format_, columns, message):
    project = tiny(tmp_path, sink={"format": format_})
    project.run("s", [DAY])
    project.define("feature_services", SERVICE | {"columns": columns})
    with pytest.raises(ExecutionError, match=message) as raised:
        project.run("s", [DAY])
    assert raised.value.day == DAY
    assert table_of(project, format_, DAY)["seen"].to_pylist() == [1, 1, 3]


VALUES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "tiny": (pa.int8(), [-1, None]),
    "unsigned": (pa.uint64(), [2**64 - 1, None]),
    "small float": (pa.float16(), [1.5, None]),
    "float": (pa.float32(), [0.1, None]),
    "money": (pa.decimal128(12, 3), [1, None]),
    "day": (pa.date32(), [dt.date(2026, 5, 1), None]),
    "time": (pa.time64("us"), [dt.time(1, 2, 3, 4), None]),
    "second": (pa.timestamp("s"), [at("2026-05-01 02:00"), None]),
    "nano": (pa.timestamp("ns"), [at("2026-05-01 02:00"), None]),
    "instant": (pa.timestamp("us", "UTC"), [dt.datetime(2026, 5, 1, 2, tzinfo=dt.UTC), None]),
    "te\"xt'": (pa.string(), ["it's \u2028 'é'", None]),
    "bytes": (pa.binary(), [b"\0\1", None]),
    "vector": (pa.list_(pa.float32(), 2), [[1.0, 2.0], None]),
    "halves": (pa.list_(pa.float16()), [[1.0, None], []]),
    "nested": (pa.list_(pa.list_(pa.int64())), [[[1], []], None]),
    "struct": (pa.struct([("A b", pa.int64())]), [{"A b": 1}, None]),
    "map": (pa.map_(pa.string(), pa.int64()), [[("a", 1)], None]),
}


def staged(folder: Path, table: pa.Table, *, cut: int = 1) -> StagedRows:
    """A table as the files of a finished day."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index, start in enumerate(range(0, table.num_rows, cut)):
        files.append(folder / f"part-{index}-0.parquet")
        pq.write_table(table.slice(start, cut), files[-1])
    return StagedRows(files=tuple(files), row_count=table.num_rows, content_hash="h", staged_id=str(folder))


def sink_at(
    format_: str, connection: duckdb.DuckDBPyConnection, folder: Path, **options: Any
) -> tables.TableSink:
    kind = DuckDBFileSink if format_ == "duckdb" else DuckLakeSink
    return kind(connection, str(folder / "odd 'name' é.db"), schema="my \"svc\" 'é'", **options)


@pytest.fixture
def connection():
    with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as opened:
        opened.execute("SET TimeZone = 'UTC'")
        yield opened


@pytest.mark.parametrize("format_", FORMATS)
def test_every_type_and_odd_names_come_back(tmp_path, connection, format_):
    table = pa.table({name: pa.array(values, kind) for name, (kind, values) in VALUES.items()})
    with sink_at(format_, connection, tmp_path / "odd 'folder'") as sink:
        done = sink.publish(of_day(DAY), staged(tmp_path / "d", table), run_id="r", message="it's m")
        assert done.written
        back = connection.execute(sink.rows_sql(of_day(DAY))).to_arrow_table()
        assert sink.partitions() == [DAY]
    assert back.column_names == table.column_names
    for name in table.column_names:
        assert back[name].to_pylist() == table[name].to_pylist(), name


@pytest.mark.parametrize("format_", FORMATS)
def test_a_vector_of_another_length_is_refused(tmp_path, connection, format_):
    def vectors(length: int) -> pa.Table:
        return pa.table({"v": pa.array([[0.0] * length], pa.list_(pa.float32(), length))})

    with sink_at(format_, connection, tmp_path) as sink:
        sink.publish(of_day(DAYS[0]), staged(tmp_path / "a", vectors(2)), run_id="r", message="m")
        with pytest.raises(ExecutionError, match=r"'v' is FLOAT\[2\] in the table and FLOAT\[3\]"):
            sink.publish(of_day(DAYS[1]), staged(tmp_path / "b", vectors(3)), run_id="r", message="m")
        assert sink.partitions() == [DAYS[0]]


@pytest.mark.parametrize("format_", FORMATS)
def test_a_hand_that_deleted_rows_is_noticed(tmp_path, connection, format_):
    rows = staged(tmp_path / "a", pa.table({"v": list(range(5))}), cut=2)
    with sink_at(format_, connection, tmp_path) as sink:
        sink.publish(of_day(DAY), rows, run_id="r", message="m")
        connection.execute(f"DELETE FROM {sink.name('training')} WHERE v = 3")
        again = sink.publish(of_day(DAY), rows, run_id="r", message="m")
        assert again.reason == "the table was changed by another hand"
        back = connection.execute(sink.rows_sql(of_day(DAY))).fetchall()
    assert back == [(0,), (1,), (2,), (3,), (4,)]


# ------------------------------------------------------------------ killed, locked


@pytest.mark.slow
@pytest.mark.parametrize("format_", FORMATS)
def test_killed_before_the_commit_a_day_is_absent_and_the_next_run_finishes(tmp_path, format_):
    expected = [tiny(tmp_path).run("s").rows(day) for day in DAYS]
    project = tiny(tmp_path, sink={"format": format_})
    assert run_and_die(project, "s", DAYS, f"{DAY} inserted") == -signal.SIGKILL
    assert rows_by_day(project, format_) == [expected[0], [], []]
    states = [state for state, _ in sink_results(project.run("s")).values()]
    assert states == ["up to date", "written", "written"]
    assert rows_by_day(project, format_) == expected


def rows_by_day(project: Project, format_: str) -> list[list[dict[str, Any]]]:
    with open_sink(SinkFormat(format_), "s", project.config()) as sink:
        return [
            sink.connection.execute(sink.rows_sql(of_day(day))).to_arrow_table().to_pylist() for day in DAYS
        ]


_HOLD_DUCKDB = (
    "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
)
_HOLD_SQLITE = (
    "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN IMMEDIATE');"
    "print('held', flush=True); sys.stdin.read()"
)


@pytest.mark.parametrize(("format_", "code"), [("duckdb", _HOLD_DUCKDB), ("ducklake", _HOLD_SQLITE)])
def test_a_locked_database_is_an_error_in_bounded_time_that_keeps_everything(
    tmp_path, monkeypatch, format_, code
):
    monkeypatch.setattr(tables, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(tables, "WAIT_SECONDS", 0.05)
    project = tiny(tmp_path, sink={"format": format_})
    project.run("s", [DAYS[0]])
    file = tmp_path / "out" / ("s.duckdb" if format_ == "duckdb" else "lake.sqlite")
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(ExecutionError, match="another process holds it") as raised:
            project.run("s", [DAY])
        assert file.name in str(raised.value)
        assert "run again" in raised.value.hint
    finally:
        holder.communicate(b"")
    assert sink_results(project.run("s", [DAY])) == {DAY: ("written", 3)}


# ------------------------------------------------------------------ catalogs


@pytest.mark.slow
@pytest.mark.xdist_group("postgres")
def test_a_lake_with_its_catalog_in_postgres_and_its_files_in_s3(
    tmp_path, monkeypatch, postgres_server, s3_server
):
    for name, value in s3_server.environ().items():
        monkeypatch.setenv(name, value)
    bucket, database = s3_server.bucket(), postgres_server.database()
    # What variables hold is taken as it is, whatever a URL makes of such characters.
    password = "p@ss/wo:rd?#%41 " + secrets.token_hex(4)
    writer = f"writer_{secrets.token_hex(3)}"
    postgres_server.execute(
        f"CREATE ROLE {writer} LOGIN PASSWORD '{password}'; ALTER DATABASE {database} OWNER TO {writer}"
    )
    monkeypatch.setenv("LAKE_USER", writer)
    monkeypatch.setenv("LAKE_PASSWORD", password)
    url = f"postgresql://${{LAKE_USER}}:${{LAKE_PASSWORD}}@127.0.0.1:{postgres_server.port}/{database}"
    place = {"path": url, "data_path": f"s3://{bucket}/lake"}
    project = tiny(tmp_path, sink={"format": "ducklake", **place})
    run = project.run("s", [DAY])
    assert sink_results(run) == {DAY: ("written", 3)}
    assert sink_results(project.run("s", [DAY])) == {DAY: ("up to date", 3)}
    assert table_of(project, "ducklake", DAY, **place).to_pylist() == run.rows(DAY)
    keys = [one["Key"] for one in s3_server.client().list_objects_v2(Bucket=bucket)["Contents"]]
    assert any(key.startswith("lake/s/training/dt=2026-05-02/") for key in keys)
    monkeypatch.setenv("FRESH", postgres_server.url(postgres_server.database()))
    with pytest.raises(DefinitionError, match=r"sink\.data_path: a new lake"):
        tiny(tmp_path, sink={"format": "ducklake", "path": "${FRESH}"}).run("s", [DAYS[0]])
    # The catalog says where the files are.
    monkeypatch.setenv("LAKE", postgres_server.url(database))
    moved = tiny(tmp_path, sink={"format": "ducklake", "path": "ducklake:${LAKE}"})
    assert sink_results(moved.run("s", [DAYS[0]])) == {DAYS[0]: ("written", 2)}
    monkeypatch.setenv("LAKE_PASSWORD", "wrong-hunter2")
    with pytest.raises(ExecutionError, match="password authentication failed") as raised:
        project.run("s", [DAY])
    for secret in ("hunter2", password, password[:6]):
        assert secret not in str(raised.value) + repr(raised.value.__context__)


def test_a_catalog_in_a_duckdb_file(tmp_path):
    place = {"path": "ducklake:x.ducklake"}
    project = tiny(tmp_path, sink={"format": "ducklake", **place})
    run = project.run("s", [DAY])
    assert table_of(project, "ducklake", DAY, **place).to_pylist() == run.rows(DAY)
    assert list((tmp_path / "x.ducklake.files" / "s" / "training").rglob("*.parquet"))


# ------------------------------------------------------------------ definitions


@pytest.mark.parametrize(
    ("sink", "message"),
    [
        ({"path": "x"}, "parquet sink has no path"),
        ({"format": "duckdb", "data_path": "x"}, "has no data_path"),
        ({"format": "duckdb", "path": "s3://b/x.duckdb"}, "local path, found s3:"),
        ({"format": "ducklake", "path": "postgresql://me:hunter2@h/db"}, "credential in the place of a sink"),
        ({"format": "duckdbb"}, "duckdb"),
        ({"kind": "duckdb"}, "unknown key 'kind'"),
    ],
)
def test_a_wrong_setting_says_what_to_write(tmp_path, sink, message):
    with pytest.raises(DefinitionError, match=message) as raised:
        tiny(tmp_path, sink=sink).config()
    assert "hunter2" not in str(raised.value)


def test_a_table_refuses_a_column_called_like_its_partition(tmp_path):
    columns = [*SERVICE["columns"][:-1], {"name": "DT", "ref": "rolling:seen"}]
    with pytest.raises(CompileError, match="'DT' cannot be told from the partition's column"):
        tiny(tmp_path, sink={"format": "duckdb"}, service={"columns": columns}).run("s", [DAY])


def test_an_unset_variable_in_the_place_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("LAKE", raising=False)
    project = tiny(tmp_path, sink={"format": "ducklake", "path": "${LAKE}"})
    with pytest.raises(DefinitionError, match="LAKE is not set"):
        project.run("s", [DAY])


def test_another_place_copies_days_without_computing_them(tmp_path):
    project = tiny(tmp_path)
    project.run("s", [DAY])
    moved = tiny(tmp_path, sink={"format": "duckdb", "path": "elsewhere/x.duckdb"})
    run = moved.run("s", [DAY])
    assert [(day.stage, day.state) for day in run.result.days] == [
        ("skeleton", "up to date"),
        ("sink", "written"),
    ]
    assert (tmp_path / "elsewhere/x.duckdb").is_file()
    assert "elsewhere" in str(moved.pipeline("s").to_yaml_dict())
