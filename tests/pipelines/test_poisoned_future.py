"""No change at or after an instant changes what rows before it, or at it, know.

The cut lies inside the target day. Events from the cut on are added, changed and removed, view versions from the
cut on likewise; the rows that both runs have, up to and including the cut's own, keep every rolling, asof,
lookback, cumulative and age value. Latest joins, qid and the session filter are excluded by nature.
"""

from __future__ import annotations

import datetime as dt
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from support.pixai import make_project
from support.project import ENGINES, Project

if TYPE_CHECKING:
    from pathlib import Path

DAY = "2026-05-03"
CUTS = ("2026-05-03 00:00:00", "2026-05-03 11:30:00")
SERVICES = ("dssm_ranking", "xgb_reranker")
#: Source to its time column.
VERSIONED = {
    "user_profile": "updated_at",
    "artwork_properties": "updated_at",
    "artwork_generation": "updated_at_ms",
    "artwork_aesthetic": "scored_at",
    "artwork_vector": "scored_at",
}


def _project(root: Path) -> Project:
    """The demo with every view joined as of the event, no session filter, and the cut's own rows tied."""
    make_project(root, events=4_000)
    for service in SERVICES:
        path = root / "feature_services" / f"{service}.yaml"
        body = yaml.safe_load(path.read_text().replace("on: {", "'on': {"))
        body.pop("session_filter", None)
        for join in body["views"]:
            join["join"] = "latest" if join["view"] == "artwork_tack" else "asof"  # tacks have no versions
        body["columns"].insert(0, "feed_events:feed_seq")  # tells rows apart
        path.write_text(yaml.safe_dump(body, sort_keys=False))
    return Project(root, {"embedding_coverage_filter": {"enabled": False}})


def _read(folder: Path) -> pa.Table:
    tables = [pq.ParquetFile(path).read() for path in sorted(folder.rglob("*.parquet"))]
    return pa.concat_tables(tables).combine_chunks()


def _ticks(column: pa.ChunkedArray) -> list[int]:
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us")).cast(pa.int64()).to_pylist()
    return [value * 1000 for value in column.to_pylist()]


def _replace(folder: Path, table: pa.Table) -> None:
    for path in sorted(folder.rglob("*.parquet")):
        path.unlink()
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / "poisoned.parquet")


