"""Two runs side by side: days by their hashes, columns by their digests, rows by their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from daedalus.platform import RunOptions
from daedalus.platform.run_diff import RunDiff, diff_runs
from pipelines.tiny import DAYS, ROWS, SERVICE, column, events

if TYPE_CHECKING:
    from records.conftest import Trained

FIRST, SECOND, LATE = DAYS


def two_runs(trained: Trained, grain: list[str] | None = None, **changes: Any) -> RunDiff:
    """Train, change the second day's events or the service, train elsewhere, compare."""
    if grain is not None:
        trained.project.define("feature_services", SERVICE | {"grain": grain})
    first = trained.train()
    if "rows" in changes:
        trained.project.write(f"events/{SECOND}.parquet", events(changes["rows"]))
    if "table" in changes:
        trained.project.write(f"events/{SECOND}.parquet", changes["table"])
    if "service" in changes:
        trained.project.define("feature_services", SERVICE | changes["service"])
    second = trained.train(options=RunOptions(overrides={"output_root": str(trained.root / "other")}))
    return diff_runs(
        trained.registry, first.run_id, second.run_id, second_root=trained.root / "other", examples=2
    )


GRAIN = ["user_id", "artwork_id", "ts"]


def test_a_changed_value_is_found_by_its_row(plain: Trained) -> None:

    found = two_runs(plain, GRAIN, table=column("event", ["view", "view", "view"], pa.string(), SECOND))
    assert found.same == 2
    (day,) = found.days
    assert (day.day, day.state, day.only_first, day.only_second) == (SECOND, "differs", 0, 0)
    named = {one.column: one for one in day.columns}
    assert set(named) == {"event", "liked"} or set(named) == {"event"}
    assert named["event"].rows == 1
    key, before, after = named["event"].examples[0]
    assert (key["artwork_id"], before, after) == (12, "like", "view")


def test_rows_that_only_one_has_are_named_by_their_key(plain: Trained) -> None:
    # The first row is gone: every row after it has another place, and the same key.
    found = two_runs(plain, GRAIN, rows=[*ROWS[SECOND][1:], (9, "2026-05-02 10:00", 2, 10, "view", "n")])
    (day,) = found.days
    assert (day.only_first, day.only_second) == (1, 1)
    assert [row["artwork_id"] for row in day.examples_first] == [11]
    assert [row["user_id"] for row in day.examples_second] == [2]
    assert all(one.column not in ("event", "score") for one in day.columns)


def test_without_a_grain_rows_are_compared_by_place(plain: Trained) -> None:
    found = two_runs(plain, rows=ROWS[SECOND][:2])
    (day,) = found.days
    assert day.rows == (3, 2)
    assert (day.only_first, day.only_second) == (1, 0)


def test_columns_that_only_one_has_and_other_types(plain: Trained) -> None:
    columns = [one for one in SERVICE["columns"] if one != "rolling:seen"]
    changed = [
        {"ref": "events:score", "default": 3, "dtype": "BIGINT"} if isinstance(one, dict) else one
        for one in columns
    ]
    found = two_runs(plain, service={"columns": changed})
    assert found.same == 0
    notes = {one.column: one.note for one in found.days[0].columns}
    assert notes == {"seen": "only the first run has it", "score": "its type was int32, is int64"}


def test_a_replaced_day_is_compared_by_its_statistics(plain: Trained) -> None:

    first = plain.train()
    plain.project.write(f"events/{SECOND}.parquet", column("artwork_id", [1, 2, None], pa.int64(), SECOND))
    second = plain.train()  # over the first one's days
    found = diff_runs(plain.registry, first.run_id, second.run_id)
    (day,) = found.days
    assert "holds another version" in day.note
    named = {one.column: one.note for one in day.columns}
    assert "nulls 0 to 1" in named["artwork_id"]
    assert "min 10 to 1" in named["artwork_id"]
    assert "event" not in named


def test_days_that_only_one_has(plain: Trained) -> None:
    first = plain.train()
    (plain.root / f"data/events/{LATE}.parquet").unlink()
    second = plain.train()
    found = diff_runs(plain.registry, first.run_id, second.run_id)
    assert [(day.day, day.state, day.rows) for day in found.days] == [(LATE, "only first", (2, 0))]
    assert found.to_dict()["days"][0]["day"] == LATE
