"""Enrichment as a whole: Ray against this process, kills, and a disk that fills up."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
import ray
from tests.support.embeddings import (
    DAY,
    lookup,
    make_store,
    pool,
    read_day,
    skeleton_table,
    vectors_of,
    write_skeleton,
)

from daedalus.errors import ExecutionError
from daedalus.metadata.days import DayStore
from daedalus.pipelines.dynamic_feature import EnrichProgress, EnrichResult, run_enrich_stage
from daedalus.pipelines.enrich.runtime import RayEnvelope, ensure_ray, ray_session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

DAYS = [DAY, dt.date(2026, 3, 2), dt.date(2026, 3, 3)]
ROWS = 70_000  # two shards
#: A worker is a process that imports all: one where two prove nothing more.
ONE_WORKER = RayEnvelope(num_cpus=1)
OPERATORS = [lookup("image", "item_id"), pool("liked_mean", "liked")]


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    """One Ray session for the module; every run in it must use this one."""
    with ray_session(RayEnvelope(num_cpus=2)):
        yield


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store and three skeleton days, the first of two shards."""
    folder = tmp_path_factory.mktemp("enrich")
    make_store(folder, range(500), vectors_of(range(500), 16))
    for at, day in enumerate(DAYS):
        rows = ROWS if at == 0 else 2_000
        write_skeleton(folder / "skeleton", skeleton_table(rows, ids=500, seed=at), day=day, groups=30_000)
    return folder


def run(folder: Path, output: Path, **changes: Any) -> EnrichResult:
    from tests.support.embeddings import store_def

    settings = {
        "skeleton": DayStore(folder / "skeleton"),
        "output": DayStore(output),
        "days": DAYS,
        "operators": OPERATORS,
        "stores": {"items": store_def(folder, embedding_dim=16)},
        "runtime": "in_process",
    } | changes
    return run_enrich_stage(**settings)


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.glob("dt=*/*.parquet"))}


@pytest.mark.usefixtures("session")
def test_ray_writes_the_same_bytes(project: Path, tmp_path: Path) -> None:
    said: list[str] = []
    seen: list[EnrichProgress] = []
    here = run(project, tmp_path / "here")
    there = run(project, tmp_path / "ray", runtime="ray", notify=said.append, progress=seen.append)
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "here")
    assert len(files_of(tmp_path / "ray")) == 4
    assert [day.content_hash for day in there.days] == [day.content_hash for day in here.days]
    assert [(one.day, one.rows_done) for one in seen] == [
        ("2026-03-01", 65_536),
        ("2026-03-01", ROWS),
        ("2026-03-02", ROWS + 2_000),
        ("2026-03-03", ROWS + 4_000),
    ]
    assert there.workers == min(2, os.cpu_count() or 1)
    assert any(line.startswith("Ray may take 16 CPUs") for line in said) == ((os.cpu_count() or 1) < 16)
    assert ray.is_initialized()


@pytest.mark.usefixtures("session")
def test_failed_actor_surfaces_the_udfs_own_error(project: Path, tmp_path: Path) -> None:
    operators = [
        pool("out", "liked", udf_name="tests.support.user_udfs:fails", dtype="DOUBLE[]", dimension=1)
    ]
    with pytest.raises(ExecutionError, match="RuntimeError: no model for 8192 rows") as caught:
        run(project, tmp_path / "out", runtime="ray", envelope=ONE_WORKER, operators=operators)
    assert (caught.value.day, caught.value.operator) == ("2026-03-01", "enrich_out")
    assert "batch 0 (rows 0 to 8192)" in str(caught.value)
    assert "user_udfs.py" in "".join(caught.value.__notes__)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".locks"]


@pytest.mark.usefixtures("session")
def test_a_script_s_udf_travels_to_the_workers(project: Path, tmp_path: Path) -> None:
    from daedalus.pipelines.enrich.udfs import UdfBatch, lists_of, register_udf

    def first_found(batch: UdfBatch) -> Any:
        valid = batch.slots >= 0
        return lists_of(batch.vectors[batch.slots[valid]], valid)

    register_udf("first_found_in_script", first_found, takes="id")
    operators = [lookup("image", "item_id", udf_name="first_found_in_script")]
    run(project, tmp_path / "out", runtime="ray", envelope=ONE_WORKER, operators=operators, days=DAYS[1:])
    run(project, tmp_path / "shipped", operators=OPERATORS[:1], days=DAYS[1:])
    mine, shipped = (read_day(DayStore(tmp_path / name), DAYS[1]) for name in ("out", "shipped"))
    assert mine.equals(shipped)


@pytest.mark.usefixtures("session")
def test_a_dead_worker_is_told_as_such(project: Path, tmp_path: Path) -> None:
    from daedalus.pipelines.enrich.udfs import UdfBatch, register_udf

    def dies(_batch: UdfBatch) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    register_udf("dies", dies, takes="id")
    operators = [lookup("image", "item_id", udf_name="dies")]
    with pytest.raises(
        ExecutionError, match=r"day 2026-03-02: the Ray worker that made rows 0 to 2000 died 2 times"
    ):
        run(project, tmp_path / "out", runtime="ray", envelope=ONE_WORKER, operators=operators, days=DAYS[1:])
    assert DayStore(tmp_path / "out").days() == []


@pytest.mark.usefixtures("session")
def test_one_session_is_used_by_all() -> None:
    before = ray.get_runtime_context().get_job_id()
    ensure_ray()
    with ray_session():
        assert ray.get_runtime_context().get_job_id() == before
    assert ray.is_initialized()


_RUN = """
    import os, resource, signal, sys
    from pathlib import Path
    from daedalus.errors import ExecutionError
    from tests.integration.test_enrich import run

    mode, folder, output = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    done = []

    def progress(seen):
        done.append(seen)
        if mode == "kill" and seen.day == "2026-03-02":
            os.kill(os.getpid(), signal.SIGKILL)

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    if mode == "full":
        limit()
    try:
        run(folder, output, progress=progress)
    except ExecutionError as error:
        print(error)
"""


def run_apart(mode: str, folder: Path, output: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_RUN), mode, str(folder), str(output)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )


def test_killed_enrichment_keeps_finished_days_and_goes_on(project: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert run_apart("kill", project, output).returncode == -signal.SIGKILL
    store = DayStore(output)
    assert store.days() == [DAY]
    assert not store.path(DAYS[1]).exists()
    result = run(project, output)
    assert [(day.written, day.reason) for day in result.days] == [
        (False, "up to date"),
        (True, "not there yet"),
        (True, "not there yet"),
    ]
    run(project, tmp_path / "whole")
    assert files_of(output) == files_of(tmp_path / "whole")
    assert {path.name for path in output.iterdir()} == {".locks", *(f"dt={day}" for day in DAYS)}


def test_full_disk_is_an_error_and_leaves_no_part_of_a_day(project: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    ran = run_apart("full", project, output)
    assert "day 2026-03-01: part-0-0.parquet: cannot write the enriched day" in ran.stdout
    assert "Make room and run it again" in ran.stdout
    assert ran.returncode == 0, ran.stderr
    assert [path.name for path in output.iterdir()] == [".locks"]
    assert len(run(project, output).days) == 3


def test_a_full_disk_keeps_the_day_that_was_there(project: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(project, output)
    before = files_of(output)
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(_RUN).replace("progress=progress", "progress=progress, refresh=True"),
            "full",
            str(project),
            str(output),
        ],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert "cannot write the enriched day" in ran.stdout
    assert files_of(output) == before
