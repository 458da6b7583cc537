"""The metadata file: appended to by many, changed by nobody, never half-read."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import os
import signal
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from daedalus.errors import DefinitionError, ExecutionError
from daedalus.metadata.process import ProcessMark
from daedalus.metadata.run_log import RunLog
from daedalus.metadata.store import FORMAT, MetadataStore, RunStatus


@pytest.fixture
def store(tmp_path: Path) -> MetadataStore:
    return MetadataStore(tmp_path / "root")


def test_a_run_from_begin_to_end(store: MetadataStore) -> None:
    assert store.runs() == []
    run_id = store.begin("train", service="s", version="2026-05-01", facts={"a": 1}, request={"days": []})
    assert store.find(run_id).status is RunStatus.RUNNING
    store.append(run_id, "facts", {"b": 2})
    store.append_day(run_id, "skeleton", "2026-05-02", {"rows": 1, "state": "written"})
    store.append_day(run_id, "skeleton", "2026-05-01", {"rows": 2})
    store.append_day(run_id, "enrich", "2026-05-01", {"rows": 2})
    store.append_day(run_id, "skeleton", "2026-05-02", {"rows": 3})
    store.attach(run_id, "verdict", {"ok": True})
    store.finish(run_id, RunStatus.SUCCEEDED)
    run = store.find(run_id)
    assert (run.status, run.attempt, run.kind, run.version) == (RunStatus.SUCCEEDED, 1, "train", "2026-05-01")
    assert {"a": 1, "b": 2}.items() <= run.facts.items()
    assert run.seconds is not None
    assert list(store.days(run_id)) == [
        ("skeleton", "2026-05-01"),
        ("enrich", "2026-05-01"),
        ("skeleton", "2026-05-02"),
    ]
    assert store.days(run_id)["skeleton", "2026-05-02"] == {"rows": 3, "state": "written"}
    assert [(note.name, note.payload) for note in store.notes(run_id)] == [("verdict", {"ok": True})]
    assert [line["event"] for line in store.log(run_id).lines()] == ["begin", "end"]


@pytest.mark.parametrize(
    "change", ["UPDATE runs SET service = 'x'", "DELETE FROM runs", "DELETE FROM events"]
)
def test_nothing_is_ever_changed(store: MetadataStore, change: str) -> None:
    store.attach(store.begin("train"), "note", {})
    with (
        sqlite3.connect(store.path) as connection,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        connection.execute(change)


def test_attempts_count_until_one_succeeds(store: MetadataStore) -> None:
    def attempt(status: RunStatus, **request: object) -> int:
        run_id = store.begin("train", service="s", request=request)
        store.finish(run_id, status)
        return store.find(run_id).attempt

    assert attempt(RunStatus.FAILED, day=1) == 1
    assert attempt(RunStatus.INTERRUPTED, day=1) == 2
    assert attempt(RunStatus.FAILED, day=2) == 1
    assert attempt(RunStatus.SUCCEEDED, day=1) == 3
    assert attempt(RunStatus.SUCCEEDED, day=1) == 1


def test_runs_are_found_by_a_unique_beginning(store: MetadataStore) -> None:
    first = store.begin("train", service="a")
    second = store.begin("materialize", service="b")
    assert store.find("latest").run_id == second
    assert store.find(first[:-1]).run_id == first
    assert [run.run_id for run in store.runs()] == [second, first]
    assert [run.run_id for run in store.runs(service="a")] == [first]
    assert [run.run_id for run in store.runs(kind="materialize", limit=1)] == [second]
    with pytest.raises(DefinitionError, match="several runs begin with") as several:
        store.find("2")
    assert first in several.value.hint
    with pytest.raises(DefinitionError, match="unknown run") as unknown:
        store.find(first[:-2] + "zz")
    assert first in unknown.value.hint
    with pytest.raises(DefinitionError, match="unknown run 'x%'"):
        store.find("x%")


def _write(root: Path, number: int, barrier: object) -> None:
    store = MetadataStore(root)
    barrier.wait()  # type: ignore[attr-defined]
    run_id = store.begin("train", service=f"s{number}")
    for index in range(60):
        store.append(run_id, "note", {"index": index}, name=str(number))
    store.finish(run_id, RunStatus.SUCCEEDED)


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    # The file itself is made in the same race.
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(3)
    writers = [spawn.Process(target=_write, args=(tmp_path / "root", n, barrier)) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    store = MetadataStore(tmp_path / "root")
    runs = store.runs()
    assert {(run.service, run.status) for run in runs} == {(f"s{n}", RunStatus.SUCCEEDED) for n in range(3)}
    for run in runs:
        assert [note.payload["index"] for note in store.notes(run.run_id)] == list(range(60))


def _begin_and_die(root: Path) -> None:
    store = MetadataStore(root)
    store.append(store.begin("train", service="s"), "facts", {"was": "here"})
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_whose_process_died_is_interrupted(tmp_path: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_begin_and_die, args=(tmp_path,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    store = MetadataStore(tmp_path)
    run = store.find("latest")
    assert run.status is RunStatus.INTERRUPTED
    assert run.facts["was"] == "here"
    assert run.seconds is None
    # And the file serves the next one.
    assert store.find(store.begin("train", service="s")).attempt == 2


def test_another_process_with_the_same_number_is_another_one() -> None:
    here = ProcessMark.here()
    assert here.is_alive(None)
    assert not ProcessMark(host=here.host, pid=here.pid, started=here.started - 100).is_alive(None)
    assert not replace(here, born="another boot/1").is_alive(None)
    elsewhere = ProcessMark(host="elsewhere", pid=here.pid, started=here.started)
    assert elsewhere.is_alive(time.time())
    assert not elsewhere.is_alive(0.0)
    assert not elsewhere.is_alive(None)


def test_a_clock_that_was_set_back_ends_no_run_and_hides_none(
    store: MetadataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The system derives a process's start from the clock: set back by an hour, everything began an hour earlier.
    assert replace(ProcessMark.here(), started=ProcessMark.here().started + 3600).is_alive(None)
    first = store.begin("train", service="s")

    class SetBack(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:
            return dt.datetime.now(tz) - dt.timedelta(hours=1)

    monkeypatch.setattr("daedalus.metadata.store.dt", SimpleNamespace(datetime=SetBack, UTC=dt.UTC))
    store.finish(first, RunStatus.SUCCEEDED)
    second = store.begin("train", service="s")
    assert store.find("latest").run_id == second
    assert [run.run_id for run in store.runs()] == [second, first]
    assert store.find(first).seconds == 0.0


def test_a_newer_file_is_refused_and_left_alone(store: MetadataStore) -> None:
    store.begin("train")
    with sqlite3.connect(store.path) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    connection.close()
    before = store.path.read_bytes()
    for use in (store.runs, lambda: store.begin("train"), lambda: store.find("latest")):
        with pytest.raises(ExecutionError, match=rf"newer Daedalus.*format {FORMAT + 1}"):
            use()
    assert store.path.read_bytes() == before


@pytest.mark.parametrize("keep", [0, 50, 5_000, -4_096])
def test_a_truncated_file_is_refused_and_left_alone(store: MetadataStore, keep: int) -> None:
    run_id = store.begin("train", facts={"text": "x" * 20_000})
    store.finish(run_id, RunStatus.SUCCEEDED)
    data = store.path.read_bytes()
    store.path.write_bytes(data[:keep])
    for use in (store.runs, lambda: store.begin("train")):
        with pytest.raises(ExecutionError, match="cannot be read: it is cut off") as refused:
            use()
        assert "left as it is" in refused.value.hint
    assert store.path.read_bytes() == data[:keep]
    assert len(list((store.root / "_runs").glob("*.jsonl"))) == 1
    store.path.rename(store.path.with_suffix(".old"))
    assert store.find(store.begin("train")).status is RunStatus.RUNNING


def test_damage_inside_the_file_stops_a_run_before_it_begins(store: MetadataStore) -> None:
    run_id = store.begin("train", facts={"text": "x" * 50_000})
    data = bytearray(store.path.read_bytes())
    data[8_192:40_000] = b"\xff" * (40_000 - 8_192)
    store.path.write_bytes(data)
    with pytest.raises(ExecutionError, match="cannot be read"):
        store.begin("train")
    assert not store.log(run_id).path.with_name("other").exists()


def test_another_program_s_file_is_refused(store: MetadataStore) -> None:
    store.root.mkdir()
    with sqlite3.connect(store.path) as connection:
        connection.execute("CREATE TABLE runs (x)")
    connection.close()
    with pytest.raises(ExecutionError, match="another program wrote it"):
        store.begin("train")
    store.path.write_bytes(b"no database at all, " * 20)
    with pytest.raises(ExecutionError, match="cannot be read"):
        store.begin("train")


def test_a_folder_that_cannot_be_written_is_said_before_anything(tmp_path: Path) -> None:
    # Nobody may make files there, not even root.
    with pytest.raises(ExecutionError, match="the run cannot be recorded") as refused:
        MetadataStore(Path("/proc/run_root")).begin("train")
    assert "--output-root" in refused.value.hint
    (tmp_path / "file").write_text("")
    with pytest.raises(ExecutionError, match="the run cannot be recorded"):
        MetadataStore(tmp_path / "file" / "root").begin("train")


def test_secrets_never_get_in(store: MetadataStore) -> None:
    run_id = store.begin(
        "train",
        facts={"password": "hunter2", "sources": [{"url": "postgresql://me:hunter2@host/db"}]},
        request={"overrides": {"s3_secret_access_key": "hunter2", "api_key": "${KEY}"}},
    )
    store.attach(run_id, "note", {"text": "token=hunter2"})
    store.log(run_id).write("error", message="postgresql://me:hunter2@host/db")
    store.finish(run_id, RunStatus.FAILED, error={"what": "cannot reach postgresql://me:hunter2@host/db"})
    for file in store.root.rglob("*"):
        assert not file.is_file() or b"hunter2" not in file.read_bytes(), file
    assert store.find(run_id).error == {"what": "cannot reach postgresql://me:***@host/db"}


def test_a_log_s_end_without_its_beginning(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "run.jsonl")
    assert log.lines() == []
    for index in range(3_000):
        log.write("progress", done=index, text="ü" * 20)
    assert [line["done"] for line in log.lines(3)] == [2997, 2998, 2999]
    assert len(log.lines()) == 3_000
    assert log.lines(0) == []
    with log.path.open("a") as file:  # what a crash leaves
        file.write('{"at": "2026')
    assert [line["done"] for line in log.lines(2)] == [2998, 2999]
    assert RunLog(tmp_path / "no folder" / "run.jsonl").write("progress") is None
