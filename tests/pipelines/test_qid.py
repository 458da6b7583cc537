"""`qid`: sessions numbered once and for ever, in order, beside whatever else a run does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from daedalus.errors import ExecutionError
from daedalus.pipelines.days.qid import MAP_NAME, DenseNumbers, number_sessions
from pipelines.tiny import DAYS, EVENTS, ROWS, SERVICE, events, tiny

if TYPE_CHECKING:
    from pathlib import Path

    from support.project import Project

FIRST, SECOND, LATE = DAYS


def numbers(project: Project) -> dict[str, int]:
    """The map on disk."""
    table = pq.ParquetFile(project.root / "out" / MAP_NAME).read()
    return dict(zip(table["session"].to_pylist(), table["qid"].to_pylist(), strict=True))


def test_sessions_are_numbered_by_day_and_row(tmp_path: Path) -> None:
    project = tiny(tmp_path)
    run = project.run("s")
    # 1 May: "b" comes before "a"; 12 May: "b" is known, "d" is new
    assert numbers(project) == {"b": 0, "a": 1, "c": 2, "d": 3}
    assert [run.table(day)["qid"].to_pylist() for day in DAYS] == [[0, 1], [2, 2, None], [3, 0]]


def test_the_map_grows_and_never_renumbers(tmp_path: Path) -> None:
    project = tiny(tmp_path)
    project.run("s", [LATE])
    assert numbers(project) == {"d": 0, "b": 1}
    project.run("s", [FIRST])
    assert numbers(project) == {"d": 0, "b": 1, "a": 2}
    run = project.run("s")
    assert numbers(project) == {"d": 0, "b": 1, "a": 2, "c": 3}
    assert [run.table(day)["qid"].to_pylist() for day in DAYS] == [[1, 2], [3, 3, None], [0, 1]]


def test_numbers_do_not_touch_the_content_hash(tmp_path: Path) -> None:
    whole = tiny(tmp_path / "a").run("s")
    project = tiny(tmp_path / "b")
    project.run("s", [LATE])
    assert project.run("s").hashes == whole.hashes
    assert project.run("s").table(FIRST)["qid"] != whole.table(FIRST)["qid"]


def test_a_day_without_sessions(tmp_path: Path) -> None:
    rows = [(*row[:-1], None) for row in ROWS[FIRST]]
    project = tiny(tmp_path, data={f"events/{FIRST}.parquet": events(rows)})
    assert project.run("s", [FIRST]).table(FIRST)["qid"].to_pylist() == [None, None]


def test_a_feed_without_the_session_column(tmp_path: Path) -> None:
    data = {f"events/{day}.parquet": events(rows).drop_columns("session") for day, rows in ROWS.items()}
    table = tiny(tmp_path, data=data).run("s", [FIRST]).table(FIRST)
    assert table["qid"].to_pylist() == [None, None]
    assert table["qid"].type == pa.int64()


def test_a_service_without_sessions_has_no_qid(tmp_path: Path) -> None:
    project = tiny(tmp_path)
    project.define("feature_services", {key: SERVICE[key] for key in SERVICE if key != "session_column"})
    assert "qid" not in project.run("s", [FIRST]).table(FIRST).column_names
    assert not (tmp_path / "out" / MAP_NAME).exists()


def test_services_side_by_side_share_the_map(tmp_path: Path) -> None:
    project = tiny(tmp_path)
    project.define("feature_services", SERVICE | {"name": "t", "columns": ["events:event", "rolling:seen"]})
    one = project.run("s", [SECOND])
    other = project.run("t")
    assert numbers(project) == {"c": 0, "b": 1, "a": 2, "d": 3}
    assert one.table(SECOND)["qid"].to_pylist() == other.table(SECOND)["qid"].to_pylist()
    assert other.table(SECOND).column_names == ["event", "seen", "qid"]
    assert set(project.run("s", [SECOND]).states.values()) == {"up to date"}


def test_numeric_sessions_of_one_service_are_not_the_texts_of_another(tmp_path: Path) -> None:
    # "01" is a session of its own, not the other service's 1.
    texts = events(
        [(1, "2026-05-01 08:00", 1, 10, "like", "01"), (2, "2026-05-01 09:00", 1, 10, "like", "1")]
    )
    project = tiny(tmp_path, data={f"events/{FIRST}.parquet": texts})
    assert project.run("s", [FIRST]).table(FIRST)["qid"].to_pylist() == [0, 1]
    fields = [
        field | ({"dtype": "BIGINT"} if field["name"] == "session" else {}) for field in EVENTS["fields"]
    ]
    numeric = EVENTS | {"name": "numeric", "source": EVENTS["source"] | {"path": "numeric"}, "fields": fields}
    table = texts.set_column(5, "session", pa.array([1, 2], pa.int64()))
    project.write("numeric/a.parquet", table)
    project.define("feature_views", numeric)
    service = {"name": "n", "spine": "numeric", "views": [], "columns": ["numeric:event"]}
    project.define("feature_services", {**SERVICE, **service, "aggregation_specs": []})
    assert project.run("n", [FIRST]).table(FIRST)["qid"].to_pylist() == [1, 2]
    assert numbers(project) == {"01": 0, "1": 1, "2": 2}


def test_sessions_are_numbered_before_the_session_filter(tmp_path: Path) -> None:
    rules = {
        "session_column": "session",
        "event_column": "event",
        "view_events": ["view"],
        "like_events": ["like"],
        "drop_view_only": True,
    }
    project = tiny(tmp_path, service={"session_filter": rules})
    run = project.run("s")
    assert numbers(project) == {"b": 0, "a": 1, "c": 2, "d": 3}
    assert [run.table(day)["qid"].to_pylist() for day in DAYS] == [[0], [2, 2, None], [0]]


def test_a_map_that_cannot_be_read_stops_the_run(tmp_path: Path) -> None:
    project = tiny(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MAP_NAME).write_text("not Parquet")
    with pytest.raises(ExecutionError, match="session map cannot be read"):
        project.run("s")
    assert (tmp_path / "out" / MAP_NAME).read_text() == "not Parquet"


def test_number_sessions_counts_what_is_new(tmp_path: Path) -> None:
    def tables(*days: list[str | None]) -> list[pa.Table]:
        return [pa.table({"session": pa.array(day, pa.string())}) for day in days]

    assert number_sessions(tmp_path, tables(["b", "a", None, "b"], ["c", "a"])) == 3
    before = (tmp_path / MAP_NAME).stat().st_mtime_ns
    assert number_sessions(tmp_path, tables(["a"], [])) == 0
    assert (tmp_path / MAP_NAME).stat().st_mtime_ns == before
    assert number_sessions(tmp_path, tables(["z", "y"])) == 2
    table = pq.ParquetFile(tmp_path / MAP_NAME).read()
    assert table.to_pydict() == {"session": ["b", "a", "c", "z", "y"], "qid": [0, 1, 2, 3, 4]}


# ------------------------------------------------------------------ dense


def test_dense_numbers_begin_at_0_in_each_day_and_have_no_gaps(tmp_path: Path) -> None:
    run = tiny(tmp_path, dense_qid=True).run("s")
    assert [run.table(day)["qid"].to_pylist() for day in DAYS] == [[0, 1], [0, 0, None], [0, 1]]
    # The map is kept all the same: without the flag again, numbers are as if it had never been there.
    back = tiny(tmp_path).run("s")
    assert [back.table(day)["qid"].to_pylist() for day in DAYS] == [[0, 1], [2, 2, None], [3, 0]]
    assert run.hashes == back.hashes
    assert set(back.reasons.values()) == {"the pipeline changed"}


def test_dense_numbers_are_of_the_rows_that_are_left(tmp_path: Path) -> None:
    rows = [
        (number, f"2026-05-01 0{number}:00", 1, 10, kind, session)
        for number, (kind, session) in enumerate(
            [("view", "x"), ("like", "a"), ("view", "x"), ("like", "b"), ("view", "a")], start=1
        )
    ]
    rules = {
        "session_column": "session",
        "event_column": "event",
        "view_events": ["view"],
        "like_events": ["like"],
        "drop_view_only": True,
        "drop_single_like": False,
    }
    project = tiny(
        tmp_path,
        dense_qid=True,
        service={"session_filter": rules},
        data={f"events/{FIRST}.parquet": events(rows)},
    )
    assert project.run("s", [FIRST]).table(FIRST)["qid"].to_pylist() == [0, 1, 0]
    assert numbers(project) == {"x": 0, "a": 1, "b": 2}


def test_numbers_go_on_over_chunks_and_workers() -> None:
    dense = DenseNumbers()
    chunks = [[5, 5, 9], [9, None, 2], [], [7, 5]]
    got = [dense.renumber(pa.array(chunk, pa.int64())).to_pylist() for chunk in chunks]
    assert got == [[0, 0, 1], [1, None, 2], [], [3, 0]]


def test_without_the_flag_the_pipeline_says_nothing_of_it(tmp_path: Path) -> None:
    assert "qid" not in tiny(tmp_path / "a").pipeline("s").operators[-1].to_dict()
    assert tiny(tmp_path / "b", dense_qid=True).pipeline("s").operators[-1].to_dict()["qid"] == "dense"
    sessionless = {"session_column": "", "columns": SERVICE["columns"]}
    assert (
        "qid"
        not in tiny(tmp_path / "c", dense_qid=True, service=sessionless).pipeline("s").operators[-1].to_dict()
    )
