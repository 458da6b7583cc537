"""Days as tasks of a Ray cluster whose nodes see the same files.

A task takes the CPUs of `threads` and the memory of `memory_limit` of `compute.duckdb_config`, so Ray puts as many
on a node as it can bear. Outcomes and errors come back as data: Ray neither retries nor logs nor wraps them.

Nothing is uploaded. Tasks find modules where the driver finds them, and get the environment variables that the
definitions name by `${...}`, as an argument of the task, which Ray does not log.
"""

from __future__ import annotations

import contextlib
import os
import pickle  # what is unpickled here, this run's own driver or workers pickled
import re
import sys
import traceback
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from daedalus.errors import DaedalusError, ExecutionError
from daedalus.secrets import ENV_REFERENCE, is_secret_name, mask, remember_secret
from daedalus.storage.sources.settings import STORE_ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from daedalus.pipelines.days.context import DayContext
    from daedalus.pipelines.days.scheduling import Report
    from daedalus.pipelines.days.work import Done, SharedWork, Work

#: A worker that dies takes its piece of work with it; a piece is tried so often.
ATTEMPTS = 3
#: A network file system frees the lock of a host that is gone after its lease, 90 s by default.
RETRY_LOCK_SECONDS = 120.0
_POLITE_SECONDS = 1.0
_STOP_SECONDS = 10.0
#: What a day may hold beyond `memory_limit`: Python, and tables on their way to the file.
_BESIDE_DUCKDB = 1.25
_SIZE = re.compile(r"\s*([0-9.]+)\s*([kmgt]?)(i?)b(?:ytes)?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskNeeds:
    """What a task takes of its node.

    Attributes:
        cpus: CPUs.
        memory: bytes; 0 asks for none.
        places: tasks that the cluster can run at a time.
    """

    cpus: int
    memory: int
    places: int

    @classmethod
    def of(cls, duckdb_settings: dict[str, str], nodes: Sequence[dict[str, float]]) -> TaskNeeds:
        """The needs of a day, cut to the largest node, so that no task waits for a node that never comes.

        >>> nodes = [{"CPU": 8, "memory": 32e9}, {"CPU": 4, "memory": 16e9}]
        >>> TaskNeeds.of({"threads": "4", "memory_limit": "8GB"}, nodes)
        TaskNeeds(cpus=4, memory=10000000000, places=3)
        >>> TaskNeeds.of({}, nodes)  # a day takes all of a small node
        TaskNeeds(cpus=4, memory=0, places=3)
        """
        sizes = [(int(node.get("CPU", 0)), int(node.get("memory", 0))) for node in nodes]
        able = [size for size in sizes if size[0] >= 1]
        if not able:
            raise ExecutionError("the Ray cluster has no node with CPUs", hint="Add nodes, then run again")
        wanted = duckdb_settings.get("threads", "")
        cpus = int(wanted) if wanted.isdigit() else min(cpus for cpus, _ in able)
        cpus = max(1, min(cpus, max(cpus for cpus, _ in able)))
        fitting = [memory for size, memory in able if size >= cpus]
        memory = min(
            round(size_bytes(duckdb_settings.get("memory_limit", "")) * _BESIDE_DUCKDB), max(fitting)
        )
        places = sum(min(size // cpus, held // memory if memory else size) for size, held in able)
        return cls(cpus=cpus, memory=memory, places=max(1, places))


def size_bytes(text: str) -> int:
    """DuckDB's spelling of a size in bytes; 0 for one that says no size, such as `80%`.

    >>> size_bytes("4GB"), size_bytes("1.5 GiB"), size_bytes("80%")
    (4000000000, 1610612736, 0)
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        return 0
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** " kmgt".index(match[2].lower() or " "))


def referenced_environment(context: DayContext) -> dict[str, str]:
    """The variables that definitions name by `${...}`, or that object stores fall back on, as far as they are set."""
    texts = (repr(context.config), repr(context.catalog.views), repr(context.pipeline))
    names = {name for text in texts for name in ENV_REFERENCE.findall(text)} | set(STORE_ENVIRONMENT)
    return {name: os.environ[name] for name in sorted(names) if name in os.environ}


@dataclass
class _UnderWay:
    """The tasks that were handed to Ray.

    Attributes:
        by_task: index of the piece of work, by object reference.
        attempts: how often each piece was begun.
    """

    by_task: dict[Any, int] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)


class RayTasks:
    """Pieces of work as tasks of the Ray session that is connected.

    Args:
        in_flight: tasks at a time; None is as many as the cluster can run.
        notify: told in one line what the user should know.
    """

    def __init__(self, in_flight: int | None, notify: Callable[[str], None]) -> None:
        self._in_flight = in_flight
        self._notify = notify

    def places(self, settings: dict[str, str]) -> int:
        """Tasks at a time."""
        needs = TaskNeeds.of(settings, _nodes())
        return needs.places if self._in_flight is None else self._in_flight

    def each(self, shared: SharedWork, work: Sequence[Work], report: Report) -> Generator[tuple[int, Done]]:
        """Outcomes as they come; closed early, it cancels what is under way and waits until that has stopped."""
        import ray

        settings = shared.context.config.duckdb_settings()
        needs = TaskNeeds.of(settings, _nodes())
        if "threads" not in settings:
            # Left to itself, DuckDB takes all threads of the node, whatever else runs there.
            shared = _with_threads(shared, needs.cpus)
        at_once = needs.places if self._in_flight is None else self._in_flight
        call = ray.remote(_run).options(
            num_cpus=needs.cpus, memory=needs.memory or None, max_retries=0, scheduling_strategy="SPREAD"
        )
        common = ray.put(pickle.dumps(shared))
        setting = _Setting(path=_module_path(), environment=referenced_environment(shared.context))
        state = _UnderWay()
        waiting = list(range(len(work)))[::-1]
        try:
            while waiting or state.by_task:
                while waiting and len(state.by_task) < at_once:
                    index = waiting.pop()
                    state.attempts[index] = state.attempts.get(index, 0) + 1
                    task = call.remote(common, pickle.dumps(work[index]), setting, state.attempts[index])
                    state.by_task[task] = index
                    if state.attempts[index] == 1:
                        report(index, "starting")
                # Never for long: a wait in Ray's own code would keep Ctrl-C from the user.
                ready, _ = ray.wait(list(state.by_task), num_returns=1, timeout=1.0)
                for task in ready:
                    index = state.by_task.pop(task)
                    done = self._outcome(task, work[index], state.attempts[index], shared)
                    if done is None:
                        report(index, "starting again")
                        waiting.append(index)
                    else:
                        yield index, done
        finally:
            _stop(list(state.by_task))
            for index in state.by_task.values():
                work[index].clear(shared)

    def close(self) -> None:
        """The session belongs to the run."""

    def _outcome(self, task: Any, work: Work, attempts: int, shared: SharedWork) -> Done | None:
        """What the task answered; None when its worker died and it is to be tried again."""
        import ray

        lost = (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.OutOfMemoryError,
            ray.exceptions.ObjectLostError,
            ray.exceptions.LocalRayletDiedError,
        )
        try:
            outcome = pickle.loads(ray.get(task))  # noqa: S301 - see the import
        except lost as error:
            done = work.finished(shared)
            if done is not None:
                return done
            day = work.day.isoformat()
            if attempts >= ATTEMPTS:
                raise ExecutionError(
                    f"the Ray worker that computed it died {attempts} times, last: {_cause(error)}",
                    hint="When memory ran out, lower compute.duckdb_config.memory_limit, or raise it when the "
                    "nodes have more; finished days are kept",
                    day=day,
                ) from None
            self._notify(f"{day} was begun again: its Ray worker died ({_cause(error)})")
            return None
        except ray.exceptions.RayError as error:
            raise ExecutionError(
                f"Ray failed: {mask(str(error).strip().splitlines()[-1])}",
                hint="Finished days are kept: run it again",
                day=work.day.isoformat(),
            ) from None
        if isinstance(outcome, DaedalusError):
            raise outcome
        done_here: Done = outcome
        return done_here


def _cause(error: Exception) -> str:
    name = type(error).__name__
    known = {
        "OutOfMemoryError": "Ray stopped it, its node was running out of memory",
        "NodeDiedError": "its node is gone",
        "LocalRayletDiedError": "its node is gone",
        "WorkerCrashedError": "its process ended",
    }
    return known.get(name, name)


def _nodes() -> list[dict[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _with_threads(shared: SharedWork, threads: int) -> SharedWork:
    compute = shared.context.config.compute
    limited = replace(compute, duckdb_config=(*compute.duckdb_config, ("threads", str(threads))))
    config = replace(shared.context.config, compute=limited)
    return replace(shared, context=replace(shared.context, config=config))


def _stop(tasks: list[Any]) -> None:
    """Cancel tasks: first as Ctrl-C does, which reaches Python code alone, then by the end of their processes."""
    import ray

    if not tasks:
        return
    with contextlib.suppress(ray.exceptions.RayError):
        for force, seconds in ((False, _POLITE_SECONDS), (True, _STOP_SECONDS)):
            for task in tasks:
                ray.cancel(task, force=force)
            _, tasks = ray.wait(tasks, num_returns=len(tasks), timeout=seconds)
            if not tasks:
                return


# ---------------------------------------------------------------------- in a worker


@dataclass(frozen=True, slots=True)
class _Setting:
    """What the driver's process has and a worker lacks.

    Attributes:
        path: where modules are found.
        environment: variables and their values, secrets among them.
    """

    path: tuple[str, ...]
    environment: dict[str, str]

    def __repr__(self) -> str:
        return f"_Setting({len(self.path)} folders, {', '.join(self.environment)})"

    def enter(self) -> None:
        """A worker process serves one run."""
        sys.path += [entry for entry in self.path if entry not in sys.path]
        os.environ.update(self.environment)
        for name, value in self.environment.items():
            if is_secret_name(name):
                remember_secret(value)


def _module_path() -> tuple[str, ...]:
    return tuple(dict.fromkeys(entry or os.getcwd() for entry in (*sys.path, "")))


def _run(common: bytes, work: bytes, setting: _Setting, attempt: int) -> bytes:
    """A piece of work's outcome or its error, pickled."""
    setting.enter()
    try:
        shared: SharedWork = pickle.loads(common)  # noqa: S301 - see the import
        if attempt > 1:
            shared = replace(shared, lock_seconds=RETRY_LOCK_SECONDS)
        piece: Work = pickle.loads(work)  # noqa: S301 - see the import
        try:
            return pickle.dumps(piece.run(shared))
        except DaedalusError as error:
            return pickle.dumps(error)
        except Exception as problem:  # noqa: BLE001 - the driver raises it
            unexpected = ExecutionError(
                mask(f"{type(problem).__name__}: {problem}"), day=piece.day.isoformat()
            )
            unexpected.add_note(mask(traceback.format_exc()))
            return pickle.dumps(unexpected)
    except Exception as problem:  # noqa: BLE001 - most likely the project's code is not on this node
        return pickle.dumps(
            ExecutionError(
                mask(f"a Ray worker cannot read its work: {type(problem).__name__}: {problem}"),
                hint="Every node needs the same Daedalus, and the project under the same path",
            )
        )
