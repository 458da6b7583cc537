"""Places that cannot be written, files that are swapped, workers and runs that died: an error of ours, nothing lost."""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from daedalus.errors import ExecutionError, SourceError
from daedalus.metadata.days import DayManifest, DayStore
from daedalus.pipelines.executor import run_pipeline
from daedalus.pipelines.scratch import scratch_folder, sweep
from daedalus.platform import PlatformRegistry
from daedalus.platform.records import day_records
from daedalus.platform.report import _write
from pipelines.tiny import DAYS, ROWS, events, tiny

FIRST, SECOND, LATE = DAYS
DAY = dt.date(2026, 5, 1)


# ---------------------------------------------------------------------- places that cannot be written


@pytest.mark.parametrize("place", ["out/.cache", "out/.qid_map.parquet.lock", "spill"])
def test_what_stands_in_the_way_is_named_and_left_alone(tmp_path: Path, place: str) -> None:
    blocked = tmp_path / place
    if place.endswith(".lock"):
        blocked.mkdir(parents=True)  # where a file belongs
    else:
        blocked.parent.mkdir(parents=True, exist_ok=True)
        blocked.write_text("a file, not a folder")
    compute = {"duckdb_config": {"temp_directory": str(tmp_path / "spill")}}
    with pytest.raises(ExecutionError) as caught:
        tiny(tmp_path, compute=compute).run("s", [FIRST])
    assert str(tmp_path / place.partition("/")[0]) in str(caught.value)
    assert caught.value.hint
    assert not list((tmp_path / "out").glob("s/skeleton/dt=*"))
    assert blocked.is_dir() or blocked.read_text() == "a file, not a folder"


def manifest() -> DayManifest:
    return DayManifest(
        day=DAY.isoformat(),
        schema=(),
        row_count=0,
        ts_min="",
        ts_max="",
        content_hash="x",
        fingerprint={},
        files=(),
    )


def test_a_store_that_cannot_be_written_names_the_day(tmp_path: Path) -> None:
    (tmp_path / "enriched").write_text("a file, not a folder")
    store = DayStore(tmp_path / "enriched")
    with (
        pytest.raises(ExecutionError, match="cannot be written: Not a directory") as caught,
        store.locked(DAY),
    ):
        pass
    assert caught.value.day == DAY.isoformat()
    with pytest.raises(ExecutionError, match="cannot be written"):
        store.begin(DAY)
    store.mend(DAY)  # which only tries


