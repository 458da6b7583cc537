"""A service as of a time: its rows are what the skeleton writes for an event of that instant, and the oracle's."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import signal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from daedalus.errors import DefinitionError, ExecutionError
from daedalus.metadata.days import InstantStore
from daedalus.pipelines.operators import SinkFormat
from daedalus.pipelines.publish import open_sink
from daedalus.storage.sinks.tables import Partition
from pipelines.golden_data import COVERED as GOLDEN_COVERED
from pipelines.golden_data import DAY, EVENTS, VIEW, at, golden_project, tables
from pipelines.materializing import materialize, materialize_and_die, rows_of, without_embeddings
from pipelines.test_parity import COVERED, SERVICES, _same
from pipelines.test_random_projects import View, World
from pipelines.tiny import EVENTS as VIEW_OF_EVENTS
from pipelines.tiny import ROWS, events, tiny
from support.day_oracle import DAY_US, DayOracle, Row
from support.pixai import make_project
from support.project import ENGINES, Project

if TYPE_CHECKING:
    from pathlib import Path


KEYS = ("user_id", "artwork_id")


# ------------------------------------------------------------------ what the skeleton writes at that instant


def seen_by(instant: dt.datetime) -> list[tuple[Any, ...]]:
    """The newest event of each (user, artwork) up to the instant that the coverage filter keeps."""
    newest: dict[tuple[int, int], tuple[Any, ...]] = {}
    for event in EVENTS:
        when, covered = at(event[1]), event[4] != VIEW or event[3] in GOLDEN_COVERED
        if when is not None and when <= instant and covered:
            newest[event[2], event[3]] = event
    return [newest[key] for key in sorted(newest)]


def as_it_stood(root: Path, instant: dt.datetime, probes: list[tuple[Any, ...]]) -> Project:
    """The golden project when nothing later had happened, with one event per entity at the instant."""
    project = golden_project(root)
    moment = pa.scalar(instant, pa.timestamp("us"))
    for path, table in tables().items():
        time = next((name for name in ("event_timestamp", "updated_at") if name in table.column_names), None)
        if time is not None:
            table = table.filter(pc.less_equal(table[time], moment))
        project.write(path, table)
    schema = tables()["feed_events/a.parquet"].schema
    rows = [
        (1000 + number, instant, user, artwork, event, session, platform, position)
        for number, (_, _, user, artwork, event, session, platform, position) in enumerate(probes)
    ]
    project.write(
        "feed_events/c.parquet",
        pa.table(
            [pa.array(one, kind) for one, kind in zip(zip(*rows, strict=True), schema.types, strict=True)],
            schema=schema,
        ),
    )
    service = root / "feature_services" / "golden.yaml"
    service.write_text(
        service.read_text()
        .replace("drop_view_only: true", "drop_view_only: false")
        .replace("drop_single_like: true", "drop_single_like: false")
    )
    return project


@pytest.mark.parametrize(("time", "engine"), [("05-10 12:10", "duckdb"), ("05-10 23:30", "kernel")])
def test_every_value_is_what_the_skeleton_writes_for_an_event_of_that_instant(tmp_path, time, engine):
    instant = at(time)
    probes = seen_by(instant)
    skeleton = as_it_stood(tmp_path / "then", instant, probes).run("golden", [DAY], engine=engine).table(DAY)
    there = skeleton.filter(pc.equal(skeleton["event_timestamp"], pa.scalar(instant, pa.timestamp("us"))))
    expected = sorted(there.drop_columns("qid").to_pylist(), key=lambda row: [row[key] for key in KEYS])
    project = golden_project(tmp_path / "now")  # the future is there
    pipeline = without_embeddings(project.pipeline("golden", engine=engine))
    result = materialize(project, "golden", instant.isoformat(), pipeline=pipeline)
    assert rows_of(result).to_pylist() == expected
    # Artwork 15 is dropped by the content filter, everything else that was seen is there.
    assert [(row["user_id"], row["artwork_id"]) for row in expected] == [
        (event[2], event[3]) for event in probes if event[3] != 15
    ]
    assert result.keys == KEYS
    assert result.as_of == f"{instant.isoformat()}Z"


class AsOfOracle(DayOracle):
    """One row per entity at an instant, in microseconds since 1970."""

    def __init__(self, root: Path, service: str, instant: int) -> None:
        super().__init__(root, service, dt.date(1970, 1, 1) + dt.timedelta(days=instant // DAY_US), COVERED)
        self.instant = instant

    def _in_kept_sessions(self) -> list[Row]:
        newest: dict[tuple[Any, ...], Row] = {}
        for row in self.history:
            if row["__t"] <= self.instant and None not in (row[key] for key in KEYS):
                newest[tuple(row[key] for key in KEYS)] = row
        spine = self.view(self.service["spine"])
        rows = [{name: newest[key][name] for name in spine.fields} for key in sorted(newest)]
        for row in rows:
            row["__t"] = row[spine.definition["source"]["timestamp_field"]] = self.instant
            for ref in self.service.get("static_columns", []):
                view, column = ref.split(":")
                row.update(self.looked_up(view, row, [column]))
        return rows

    def looked_up(self, name: str, row: Row, fields: list[str]) -> Row:
        view = self.view(name)
        join = next(join for join in self.service["views"] if join["view"] == name)
        if join.get("join", "latest") == "asof" or not view.definition["source"].get("timestamp_field"):
            return super().looked_up(name, row, fields)
        versions = view.by_key.get(tuple(row[column] for column in view.keys), [])
        known = [
            one for one in versions if one["__t"] is not None and one["__t"] <= self.instant - view.delay_us
        ]
        found = known[-1] if known else None
        if found is not None and view.ttl_us is not None and found["__t"] < row["__t"] - view.ttl_us:
            found = None
        return {field: None if found is None else found[field] for field in fields}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(make_project(tmp_path_factory.mktemp("demo"), events=2_000))
    project.write("covered.parquet", pa.table({"artwork_id": sorted(COVERED)}))
    return project


@pytest.mark.slow
@pytest.mark.parametrize("service", SERVICES)
def test_the_demo_services_are_the_oracle_s(demo: Project, service: str) -> None:
    overrides = {"embedding_coverage_filter": {"store": None, "id_relation": "data/covered.parquet"}}
    pipeline = without_embeddings(demo.pipeline(service, **overrides))
    result = materialize(demo, service, "2026-05-03T10:30:00.123", pipeline=pipeline, overrides=overrides)
    instant = dt.datetime.fromisoformat(result.as_of.rstrip("Z")).replace(tzinfo=dt.UTC)
    expected = AsOfOracle(demo.root, service, round(instant.timestamp() * 1e6)).columns
    table = rows_of(result)
    assert table.column_names == list(expected)
    assert table.num_rows > 100
    for name, want in expected.items():
        column = table[name].cast(pa.int64()) if pa.types.is_timestamp(table[name].type) else table[name]
        wrong = [
            pair
            for pair in zip(column.to_pylist(), want, strict=True)
            if not _same(*pair, close=name.startswith("mean_"))
        ]
        assert not wrong, f"{name}: {len(wrong)} rows differ, first (got, expected): {wrong[0]}"


# ------------------------------------------------------------------ random projects


@dataclasses.dataclass
class ViewAsOf(View):
    """A random view of which a `latest` join sees what is visible at an instant."""

    instant: int = 0

    def found(self, row: Row, on: list[str], join: str) -> Row:
        if join != "latest":
            return super().found(row, on, join)
        return dataclasses.replace(self, rows=[one for one in self.rows if self._visible(one)])._newest(
            row, on
        )

    def _newest(self, row: Row, on: list[str]) -> Row:
        return super().found(row, on, "latest")

    def _visible(self, version: Row) -> bool:
        arrived = version["t"] is not None and version["t"] <= self.instant - round(self.delay * 1_000_000)
        known = not self.created or (version["made"] is not None and version["made"] <= self.instant)
        return arrived and known


def check_random_project(seed: int, root: Path) -> None:
    world = World(seed)
    instant = world.random.choice([*world.shared, world.start, world.start + DAY_US - 1_000_000])
    for name in ("people", "things", "pairs"):
        view = getattr(world, name)
        fields = {field.name: getattr(view, field.name) for field in dataclasses.fields(view)}
        setattr(world, name, ViewAsOf(**fields, instant=instant))
    newest: dict[tuple[str, int], Row] = {}
    for row in world.spine.ordered():
        if row["t"] is not None and row["t"] <= instant and None not in (row["who"], row["what"]):
            newest[row["who"], row["what"]] = row | {"t": instant}
    expected = [world._trained(newest[key], world.spine.ordered()) for key in sorted(newest)]
    project = world.write(root)
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=instant)
    overrides = {"engine": ENGINES[seed % len(ENGINES)]}
    if not expected:
        with pytest.raises(ExecutionError, match="no entity"):
            materialize(project, "s", moment.isoformat(), overrides=overrides)
        return
    result = materialize(project, "s", moment.isoformat(), overrides=overrides)
    assert rows_of(result).to_pylist() == expected


@pytest.mark.parametrize("seed", range(6))
def test_random_projects(seed: int, tmp_path: Path) -> None:
    check_random_project(seed, tmp_path)


# ------------------------------------------------------------------ formats, entities, embeddings

INSTANT = "2026-05-02T08:30:00"


def test_every_format_holds_the_same_rows_and_a_second_time_replaces_them(tmp_path):
    project = tiny(tmp_path)
    parquet = materialize(project, "s", INSTANT)
    for format_ in (SinkFormat.DUCKDB, SinkFormat.DUCKLAKE):
        first = materialize(project, "s", INSTANT, format=format_, run_id="one")
        again = materialize(project, "s", INSTANT, format=format_, run_id="two")
        assert {first.content_hash, again.content_hash} == {parquet.content_hash}
        assert (first.table, first.run_id) == ("s.features", "one")
        assert (again.snapshot is not None) == (format_ is SinkFormat.DUCKLAKE)
        part = Partition(column="as_of", dtype="TIMESTAMP", value=INSTANT)
        with open_sink(format_, "s", project.config(), table="features") as sink:
            rows = sink.connection.execute(sink.rows_sql(part)).to_arrow_table()
            assert rows.to_pylist() == rows_of(parquet).to_pylist()
            assert sink.partitions() == [INSTANT.replace("T", " ")]
    assert materialize(project, "s", INSTANT).content_hash == parquet.content_hash
    store = InstantStore(tmp_path / "out" / "s" / "materialized")
    assert store.instants() == [dt.datetime.fromisoformat(INSTANT)]
    assert not list(store.root.glob(".staging*"))
    # An absent optional column is its default, as in training.
    assert set(rows_of(parquet)["score"].to_pylist()) == {3}


@pytest.mark.parametrize(
    ("format_", "output", "what"),
    [
        (SinkFormat.PARQUET, "s3://bucket/rows", "a Parquet materialization is a local folder"),
        (SinkFormat.DUCKDB, "s3://bucket/rows.duckdb", "a DuckDB file is a local path, found s3:"),
        (SinkFormat.DUCKLAKE, "postgres://me:pw-Xk29f8q1@db/lake", "a credential in the place of a sink"),
    ],
)
def test_a_place_that_rows_cannot_be_written_to_is_refused(tmp_path, monkeypatch, format_, output, what):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DefinitionError, match=what) as caught:
        materialize(tiny(tmp_path), "s", INSTANT, format=format_, output=output)
    assert "pw-Xk29f8q1" not in str(caught.value)
    assert not list(tmp_path.glob("s3*"))
    assert not (tmp_path / "out").exists()


def test_rows_can_be_asked_for(tmp_path):
    asked = pa.table({"artwork_id": [99, 11, 11], "user_id": [1, 1, 1], "more": [1, 2, 3]})
    result = materialize(tiny(tmp_path), "s", INSTANT, entities=asked)
    assert rows_of(result).select(["user_id", "artwork_id", "event", "tier", "liked"]).to_pylist() == [
        {"user_id": 1, "artwork_id": 11, "event": "view", "tier": "free", "liked": [10, 12]},
        # Never seen: only what belongs to the user is known.
        {"user_id": 1, "artwork_id": 99, "event": None, "tier": "free", "liked": [10, 12]},
    ]
    with pytest.raises(DefinitionError, match="lack the key 'artwork_id'"):
        materialize(tiny(tmp_path), "s", INSTANT, entities=asked.drop_columns("artwork_id"))


@pytest.mark.parametrize("dtype", ["TIMESTAMP_S", "TIMESTAMP_MS"])
def test_a_spine_of_coarse_times_beside_a_view_of_nanoseconds(tmp_path, dtype):
    kind = pa.timestamp("s" if dtype == "TIMESTAMP_S" else "ms")
    data = {}
    for day, rows in ROWS.items():
        table = events(rows)
        data[f"events/{day}.parquet"] = table.set_column(1, "ts", table["ts"].cast(kind))
    project = tiny(
        tmp_path,
        events_view={"fields": [*VIEW_OF_EVENTS["fields"], {"name": "ts", "dtype": dtype}]},
        users_view={
            "fields": [{"name": "tier", "dtype": "TEXT"}, {"name": "updated_at", "dtype": "TIMESTAMP_NS"}]
        },
        data=data,
    )
    result = materialize(project, "s", "2026-05-02T08:45:00.300")
    rows = rows_of(result)
    assert rows["tier"].to_pylist() == ["pro", "pro", "pro", None]
    shown = "08:45:00" if dtype == "TIMESTAMP_S" else "08:45:00.300"
    assert {str(one) for one in rows["ts"].cast(pa.timestamp("ms")).to_pylist()} == {
        str(dt.datetime.fromisoformat(f"2026-05-02 {shown}"))
    }


def test_embeddings_are_filled(tmp_path):
    from support.embeddings import make_store, vectors_of

    project = golden_project(tmp_path, enrich_runtime="in_process")
    vectors = vectors_of([10, 11], 4)
    made = make_store(tmp_path / "built", [10, 11], vectors)
    os.rename(made.path, tmp_path / "data" / "store")
    result = materialize(project, "golden", "2026-05-09T13:00")
    found = {row["artwork_id"]: row["image_embedding"] for row in rows_of(result).to_pylist()}
    assert found[11] == vectors[1].tolist()
    assert found[12] is None
    assert dict(result.schema)["image_embedding"] == "list<item: halffloat>"


def test_the_spine_s_ttl_and_delay_decide_who_is_an_entity(tmp_path):
    late = tiny(tmp_path / "a", events_view={"delay_seconds": 3600})
    assert rows_of(materialize(late, "s", INSTANT))["artwork_id"].to_pylist() == [10, 11]
    short = tiny(tmp_path / "b", events_view={"ttl": "1h"})
    assert rows_of(materialize(short, "s", INSTANT))["artwork_id"].to_pylist() == [11, 12]


def test_a_time_before_everything_is_refused(tmp_path):
    with pytest.raises(ExecutionError, match=r"no entity \(user_id, artwork_id\) was seen up to 2020"):
        materialize(tiny(tmp_path), "s", "2020-01-01")
    assert not list((tmp_path / "out" / "s" / "materialized").glob("as_of=*"))


@pytest.mark.slow
def test_killed_before_the_move_the_earlier_rows_stay_and_leftovers_go(tmp_path):
    project = tiny(tmp_path)
    before = rows_of(materialize(project, "s", INSTANT)).to_pylist()
    assert materialize_and_die(project, "s", INSTANT, "committing") == -signal.SIGKILL
    root = tmp_path / "out" / "s" / "materialized"
    assert list(root.glob(".staging-*"))
    folder = root / f"as_of={INSTANT}"
    assert pq.ParquetFile(folder / "part-0-0.parquet").read().to_pylist() == before
    materialize(project, "s", "2026-05-02T09:30:00")
    assert not list(root.glob(".staging-*"))
    materialize(project, "s", INSTANT)
    assert not list(root.glob(".new-*"))
