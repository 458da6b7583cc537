"""A profile names what took the time, adds up, survives processes, and does not change what is written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from daedalus.pipelines.executor import run_pipeline
from daedalus.pipelines.profiling import NO_PROFILE, DayProfile, summed
from pipelines.tiny import DAYS, tiny
from support.project import Run

if TYPE_CHECKING:
    from daedalus.pipelines.profiling import Measure, RunProfile
    from support.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return tiny(tmp_path)


def profiled(project: Project, output: str = "measured", **options: Any) -> tuple[Run, RunProfile]:
    request = project.request("s", output_root=str(project.root / output), **options)
    result = run_pipeline(dataclasses.replace(request, profile=True))
    assert result.profile is not None
    return Run(result), result.profile


def steps(profile: RunProfile) -> dict[tuple[str, str], Measure]:
    return {(one.operator, one.step): one for one in profile.by_operator()}


def test_each_kind_of_work_stands_under_its_operator(project: Project) -> None:
    plain = project.run("s")
    run, profile = profiled(project, engine="kernel")
    assert {day: run.files(day) for day in DAYS} == {day: plain.files(day) for day in DAYS}
    assert plain.result.profile is None

    found = steps(profile)
    assert found["rolling", "aggregate"].rows == 7
    assert found["sink", "write"].rows == found["sink", "hash"].rows == 7
    assert found["sink", "number sessions"].calls == 1
    assert found["events", "write cache"].rows == 7
    read = found["events", "sql"]
    assert "events" in read.computes
    assert read.plan
    assert read.peak_memory is not None


def test_a_composed_statement_names_what_it_computes(project: Project) -> None:
    _, profile = profiled(project)  # aggregated in SQL: one statement streams the day
    computed = {name for one in profile.measures if one.step == "sql" for name in one.computes}
    assert {"rolling", "output"} <= computed


def test_the_parts_are_at_most_the_whole(project: Project) -> None:
    _, profile = profiled(project, engine="kernel")
    assert {one.day for one in profile.measures} == {"", *DAYS}  # "": before the days
    for day in ("", *DAYS):
        measures = [one for one in profile.measures if one.day == day]
        (total,) = [one for one in measures if one.step == "total"]
        parts = sum(one.cpu for one in measures if one.step != "total")
        assert 0 < parts <= total.cpu * 1.1 + 0.05  # clocks of 10 ms


def test_the_file_beside_the_run_holds_all_of_it(project: Project) -> None:
    _, profile = profiled(project)
    path = Path(profile.path)
    assert path.parent == project.root / "measured" / "s" / ".profiles"
    data = json.loads(path.read_text())
    assert data.items() >= profile.to_dict().items()
    assert len(data["days"]) == len(profile.measures)


@pytest.mark.slow
def test_processes_send_their_profiles_back(project: Project) -> None:
    _, one = profiled(project, "one", engine="kernel")
    _, two = profiled(project, "two", engine="kernel", day_workers=2)
    for key in (("rolling", "aggregate"), ("sink", "write"), ("events", "write cache")):
        assert steps(one)[key].rows == steps(two)[key].rows


def test_sums_keep_the_largest_memory() -> None:
    profile = DayProfile("skeleton", "2026-05-01")
    for peak, spilled in ((5, 0), (9, 3), (None, None)):
        profile._add("a", "sql", 1, 1.0, 0.5, peak_memory=peak, spilled=spilled, plan=(("SCAN", 0.25),))
    (total,) = summed(profile.measures())
    assert (total.calls, total.rows, total.wall, total.cpu) == (3, 3, 3.0, 1.5)
    assert (total.peak_memory, total.spilled, total.plan) == (9, 3, (("SCAN", 0.75),))


def test_nested_work_is_counted_once() -> None:
    profile = DayProfile("skeleton", "")
    with profile.shared("outer", "aggregate"), profile.shared("inner", "function"):
        sum(range(300_000))
    by_name = {one.operator: one for one in profile.measures()}
    assert by_name["inner"].wall > by_name["outer"].wall


def test_without_a_profile_nothing_is_kept() -> None:
    with NO_PROFILE.total(), NO_PROFILE.timed("a", "b"), NO_PROFILE.shared("a", "b"):
        pass
    assert NO_PROFILE.measures() == ()
