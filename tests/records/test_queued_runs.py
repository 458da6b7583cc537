"""Runs that wait, and runs that are stopped: what the records say, and what happens to the process."""

from __future__ import annotations

import datetime as dt
import os
import pickle
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from daedalus.cli.main import main
from daedalus.errors import BusyError, DefinitionError, ExecutionError
from daedalus.metadata.process import ProcessMark
from daedalus.metadata.store import MetadataStore, RunStatus
from daedalus.platform import PlatformRegistry
from daedalus.platform.faults import fault_of
from daedalus.platform.records import run_holding, show_run
from daedalus.platform.run_control import cancel
from daedalus.platform.run_queue import RunQueue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REQUEST = {"target_dates": ["2026-01-05"], "stages": "all"}


@pytest.fixture
def store(tmp_path: Path) -> MetadataStore:
    return MetadataStore(tmp_path)


def queued(store: MetadataStore, **request: Any) -> str:
    asked = REQUEST | request
    return store.begin("train", service="s", request=asked, facts={"request": asked}, queued=True)


def test_a_run_waits_runs_and_ends(store: MetadataStore) -> None:
    run_id = queued(store)
    waiting = store.find(run_id)
    assert (waiting.status, waiting.ended_at, waiting.seconds) == (RunStatus.QUEUED, "", None)
    running = store.start(run_id, facts={"more": 1})
    assert (running.status, running.facts["more"]) == (RunStatus.RUNNING, 1)
    assert running.started_at >= waiting.started_at
    with pytest.raises(ExecutionError, match="running"):
        store.start(run_id)
    store.finish(run_id, RunStatus.SUCCEEDED)
    assert store.find(run_id).seconds is not None
    assert store.ask_to_stop(run_id).status is RunStatus.SUCCEEDED
    assert [line["event"] for line in store.log(run_id).lines()] == ["queued", "begin", "end", "stop asked"]


def test_what_was_stopped_while_it_waited_does_not_begin(store: MetadataStore) -> None:
    run_id = queued(store)
    assert cancel(store, run_id).status is RunStatus.CANCELLED
    with pytest.raises(ExecutionError, match="cancelled"):
        store.start(run_id)
    assert cancel(store, run_id).status is RunStatus.CANCELLED
    again = store.find(queued(store))
    assert again.attempt == 2


def test_whoever_queued_it_may_be_gone(store: MetadataStore) -> None:
    run_id = queued(store)
    store.append(run_id, "facts", {"process": ProcessMark.here().to_dict() | {"born": "before/1"}})
    assert store.find(run_id).status is RunStatus.INTERRUPTED
    assert store.start(run_id).status is RunStatus.RUNNING


@pytest.mark.parametrize("end", [RunStatus.FAILED, RunStatus.INTERRUPTED])
def test_an_end_that_was_asked_for_is_a_cancellation(store: MetadataStore, end: RunStatus) -> None:
    run_id = store.start(queued(store)).run_id
    assert store.ask_to_stop(run_id).status is RunStatus.RUNNING
    store.finish(run_id, end)
    assert store.find(run_id).status is RunStatus.CANCELLED


@pytest.fixture
def stubborn(store: MetadataStore) -> Iterator[tuple[str, psutil.Process, psutil.Process]]:
    """A run whose process heeds no interruption, with a child."""
    code = (
        "import signal, subprocess, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        "child = subprocess.Popen(['sleep', '1000']); print(child.pid, flush=True); child.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        process = psutil.Process(parent.pid)
        run_id = store.begin("train", service="s")
        mark = ProcessMark(
            host=ProcessMark.here().host, pid=process.pid, started=process.create_time()
        ).to_dict()
        store.append(run_id, "facts", {"process": mark})
        yield run_id, process, child
        for one in (child, process):
            if one.is_running():
                one.kill()


@pytest.mark.parametrize("milliseconds", [0, 8, 15, 30, 400])
def test_a_queue_that_closes_interrupts_a_process_that_still_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, milliseconds: int
) -> None:
    """An interpreter that is interrupted while it starts ends as one that fails, or goes on as if not told."""
    monkeypatch.chdir(tmp_path)
    assert main(["init", "shop"]) == 0
    registry = PlatformRegistry.open(tmp_path / "shop")
    runs = RunQueue()
    run_id = runs.submit(registry, "product_ranking", dt.date(2026, 1, 5))["run_id"]
    time.sleep(milliseconds / 1000)
    runs.close()
    run = show_run(registry, run_id)
    assert (run["status"], list(tmp_path.rglob("skeleton/dt=*"))) == ("interrupted", [])


def test_what_heeds_nothing_is_killed_with_its_children(store: MetadataStore, stubborn: Any) -> None:
    run_id, process, child = stubborn
    assert store.find(run_id).status is RunStatus.RUNNING
    assert cancel(store, run_id, grace_seconds=0.2).status is RunStatus.CANCELLED
    assert psutil.wait_procs([child, process], timeout=60)[1] == []


def test_a_run_of_another_host_is_left_alone(store: MetadataStore) -> None:
    run_id = store.begin("train", service="s")
    store.append(run_id, "facts", {"process": {"host": "elsewhere", "pid": os.getpid(), "started": 0.0}})
    with pytest.raises(ExecutionError, match="elsewhere"):
        cancel(store, run_id)
    assert store.find(run_id).status is RunStatus.RUNNING
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(DefinitionError, match="unknown run"):
        cancel(store, "nope")


def test_the_run_that_holds_a_day_is_found(store: MetadataStore) -> None:
    other = queued(store, target_dates=["2026-01-06"])
    assert run_holding(store, "s", "2026-01-05") is None
    every = queued(store, target_dates=[])
    assert run_holding(store, "s", "2026-01-05").run_id == every
    assert run_holding(store, "s", "2026-01-06", but=every).run_id == other
    assert run_holding(store, "t", "2026-01-06") is None
    store.finish(every, RunStatus.FAILED)
    assert run_holding(store, "s", "2026-01-05") is None
    store.begin("prove", service="s", facts={"request": REQUEST})
    assert run_holding(store, "s", "2026-01-05") is None  # a proof writes no day
    instant = queued(store, as_of="2026-01-05T00:00:00+00:00")
    assert run_holding(store, "s", "2026-01-05T00:00:00").run_id == instant
    assert run_holding(store, "s", "2026-01-05T00:00:01") is None


def test_who_holds_it_survives_the_way_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(BusyError("taken", day="2026-01-05", run_id="r1", hint="wait")))
    assert error.to_dict()["run_id"] == "r1"
    fault = fault_of(error, request_id="q")
    assert (fault.code, fault.data.run_id, fault.data.day, fault.data.request_id) == (
        -32006,
        "r1",
        "2026-01-05",
        "q",
    )
    assert "secret" not in fault_of(RuntimeError("secret")).model_dump_json()
