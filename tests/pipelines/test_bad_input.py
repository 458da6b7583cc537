"""Bad data stops the run with the file, the view and the value; earlier output stays; odd but good data passes."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from daedalus.errors import DaedalusError, DefinitionError, ExecutionError, SourceError
from daedalus.pipelines.executor import run_pipeline
from daedalus.pipelines.notices import pipeline_notices
from daedalus.pipelines.planning.run_inputs import RunInputs
from pipelines.tiny import DAYS, EVENTS, ROWS, SERVICE, USERS, at, column, events, tiny, users
from support.project import ENGINES, write_project

if TYPE_CHECKING:
    from pathlib import Path

    from support.project import Run

FIRST, SECOND, LATE = DAYS


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The days of the tiny project as it is."""
    return tiny(tmp_path_factory.mktemp("plain")).run("s")


# ---------------------------------------------------------------------- values that do not fit


@pytest.mark.parametrize(
    ("name", "values", "kind", "shown"),
    [
        ("score", [1.0, 2.5], pa.float64(), "2.5"),
        ("score", [1, 2**40], pa.int64(), str(2**40)),
        ("score", ["1", "two"], pa.string(), "two"),
        ("seq", [1.0, 1e300], pa.float64(), "1e+300"),
        ("user_id", [1.0, 2.25], pa.float64(), "2.25"),
        ("ts", ["2026-05-01 08:00:00", "yesterday"], pa.string(), "yesterday"),
    ],
)
def test_a_value_that_does_not_fit_is_shown(
    tmp_path: Path, name: str, values: list[Any], kind: pa.DataType, shown: str
) -> None:
    project = tiny(tmp_path, data={f"events/{FIRST}.parquet": column(name, values, kind)})
    with pytest.raises(SourceError) as caught:
        project.run("s", [FIRST])
    message = str(caught.value)
    assert shown in message
    assert "view events" in message
    assert f"column {name}" in message
    assert "without loss" in message
    assert not (tmp_path / "out" / "s" / "skeleton" / f"dt={FIRST}").exists()


@pytest.mark.parametrize(
    ("kind", "dtype", "bad"), [(pa.int64(), "DOUBLE", 2**63 - 1), (pa.float64(), "BIGINT", 2.0**63)]
)
def test_a_value_at_the_edge_of_a_type_is_shown(
    tmp_path: Path, kind: pa.DataType, dtype: str, bad: Any
) -> None:
    fields = [*EVENTS["fields"][:3], {"name": "score", "dtype": dtype, "optional": True}]
    data = {f"events/{FIRST}.parquet": column("score", [1, bad], kind)}
    with pytest.raises(SourceError, match=r"column score.*without loss"):
        tiny(tmp_path, events_view={"fields": fields}, data=data).run("s", [FIRST])


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1.0, None], pa.float64()),
        ([1, None], pa.int8()),
        (["1", None], pa.string()),
        ([True, None], pa.bool_()),
    ],
)
def test_a_value_that_fits_is_taken(tmp_path: Path, values: list[Any], kind: pa.DataType) -> None:
    project = tiny(tmp_path, data={f"events/{FIRST}.parquet": column("score", values, kind)})
    table = project.run("s", [FIRST]).table(FIRST)
    assert table["score"].type == pa.int32()
    assert table["score"].to_pylist() == [1, None]


def test_a_null_where_none_may_be(tmp_path: Path) -> None:
    fields = [EVENTS["fields"][0], {"name": "event", "dtype": "TEXT", "nullable": False}]
    data = {f"events/{FIRST}.parquet": column("event", ["like", None], pa.string())}
    service = {"session_column": "", "columns": ["events:user_id", "events:event"]}
    project = tiny(
        tmp_path, events_view={"fields": fields}, service={k: v for k, v in service.items() if v}, data=data
    )
    project.define(
        "feature_services", {k: v for k, v in (SERVICE | service).items() if k != "session_column"}
    )
    with pytest.raises(SourceError, match=r"view events.*column event holds NULL"):
        project.run("s", [FIRST])


