"""Lookups beside the rows give what lookups in SQL give, and run where they can."""

from __future__ import annotations

import datetime as dt
import random
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest

from daedalus.errors import SourceError
from daedalus.metadata.days import DayStore
from daedalus.pipelines.days import lookup_order, lookup_plan, lookup_versions
from daedalus.pipelines.days import lookups as day_lookups
from daedalus.pipelines.days import stream as day_stream
from daedalus.pipelines.days.lookup_keys import Keys
from daedalus.pipelines.days.lookup_plan import LookupPlan
from daedalus.pipelines.days.lookup_slices import RowSlices
from daedalus.pipelines.days.relation_graph import RelationGraph
from daedalus.pipelines.days.total_order import TotalOrder
from support.project import Project, write_project

if TYPE_CHECKING:
    from pathlib import Path

DAY = "2026-05-03"
START = 1_777_766_400_000_000
DAY_US = 86_400_000_000
SERVICE: dict[str, Any] = {
    "name": "s",
    "version": "2026-05-01",
    "spine": "events",
    "views": [
        {"view": "profile", "join": "asof"},
        {"view": "pair", "join": "asof"},
        {"view": "profile", "alias": "friend", "join": "asof", "on": {"friend_id": "user_id"}},
        {"view": "place", "join": "asof"},
    ],
    "columns": [
        "events:seq",
        "profile:name",
        {"ref": "profile:tags", "default": ["none"], "nullable": False},
        {"ref": "profile:level", "default": -1, "nullable": False},
        {"ref": "profile:lacking", "default": 7},
        "pair:score",
        {"ref": "friend:name", "name": "friend_name"},
        {"ref": "friend:level", "name": "friend_level"},
        "place:size",
    ],
}
ENTITIES = {"entities": [{"name": "place", "keys": [{"name": "place_id", "dtype": "TEXT"}]}]}


def view(name: str, entity: Any, fields: dict[str, str], **more: Any) -> dict[str, Any]:
    optional = {"lacking"}
    return {
        "name": name,
        "entity": entity,
        "source": {"path": name, "timestamp_field": "at", **more.pop("source", {})},
        "fields": [
            {"name": "at", "dtype": "TIMESTAMP"},
            *({"name": one, "dtype": kind, "optional": one in optional} for one, kind in fields.items()),
        ],
        **more,
    }


def times(values: list[int | None]) -> pa.Array:
    return pa.array(values, pa.timestamp("us"))


