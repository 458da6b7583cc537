"""Processes that die when they are told to: a run in a fork of this one, and the moment at which SIGKILL ends it.

A stage is a function that the run passes through. In the child it is wrapped; an undisturbed run says how often
each is entered and how long it takes. A moment is one entry of a stage and a fraction of its time: the child says
that it is there, the parent waits the fraction and kills. What takes no time is killed right before or right after.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: By stage the functions that are it, as `module:attribute`.
STAGES: dict[str, tuple[str, ...]] = {
    "compile": ("daedalus.platform.registry:PlatformRegistry.pipeline",),
    "record": (
        "daedalus.metadata.store:MetadataStore.begin",
        "daedalus.metadata.store:MetadataStore.append",
    ),
    "number sessions": ("daedalus.pipelines.skeleton_run:number_sessions",),
    "history": (
        "daedalus.pipelines.days.history_cache:HistoryCache._finish",
        "daedalus.pipelines.days.history_cache:HistoryCache._write_sql",
    ),
    "read": ("daedalus.pipelines.training:prepared_stream",),
    "spill": ("daedalus.pipelines.days.spilled_rows:SpillWriter.write",),
    "aggregate": ("daedalus.pipelines.days.aggregates:DayAggregate.columns",),
    "write": ("daedalus.storage.sinks.parquet:_Shard.write",),
    "manifest": ("daedalus.metadata.days:flush", "daedalus.metadata.days:DayManifest.to_json"),
    "rename": ("pathlib:Path.rename", "pathlib:Path.replace"),
    "enrich": ("daedalus.pipelines.enrich.shards:ShardEnricher.run",),
    "publish": ("daedalus.storage.sinks.tables:TableSink._publish",),
}
#: At any time of the whole run.
ANYWHERE = "anywhere"
_AT_ONCE_SECONDS = 0.004
_DEADLINE_SECONDS = 240
_ORPHAN_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When a run is killed.

    Attributes:
        entry: the how-manieth entry of the stage, from 1 on; 0 of `anywhere`.
        fraction: of the time that this entry took when nobody disturbed it.
        seconds: that time.
    """

    stage: str
    entry: int
    fraction: float
    seconds: float

    @property
    def delay(self) -> float:
        return self.fraction * self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a child ended.

    Attributes:
        signal: that killed it; 0 when it ended by itself.
        answer: what it said at its end; None when it could not.
        trace: (stage, seconds) of every entry, in order of their ends.
        orphans: processes it had started that outlived it by seconds; they were killed, too.
    """

    signal: int
    answer: Any
    trace: list[tuple[str, float]]
    seconds: float
    orphans: int


class _Stages:
    """The wrapped functions of a child."""

    def __init__(self, moment: Moment | None, pipe: int) -> None:
        self._moment = moment
        self._pipe = pipe
        self._entries: Counter[str] = Counter()
        self.trace: list[tuple[str, float]] = []

    def wrap(self) -> None:
        for stage, places in STAGES.items():
            for place in places:
                module, _, path = place.partition(":")
                *owners, name = path.split(".")
                owner = functools.reduce(getattr, owners, importlib.import_module(module))
                setattr(owner, name, self._wrapped(stage, getattr(owner, name)))

    def _wrapped(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._entries[stage] += 1
            due = self._moment if self._is_due(stage) else None
            if due is not None:
                self._enter(due)
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.trace.append((stage, time.perf_counter() - started))
                if due is not None:
                    _die()

        return call

    def _is_due(self, stage: str) -> bool:
        due = self._moment
        return due is not None and (due.stage, due.entry) == (stage, self._entries[stage])

    def _enter(self, due: Moment) -> None:
        if due.seconds >= _AT_ONCE_SECONDS:
            os.write(self._pipe, b"there\n")
        elif due.fraction < 0.5:
            _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(
    work: Callable[[], Any], log: Path, *, moment: Moment | None = None, traced: bool = False
) -> Ended:
    """Do the work in a fork of this process, which has only imported what it needs; kill it at the moment.

    Args:
        work: what it returns must be JSON.
        log: where its output goes.
        moment: None lets it end.
        traced: whether to say how long each stage took.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    read, write = os.pipe()
    started = time.perf_counter()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _be_child(work, log, write, moment, traced=traced)
    os.close(write)
    said = _watch(pid, read, moment, started)
    os.close(read)
    _, status = os.waitpid(pid, 0)
    lines = [line for line in said.split(b"\n") if line and line != b"there"]
    told = json.loads(lines[-1]) if lines else {"answer": None, "trace": []}
    return Ended(
        signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        answer=told["answer"],
        trace=[tuple(one) for one in told["trace"]],
        seconds=time.perf_counter() - started,
        orphans=_bury_orphans(pid),
    )


def _be_child(work: Callable[[], Any], log: Path, pipe: int, moment: Moment | None, *, traced: bool) -> None:
    """Never returns."""
    code = 1
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(output, 1)
        os.dup2(output, 2)
        stages = _Stages(moment, pipe)
        if traced or moment is not None:
            stages.wrap()
        answer = work()
        os.write(pipe, json.dumps({"answer": answer, "trace": stages.trace}).encode() + b"\n")
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _watch(pid: int, pipe: int, moment: Moment | None, started: float) -> bytes:
    """Read what the child says until it ends; kill it when its moment has come."""
    said, kill_at = b"", started + _DEADLINE_SECONDS
    if moment is not None and moment.stage == ANYWHERE:
        kill_at = started + moment.delay
    while True:
        if not select.select([pipe], [], [], max(0.0, kill_at - time.perf_counter()))[0]:
            os.kill(pid, signal.SIGKILL)
            kill_at = time.perf_counter() + 1
            continue
        piece = os.read(pipe, 1 << 16)
        if not piece:
            return said
        if moment is not None and b"there" in piece:
            kill_at = time.perf_counter() + moment.delay
        said += piece


def _bury_orphans(session: int) -> int:
    """Wait for the other processes of a session to end; kill and count those that do not."""
    deadline = time.perf_counter() + _ORPHAN_SECONDS
    while (left := _session(session)) and time.perf_counter() < deadline:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return len(left)


def _session(session: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != session:
            try:
                if os.getsid(int(name)) == session:
                    found.append(int(name))
            except OSError:
                continue
    return found


def as_plain(moment: Moment) -> dict[str, Any]:
    return asdict(moment)