def test_a_contract_column_that_may_not_be_null_needs_a_default(tmp_path: Path) -> None:
    columns = [*SERVICE["columns"][:-3], {"ref": "users:tier", "nullable": False}]
    with pytest.raises(DefinitionError, match="nullable: false needs a default"):
        tiny(tmp_path, service={"columns": columns}).run("s", [FIRST])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_value_that_does_not_fit_the_contract(tmp_path: Path, engine: str) -> None:
    columns = [*SERVICE["columns"], {"name": "small", "ref": "events:artwork_id", "dtype": "TINYINT"}]
    data = {f"events/{FIRST}.parquet": column("artwork_id", [10, 4711], pa.int64())}
    with pytest.raises(DaedalusError) as caught:
        tiny(tmp_path, service={"columns": columns}, data=data, engine=engine).run("s", [FIRST])
    assert "small" in str(caught.value)
    assert "4711" in str(caught.value)
    assert not (tmp_path / "out" / "s" / "skeleton" / f"dt={FIRST}").exists()


# ---------------------------------------------------------------------- columns


@pytest.mark.parametrize("day", DAYS)
def test_a_missing_column_names_the_file_wherever_it_is(tmp_path: Path, day: str) -> None:
    data = {f"events/{day}.parquet": events(ROWS[day]).drop_columns("event")}
    with pytest.raises(SourceError) as caught:
        tiny(tmp_path, data=data).run("s")
    assert f"{day}.parquet" in str(caught.value)
    assert "'event'" in str(caught.value)
    assert "view events" in str(caught.value)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_absent_optional_column_takes_its_default(tmp_path: Path, engine: str) -> None:
    run = tiny(tmp_path, engine=engine).run("s", [FIRST])
    assert run.table(FIRST)["score"].to_pylist() == [3, 3]
    assert run.table(FIRST)["score"].type == pa.int32()


@pytest.mark.parametrize("has_it", [FIRST, SECOND, LATE])
def test_an_optional_column_may_begin_in_one_file(tmp_path: Path, has_it: str) -> None:
    count = len(ROWS[has_it])
    data = {f"events/{has_it}.parquet": column("score", [8] * count, pa.int32(), has_it)}
    run = tiny(tmp_path, data=data).run("s")
    for day in DAYS:
        expected = [8] * len(ROWS[day]) if day == has_it else [None] * len(ROWS[day])
        assert run.table(day)["score"].to_pylist() == expected  # it is there, so NULL stays NULL
        assert run.table(day).schema == run.table(FIRST).schema


def test_files_may_spell_a_type_differently(tmp_path: Path) -> None:
    data = {
        f"events/{FIRST}.parquet": column("score", [1, 2], pa.int64()),
        f"events/{SECOND}.parquet": column("score", [3, 4, 5], pa.int16(), SECOND),
    }
    run = tiny(tmp_path, data=data).run("s", [FIRST, SECOND])
    assert [run.table(day)["score"].to_pylist() for day in (FIRST, SECOND)] == [[1, 2], [3, 4, 5]]


# ---------------------------------------------------------------------- rows


def test_duplicates_in_a_view_without_time_show_three_keys(tmp_path: Path) -> None:
    view = {"source": {"path": "users"}}
    rows = [(user, "2026-05-01", "x") for user in (1, 1, 2, 2, 3, 3, 4, 4, 5)]
    table = users(*rows).drop_columns("updated_at")
    day = events([(n, "2026-05-01 08:00", n, 10, "view", "a") for n in range(1, 6)])
    project = tiny(
        tmp_path,
        users_view=view,
        service={"views": [{"view": "users"}]},
        data={"users/a.parquet": table, f"events/{FIRST}.parquet": day},
    )
    with pytest.raises(SourceError) as caught:
        project.run("s", [FIRST])
    assert "1; 2; 3" in str(caught.value)
    assert "view users" in str(caught.value)
    assert "timestamp_field" in str(caught.value)


def test_rows_without_a_time_are_nowhere(tmp_path: Path, plain: Run) -> None:
    extra = [(90, None, 1, 99, "like", "z"), (91, None, 2, 99, "like", "z")]
    timeless = tiny(
        tmp_path / "timeless",
        data={
            "events/none.parquet": events(extra),
            f"events/{FIRST}.parquet": events([*ROWS[FIRST], *extra]),
        },
    ).run("s")
    assert timeless.hashes == plain.hashes
    assert timeless.table(FIRST)["qid"].to_pylist() == plain.table(FIRST)["qid"].to_pylist()


