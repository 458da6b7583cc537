"""A second run recomputes the days whose making changed, says why, and touches no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pipelines.tiny import DAYS, EVENTS, ROWS, SERVICE, USERS, events, tiny, users

if TYPE_CHECKING:
    from pathlib import Path

    from support.project import Project, Run

FIRST, SECOND, LATE = DAYS


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Three days, trained once."""
    made = tiny(tmp_path)
    assert set(made.run("s").states.values()) == {"written"}
    return made


def written(run: Run) -> list[str]:
    """The days that were recomputed."""
    return [day for day, state in run.states.items() if state == "written"]


def test_days_are_those_with_events(project: Project) -> None:
    assert tuple(project.run("s").states) == DAYS


def test_nothing_changed_nothing_is_computed(project: Project) -> None:
    before = {day: project.run("s").folder(day).stat().st_ino for day in DAYS}
    run = project.run("s")
    assert written(run) == []
    assert set(run.reasons.values()) == {"same definitions and sources"}
    assert {day: run.folder(day).stat().st_ino for day in DAYS} == before


def test_a_changed_pipeline_recomputes_every_day(project: Project) -> None:
    project.define("feature_services", SERVICE | {"columns": SERVICE["columns"][:-1]})
    run = project.run("s")
    assert written(run) == list(DAYS)
    assert set(run.reasons.values()) == {"the pipeline changed"}
    assert run.table(FIRST).column_names[-2:] == ["liked", "qid"]


def test_a_changed_view_recomputes_every_day_and_names_it(project: Project) -> None:
    project.define("feature_views", USERS | {"field_mapping": {"tier": "tier"}})
    run = project.run("s")
    assert written(run) == list(DAYS)
    assert set(run.reasons.values()) == {"view users changed"}


def test_a_view_s_prose_recomputes_nothing(project: Project) -> None:
    project.define("feature_views", EVENTS | {"description": "new words", "owner": "me", "tags": ["x"]})
    assert written(project.run("s")) == []


def test_a_changed_file_recomputes_the_days_whose_window_holds_it(project: Project) -> None:
    # 1 May lies in the three days before 2 May, not before 12 May.
    project.write("events/2026-05-01.parquet", events(ROWS[FIRST][:1]))
    run = project.run("s")
    assert written(run) == [FIRST, SECOND]
    assert "events" in run.reasons[FIRST]
    assert "2026-05-01.parquet" in run.reasons[FIRST]


def test_a_later_day_s_file_leaves_earlier_days_alone(project: Project) -> None:
    project.write("events/2026-05-13.parquet", events([(8, "2026-05-13 08:00", 1, 10, "view", "e")]))
    run = project.run("s")
    assert written(run) == ["2026-05-13"]
    assert run.reasons["2026-05-13"] == "not there yet"


def test_a_file_that_reaches_back_recomputes_what_it_reaches(project: Project) -> None:
    more = [(8, "2026-05-02 10:00", 1, 13, "view", "e"), (9, "2026-05-20 10:00", 1, 13, "view", "e")]
    project.write("events/more.parquet", events(more))
    run = project.run("s")
    assert written(run) == [SECOND, LATE, "2026-05-20"]


def test_a_removed_file_recomputes_and_says_so(project: Project) -> None:
    project.write("events/more.parquet", events([(8, "2026-05-02 10:00", 1, 13, "view", "e")]))
    project.run("s")
    (project.root / "data" / "events" / "more.parquet").unlink()
    run = project.run("s")
    assert written(run) == [SECOND]
    assert "gone" in run.reasons[SECOND]


def test_a_version_from_the_future_leaves_an_asof_day_alone(project: Project) -> None:
    project.write("users/b.parquet", users((1, "2026-05-03", "gold")))
    assert written(project.run("s")) == [LATE]


def test_a_version_from_the_future_recomputes_a_latest_join(tmp_path: Path) -> None:
    project = tiny(tmp_path, service={"views": [{"view": "users"}]})
    project.run("s")
    project.write("users/b.parquet", users((1, "2026-05-30", "gold")))
    run = project.run("s")
    assert written(run) == list(DAYS)
    assert "users" in run.reasons[FIRST]


def test_the_same_file_written_again_recomputes_nothing(project: Project) -> None:
    project.write("events/2026-05-01.parquet", events(ROWS[FIRST]))
    assert written(project.run("s")) == []


@pytest.mark.parametrize("harm", ["truncated", "removed", "no manifest", "bad manifest", "a list"])
def test_a_damaged_day_is_made_again(project: Project, harm: str) -> None:
    folder = project.run("s").folder(SECOND)
    expected = project.run("s").rows(SECOND)
    part, manifest = folder / "part-0-0.parquet", folder / "_manifest.json"
    match harm:
        case "truncated":
            part.write_bytes(part.read_bytes()[:-1])
        case "removed":
            part.unlink()
        case "no manifest":
            manifest.unlink()
        case "bad manifest":
            manifest.write_text('{"format": 1')
        case "a list":
            manifest.write_text("[]")
    run = project.run("s")
    assert written(run) == [SECOND]
    assert run.reasons[SECOND] == "not there yet"
    assert run.rows(SECOND) == expected


def test_limits_recompute_nothing(project: Project) -> None:
    assert written(project.run("s", threads=1, day_workers=1)) == []


def test_an_engine_of_other_operators_recomputes_and_gives_the_same(project: Project) -> None:
    before = project.run("s").hashes
    run = project.run("s", engine="polars")
    assert written(run) == list(DAYS)
    assert run.hashes == before


def test_a_failed_day_leaves_the_old_one(project: Project) -> None:
    from daedalus.errors import DaedalusError

    run = project.run("s")
    before: dict[str, Any] = {day: run.files(day) for day in DAYS}
    bad = events(ROWS[FIRST]).drop_columns("event")
    project.write("events/2026-05-01.parquet", bad)
    with pytest.raises(DaedalusError, match="event"):
        project.run("s")
    assert {day: run.files(day) for day in DAYS} == before
    assert not [path for path in run.result.output_path.iterdir() if path.name.startswith(".new")]
