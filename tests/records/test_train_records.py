"""Training leaves a record: what ran, from what, what came out; also when it fails, and never a definition."""

from __future__ import annotations

import datetime as dt
import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from daedalus.errors import DaedalusError, ExecutionError
from daedalus.metadata.provenance import GitState, git_state
from daedalus.metadata.store import RunStatus
from daedalus.pipelines.records import TrainingRunRecord
from daedalus.platform import PlatformRegistry, RunOptions
from daedalus.platform.definition_files import view_yaml
from daedalus.platform.records import (
    attach_note,
    day_records,
    get_run,
    list_runs,
    project_facts,
    recorded_run,
    run_log,
    show_run,
)
from pipelines.tiny import DAYS, ROWS, events

if TYPE_CHECKING:
    from daedalus.pipelines.executor import RunProgress
    from records.conftest import Trained


def test_a_repository_that_git_cannot_compare_is_not_clean(tmp_path: Path) -> None:
    in_it = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@x"]
    subprocess.run([*in_it, "init", "-q"], check=True)
    subprocess.run([*in_it, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    clean = git_state(tmp_path)
    assert clean is not None
    assert not clean.dirty
    (tmp_path / ".git" / "index").write_bytes(b"no index")
    assert git_state(tmp_path) == GitState(sha=clean.sha, dirty=True)


def test_a_record_names_the_same_files_from_wherever_it_is_made(
    plain: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = plain.registry
    files = project_facts(inside, inside.config(), "s")["definition_files"]
    assert [*files] == ["feature_services/s.yaml", "feature_views/events.yaml", "feature_views/users.yaml"]
    text = view_yaml(inside, "users")
    monkeypatch.chdir(plain.root.parent)
    assert view_yaml(inside, "users") == text
    for registry in (inside, plain.registry):
        assert project_facts(registry, registry.config(), "s")["definition_files"] == files


def test_the_record_of_a_run(enriched: Trained) -> None:
    subprocess.run(["git", "init", "-q", "."], check=True)
    subprocess.run(["git", "add", "feature_views", "feature_services", "config"], check=True)
    identity = ["-c", "user.name=n", "-c", "user.email=e@x"]
    subprocess.run(["git", *identity, "commit", "-qm", "x"], check=True)
    result = enriched.train()
    record = get_run(enriched.registry, result.run_id)
    assert isinstance(record, TrainingRunRecord)
    sha = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert (record.git_sha, record.git_dirty) == (sha.strip(), False)  # data and output do not count
    assert (record.status, record.attempt, record.service, record.version) == (
        "succeeded",
        1,
        "s",
        "2026-05-01",
    )
    assert [name for name, _ in record.config_files] == [
        "config/training/aggregations.yaml",
        "config/training/runtime.yaml",
    ]
    assert [name for name, _ in record.definition_files] == [
        "feature_services/s.yaml",
        "feature_views/events.yaml",
        "feature_views/users.yaml",
    ]
    files = [item for item in record.sources["events"] if item[0].endswith(".parquet")]
    assert {(name, size) for name, size, _ in files} == {
        (f"events/{day}.parquet", (enriched.root / f"data/events/{day}.parquet").stat().st_size)
        for day in DAYS
    }
    assert [name for name, _ in record.stores] == ["items"]
    assert (record.row_count, record.ts_min, record.ts_max) == (
        7,
        "2026-05-01T08:00:00+00:00",
        "2026-05-12T08:30:00+00:00",
    )
    assert record.null_rates["tier"] == pytest.approx(2 / 7)
    assert (
        record.key_null_rates == {"session": pytest.approx(1 / 7), "user_id": 0.0}
        or record.key_null_rates["user_id"] == 0.0
    )
    assert record.output_path == str(result.output_path)
    assert {"duckdb", "pyarrow", "numpy", "daedalus", "python"} <= set(record.versions)
    for day in record.days:
        folder = (
            enriched.root / "data/training_output/s" / ("skeleton" if day.stage == "skeleton" else "enriched")
        )
        assert all((folder / f"dt={day.day}" / name).stat().st_size == size for name, size in day.files)
        assert (day.state, day.reason) == ("written", "not there yet")
        assert day.seconds > 0
    enriched_day = record.day("enrich", DAYS[1])
    assert enriched_day is not None
    image = enriched_day.columns["image"]
    assert (image["rows"], image["nulls"], image["lengths"]["values"]) == (3, 0, [[4, 3]])
    assert "items" not in image
    json.dumps(record.to_dict(), allow_nan=False)


def test_statistics_and_counters_are_those_of_the_day(plain: Trained) -> None:
    plain.project.write(
        "events/2026-05-02.parquet", events([*ROWS[DAYS[1]], (9, "2026-05-02 23:00", None, 10, "view", "z")])
    )
    service = plain.root / "feature_services/s.yaml"
    service.write_text(service.read_text() + "content_filter:\n- {name: no_late, sql: hour(ts) < 20}\n")
    result = plain.train(target_dates=[dt.date(2026, 5, 2)])
    day = get_run(plain.registry, result.run_id).day("skeleton", DAYS[1])
    assert day is not None
    table = pq.read_table(result.output_path / f"dt={DAYS[1]}/part-0-0.parquet", partitioning=None)
    assert {key: day.counters[key] for key in day.counters if not key.startswith("null key")} == {
        "rows in": 4,
        "dropped filter_no_late": 1,
        "rows joined": 4,
    }
    assert set(day.columns) == set(table.column_names)
    for name in table.column_names:
        assert day.columns[name]["nulls"] == table.column(name).null_count
        assert day.columns[name]["rows"] == 3
    assert (day.columns["artwork_id"]["min"], day.columns["artwork_id"]["max"]) == (10, 12)
    assert "hash" not in day.columns["qid"]


@pytest.mark.parametrize("engine", ["kernel", "duckdb"])
def test_each_filter_has_its_own_count(plain: Trained, monkeypatch, engine) -> None:
    monkeypatch.setenv("DAEDALUS_COMPUTE__ENGINE", engine)
    monkeypatch.setattr("daedalus.pipelines.days.stream.SLICE_ROWS", 2)
    service = plain.root / "feature_services/s.yaml"
    service.write_text(
        service.read_text() + "content_filter:\n"
        "- {name: no_tens, sql: artwork_id <> 10}\n"
        "- {name: known, sql: tier IS NOT NULL}\n"
        "- {name: not_after_nine, sql: hour(ts) < 9}\n"
    )
    result = plain.train()
    dropped = {
        day.day: {key: count for key, count in day.counters.items() if key.startswith("dropped")}
        for day in get_run(plain.registry, result.run_id).days
    }
    names = ("dropped filter_no_tens", "dropped filter_known", "dropped filter_not_after_nine")
    assert dropped == {
        DAYS[0]: dict(zip(names, (1, 1, 0), strict=True)),
        DAYS[1]: dict(zip(names, (1, 0, 0), strict=True)),
        DAYS[2]: dict(zip(names, (0, 1, 0), strict=True)),
    }


def test_a_second_run_says_that_nothing_was_written(plain: Trained) -> None:
    plain.train()
    second = plain.train()
    record = get_run(plain.registry, second.run_id)
    assert {day.state for day in record.days} == {"up to date"}
    assert record.row_count == 7
    line = list_runs(plain.registry)[0]
    assert (line["days"], line["days_written"], line["rows"]) == (3, 0, 7)
    # Reports read each day where it was written.
    found = day_records(plain.registry, "s")
    assert [day["day"] for day in found] == list(DAYS)
    assert all(day["columns"] and day["run_id"] != second.run_id for day in found)


def test_definitions_and_sessions_never_stand_there(enriched: Trained) -> None:
    enriched.train()
    raw = enriched.store.path.read_bytes()
    for secret in (
        b"window_days",
        b"hour(ts)",
        b"hist.event",
        b"field_mapping",
        b"op_kind",
        b"qid_map",
    ):
        assert secret not in raw
    with sqlite3.connect(enriched.store.path) as connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    assert tables == {"runs", "events"}


def test_a_run_that_fails_is_recorded_with_its_error_and_the_days_before(plain: Trained) -> None:
    broken = plain.root / "data/events/2026-05-12.parquet"
    broken.write_bytes(broken.read_bytes()[:-40])
    with pytest.raises(DaedalusError) as failed:
        plain.train()
    run = plain.store.find("latest")
    assert run.status is RunStatus.FAILED
    assert run.error is not None
    assert run.error["what"] == failed.value.what
    assert [line["event"] for line in run_log(plain.registry, "latest")][-2:] == ["error", "end"]
    plain.project.write("events/2026-05-12.parquet", events(ROWS[DAYS[2]]))
    plain.train()
    assert plain.store.find("latest").attempt == 2


def test_an_interrupted_run_keeps_the_days_it_wrote(plain: Trained) -> None:
    def stop(step: RunProgress) -> None:
        if step.message == "written" and step.day == DAYS[1]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plain.train(progress=stop)
    run = plain.store.find("latest")
    assert run.status is RunStatus.INTERRUPTED
    written = {day: payload for (_, day), payload in plain.store.days(run.run_id).items()}
    assert list(written) == list(DAYS[:2])
    assert all(payload["content_hash"] and payload["columns"] for payload in written.values())


def test_training_that_cannot_be_recorded_does_not_begin(plain: Trained) -> None:
    output = plain.root / "data/training_output"
    output.mkdir()
    (output / "metadata.sqlite").write_bytes(b"")  # cut off
    with pytest.raises(ExecutionError, match="records cannot be read: it is cut off"):
        plain.train()
    assert [path.name for path in output.iterdir()] == ["metadata.sqlite"]
    with pytest.raises(ExecutionError, match="the run cannot be recorded"):
        plain.train(options=RunOptions(overrides={"output_root": "/proc/run_root"}))


def _train_and_die(root: Path, at: str) -> None:
    os.chdir(root)

    def stop(step: Any) -> None:
        if f"{step.day} {step.message}" == at:
            os.kill(os.getpid(), signal.SIGKILL)

    PlatformRegistry.open(root).train("s", progress=stop)


@pytest.mark.slow
def test_a_training_process_that_is_killed_is_interrupted_and_its_days_are_recorded(plain: Trained) -> None:
    spawn = multiprocessing.get_context("spawn")
    child = spawn.Process(target=_train_and_die, args=(plain.root, f"{DAYS[1]} written"))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    killed = plain.store.find("latest")
    assert (killed.status, killed.ended_at) == (RunStatus.INTERRUPTED, "")
    assert [day for _, day in plain.store.days(killed.run_id)] == list(DAYS[:2])
    again = plain.train()
    assert [day.state for day in again.days] == ["up to date", "up to date", "written"]
    assert plain.store.find("latest").attempt == 2


def test_others_record_their_runs_and_leave_notes(plain: Trained) -> None:
    registry = plain.registry
    with recorded_run(registry, kind="check", service="s", config=registry.config()) as run:
        run.notice("password=hunter2 is no good")
        run.facts(found=3)
        run.attach("verdict", {"ok": False})
    attach_note(registry, run.run_id, "tracker", {"url": "u"})
    shown = show_run(registry, "latest")
    assert (shown["kind"], shown["status"]) == ("check", "succeeded")
    assert [note["kind"] for note in shown["notes"]] == ["verdict", "tracker"]
    assert "hunter2" not in Path(shown["log"]).read_text()
    with (
        pytest.raises(ZeroDivisionError),
        recorded_run(registry, kind="check", service="s", config=registry.config()),
    ):
        raise ZeroDivisionError("x")
    assert list_runs(registry, kind="check")[0]["status"] == "failed"