@pytest.mark.parametrize("field", ["user_id", "artwork_id"])
@pytest.mark.parametrize("engine", ENGINES)
def test_rows_without_a_key_stay_and_know_nothing(tmp_path: Path, field: str, engine: str) -> None:
    data = {f"events/{FIRST}.parquet": column(field, [None, None], pa.int64())}
    run = tiny(tmp_path, data=data, engine=engine).run("s", [FIRST, SECOND])
    assert run.table(FIRST)[field].to_pylist() == [None, None]
    if field == "user_id":
        assert run.table(FIRST)["seen"].to_pylist() == [0, 0]
        assert run.table(FIRST)["liked"].to_pylist() == [[], []]
        assert run.table(FIRST)["tier"].to_pylist() == [None, None]
        assert run.table(SECOND)["seen"].to_pylist() == [0, 0, 2]
    else:
        assert run.table(SECOND)["seen"].to_pylist() == [1, 1, 3]
        assert run.table(SECOND)["liked"].to_pylist() == [[], [], [12]]  # a NULL is no value


def test_duplicate_events_stay_duplicate(tmp_path: Path) -> None:
    data = {f"events/{FIRST}.parquet": events(ROWS[FIRST] * 2)}
    assert tiny(tmp_path, data=data).run("s", [FIRST]).table(FIRST)["user_id"].to_pylist() == [1, 1, 2, 2]


# ---------------------------------------------------------------------- files and days


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    project = tiny(tmp_path)
    path = tmp_path / "data" / "events" / f"{SECOND}.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SourceError) as caught:
        project.run("s", [FIRST])
    assert str(path) in str(caught.value)
    assert "truncated" in str(caught.value)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    project = tiny(tmp_path)
    path = tmp_path / "data" / "events" / "x.parquet"
    path.write_bytes(b"")
    with pytest.raises(SourceError, match=r"x\.parquet"):
        project.run("s", [FIRST])


def test_a_corrupt_page_is_an_error_that_names_the_day(tmp_path: Path) -> None:
    project = tiny(tmp_path)
    path = tmp_path / "data" / "events" / f"{FIRST}.parquet"
    body = bytearray(path.read_bytes())
    body[4:200] = bytes(196)
    path.write_bytes(bytes(body))
    with pytest.raises(ExecutionError) as caught:
        project.run("s", [FIRST])
    assert "events" in str(caught.value)
    assert not (tmp_path / "out" / "s" / "skeleton" / f"dt={FIRST}").exists()


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    project = tiny(tmp_path, users_view={"source": {"path": "nobody", "timestamp_field": "updated_at"}})
    with pytest.raises(SourceError, match=r"nobody does not exist\. Set source\.path"):
        project.run("s", [FIRST])
    (tmp_path / "data" / "nobodies").mkdir()
    with pytest.raises(SourceError, match=r"nobody does not exist\. Did you mean 'nobodies'\? Set"):
        project.run("s", [FIRST])
    with pytest.raises(SourceError, match=rf"There is no folder {tmp_path}/dta\. Set source\.path"):
        project.run("s", [FIRST], data_root=str(tmp_path / "dta"))
    (tmp_path / "data" / "nobody").mkdir()
    with pytest.raises(SourceError, match=r"nobody holds no \.parquet file"):
        project.run("s", [FIRST])


def test_nanoseconds_that_the_declared_time_would_lose(tmp_path: Path) -> None:
    first = 1_777_622_400_000_000_000  # 2026-05-01 08:00
    source = EVENTS["source"] | {"timestamp_unit": "ns"}
    last = column("ts", [first, first + 2_000], pa.int64(), FIRST)
    made = tiny(tmp_path / "fits", events_view={"source": source}, data=_only(last)).run("s", [FIRST])
    assert made.table(FIRST)["ts"].cast(pa.int64()).to_pylist() == [first // 1000, first // 1000 + 2]
    lost = column("ts", [first, first + 1_999], pa.int64(), FIRST)
    with pytest.raises(DaedalusError, match=rf"column ts: an instant in ns .* TIMESTAMP_NS.*{first + 1_999}"):
        tiny(tmp_path / "lost", events_view={"source": source}, data=_only(lost)).run("s", [FIRST])


def _only(day: pa.Table) -> dict[str, pa.Table | None]:
    return {f"events/{one}.parquet": day if one == FIRST else None for one in DAYS}


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({}, "no embedding store is configured"),
        (
            {"id_relation": "data/ids.parquet", "id_column": "artwork"},
            "its id_column 'artwork' is no column of events",
        ),
        (
            {"id_relation": "data/ids.parquet", "event_column": "evnt"},
            "its event_column 'evnt' is no column of events",
        ),
    ],
)
def test_a_coverage_filter_that_is_off_says_why(tmp_path: Path, setting: dict[str, Any], reason: str) -> None:
    project = tiny(tmp_path)
    setting = {"enabled": True, **setting}
    config = project.config(embedding_coverage_filter=setting)
    notices = pipeline_notices(
        project.pipeline("s", embedding_coverage_filter=setting), project.catalog(config), config
    )
    assert f"embedding_coverage_filter is off: {reason}" in notices