def project_of(root: Path, seed: int, service: dict[str, Any] = SERVICE) -> Project:
    """Versions from ten days before to a day after, many at equal times; some keys are NULL or unknown."""
    rng = random.Random(seed)
    steps = rng.choice([DAY_US // 4, 3_600_000_000, 1])

    def moment() -> int | None:
        near = rng.randrange(-2 * DAY_US, 2 * DAY_US) if rng.random() < 0.6 else -rng.randrange(10 * DAY_US)
        return None if rng.random() < 0.03 else START + near // steps * steps

    def key(most: int) -> int | None:
        return None if rng.random() < 0.1 else rng.randrange(most)

    def place() -> str | None:
        return rng.choice(["", "a", "A", "\u00e4", "a ", None])

    count = 120
    events = {
        "at": times([moment() for _ in range(count)]),
        "seq": list(range(count)),
        "user_id": [key(6) for _ in range(count)],
        "artwork_id": [key(4) for _ in range(count)],
        "friend_id": pa.array([key(6) for _ in range(count)], pa.int32()),
        "place_id": [place() for _ in range(count)],
    }
    versions = 150
    profile = {
        "at": times([moment() for _ in range(versions)]),
        "made": times([None if rng.random() < 0.1 else moment() for _ in range(versions)]),
        "user_id": [key(6) for _ in range(versions)],
        "name": [rng.choice(["a", "bb", None]) for _ in range(versions)],
        "level": [rng.choice([1, 2, None]) for _ in range(versions)],
    }
    # Lists are no part of the total order: versions that are equal in it have equal lists.
    profile["tags"] = [{1: [], 2: ["x", None], None: None}[level] for level in profile["level"]]
    pair = {
        "at": times([moment() for _ in range(versions)]),
        "user_id": [key(6) for _ in range(versions)],
        "artwork_id": [key(4) for _ in range(versions)],
        "score": [rng.choice([0.5, float("nan"), -0.0, None]) for _ in range(versions)],
    }
    places = {
        "at": times([moment() for _ in range(versions)]),
        "place_id": [place() for _ in range(versions)],
        "size": pa.array([rng.choice([1, 2, None]) for _ in range(versions)], pa.int16()),
    }
    fields = {"name": "TEXT", "tags": "TEXT[]", "level": "BIGINT", "lacking": "BIGINT"}
    created = rng.random() < 0.5
    more: dict[str, Any] = {"source": {"created_field": "made"}} if created else {}
    more |= rng.choice([{}, {"ttl": "36h"}, {"delay_seconds": 0.5}])
    return write_project(
        root,
        views=[
            view("events", ["user", "artwork", "place"], {"seq": "BIGINT", "friend_id": "INTEGER"}),
            view("profile", "user", fields | ({"made": "TIMESTAMP"} if created else {}), **more),
            view("pair", ["user", "artwork"], {"score": "DOUBLE"}),
            view("place", "place", {"size": "SMALLINT"}),
            {"name": "plain", "entity": "place", "source": {"path": "plain"}}
            | {"fields": [{"name": "note", "dtype": "TEXT"}]},
        ],
        entities=ENTITIES,
        services=[service],
        data={
            "events/a.parquet": pa.table(events),
            "profile/a.parquet": pa.table(profile).slice(0, 70),
            "profile/b.parquet": pa.table(profile).slice(70),
            "pair/a.parquet": pa.table(pair),
            "place/a.parquet": pa.table(places),
            "plain/a.parquet": pa.table(
                {"place_id": ["a", "\u00e4", None, None], "note": ["kept", "dropped", "x", "y"]}
            ),
        },
    )


@pytest.mark.parametrize("seed", range(8))
def test_they_are_those_of_sql(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = project_of(tmp_path, seed)
    monkeypatch.setattr(day_lookups.os, "cpu_count", lambda: 1 + seed % 3)  # one after another, side by side
    monkeypatch.setattr(lookup_order, "_MORE", -9 if seed % 2 else 9)  # ties are read again, ordered as held
    if seed % 4 < 2:
        monkeypatch.setattr(lookup_versions.VersionReader, "_skips", lambda *_: True)
    monkeypatch.setattr(lookup_versions, "_MANY", 0)
    joined = project.run("s", [DAY], output_root=str(tmp_path / "joined"))
    monkeypatch.setattr(lookup_versions, "_MANY", 1_000)
    beside = project.run("s", [DAY], output_root=str(tmp_path / "beside"))
    assert beside.hashes == joined.hashes
    counted = counters(beside)
    monkeypatch.setattr(LookupPlan, "of", lambda *_, **__: None)
    in_sql = project.run("s", [DAY], output_root=str(tmp_path / "sql"))
    assert repr(beside.rows(DAY)) == repr(in_sql.rows(DAY))  # NaN is NaN
    assert beside.hashes == in_sql.hashes
    assert counted == counters(in_sql)
    assert {row["lacking"] for row in in_sql.rows(DAY)} == {7}


@pytest.mark.parametrize("more", [["events:user_id", "events:artwork_id", "events:at"], []])
def test_rows_of_equal_times_stand_in_total_order(
    more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, count = random.Random(5), 400
    fields = {"a_float": "DOUBLE", "a_small": "SMALLINT", "a_text": "TEXT", "a_truth": "BOOLEAN"}
    fields |= {"b_date": "DATE", "seq": "BIGINT"}
    floats = [float("nan"), float("-inf"), -0.0, 0.0, 1.5, None]
    events = {
        "at": times([START + rng.randrange(3) for _ in range(count)]),
        "user_id": [rng.choice([1, None]) for _ in range(count)],
        "artwork_id": [1] * count,
        "a_float": pa.array([rng.choice(floats) for _ in range(count)], pa.float64()),
        "a_small": pa.array([rng.choice([-1, 1, None]) for _ in range(count)], pa.int16()),
        "a_text": [rng.choice(["", "a", "B", "\u00e4", None]) for _ in range(count)],
        "a_truth": [rng.choice([True, False, None]) for _ in range(count)],
        "b_date": [rng.choice([dt.date(2026, 1, 1), dt.date(1960, 1, 1), None]) for _ in range(count)],
        "seq": list(range(count)),
    }
    project = write_project(
        tmp_path,
        views=[
            view("events", ["user", "artwork"], fields),
            view("profile", "user", {"level": "BIGINT"}),
        ],
        services=[
            SERVICE
            | {
                "views": [{"view": "profile", "join": "asof"}],
                "columns": [*more, *(f"events:{name}" for name in fields), "profile:level"],
            }
        ],
        data={
            "events/a.parquet": pa.table(events),
            "profile/a.parquet": pa.table({"at": times([START]), "user_id": [1], "level": [5]}),
        },
    )
    from_arrow = []
    asked = TotalOrder._comes_back
    monkeypatch.setattr(
        TotalOrder,
        "_comes_back",
        lambda order, rows: from_arrow.append(asked(order, rows)) or from_arrow[-1],
    )
    beside = project.run("s", [DAY], output_root=str(tmp_path / "beside"))
    assert from_arrow == [bool(more)]
    monkeypatch.setattr(LookupPlan, "of", lambda *_, **__: None)
    in_sql = project.run("s", [DAY], output_root=str(tmp_path / "sql"))
    assert repr(beside.rows(DAY)) == repr(in_sql.rows(DAY))
    assert beside.hashes == in_sql.hashes


def counters(run: Any) -> Any:
    manifest = DayStore(run.result.output_path).manifest(dt.date.fromisoformat(DAY))
    assert manifest is not None
    return manifest.counters


def test_what_does_not_fit_into_memory_is_joined_in_sql(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_of(tmp_path, 1)
    expected = project.run("s", [DAY], output_root=str(tmp_path / "beside")).hashes
    monkeypatch.setattr(day_lookups, "_SHARE", 0)
    dropped = []
    monkeypatch.setattr(
        day_lookups.LookupStream,
        "drop",
        lambda self, drop=day_lookups.LookupStream.drop: (dropped.append(1), drop(self)),
    )
    assert project.run("s", [DAY], output_root=str(tmp_path / "sql")).hashes == expected
    assert dropped == [1]


NEWEST: dict[str, Any] = SERVICE | {
    "views": [
        {"view": "profile"},
        {"view": "pair"},
        {"view": "profile", "alias": "friend", "join": "asof", "on": {"friend_id": "user_id"}},
        {"view": "place"},
        {"view": "plain"},
    ],
    "derived": [
        {"name": "sum", "sql": "coalesce(level, 0) + coalesce(friend__level, 0) + coalesce(score, 0)"},
        {"name": "above", "sql": "score > 0.4"},
        {"name": "lacks", "sql": "lacking IS NULL"},
    ],
    "curation": [{"name": "c", "column": "level", "sql": "CASE WHEN size = 1 THEN 10 ELSE level END"}],
    "content_filter": [
        {"name": "f", "sql": "name IS DISTINCT FROM 'bb'"},
        {"name": "g", "sql": "note IS DISTINCT FROM 'dropped'"},
    ],
    "session_column": "place_id",
    "columns": [
        *(column for column in SERVICE["columns"] if column != "events:seq"),
        "events:at",
        {"ref": "events:seq", "default": 1},
        "plain:note",
        "derived:sum",
        "derived:above",
        "derived:lacks",
    ],
}
COUNTED = {
    "aggregation_specs": [
        {"name": "n", "group_by": ["user_id"], "operation": "count", "window_days": 2},
        {"name": "m", "group_by": ["user_id"], "value_column": "seq", "operation": "last", "window_days": 9},
    ],
}


@pytest.mark.parametrize(
    ("seed", "aggregates", "slice_rows"),
    [(0, "none", 7), (1, "passed on", 10_000), (2, "read", 10_000), (3, "passed on", 7), (4, "none", 10_000)],
)
def test_newest_rows_and_what_sql_reads_are_those_of_sql(
    seed: int, aggregates: str, slice_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = NEWEST
    if aggregates != "none":
        service = service | COUNTED | {"columns": [*service["columns"], "rolling:n", "rolling:m"]}
    if aggregates == "read":
        derived = [*service["derived"], {"name": "d", "sql": "n + score"}]
        service = service | {"derived": derived, "columns": [*service["columns"], "derived:d"]}
    project = project_of(tmp_path, seed, service)
    monkeypatch.setattr(day_lookups, "_SLICE_ROWS", slice_rows)
    monkeypatch.setattr(lookup_order, "_MORE", -9 if seed % 2 else 9)
    monkeypatch.setattr(lookup_versions, "_MANY", 0 if slice_rows == 7 else 1_000)
    read = project.run("s", [DAY], output_root=str(tmp_path / "read"))
    assert read_by_sql(project) == {"join_profile", "join_friend", "join_pair", "join_place", "join_plain"}
    plan_of = LookupPlan.of
    monkeypatch.setattr(LookupPlan, "of", lambda *given, **_: plan_of(*given, held=False))
    assert read_by_sql(project) == set()
    passed_on = project.run("s", [DAY], output_root=str(tmp_path / "passed_on"))
    monkeypatch.setattr(LookupPlan, "of", lambda *_, **__: None)
    in_sql = project.run("s", [DAY], output_root=str(tmp_path / "sql"))
    assert in_sql.rows(DAY)
    for other in (read, passed_on):
        assert repr(other.rows(DAY)) == repr(in_sql.rows(DAY))  # qid, too, which no hash holds
        assert other.hashes == in_sql.hashes
        assert counters(other) == counters(in_sql)


@pytest.mark.parametrize("aggregates", [False, True])
def test_held_rows_are_joined_in_slices(
    aggregates: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = NEWEST
    if aggregates:
        service = service | COUNTED | {"columns": [*service["columns"], "rolling:n"]}
    project = project_of(tmp_path, 6, service)
    expected = project.run("s", [DAY], output_root=str(tmp_path / "beside"))
    monkeypatch.setattr(lookup_plan, "_is_of_newest", lambda *_: False)
    monkeypatch.setattr(day_stream, "SLICE_ROWS", 5)
    assert read_by_sql(project) == {"join_friend"}
    found = project.run("s", [DAY], output_root=str(tmp_path / "joined"))
    assert repr(found.rows(DAY)) == repr(expected.rows(DAY))
    assert found.hashes == expected.hashes
    assert counters(found) == counters(expected)


@pytest.mark.parametrize(("seed", "filters"), [(1, 0), (3, 1), (7, 2), (9, 2)])
def test_rows_of_a_large_day_are_held_slice_by_slice(
    seed: int, filters: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = NEWEST | COUNTED | {"columns": [*NEWEST["columns"], "rolling:n", "rolling:m"]}
    service |= {"content_filter": NEWEST["content_filter"][:filters]}
    project = project_of(tmp_path, seed, service)
    expected = project.run("s", [DAY], output_root=str(tmp_path / "whole"))
    slices = counted_calls(monkeypatch, day_lookups.LookupStream, "_begin_with")
    monkeypatch.setattr(day_lookups.LookupStream, "_may_fit", lambda *_: False)
    monkeypatch.setattr(day_stream, "SLICE_ROWS", 4)
    monkeypatch.setattr(lookup_order, "_MORE", -9 if filters else 9)
    found = project.run("s", [DAY], output_root=str(tmp_path / "slices"))
    assert len(slices) > 2
    assert repr(found.rows(DAY)) == repr(expected.rows(DAY))
    assert found.hashes == expected.hashes
    assert counters(found) == counters(expected)


def test_a_large_day_whose_keys_do_not_fit_is_joined_in_sql(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = NEWEST | COUNTED | {"columns": [*NEWEST["columns"], "rolling:n"]}
    project = project_of(tmp_path, 3, service)
    expected = project.run("s", [DAY], output_root=str(tmp_path / "whole"))
    slices = counted_calls(monkeypatch, day_lookups.LookupStream, "_begin_with")
    monkeypatch.setattr(day_lookups.LookupStream, "_may_fit", lambda *_: False)
    monkeypatch.setattr(day_lookups, "_SHARE", 1e-9)
    found = project.run("s", [DAY], output_root=str(tmp_path / "sql"))
    assert not slices
    assert found.hashes == expected.hashes
    assert counters(found) == counters(expected)


def counted_calls(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[int]:
    """Rows of the first argument of every call from now on."""
    calls: list[int] = []
    original = getattr(owner, name)

    def counting(self: object, rows: pa.Table) -> object:
        calls.append(rows.num_rows)
        return original(self, rows)

    monkeypatch.setattr(owner, name, counting)
    return calls


def read_by_sql(project: Project) -> set[str]:
    plan = LookupPlan.of(project.pipeline("s"), project.catalog(project.config()))
    return set() if plan is None else {lookup.operator.name for lookup in plan.lookups if lookup.read}


def test_rows_that_do_not_fit_into_memory_are_joined_in_sql(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_of(tmp_path, 1, NEWEST)
    expected = project.run("s", [DAY], output_root=str(tmp_path / "beside")).hashes
    monkeypatch.setattr(day_lookups.LookupStream, "_may_fit", lambda *_: False)
    dropped = []
    monkeypatch.setattr(
        day_lookups.LookupStream,
        "drop",
        lambda self, drop=day_lookups.LookupStream.drop: (dropped.append(1), drop(self)),
    )
    assert project.run("s", [DAY], output_root=str(tmp_path / "sql")).hashes == expected
    assert dropped == [1]


def planned(project: Project) -> set[str]:
    plan = LookupPlan.of(project.pipeline("s"), project.catalog(project.config()), held=False)
    return set() if plan is None else {lookup.operator.name for lookup in plan.lookups}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {"join_profile", "join_pair", "join_friend", "join_place"}),
        ({"derived": [{"name": "d", "sql": "score + 1"}]}, {"join_profile", "join_friend", "join_place"}),
        (
            {"content_filter": [{"name": "f", "sql": "friend__level > 0"}]},
            {"join_profile", "join_pair", "join_place"},
        ),
        (
            {"curation": [{"name": "c", "column": "score", "sql": "0.0"}]},
            {"join_profile", "join_friend", "join_place"},
        ),
    ],
    ids=["passed on", "derived from", "filtered by", "rewritten"],
)
def test_only_what_is_just_passed_on_is_set_beside(
    change: dict[str, Any], expected: set[str], tmp_path: Path
) -> None:
    extra = ["derived:d"] if "derived" in change else []
    service = SERVICE | change | {"columns": [*SERVICE["columns"], *extra]}
    assert planned(project_of(tmp_path, 0, service)) == expected


def test_values_that_are_cast_are_joined_in_sql(tmp_path: Path) -> None:
    columns = [one for one in SERVICE["columns"] if one != "pair:score"]
    cast = {"ref": "pair:score", "dtype": "FLOAT"}
    project = project_of(tmp_path, 0, SERVICE | {"columns": [*columns, cast]})
    assert planned(project) == {"join_profile", "join_friend", "join_place"}


@pytest.mark.parametrize("where", ["events", "profile"])
def test_a_value_that_does_not_fit_late_in_a_stream_is_told(where: str, tmp_path: Path) -> None:
    count = 300_000
    data = {
        name: pa.table(
            {
                "at": times([START] * count),
                "user_id": range(count),
                "artwork_id": [1] * count,
                "level": pa.array([1] * (count - 1) + [2**31 if name == where else 1]),
            }
        )
        for name in ("events", "profile")
    }
    project = write_project(
        tmp_path,
        views=[
            view("events", ["user", "artwork"], {"level": "INTEGER"}),
            view("profile", "user", {"level": "INTEGER"}),
        ],
        services=[
            SERVICE
            | {
                "views": [{"view": "profile", "join": "asof"}],
                "columns": ["events:level", {"ref": "profile:level", "name": "of_profile"}],
            }
        ],
        data={f"{name}/a.parquet": table for name, table in data.items()},
    )
    with pytest.raises(SourceError, match=rf"view {where} .*column level.*2147483648"):
        project.run("s", [DAY])


def test_rows_of_a_large_day_whose_lookups_nothing_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed_on = [{"view": "place"}, {"view": "plain"}]
    columns = ["events:user_id", "events:seq", "place:size", "plain:note", "rolling:n", "rolling:m"]
    service = {"name": "s", "version": SERVICE["version"], "session_column": "place_id"} | COUNTED
    service |= {"spine": SERVICE["spine"], "views": passed_on, "columns": columns}
    project = project_of(tmp_path, 2, service)
    plan = LookupPlan.of(project.pipeline("s"), project.catalog(project.config()))
    assert plan is not None
    assert plan.needs_held
    assert not plan.reads
    expected = project.run("s", [DAY], output_root=str(tmp_path / "whole"))
    monkeypatch.setattr(day_lookups.LookupStream, "_may_fit", lambda *_: False)
    monkeypatch.setattr(day_stream, "SLICE_ROWS", 4)
    found = project.run("s", [DAY], output_root=str(tmp_path / "slices"))
    assert repr(found.rows(DAY)) == repr(expected.rows(DAY))
    assert found.hashes == expected.hashes
    assert counters(found) == counters(expected)


@pytest.mark.parametrize(("rows", "sizes"), [(0, [0]), (1, [1]), (4, [4]), (5, [4, 1]), (9, [4, 4, 1])])
def test_slices_have_all_rows_in_order(rows: int, sizes: list[int]) -> None:
    with duckdb.connect() as connection:
        graph = RelationGraph(connection)
        graph.define("r", f"SELECT 100 - i AS __row, i % 3 AS a, i AS __t FROM range({rows}) AS t(i)", ())
        graph.keep("r")
        found = list(RowSlices(graph, "r", 4))
        assert [table.num_rows for table in found] == sizes
        assert pa.concat_tables(found)["__row"].to_pylist() == sorted(100 - i for i in range(rows))
        numbered = RowSlices(graph, "r", 4).keys(("a",), 1 << 20)
        assert sorted(numbered.distinct["k0"].to_pylist()) == sorted({i % 3 for i in range(rows)})


def test_keys_of_several_columns_are_found_again() -> None:
    parts = [pa.array(["x", "y", "x", "z"]), pa.array([1, 1, 2, 9])]
    keys = Keys(parts)
    asked = pa.table({"a": ["z", "x", None, "x", "x", "y"], "b": [9, 2, 1, None, 1, 1]})
    assert keys.codes(asked.columns).tolist() == [3, 2, -1, -1, 0, 1]


def test_a_large_day_of_which_no_row_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = NEWEST | COUNTED | {"columns": [*NEWEST["columns"], "rolling:n"]}
    service |= {"content_filter": [{"name": "none", "sql": "level IS NULL AND level IS NOT NULL"}]}
    project = project_of(tmp_path, 3, service)
    monkeypatch.setattr(day_lookups.LookupStream, "_may_fit", lambda *_: False)
    monkeypatch.setattr(day_stream, "SLICE_ROWS", 4)
    assert project.run("s", [DAY], output_root=str(tmp_path / "slices")).rows(DAY) == []
