"""`RunQueue`: runs that surfaces start, each in a process of its own, so many at a time.

    queue = RunQueue(workers=2)
    run = queue.submit(registry, "dssm_ranking", day)     # returns at once; the run is recorded as queued
    queue.close()

What waits and what runs stands in the run records, nowhere else: any process can list, follow and cancel it.
A caller that goes away changes nothing; closing the queue interrupts what it started.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from daedalus.errors import BusyError, DaedalusError, DefinitionError, ParameterError
from daedalus.metadata.store import MetadataStore, RunStatus
from daedalus.platform.project import RunOptions
from daedalus.platform.records import run_holding
from daedalus.platform.registry import train_request
from daedalus.platform.results import RunState
from daedalus.platform.run_control import GRACE_SECONDS, kill_tree
from daedalus.platform.run_worker import ENDING_SIGNALS

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable
    from pathlib import Path

    from daedalus.pipelines.settings import TrainingRunConfig
    from daedalus.platform.registry import PlatformRegistry

_SAID_BYTES = 8192
#: How a run's process ends that is told to.
_INTERRUPTED = (130, -signal.SIGINT, -signal.SIGTERM)


class RunLauncher(Protocol):
    """Starts the run of a partition."""

    def submit(self, registry: PlatformRegistry, service: str, day: dt.date) -> RunState:
        """Start it; returns at once."""
        ...

    def close(self) -> None:
        """Nothing more will be started."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A run that waits."""

    run_id: str
    store: MetadataStore
    arguments: dict[str, str]