def test_an_id_relation_that_is_not_there_says_where_it_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"(?s)ids\.parquet does not exist.*id_relation.*the project's folder"
    ):
        tiny(tmp_path).run(
            "s", [FIRST], embedding_coverage_filter={"enabled": True, "id_relation": "ids.parquet"}
        )


def test_no_events_on_the_day(tmp_path: Path) -> None:
    with pytest.raises(ExecutionError, match=r"no events on 2026-05-03"):
        tiny(tmp_path).run("s", ["2026-05-03"])
    assert not (tmp_path / "out").exists()


def test_no_events_at_all(tmp_path: Path) -> None:
    project = tiny(tmp_path, feed_start="202601", feed_end="202601")
    with pytest.raises(ExecutionError, match=r"no events from 202601 to 202601"):
        project.run("s")


@pytest.mark.parametrize("day", ["2026-04-30", "2026-06-01"])
def test_a_date_outside_the_months(tmp_path: Path, day: str) -> None:
    with pytest.raises(DefinitionError, match=r"outside feed_start"):
        tiny(tmp_path).run("s", [day])


def test_months_may_reach_to_the_end_of_the_calendar(tmp_path: Path) -> None:
    request = tiny(tmp_path).request("s", feed_start="100001", feed_end="999912")
    assert request.catalog is not None
    inputs = RunInputs(request.pipeline, request.catalog, request.run_config)
    assert [day.isoformat() for day in inputs.target_days()] == list(DAYS)
    inputs.close()


def test_history_from_before_the_months_is_used(tmp_path: Path) -> None:
    early = events([(0, "2026-04-29 12:00", 1, 77, "like", "e")])
    run = tiny(tmp_path, data={"events/april.parquet": early}).run("s")
    assert "2026-04-29" not in run.states
    assert run.table(FIRST)["liked"].to_pylist()[0] == [77]


def test_a_file_replaced_while_it_is_read(tmp_path: Path) -> None:
    project = tiny(tmp_path)

    def replace(progress: Any) -> None:
        if progress.message == "aggregating and writing":
            project.write(f"events/{LATE}.parquet", events(ROWS[LATE][:1]))

    with pytest.raises(SourceError) as caught:
        project.run("s", [LATE], progress=replace)
    assert f"{LATE}.parquet was changed while the run was reading it" in str(caught.value)
    assert not (tmp_path / "out" / "s" / "skeleton" / f"dt={LATE}").exists()
    assert project.run("s", [LATE]).table(LATE).num_rows == 1


@pytest.mark.parametrize("where", ["out", "out/s", "out/s/skeleton"])
def test_an_output_root_that_cannot_be_written(tmp_path: Path, where: str) -> None:
    project = tiny(tmp_path)
    blocked = tmp_path / where
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("a file, not a folder")
    with pytest.raises(ExecutionError) as caught:
        project.run("s", [FIRST])
    assert str(blocked) in str(caught.value)
    assert blocked.read_text() == "a file, not a folder"


def test_a_second_run_of_a_day_is_told_who_holds_it(tmp_path: Path) -> None:
    project = tiny(tmp_path)
    told: list[str] = []

    def again(progress: Any) -> None:
        if progress.message == "aggregating and writing":
            with pytest.raises(ExecutionError) as caught:
                project.run("s", [FIRST])
            told.append(str(caught.value))

    run = project.run("s", [FIRST], progress=again)
    assert run.states == {FIRST: "written"}
    assert len(told) == 1
    assert "being written by process" in told[0]
    assert f"dt={FIRST}" in told[0]


# ---------------------------------------------------------------------- time columns


def _epoch(text: str, unit: str) -> int:
    seconds = round(at(text).replace(tzinfo=dt.UTC).timestamp())
    return seconds * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("dtype", [None, pytest.param("BIGINT", marks=pytest.mark.slow)])