def test_a_day_whose_move_fails_is_the_one_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DayStore(tmp_path)
    store.commit(DAY, store.begin(DAY), manifest())
    before = (store.path(DAY) / "_manifest.json").read_text()
    folder = store.begin(DAY)
    move = type(tmp_path).rename

    def refused(self: Path, target: Path) -> Path:
        if self == folder:
            raise OSError(28, "No space left on device")
        return move(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", refused)
    with pytest.raises(ExecutionError, match="No space left"):
        store.commit(DAY, folder, manifest())
    assert (store.path(DAY) / "_manifest.json").read_text() == before
    assert not list(tmp_path.glob(".old-*"))


def test_a_report_replaces_no_pipe_or_device(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        _write(pipe, "the report")
        assert os.read(reader, 100) == b"the report"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


# ---------------------------------------------------------------------- what killed runs leave


def test_folders_of_the_living_stay_and_those_of_the_dead_go(tmp_path: Path) -> None:
    with scratch_folder(tmp_path, "x-") as mine:
        (tmp_path / "x-dead").mkdir()
        (tmp_path / "x-dead" / ".lock").touch()
        (tmp_path / "x-foreign").mkdir()  # without a lock, so none of ours
        sweep(tmp_path, "x-")
        assert mine.stat().st_mode & 0o777 == 0o700
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([mine.name, "x-foreign"])
        with (mine / ".lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert [path.name for path in tmp_path.iterdir()] == ["x-foreign"]


def test_a_run_removes_what_killed_ones_spilled(tmp_path: Path) -> None:
    dead = tmp_path / "spill" / "daedalus-spill-000"
    dead.mkdir(parents=True)
    (dead / ".lock").touch()
    (dead / "rows-1.arrow").write_bytes(bytes(1000))
    compute = {"duckdb_config": {"temp_directory": str(tmp_path / "spill")}}
    tiny(tmp_path, compute=compute).run("s", [FIRST])
    assert list((tmp_path / "spill").iterdir()) == []


def test_a_day_that_was_written_and_not_recorded_is_recorded_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    project = tiny(tmp_path)
    # As a run leaves it that was killed between the two.
    run_pipeline(project.request("s", [FIRST], output_root=str(tmp_path / "data" / "training_output")))
    registry = PlatformRegistry.open(tmp_path)
    result = registry.train("s", target_dates=[DAY])
    assert [day.state for day in result.days] == ["up to date"]
    [recorded] = day_records(registry, "s")
    assert recorded["columns"]["liked"]["rows"] == 2
    registry.train("s", target_dates=[DAY])
    assert day_records(registry, "s") == [recorded]  # once


# ---------------------------------------------------------------------- files and workers


@pytest.mark.parametrize(("start", "harm"), [(4, bytes(30)), (4, b"\xff" * 8), (30, bytes(100))])
def test_a_corrupt_file_is_named_whatever_its_reader_says(tmp_path: Path, start: int, harm: bytes) -> None:
    project = tiny(tmp_path)
    path = tmp_path / "data" / "users" / "a.parquet"
    data = bytearray(path.read_bytes())
    data[start : start + len(harm)] = harm
    path.write_bytes(data)
    with pytest.raises(ExecutionError) as caught:
        project.run("s", [SECOND])
    assert str(path) in str(caught.value)
    assert "restore or remove it" in caught.value.hint


def test_a_file_replaced_by_one_of_the_same_size_and_time(tmp_path: Path) -> None:
    project = tiny(tmp_path)
    path = tmp_path / "data" / "events" / f"{LATE}.parquet"
    status = path.stat()
    other = events([(8, "2026-05-12 08:00", 1, 11, "view", "e"), *ROWS[LATE][1:]])

    def replace(progress: Any) -> None:
        if progress.message == "aggregating and writing":
            pq.write_table(other, path.with_suffix(".new"))
            path.with_suffix(".new").replace(path)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            assert path.stat().st_size == status.st_size

    with pytest.raises(SourceError, match="was changed while the run was reading it"):
        project.run("s", [LATE], progress=replace)


def test_a_file_that_was_only_linked_is_the_same(tmp_path: Path) -> None:
    project = tiny(tmp_path)
    path = tmp_path / "data" / "events" / f"{LATE}.parquet"

    def link(progress: Any) -> None:
        if progress.message == "aggregating and writing":
            (tmp_path / "other-name").hardlink_to(path)

    assert project.run("s", [LATE], progress=link).states == {LATE: "written"}


@pytest.mark.slow
def test_a_day_worker_that_is_killed_ends_the_run_with_a_reason(tmp_path: Path) -> None:
    project = tiny(tmp_path)

    def kill_one() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            for child in psutil.Process().children(recursive=True):
                with_spawn = any("spawn_main" in word for word in child.cmdline())
                if with_spawn:
                    child.send_signal(signal.SIGKILL)
                    return
            threading.Event().wait(0.01)

    killer = threading.Thread(target=kill_one)
    killer.start()
    with pytest.raises(ExecutionError, match="a day worker was killed") as caught:
        project.run("s", [FIRST, SECOND], day_workers=2)
    killer.join()
    assert "finished days are kept" in caught.value.hint
    assert set(project.run("s", [FIRST, SECOND]).states) == {FIRST, SECOND}
    assert not list((tmp_path / "out" / "s" / "skeleton").glob(".new-*"))


# ---------------------------------------------------------------------- the page


def test_the_page_names_tests_that_exist() -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) > 30
    for file, test in named:
        assert f"def {test}(" in (root / file).read_text(encoding="utf-8"), (file, test)