def _poison(root: Path, cut: int, seed: int) -> None:
    """From the cut on: a third of the rows removed, a third changed, and new rows added."""
    chance = random.Random(seed)
    data = root / "data"
    for source, time in {"feed_events": "event_timestamp", **VERSIONED}.items():
        table = _read(data / source)
        before = [tick < cut for tick in _ticks(table[time])]
        past, future = table.filter(pa.array(before)), table.filter(pa.array([not one for one in before]))
        order = list(range(future.num_rows))
        chance.shuffle(order)
        third = -(-len(order) // 3)
        kept, changed = future.take(order[:third]), future.take(order[third : 2 * third])
        # Every past row again, in the future: whatever looks ahead meets a different newest value.
        echo = past.take(sorted(chance.sample(range(past.num_rows), min(500, past.num_rows))))
        shifted = _at(
            echo, time, [cut + chance.randrange(0, 3 * 3_600_000_000) for _ in range(echo.num_rows)]
        )
        if source == "artwork_properties":  # also read as publications, whose time is created_at
            created = shifted["updated_at"].combine_chunks()
            place = shifted.schema.get_field_index("created_at")
            published = shifted.set_column(place, shifted.schema.field("created_at"), created)
            shifted = pa.concat_tables([shifted, _scrambled(published, chance, "author_id")])
        _replace(data / source, pa.concat_tables([past, kept, _scrambled(changed, chance), shifted]))


def _at(table: pa.Table, time: str, instants: list[int]) -> pa.Table:
    kind = table.schema.field(time).type
    if pa.types.is_timestamp(kind):
        values = pa.array(instants, pa.int64()).cast(pa.timestamp("us")).cast(kind)
    else:
        values = pa.array([instant // 1000 for instant in instants], kind)
    return table.set_column(table.schema.get_field_index(time), table.schema.field(time), values)


def _scrambled(table: pa.Table, chance: random.Random, *also: str) -> pa.Table:
    """Values moved among the rows, keys and times left: every row says something else."""
    order = list(range(table.num_rows))
    chance.shuffle(order)
    fixed = {"user_id", "artwork_id", "id", "event_timestamp", "feed_seq", *VERSIONED.values()}
    fixed |= {"created_at", "author_id"} - set(also)  # what a publication says
    columns = {
        name: table[name] if name in fixed else table[name].take(pa.array(order, pa.int64()))
        for name in table.column_names
    }
    return pa.table(columns, schema=table.schema)


def _rows(table: pa.Table, cut: int) -> Counter[str]:
    """The rows before the cut, without what the law excludes, as texts."""
    keep = pc.less(table["event_timestamp"].cast(pa.int64()), cut)
    return Counter(map(repr, table.filter(keep).drop_columns("qid").to_pylist()))


def _microseconds(text: str) -> int:
    return round(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp() * 1_000_000)


def _compare(root: Path, service: str, cut_text: str, **options: Any) -> None:
    cut = _microseconds(cut_text)
    project = _project(root)
    clean = project.run(service, [DAY], output_root=str(root / "clean"), **options).table(DAY)
    _poison(root, cut, 11)
    poisoned = project.run(service, [DAY], output_root=str(root / "poisoned"), **options).table(DAY)
    expected = _rows(clean, cut)
    assert _rows(poisoned, cut) == expected
    later = pc.greater_equal(clean["event_timestamp"].cast(pa.int64()), cut)
    assert Counter(map(repr, clean.filter(later).to_pylist())) != Counter(
        map(
            repr,
            poisoned.filter(pc.greater_equal(poisoned["event_timestamp"].cast(pa.int64()), cut)).to_pylist(),
        )
    ), "the poison changed nothing at all"


def test_rows_before_the_cut_keep_every_value(tmp_path: Path) -> None:
    _compare(tmp_path, "dssm_ranking", CUTS[1])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("service", SERVICES)
def test_rows_before_the_cut_keep_every_value_on_every_engine(
    tmp_path: Path, service: str, engine: str
) -> None:
    _compare(tmp_path, service, CUTS[1], engine=engine)


# ---------------------------------------------------------------------- rows at the cut itself


def _untouched(root: Path, cut: int) -> None:
    """Poison everything at or after the cut but the events of the cut's own instant, which stay as they are."""
    data = root / "data"
    events = _read(data / "feed_events")
    own = pc.equal(events["event_timestamp"].cast(pa.int64()), cut)
    _poison(root, cut, 5)
    poisoned = _read(data / "feed_events")
    others = pc.invert(
        pc.is_in(poisoned["feed_seq"], value_set=events.filter(own)["feed_seq"].combine_chunks())
    )
    _replace(data / "feed_events", pa.concat_tables([poisoned.filter(others), events.filter(own)]))


@pytest.mark.parametrize("service", SERVICES)
def test_rows_at_the_cut_do_not_see_what_happens_at_it(tmp_path: Path, service: str) -> None:
    project = _project(tmp_path)
    events = _read(tmp_path / "data" / "feed_events")
    times = Counter(events["event_timestamp"].cast(pa.int64()).to_pylist())
    inside = [(count, time) for time, count in times.items() if time >= _microseconds("2026-05-03 06:00:00")]
    cut = max(inside)[1]  # the instant with the most events: a page of impressions
    own = set(
        events.filter(pc.equal(events["event_timestamp"].cast(pa.int64()), cut))["feed_seq"].to_pylist()
    )

    def rows_at(table: pa.Table) -> dict[str, Any]:
        chosen = [
            row
            for row in table.drop_columns("qid").to_pylist()
            if row["feed_seq"] in own and row["event_timestamp"] == _instant(cut)
        ]
        return {
            f"{row['feed_seq']} {row['user_id']} {row['artwork_id']} {row['event']}": row for row in chosen
        }

    clean = rows_at(project.run(service, [DAY], output_root=str(tmp_path / "clean")).table(DAY))
    _untouched(tmp_path, cut)
    poisoned = rows_at(project.run(service, [DAY], output_root=str(tmp_path / "poisoned")).table(DAY))
    assert clean
    shared = clean.keys() & poisoned.keys()
    assert shared
    assert {key: poisoned[key] for key in shared} == {key: clean[key] for key in shared}


def _instant(microseconds: int) -> dt.datetime:
    return dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=microseconds)  # noqa: DTZ001 - as Arrow gives it


# ---------------------------------------------------------------------- what the law excludes is seen to change


def test_a_latest_join_does_change_and_is_reported(tmp_path: Path) -> None:
    make_project(tmp_path, events=4_000)
    project = Project(tmp_path, {"embedding_coverage_filter": {"enabled": False}})
    first = project.run("xgb_reranker", [DAY], output_root=str(tmp_path / "clean"))
    cut = _microseconds(CUTS[0])
    events = _read(tmp_path / "data" / "feed_events")
    _poison(tmp_path, cut, 3)
    _replace(tmp_path / "data" / "feed_events", events)
    second = project.run("xgb_reranker", [DAY], output_root=str(tmp_path / "poisoned"))
    assert first.table(DAY).num_rows == second.table(DAY).num_rows
    changed = {
        name for name in first.table(DAY).column_names if first.table(DAY)[name] != second.table(DAY)[name]
    }
    assert "show_nsfw" in changed  # of user_profile, joined as `latest` here
    assert not [name for name in changed if name.startswith(("like_", "click_", "seconds_"))]
    assert any("user_profile" in notice for notice in first.result.notices)