def test_integer_times_in_every_unit(tmp_path: Path, plain: Run, unit: str, dtype: str | None) -> None:
    data = {
        f"events/{day}.parquet": column("ts", [_epoch(row[1], unit) for row in rows], pa.int64(), day)
        for day, rows in ROWS.items()
    }
    source = {"path": "events", "timestamp_field": "ts", "timestamp_unit": unit, "sequence_field": "seq"}
    fields = [*EVENTS["fields"], *([{"name": "ts", "dtype": dtype}] if dtype else [])]
    run = tiny(tmp_path / unit, events_view={"source": source, "fields": fields}, data=data).run("s")
    assert tuple(run.states) == DAYS
    for day in DAYS:
        mine, theirs = run.table(day), plain.table(day)
        assert mine.drop_columns("ts") == theirs.drop_columns("ts")
        if dtype is None:
            assert mine["ts"] == theirs["ts"]
        else:
            assert mine["ts"].to_pylist() == [_epoch(row[1], unit) for row in ROWS[day]]


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (pa.timestamp("us", "Asia/Tokyo"), "TIMESTAMPTZ"),
        (pa.timestamp("ns"), "TIMESTAMP_NS"),
        pytest.param(pa.timestamp("us", "UTC"), "TIMESTAMPTZ", marks=pytest.mark.slow),
        pytest.param(pa.timestamp("us", "UTC"), None, marks=pytest.mark.slow),
        pytest.param(pa.timestamp("ns"), None, marks=pytest.mark.slow),
        pytest.param(pa.timestamp("ms"), None, marks=pytest.mark.slow),
        pytest.param(pa.timestamp("s"), None, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_timestamps_of_every_kind(tmp_path: Path, plain: Run, kind: pa.DataType, dtype: str | None) -> None:
    data = {}
    for day, rows in ROWS.items():
        instants = pa.array([at(row[1]) for row in rows], pa.timestamp("us"))
        whole = instants.cast(pa.timestamp(kind.unit)).cast(pa.int64()).cast(kind)
        table = events(rows)
        data[f"events/{day}.parquet"] = table.set_column(table.schema.get_field_index("ts"), "ts", whole)
    fields = [*EVENTS["fields"], *([{"name": "ts", "dtype": dtype}] if dtype else [])]
    run = tiny(tmp_path / "other", events_view={"fields": fields}, data=data).run("s")
    assert tuple(run.states) == DAYS
    for day in DAYS:
        assert run.table(day).drop_columns("ts") == plain.table(day).drop_columns("ts")
        ours = (
            run.table(day)["ts"].cast(pa.timestamp(run.table(day)["ts"].type.unit)).cast(pa.timestamp("us"))
        )
        assert ours == plain.table(day)["ts"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_nanosecond_before_midnight_is_the_day_before(tmp_path: Path, engine: str) -> None:
    midnight = _epoch("2026-05-02 00:00", "ns")
    table = pa.table(
        {
            "seq": [1, 2, 3],
            "ts": pa.array([midnight - 1, midnight, midnight + 1], pa.timestamp("ns")),
            "user_id": [1, 1, 1],
            "artwork_id": [10, 11, 12],
            "event": ["like", "like", "like"],
            "session": ["a", "b", "c"],
        }
    )
    data: dict[str, pa.Table | None] = {f"events/{day}.parquet": None for day in DAYS}
    fields = [*EVENTS["fields"], {"name": "ts", "dtype": "TIMESTAMP_NS"}]
    project = tiny(
        tmp_path, events_view={"fields": fields}, data={**data, "events/a.parquet": table}, engine=engine
    )
    run = project.run("s", feed_start="100001", feed_end="999912")  # further than nanoseconds reach
    assert tuple(run.states) == (FIRST, SECOND)
    assert run.table(FIRST)["artwork_id"].to_pylist() == [10]
    assert run.table(SECOND)["liked"].to_pylist() == [[10], [10, 11]]


def test_only_an_event_a_nanosecond_before_midnight_makes_one_day(tmp_path: Path) -> None:
    table = events(ROWS[FIRST][:1])
    last = pa.array([_epoch("2026-05-02 00:00", "ns") - 1], pa.timestamp("ns"))
    data: dict[str, pa.Table | None] = {f"events/{day}.parquet": None for day in DAYS}
    data["events/a.parquet"] = table.set_column(table.schema.get_field_index("ts"), "ts", last)
    fields = [*EVENTS["fields"], {"name": "ts", "dtype": "TIMESTAMP_NS"}]
    assert list(tiny(tmp_path, events_view={"fields": fields}, data=data).run("s").states) == [FIRST]


@pytest.mark.parametrize(
    "unit", ["ns", *(pytest.param(one, marks=pytest.mark.slow) for one in ("s", "ms", "us"))]
)
def test_views_of_one_service_may_differ_in_unit(tmp_path: Path, plain: Run, unit: str) -> None:
    profiles = pa.table(
        {
            "user_id": [1, 1],
            "updated_at": [_epoch("2026-04-01", unit), _epoch("2026-05-02 08:30", unit)],
            "tier": ["free", "pro"],
        }
    )
    source = {"path": "users", "timestamp_field": "updated_at", "timestamp_unit": unit}
    view = {
        "source": source,
        "fields": [{"name": "updated_at", "dtype": "BIGINT"}, *USERS["fields"]],
    }
    run = tiny(tmp_path / unit, users_view=view, data={"users/a.parquet": profiles}).run("s")
    assert run.hashes == plain.hashes


@pytest.mark.parametrize("engine", ENGINES)
def test_a_window_is_rounded_to_the_spine_s_own_ticks(tmp_path: Path, engine: str) -> None:
    # 1.7 ms are two ticks of a millisecond column: the event two milliseconds before is in the window.
    start = _epoch("2026-05-01 08:00", "ms")
    table = pa.table(
        {
            "seq": [1, 2, 3, 4],
            "ts": [start, start + 1, start + 2, start + 3],
            "user_id": [1] * 4,
            "artwork_id": [10, 11, 12, 13],
            "event": ["like"] * 4,
            "session": ["a"] * 4,
        }
    )
    spec = SERVICE["aggregation_specs"][0] | {"window_days": 0.0017 / 86_400}
    source = {"path": "events", "timestamp_field": "ts", "timestamp_unit": "ms", "sequence_field": "seq"}
    project = tiny(
        tmp_path,
        events_view={"source": source, "fields": [*EVENTS["fields"], {"name": "ts", "dtype": "BIGINT"}]},
        service={"aggregation_specs": [spec, SERVICE["aggregation_specs"][1]]},
        data={**{f"events/{day}.parquet": None for day in DAYS}, "events/a.parquet": table},
        engine=engine,
    )
    run = project.run("s")
    assert run.table(FIRST)["liked"].to_pylist() == [[], [10], [10, 11], [11, 12]]


# ---------------------------------------------------------------------- odd names

ODD = ['say "hi"', "it's", "with space", "naïve 名前", "select", "a;b--", "100%", "tab\tbed"]


@pytest.mark.parametrize("odd", [ODD[0], *(pytest.param(one, marks=pytest.mark.slow) for one in ODD[1:])])
@pytest.mark.parametrize("engine", ["duckdb", pytest.param("kernel", marks=pytest.mark.slow)])
def test_source_columns_of_any_name(tmp_path: Path, plain: Run, odd: str, engine: str) -> None:
    renamed = {
        f"events/{day}.parquet": events(rows).rename_columns(
            ["seq", "ts", "user_id", "artwork_id", odd, "session"]
        )
        for day, rows in ROWS.items()
    }
    project = tiny(
        tmp_path / "odd", events_view={"field_mapping": {odd: "event"}}, data=renamed, engine=engine
    )
    assert project.run("s", [SECOND]).hashes[SECOND] == plain.hashes[SECOND]


FOLDERS = ["it's [1]", "with space", "名前", "b[1]", "q?", "star*", "{x}", "50%"]


@pytest.mark.parametrize(
    "odd", [FOLDERS[0], *(pytest.param(one, marks=pytest.mark.slow) for one in FOLDERS[1:])]
)
def test_folders_of_any_name(tmp_path: Path, plain: Run, odd: str) -> None:
    source = {"path": f"{odd}/events", "timestamp_field": "ts", "sequence_field": "seq"}
    data: dict[str, pa.Table | None] = {f"events/{day}.parquet": None for day in DAYS}
    data |= {f"{odd}/events/{odd}-{day}.parquet": events(rows) for day, rows in ROWS.items()}
    run = tiny(tmp_path / odd, events_view={"source": source}, data=data).run("s", [SECOND])
    assert run.hashes[SECOND] == plain.hashes[SECOND]


def test_hive_keys_are_columns_and_text_stays_text(tmp_path: Path) -> None:
    data: dict[str, pa.Table | None] = {f"events/{day}.parquet": None for day in DAYS}
    data |= {
        f"events/zone=007/dt={day}/a.parquet": events(rows).drop_columns("event")
        for day, rows in ROWS.items()
    }
    project = tiny(tmp_path, events_view={"field_mapping": {"zone": "event"}}, data=data)
    assert set(project.run("s").table(FIRST)["event"].to_pylist()) == {"007"}


@pytest.mark.parametrize("engine", ENGINES)
def test_names_that_differ_only_in_case_or_mean_something_to_sql(tmp_path: Path, engine: str) -> None:
    view = {
        "name": "order",
        "entity": "user",
        "source": {"path": "e", "timestamp_field": "when", "sequence_field": "group"},
        "fields": [{"name": "group", "dtype": "BIGINT"}, {"name": "from", "dtype": "TEXT"}],
    }
    service = {
        "name": "table",
        "version": "2026-05-01",
        "spine": "order",
        "aggregation_specs": [
            {
                "name": "select",
                "group_by": ["user_id"],
                "timestamp_column": "when",
                "value_column": "from",
                "operation": "list",
                "window_days": 1,
                "condition": "hist.\"from\" <> 'x'",
            }
        ],
        "derived": [{"name": "where", "sql": 'len("select")'}],
        "columns": ["order:from", "order:group", "rolling:select", "derived:where"],
    }
    table = pa.table(
        {
            "user_id": [1, 1],
            "when": pa.array([at("2026-05-01 01:00"), at("2026-05-01 02:00")], pa.timestamp("us")),
            "group": [1, 2],
            "from": ["a", "b"],
        }
    )
    project = write_project(tmp_path, views=[view], services=[service], data={"e/a.parquet": table})
    assert project.run("table", engine=engine).rows(FIRST) == [
        {"from": "a", "group": 1, "select": [], "where": 0},
        {"from": "b", "group": 2, "select": ["a"], "where": 1},
    ]


def test_what_enrichment_lacks_is_said_before_the_skeleton_is_made(tmp_path: Path) -> None:
    column = {"ref": "embedding:image", "dtype": "FLOAT[]", "shape": {"dimension": 2}}
    made = {"name": "image", "source_id_column": "artwork_id", "udf_name": "lookup_embedding_udf"}
    project = tiny(
        tmp_path,
        service={"columns": [*SERVICE["columns"], column]},
        embedding_stores=[
            {"name": "images", "path": "images", "embedding_dim": 2, "embedding_dtype": "float32"}
        ],
        enrichment_specs=[{**made, "store_name": "images"}],
    )
    with pytest.raises(ExecutionError, match=r"no store at .*daeda store build images"):
        run_pipeline(replace(project.request("s", [FIRST]), stages="all"))
    assert not (tmp_path / "out" / "s" / "skeleton" / f"dt={FIRST}").exists()


def test_what_is_no_parquet_but_another_format_says_how_to_convert_it(tmp_path: Path) -> None:
    project = tiny(tmp_path, users_view={"source": {"path": "users.csv", "timestamp_field": "updated_at"}})
    (tmp_path / "data" / "users.csv").write_text("user_id,updated_at,tier\n")
    with pytest.raises(
        SourceError, match=r"Views read Parquet\. DuckDB writes it: COPY \(FROM '.*users\.csv'\)"
    ):
        project.run("s", [FIRST])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"value_column": "scor"}, "unknown column 'scor'"),
        ({"condition": "event = 'like'"}, "condition: unqualified name event"),
    ],
)
def test_a_spec_that_reads_what_is_not_there_names_its_file(
    tmp_path: Path, wrong: dict[str, str], said: str
) -> None:
    spec = {"name": "total", "group_by": ["user_id"], "operation": "sum", "value_column": "score"}
    project = tiny(
        tmp_path,
        service={"columns": [*SERVICE["columns"], "rolling:total"]},
        aggregation_specs=[{**spec, **wrong}],
    )
    with pytest.raises(DefinitionError) as caught:
        project.pipeline("s")
    assert said in str(caught.value)
    assert "service s, spec total (config/training/aggregations.yaml)" in str(caught.value)
