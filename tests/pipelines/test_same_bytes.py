"""Threads, workers, file layout, interruption: none of them decides a byte of the output."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.golden_data import DAY, golden_project, tables
from support.pixai import make_project
from support.project import Project, Run, run_and_die

if TYPE_CHECKING:
    from pathlib import Path

#: The days of the golden project's events, in order.
DAYS = ("2026-05-01", "2026-05-03", "2026-05-07", "2026-05-09", "2026-05-10", "2026-05-11")


def everything(run: Run, days: tuple[str, ...] = DAYS) -> dict[str, Any]:
    """The Parquet files of the days as bytes, and their content hashes."""
    manifests = {day: (run.folder(day) / "_manifest.json").read_text() for day in days}
    hashes = {day: text.split('"content_hash": "')[1][:32] for day, text in manifests.items()}
    return {day: (run.files(day), hashes[day]) for day in days}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All days of the golden project, run in one piece."""
    run = golden_project(tmp_path_factory.mktemp("whole")).run("golden")
    assert tuple(run.states) == DAYS
    return everything(run)


@pytest.mark.parametrize("threads", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_threads_do_not_matter(tmp_path: Path, whole: dict[str, Any], threads: int) -> None:
    assert everything(golden_project(tmp_path, threads=threads).run("golden")) == whole


@pytest.mark.slow
def test_day_workers_do_not_matter(tmp_path: Path, whole: dict[str, Any]) -> None:
    assert everything(golden_project(tmp_path, day_workers=2).run("golden")) == whole


def test_a_run_in_pieces_is_the_run_in_one(tmp_path: Path, whole: dict[str, Any]) -> None:
    project = golden_project(tmp_path)
    for day in DAYS:
        run = project.run("golden", [day])
    assert everything(run) == whole


class Stop(Exception):
    """Raised by a listener, as a Ctrl-C between two days would be."""


@pytest.mark.parametrize("after", [DAYS[3], pytest.param(DAYS[0], marks=pytest.mark.slow)])
def test_a_run_that_stopped_between_days_goes_on(tmp_path: Path, whole: dict[str, Any], after: str) -> None:
    project = golden_project(tmp_path)

    def stop(progress: Any) -> None:
        if (progress.day, progress.message) == (after, "written"):
            raise Stop

    with pytest.raises(Stop):
        project.run("golden", progress=stop)
    run = project.run("golden")
    done = DAYS[: DAYS.index(after) + 1]
    assert run.states == {day: "up to date" if day in done else "written" for day in DAYS}
    assert everything(run) == whole


#: The first days: what comes later does not change them.
FEW = DAYS[:3]


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [
        "2026-05-01 starting",
        "2026-05-03 reading and joining",
        "2026-05-03 aggregating and writing",
        "2026-05-03 written",
        "rename 2",  # the second day is complete under its temporary name
    ],
)
def test_a_killed_run_goes_on(tmp_path: Path, whole: dict[str, Any], moment: str) -> None:
    project = golden_project(tmp_path)
    assert run_and_die(project, "golden", FEW, moment) == -9
    finished = {path.name for path in (tmp_path / "out" / "golden" / "skeleton").glob("dt=*")}
    for name in finished:  # complete or absent
        assert (tmp_path / "out" / "golden" / "skeleton" / name / "_manifest.json").exists()
    run = project.run("golden", FEW)
    kept = {day for day, state in run.states.items() if state == "up to date"}
    assert {f"dt={day}" for day in kept} == finished
    assert everything(run, FEW) == {day: whole[day] for day in FEW}
    assert [
        path.name for path in run.result.output_path.iterdir() if path.name.startswith((".new", ".old"))
    ] == []


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["rename 1", "rename 2"])
def test_a_kill_while_a_day_is_replaced_is_mended(tmp_path: Path, whole: dict[str, Any], moment: str) -> None:
    project = golden_project(tmp_path)
    project.run("golden", [DAY])
    project.write("user_profile/b.parquet", tables()["user_profile/a.parquet"].slice(0, 1))
    assert run_and_die(project, "golden", [DAY], moment) == -9
    (tmp_path / "data" / "user_profile" / "b.parquet").unlink()
    run = project.run("golden", [DAY])
    assert everything(run, (DAY,))[DAY][1] == whole[DAY][1]
    assert not [path for path in run.result.output_path.iterdir() if path.name.startswith((".new", ".old"))]


# ---------------------------------------------------------------------- file layout


def _shuffled(table: pa.Table, seed: int) -> pa.Table:
    order = list(range(table.num_rows))
    random.Random(seed).shuffle(order)
    return table.take(order)


@pytest.mark.parametrize("seed", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_split_and_shuffled_files_do_not_matter(tmp_path: Path, whole: dict[str, Any], seed: int) -> None:
    project = golden_project(tmp_path)
    for path, table in tables().items():
        (tmp_path / "data" / path).unlink()
        mixed = _shuffled(table, seed)
        size = max(1, mixed.num_rows // (seed + 1))
        for start in range(0, mixed.num_rows, size):
            project.write(f"{path.removesuffix('.parquet')}/z{start}.parquet", mixed.slice(start, size))
    run = project.run("golden")
    assert {day: value[1] for day, value in everything(run).items()} == {
        day: value[1] for day, value in whole.items()
    }
    assert everything(run) == whole  # and so the very files


def _relaid(project: Project, seed: int) -> None:
    """Every source of the demo project in other files: five per source, rows shuffled."""
    for source in sorted((project.root / "data").iterdir()):
        files = sorted(source.rglob("*.parquet")) if source.is_dir() else []
        if not files:
            continue
        table = _shuffled(pa.concat_tables(pq.ParquetFile(file).read() for file in files), seed)
        for file in files:
            file.unlink()
        for number in range(5):
            size = -(-table.num_rows // 5)
            project.write(f"{source.name}/other/{number}.parquet", table.slice(number * size, size))


# ---------------------------------------------------------------------- a day of some size

BIG_DAYS = ("2026-05-02", "2026-05-03")
COVERAGE_OFF = {"enabled": False}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """20k events of the demo, coverage off, with one reference run in `out`."""
    root = make_project(tmp_path_factory.mktemp("demo"), events=20_000)
    return Project(root, {"embedding_coverage_filter": COVERAGE_OFF})


@pytest.fixture(scope="module")
def reference(demo: Project) -> dict[str, Any]:
    return everything(demo.run("dssm_ranking", BIG_DAYS, threads=1), BIG_DAYS)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"threads": 4}, {"threads": 2, "day_workers": 2}], ids=str)
def test_limits_do_not_matter_on_the_demo(
    demo: Project, reference: dict[str, Any], tmp_path: Path, options: dict[str, int]
) -> None:
    run = demo.run("dssm_ranking", BIG_DAYS, output_root=str(tmp_path), **options)
    assert everything(run, BIG_DAYS) == reference


@pytest.mark.slow
def test_file_layout_does_not_matter_on_the_demo(
    demo: Project, reference: dict[str, Any], tmp_path: Path
) -> None:
    root = make_project(tmp_path, events=20_000)
    project = Project(root, demo.overrides)
    _relaid(project, 7)
    assert everything(project.run("dssm_ranking", BIG_DAYS), BIG_DAYS) == reference
