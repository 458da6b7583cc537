"""Where the work of a run is done: here, one piece after the other, or in processes of their own.

`on_ray.RayTasks` is the third way.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import TYPE_CHECKING, Any, Protocol

from daedalus.errors import ExecutionError
from daedalus.pipelines.days.memory import give_back_memory
from daedalus.pipelines.days.stepwise import Stepwise
from daedalus.pipelines.duckdb_session import ReusedDuckDB

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from concurrent.futures import Future

    from daedalus.pipelines.days.work import Done, SharedWork, Work

    #: Told the index of a piece of work, and what is being done with it.
    Report = Callable[[int, str], None]


class Workers(Protocol):
    """Does pieces of work, in any order."""

    def each(self, shared: SharedWork, work: Sequence[Work], report: Report) -> Generator[tuple[int, Done]]:
        """Index and outcome of each piece as it is done; closing the generator stops what is under way.

        Args:
            shared: the same in every call.
            work: the pieces.
            report: told what is being done.

        Raises:
            DaedalusError: what a piece raised, or that its worker died.
        """
        ...

    def close(self) -> None:
        """There is no more work."""
        ...


class InThisProcess:
    """One piece after the other; a piece prepares while the last step of the one before it is taken beside it.

    All have one DuckDB, which is empty when a piece begins.
    """

    def __init__(self) -> None:
        self._duckdb = ReusedDuckDB()

    def each(self, shared: SharedWork, work: Sequence[Work], report: Report) -> Generator[tuple[int, Done]]:
        """Outcomes in the order of `work`."""
        before: tuple[int, Future[Done]] | None = None
        shared = dataclasses.replace(shared, open_session=self._duckdb.session)
        with ThreadPoolExecutor(1, thread_name_prefix="daedalus-last-step") as beside:
            for index, one in enumerate(work):

                def tell(message: str, index: int = index) -> None:
                    report(index, message)

                tell("starting")
                steps = Stepwise(one.in_steps(shared, tell))
                try:
                    steps.take()
                    if before is not None:
                        yield before[0], before[1].result()
                    steps.take()
                except BaseException:
                    steps.close()
                    raise
                before = index, beside.submit(steps.rest)
                if shared.profiled:  # what two days do at a time cannot be told apart
                    before[1].result()
            if before is not None:
                yield before[0], before[1].result()

    def close(self) -> None:
        """Give back what the days needed: each used the memory of the one before, which takes time to get anew."""
        self._duckdb.close()
        give_back_memory()


class _Spawning(SpawnContext):
    """Starts processes, and knows them: a pool that breaks while one is starting would wait for that one for ever."""

    def __init__(self) -> None:
        super().__init__()
        self._started: list[SpawnProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # type: ignore[override]
        """A process to start; the pool calls it by this name."""
        process = SpawnProcess(*args, **kwargs)
        self._started.append(process)
        return process

    def kill(self) -> None:
        """End all that still run."""
        for process in self._started:
            if process.pid is not None:  # asking whether it lives would reap it under the pool's nose
                process.kill()


class Processes:
    """Pieces in processes of their own, so that each has its DuckDB and its memory to itself.

    Args:
        count: processes.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._spawning = _Spawning()
        self._pool: ProcessPoolExecutor | None = None

    def each(self, shared: SharedWork, work: Sequence[Work], report: Report) -> Generator[tuple[int, Done]]:
        """Outcomes as they come."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._count, mp_context=self._spawning, initializer=_receive, initargs=(shared,)
            )
        try:
            running = {self._pool.submit(_run, one): index for index, one in enumerate(work)}
            for future in concurrent.futures.as_completed(running):
                yield running[future], future.result()
        except BrokenProcessPool as error:
            self._spawning.kill()
            raise ExecutionError(
                "a day worker was killed, most likely for want of memory",
                hint="Lower day_workers or compute.duckdb_config.memory_limit and run again; "
                "finished days are kept",
            ) from error

    def close(self) -> None:
        """Wait for the days under way; those that wait for a process are not begun."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


#: A worker process serves one run.
_received: list[SharedWork] = []


def _receive(shared: SharedWork) -> None:
    threading.Thread(target=_end_with_parent, name="daedalus-parent", daemon=True).start()
    _received.append(shared)


def _end_with_parent() -> None:
    """A worker whose run was killed would hold its day against the run that goes on, and then wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(work: Work) -> Done:
    return work.run(_received[0])
