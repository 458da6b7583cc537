"""The executor's output against a brute-force oracle: both demo services, every column, every row, every engine."""

from __future__ import annotations

import datetime as dt
import functools
import math
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from support.day_oracle import DayOracle
from support.pixai import make_project
from support.project import ENGINES, Project, Run

if TYPE_CHECKING:
    from pathlib import Path

SERVICES = ("dssm_ranking", "xgb_reranker")
#: Artworks whose impressions are kept: four of five.
COVERED = {5_000_000 + number for number in range(200_000) if number % 5}
DAYS = ("2026-05-02", "2026-05-03")


def _project(root: Path, events: int) -> Project:
    project = Project(make_project(root, events=events))
    project.write("covered.parquet", pa.table({"artwork_id": sorted(COVERED)}))
    return project


def _run(project: Project, service: str, engine: str, days: tuple[str, ...]) -> Run:
    return project.run(
        service,
        days,
        engine=engine,
        output_root=str(project.root / "out" / engine),
        embedding_coverage_filter={"store": None, "id_relation": "data/covered.parquet"},
    )


def assert_day(run: Run, day: str, oracle: DayOracle, numbered: dict[str, int]) -> None:
    """Every column of the day is the oracle's."""
    table = run.table(day)
    expected = oracle.columns | {"qid": oracle.qids(numbered)}
    assert table.column_names == list(expected)
    for name, want in expected.items():
        column = table[name]
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        got = column.to_pylist()
        assert len(got) == len(want), name
        wrong = [
            (row, mine, theirs)
            for row, (mine, theirs) in enumerate(zip(got, want, strict=True))
            if not _same(mine, theirs, close=name.startswith("mean_"))
        ]
        assert not wrong, f"{name}: {len(wrong)} rows differ, first (row, got, expected): {wrong[0]}"


def _same(mine: Any, theirs: Any, *, close: bool) -> bool:
    if isinstance(theirs, float) and isinstance(mine, float):
        if math.isnan(theirs):
            return math.isnan(mine)
        return math.isclose(mine, theirs, rel_tol=1e-12) if close else mine == theirs
    return type(mine) is type(theirs) and mine == theirs


@functools.cache
def _oracle(root: Path, service: str, day: str) -> DayOracle:
    """Of one day, computed once for all engines."""
    return DayOracle(root, service, dt.date.fromisoformat(day), COVERED)


def _check(project: Project, service: str, engine: str, days: tuple[str, ...]) -> Run:
    run = _run(project, service, engine, days)
    numbered: dict[str, int] = {}
    for day in days:
        oracle = _oracle(project.root, service, day)
        assert_day(run, day, oracle, numbered)
        assert oracle.rows
    return run


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return _project(tmp_path_factory.mktemp("small"), 3_000)


@pytest.mark.parametrize("service", SERVICES)
def test_a_small_day_is_the_oracle_s(small: Project, service: str) -> None:
    _check(small, service, "kernel", DAYS[1:])


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return _project(tmp_path_factory.mktemp("large"), 20_000)


@pytest.fixture(scope="module")
def schemas() -> dict[tuple[str, str], pa.Schema]:
    """By service and day: what the engine that came first wrote."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("service", SERVICES)
def test_days_of_20k_events_are_the_oracle_s_on_every_engine(
    large: Project, schemas: dict[tuple[str, str], pa.Schema], service: str, engine: str
) -> None:
    run = _check(large, service, engine, DAYS)
    for day in DAYS:
        schema = run.table(day).schema
        assert schemas.setdefault((service, day), schema).equals(schema, check_metadata=True)