class RunQueue:
    """Runs that wait, and the processes that do them.

    Args:
        workers: runs at a time.
        capacity: how many may wait.
        grace_seconds: what a run gets to end by itself when the queue is closed.
    """

    def __init__(self, *, workers: int = 1, capacity: int = 32, grace_seconds: float = GRACE_SECONDS) -> None:
        self._capacity = capacity
        self._grace = grace_seconds
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting: dict[str, _Job] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"daedalus-runs-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, registry: PlatformRegistry, service: str, day: dt.date) -> RunState:
        """Record a run of one day and have it done when its turn comes.

        Raises:
            ParameterError: the day is outside the configured months.
            DefinitionError, CompileError: the service does not make a pipeline.
            BusyError: a run is at this day already, and which; or too many wait.
        """
        config = registry.config()
        require_in_range(config, day)
        pipeline = registry.pipeline(service, config)
        store = MetadataStore(config.output_path)
        with self._lock:
            self._check_free(store, service, day.isoformat())
            request = train_request([day], "all", RunOptions())
            run_id = store.begin(
                "train",
                service=service,
                version=pipeline.version,
                facts={"request": request, "output_root": str(config.output_path), "via": "queue"},
                request=request,
                queued=True,
            )
            arguments = {
                "run_id": run_id,
                "service": service,
                "day": day.isoformat(),
                "project_root": str(registry.project_root),
                "views_dir": str(registry.views_dir),
                "services_dir": str(registry.services_dir),
            }
            job = _Job(run_id=run_id, store=store, arguments=arguments)
            self._waiting[run_id] = job
            self._jobs.put(job)
        return RunState(run_id=run_id, status=store.find(run_id).status.value)

    def close(self) -> None:
        """Begin nothing more, end what runs; no day is left half-written."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, {}
            running = dict(self._running)
        for job in waiting.values():
            with contextlib.suppress(DaedalusError):
                if job.store.find(job.run_id).status is RunStatus.QUEUED:
                    job.store.finish(
                        job.run_id, RunStatus.INTERRUPTED, error=_told("shut down while it waited")
                    )
        for process in running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
        for process in running.values():
            try:
                process.wait(self._grace)
            except subprocess.TimeoutExpired:
                kill_tree(process.pid)
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(self._grace)

    def _check_free(self, store: MetadataStore, service: str, day: str) -> None:
        if self._closed:
            raise BusyError("no run is started any more: this process is shutting down", day=day)
        holder = run_holding(store, service, day)
        if holder is not None:
            raise BusyError(
                f"run {holder.run_id} is at this day",
                where=f"service {service}",
                hint=f"It is {holder.status.value}: wait for it, or cancel it",
                day=day,
                run_id=holder.run_id,
            )
        waiting = [run_id for run_id, job in self._waiting.items() if not _is_over(job)]
        if len(waiting) >= self._capacity:
            raise BusyError(f"{len(waiting)} runs wait already", hint="Try again when some are done", day=day)

    # ------------------------------------------------------------------ the workers' side

    def _work(self) -> None:
        # A run's process inherits the mask: an interpreter interrupted while it starts says that it failed.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
        while (job := self._jobs.get()) is not None:
            with contextlib.suppress(DaedalusError):  # the records are gone: nobody to tell
                self._do(job)

    def _do(self, job: _Job) -> None:
        said = job.store.log(job.run_id).path.with_suffix(".stderr")
        with self._lock:
            mine = self._waiting.pop(job.run_id, None) is not None
            if not mine or _is_over(job):
                return
            with said.open("wb") as errors:
                process = subprocess.Popen(  # noqa: S603 - this interpreter, our module
                    [sys.executable, "-m", "daedalus.platform.run_worker", json.dumps(job.arguments)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    # Ctrl-C in the server's terminal is the server's to handle.
                    start_new_session=True,
                )
            self._running[job.run_id] = process
        code = process.wait()
        with self._lock:
            self._running.pop(job.run_id, None)
            closed = self._closed
        _settle(job, code, said, interrupted=closed or code in _INTERRUPTED)


class ElsewhereLauncher:
    """Has somebody else do the runs, such as Dagster; its run ids are its own.

    Args:
        launch: starts the run of a service's day, returns its id.
    """

    def __init__(self, launch: Callable[[str, dt.date], str]) -> None:
        self._launch = launch

    def submit(self, registry: PlatformRegistry, service: str, day: dt.date) -> RunState:
        """Ask for it; what went wrong there is raised here.

        Raises:
            ParameterError: the day is outside the configured months.
        """
        require_in_range(registry.config(), day)
        return RunState(run_id=self._launch(service, day), status=RunStatus.QUEUED.value)

    def close(self) -> None:
        """Its runs go on."""


def require_in_range(config: TrainingRunConfig, day: dt.date) -> None:
    """ParameterError unless the day lies in the configured months."""
    try:
        config.require_day(day)
    except DefinitionError as error:
        raise ParameterError(error.what, where="params.partition", hint=error.hint) from None


def _is_over(job: _Job) -> bool:
    return job.store.find(job.run_id).status.is_over


def _settle(job: _Job, code: int, said: Path, *, interrupted: bool) -> None:
    """See to it that a run whose process is gone has an end."""
    run = job.store.find(job.run_id)
    if not run.ended_at and run.status is not RunStatus.CANCELLED:
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        last = said.read_bytes()[-_SAID_BYTES:].decode(errors="replace").strip()
        if last:
            job.store.log(job.run_id).write("process", level="error", stderr=last)
        # It may be told to end before it has begun its record, which would say so.
        status = RunStatus.INTERRUPTED if interrupted else RunStatus.FAILED
        job.store.finish(job.run_id, status, error=_told(f"its process ended by {how}"))
    said.unlink(missing_ok=True)


def _told(what: str) -> dict[str, str]:
    return {"error": "ExecutionError", "what": what, "message": what}


# ------------------------------------------------------------------ one per project and process

_launchers: dict[Path, RunLauncher] = {}
_launchers_lock = threading.Lock()


def start_queue(registry: PlatformRegistry, launcher: RunLauncher) -> RunLauncher:
    """Have this process start the project's runs through `launcher`; the one before is closed."""
    with _launchers_lock:
        before = _launchers.get(registry.project_root)
        _launchers[registry.project_root] = launcher
    if before is not None:
        before.close()
    return launcher


def queue_of(registry: PlatformRegistry) -> RunLauncher:
    """What starts the project's runs in this process: as configured, one at a time, unless something else is set."""
    with _launchers_lock:
        if registry.project_root not in _launchers:
            _launchers[registry.project_root] = launcher_for(registry)
        return _launchers[registry.project_root]


def launcher_for(registry: PlatformRegistry, *, workers: int = 1, capacity: int = 32) -> RunLauncher:
    """What does the project's runs: processes of this one, or Dagster where `runs_via` says so."""
    if registry.config().runs_via == "queue":
        return RunQueue(workers=workers, capacity=capacity)
    from daedalus.platform.dagster_client import launch_partition
    from daedalus.platform.runs import dagster_url

    url = dagster_url()
    return ElsewhereLauncher(lambda service, day: launch_partition(url, service, day))


def close_queues() -> None:
    """End what this process started."""
    with _launchers_lock:
        launchers = list(_launchers.values())
        _launchers.clear()
    for launcher in launchers:
        launcher.close()


atexit.register(close_queues)
if hasattr(os, "register_at_fork"):
    # A forked child has none of the threads, and must not end its parent's runs.
    os.register_at_fork(after_in_child=_launchers.clear)
