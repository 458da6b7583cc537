"""Where the time of a run goes, measured per operator: `daeda pipeline train --profile`.

    profile = DayProfile("skeleton", "2026-05-01")
    with profile.statement(connection, "join_users", lambda: ("events", "join_users")):
        connection.execute(...)
    profile.measures()

Relations compose into few SQL statements. A statement is measured as a whole, under the operator whose rows it
makes, with the operators it computes on the way and DuckDB's own time per plan step. What does not run in DuckDB
is timed where it runs. `NO_PROFILE` does nothing at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import threading
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import duckdb

Item = TypeVar("Item")
PROFILE_FOLDER = ".profiles"
#: The step under which wall and CPU time as a whole stand.
TOTAL = "total"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What one step of one operator took, in one day or summed over days.

    Attributes:
        step: `sql`, `plan`, `read`, `history`, `write cache`, `aggregate`, `function`, `hash`, `write` ..., or `total`.
        calls: how often it ran.
        wall: seconds.
        cpu: seconds over all threads.
        rows: that came out, of all calls.
        peak_memory: bytes that DuckDB held at most while it ran; None outside DuckDB.
        spilled: bytes on disk at most; None outside DuckDB.
        computes: operators whose work is part of the statement, in order.
        plan: (DuckDB's plan step, seconds of all threads in it, waiting included), longest first.
    """

    stage: str
    operator: str
    step: str
    day: str = ""
    calls: int = 1
    wall: float = 0.0
    cpu: float = 0.0
    rows: int = 0
    peak_memory: int | None = None
    spilled: int | None = None
    computes: tuple[str, ...] = ()
    plan: tuple[tuple[str, float], ...] = ()


