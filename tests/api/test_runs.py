"""Runs that the server starts: queued, done in processes of their own, told apart, stopped; no half-written day."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pyarrow.parquet as pq
import pytest

from api.conftest import SERVICE, serving, started_project, until
from daedalus.cli.main import main
from daedalus.metadata.store import RunStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from api.conftest import Server

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("api")]


@pytest.fixture(scope="module")
def runs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One of its own, for its queue is full at times;"""
    with serving(started_project(tmp_path_factory.mktemp("runs")), "--queue-size", "1") as found:
        yield found


@pytest.fixture
def server(runs_server: Server) -> Server:
    """The module's server, with no day made yet."""
    shutil.rmtree(runs_server.root / "data/training_output" / SERVICE / "skeleton", ignore_errors=True)
    return runs_server


def status(server: Server, run_id: str) -> str:
    return server.call("runs.get", run_id=run_id)["status"]


def held(server: Server, run_id: str, day: str) -> psutil.Process:
    """The run's process, stopped while it writes the day."""
    owner = server.root / "data/training_output" / SERVICE / f"skeleton/.locks/{day}.owner"
    run = until(
        lambda: (found := server.store.find(run_id)).status is RunStatus.RUNNING and found, every=0.002
    )
    mine = f"process {run.facts['process']['pid']} "
    until(lambda: owner.exists() and owner.read_text().startswith(mine), every=0.002)
    process = psutil.Process(run.facts["process"]["pid"])
    process.send_signal(signal.SIGSTOP)
    assert owner.exists(), "it was over before it could be held"
    return process


def is_signalled(process: psutil.Process) -> bool:
    """Whether a signal waits for a stopped process."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return any(int(line.split()[1], 16) for line in lines if line.startswith(("ShdPnd", "SigPnd")))


def days(server: Server) -> list[str]:
    folder = server.root / "data/training_output" / SERVICE / "skeleton"
    return sorted(path.name for path in folder.glob("dt=*"))


def test_a_run_and_one_that_finds_its_day_taken(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    first = server.run("2026-01-05")
    held_still = held(server, first, "2026-01-05")
    again = server.call("runs.materialize_partition", SERVICE, "2026-01-05")
    assert (again.code, again.data["run_id"], again.data["kind"]) == (-32006, first, "BusyError")
    waits = server.run("2026-01-06")
    assert status(server, waits) == "queued"
    full = server.call("runs.materialize_partition", SERVICE, "2026-01-07")
    assert (full.code, full.data["run_id"]) == (-32006, "")
    assert "wait" in full.message
    assert server.call("runs.cancel", waits) == {"run_id": waits, "status": "cancelled"}
    # Started in a shell meanwhile: told by the day's lock, and by which run.
    monkeypatch.chdir(server.root)
    assert main(["pipeline", "train", SERVICE, "--target-date", "2026-01-05"]) == 1
    refused = server.call("runs.list", limit=1)[0]
    assert refused["status"] == "failed"
    assert first in server.call("runs.get", refused["run_id"])["error"]["message"]
    held_still.send_signal(signal.SIGCONT)
    until(lambda: status(server, first) == "succeeded")
    assert days(server) == ["dt=2026-01-05"]
    [part] = (server.root / "data/training_output" / SERVICE / "skeleton/dt=2026-01-05").glob("*.parquet")
    assert pq.ParquetFile(part).metadata.num_rows == 300
    log = server.call("runs.logs", first)
    assert [log[0]["event"], log[-1]["status"]] == ["queued", "succeeded"]
    assert server.call("runs.logs", first, 1) == log[-1:]
    assert server.call("runs.cancel", first)["status"] == "succeeded"  # it is over


def test_a_run_is_interrupted_from_a_shell(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = server.run("2026-01-08")
    process = held(server, run_id, "2026-01-08")
    monkeypatch.chdir(server.root)
    stopping = threading.Thread(target=main, args=(["runs", "cancel", run_id, "--format", "json"],))
    stopping.start()
    until(lambda: is_signalled(process))
    process.send_signal(signal.SIGCONT)
    stopping.join(90)
    assert json.loads(capsys.readouterr().out) == {"run_id": run_id, "status": "cancelled"}
    until(lambda: not psutil.pid_exists(process.pid))
    assert "dt=2026-01-08" not in days(server)


def test_a_crash_takes_nothing_else_along(server: Server) -> None:
    run_id = server.run("2026-01-08")
    held(server, run_id, "2026-01-08").kill()
    run = until(lambda: (found := server.call("runs.get", run_id))["status"] == "failed" and found)
    assert "SIGKILL" in run["error"]["message"]
    assert "dt=2026-01-08" not in days(server)
    assert server.client.get("/readyz").status_code == 200


def test_sigterm_ends_server_and_runs(tmp_path: Path) -> None:
    with serving(started_project(tmp_path), "--queue-size", "1") as server:
        made = server.run("2026-01-05")
        until(lambda: status(server, made) == "succeeded")
        run_id = server.run("2026-01-08")
        process = held(server, run_id, "2026-01-08")
        waits = server.run("2026-01-09")
        os.kill(server.process.pid, signal.SIGTERM)
        until(lambda: is_signalled(process))
        process.send_signal(signal.SIGCONT)
        assert server.process.wait(90) == 0
    ends = {run_id: server.store.find(run_id).status, waits: server.store.find(waits).status}
    assert ends == {run_id: RunStatus.INTERRUPTED, waits: RunStatus.INTERRUPTED}
    assert not psutil.pid_exists(process.pid)
    assert days(server) == ["dt=2026-01-05"]
    assert "Traceback" not in server.log.read_text()