class NoProfile:
    """Measures nothing."""

    on = False

    def timed(self, operator: str, step: str, rows: int = 0) -> contextlib.AbstractContextManager[None]:
        """Nothing around the block."""
        return contextlib.nullcontext()

    def shared(self, operator: str, step: str, rows: int = 0) -> contextlib.AbstractContextManager[None]:
        """Nothing around the block."""
        return contextlib.nullcontext()

    def statement(
        self, connection: duckdb.DuckDBPyConnection, operator: str, computes: Callable[[], Iterable[str]]
    ) -> contextlib.AbstractContextManager[None]:
        """Nothing around the block."""
        return contextlib.nullcontext()

    def waiting(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches."""
        return batches

    def each(self, items: Iterable[Item], operator: str, step: str) -> Iterable[Item]:
        """The items."""
        return items

    def watch(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Leave the connection as it is."""

    def total(self) -> contextlib.AbstractContextManager[None]:
        """Nothing around the block."""
        return contextlib.nullcontext()

    def measures(self) -> tuple[Measure, ...]:
        """None."""
        return ()


class DayProfile(NoProfile):
    """Measures one day of one stage.

    Args:
        stage: `skeleton` or `enrich`.
        day: ISO.
    """

    on = True

    def __init__(self, stage: str, day: str) -> None:
        self._stage, self._day = stage, day
        self._measures: list[Measure] = []
        self._lock = threading.Lock()
        self._owner = threading.get_ident()
        self._inside = (0.0, 0.0)  # wall and CPU measured so far in the day's own thread
        self._beside = 0.0  # CPU measured so far in others
        self._waited: float | None = None

    @contextlib.contextmanager
    def timed(self, operator: str, step: str, rows: int = 0) -> Iterator[None]:
        """Measure a block that runs in its thread alone, whichever that is."""
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self._add(operator, step, rows, time.perf_counter() - wall, time.thread_time() - cpu)

    @contextlib.contextmanager
    def shared(self, operator: str, step: str, rows: int = 0) -> Iterator[None]:
        """Measure a block of the day's own thread that uses others: the process's CPU.

        What is measured within it, and in other threads beside it, is not counted again.
        """
        began = self._now()
        try:
            yield
        finally:
            self._add(operator, step, rows, *self._since(began))

    def _now(self) -> tuple[float, ...]:
        return time.perf_counter(), time.process_time(), *self._inside, self._beside

    def _since(self, began: tuple[float, ...]) -> tuple[float, float]:
        """Wall and CPU seconds that nothing else has counted."""
        wall, cpu, inside_wall, inside_cpu, beside = (
            now - before for now, before in zip(self._now(), began, strict=True)
        )
        return max(wall - inside_wall, 0.0), max(cpu - inside_cpu - beside, 0.0)

    @contextlib.contextmanager
    def statement(
        self, connection: duckdb.DuckDBPyConnection, operator: str, computes: Callable[[], Iterable[str]]
    ) -> Iterator[None]:
        """Measure the statement that the block runs to its end on a watched connection."""
        names = tuple(computes())
        began = self._now()
        self._waited = None
        yield
        wall, cpu = self._since(began)
        found = _last_statement(connection)
        if found is None:  # DESCRIBE, or rows that somebody fetches later
            self._add(operator, "plan", 0, wall, cpu)
            return
        plan: dict[str, float] = defaultdict(float)
        _sum_plan(found, plan)
        self._add(
            operator,
            "write cache" if found["query_name"].startswith("COPY ") else "sql",
            _rows(found),
            # While a consumer works on a batch, the clock of a streaming statement runs.
            wall if self._waited is None else self._waited,
            cpu,
            peak_memory=found.get("system_peak_buffer_memory"),
            spilled=found.get("system_peak_temp_dir_size"),
            computes=names,
            plan=_longest_first(plan),
        )

    def waiting(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches of the statement under way; only the waiting for them is its wall time."""
        self._waited = waited = 0.0
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - started
            self._waited = waited
            if batch is None:
                return
            yield batch

    def each(self, items: Iterable[Item], operator: str, step: str) -> Iterator[Item]:
        """The items; making each is measured."""
        source = iter(items)
        while True:
            with self.timed(operator, step):
                item = next(source, None)
            if item is None:
                return
            yield item

    def watch(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Have DuckDB measure the statements of this connection."""
        connection.execute("PRAGMA enable_profiling = 'no_output'")

    @contextlib.contextmanager
    def total(self) -> Iterator[None]:
        """The block is all of the work that is measured."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self._add("", TOTAL, 0, time.perf_counter() - wall, time.process_time() - cpu)

    def add(self, measures: Iterable[Measure]) -> None:
        """Take what another process measured."""
        with self._lock:
            self._measures += measures

    def measures(self) -> tuple[Measure, ...]:
        """One per operator and step, in the order in which they began."""
        with self._lock:
            return summed(self._measures)

    def _add(self, operator: str, step: str, rows: int, wall: float, cpu: float, **more: Any) -> None:
        measure = Measure(
            stage=self._stage,
            day=self._day,
            operator=operator,
            step=step,
            rows=rows,
            wall=wall,
            cpu=cpu,
            **more,
        )
        with self._lock:
            self._measures.append(measure)
            if threading.get_ident() == self._owner:
                self._inside = (self._inside[0] + wall, self._inside[1] + cpu)
            else:
                self._beside += cpu


NO_PROFILE = NoProfile()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProfile:
    """What a run measured.

    Attributes:
        measures: per stage, day, operator and step.
        path: where it is written as JSON.
    """

    measures: tuple[Measure, ...]
    path: str = ""

    def by_operator(self) -> tuple[Measure, ...]:
        """The same without days: sums, and of memory and spill the largest."""
        return summed(dataclasses.replace(measure, day="") for measure in self.measures)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: `operators` over all days, and `days`."""
        return {
            "path": self.path,
            "operators": [_plain(measure) for measure in self.by_operator()],
            "days": [_plain(measure) for measure in self.measures],
        }


def write_profile(root: Path, measures: Iterable[Measure], run_id: str = "") -> RunProfile:
    """The profile of a run, kept as JSON under the service's output folder, named after the run."""
    folder = root / PROFILE_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    now = dt.datetime.now(dt.UTC)
    path = folder / f"{run_id or f'{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}'}.json"
    profile = RunProfile(measures=summed(measures), path=str(path))
    written = {"written_at": now.isoformat(timespec="seconds"), **profile.to_dict()}
    path.write_text(json.dumps(written, indent=1))
    return profile


def summed(measures: Iterable[Measure]) -> tuple[Measure, ...]:
    """One measure per stage, day, operator and step: sums, and of memory and spill the largest.

    >>> two = [Measure(stage="s", operator="a", step="sql", wall=1.0, rows=2) for _ in range(2)]
    >>> [(one.calls, one.wall, one.rows) for one in summed(two)]
    [(2, 2.0, 4)]
    """
    totals: dict[tuple[str, ...], _Total] = {}
    for measure in measures:
        key = (measure.stage, measure.day, measure.operator, measure.step)
        totals.setdefault(key, _Total(measure)).add(measure)
    return tuple(total.measure() for total in totals.values())


@dataclass
class _Total:
    first: Measure
    calls: int = 0
    wall: float = 0.0
    cpu: float = 0.0
    rows: int = 0
    peaks: list[int] = field(default_factory=list)
    spills: list[int] = field(default_factory=list)
    computes: dict[str, None] = field(default_factory=dict)
    plan: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, measure: Measure) -> None:
        self.calls += measure.calls
        self.wall += measure.wall
        self.cpu += measure.cpu
        self.rows += measure.rows
        self.peaks += [] if measure.peak_memory is None else [measure.peak_memory]
        self.spills += [] if measure.spilled is None else [measure.spilled]
        self.computes.update(dict.fromkeys(measure.computes))
        for name, seconds in measure.plan:
            self.plan[name] += seconds

    def measure(self) -> Measure:
        return dataclasses.replace(
            self.first,
            calls=self.calls,
            wall=self.wall,
            cpu=self.cpu,
            rows=self.rows,
            peak_memory=max(self.peaks, default=None),
            spilled=max(self.spills, default=None),
            computes=tuple(self.computes),
            plan=_longest_first(self.plan),
        )


def _plain(measure: Measure) -> dict[str, Any]:
    data = dataclasses.asdict(measure)
    data |= {"wall": round(measure.wall, 4), "cpu": round(measure.cpu, 4)}
    data["plan"] = {name: round(seconds, 4) for name, seconds in measure.plan}
    data["computes"] = list(measure.computes)
    return data if measure.day else {key: value for key, value in data.items() if key != "day"}


def _last_statement(connection: duckdb.DuckDBPyConnection) -> dict[str, Any] | None:
    """DuckDB's profile of what ran last; None when it profiled nothing."""
    found: dict[str, Any] = json.loads(connection.get_profiling_information(format="json"))
    return found if found.get("query_name") else None


def _sum_plan(node: dict[str, Any], plan: dict[str, float]) -> None:
    if "operator_name" in node:
        plan[str(node["operator_name"]).strip()] += node.get("operator_timing") or 0.0
    for child in node.get("children", ()):
        _sum_plan(child, plan)


def _rows(found: dict[str, Any]) -> int:
    """Rows that the statement made: what it returned, or what it wrote."""
    top = found["children"][0] if found.get("children") else {}
    writes = any(word in str(top.get("operator_name", "")) for word in ("CREATE_TABLE", "COPY_TO_FILE"))
    below = top.get("children") or [top]
    return int(below[0].get("operator_cardinality") or 0) if writes else int(found.get("rows_returned") or 0)


def _longest_first(plan: dict[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple(sorted(plan.items(), key=lambda pair: -pair[1]))
