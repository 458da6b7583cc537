"""What a worker does for a run's skeleton: one day, or the history that several days share.

All that the days have in common travels once (`SharedWork`), the rest with each piece (`Work`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from daedalus.errors import DaedalusError
from daedalus.metadata.days import DayStore
from daedalus.pipelines.days.history_cache import HistoryCache, HistoryChain, NotExactError
from daedalus.pipelines.days.memory import keep_freed_memory
from daedalus.pipelines.days.stepwise import Stepwise
from daedalus.pipelines.duckdb_session import duckdb_session
from daedalus.pipelines.profiling import NO_PROFILE, DayProfile
from daedalus.pipelines.training import skeleton_day_in_steps

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from daedalus.metadata.days import DayManifest
    from daedalus.pipelines.days.context import DayContext
    from daedalus.pipelines.duckdb_session import OpenSession
    from daedalus.pipelines.profiling import Measure, NoProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedWork:
    """What all days of a run have in common; it pickles.

    Attributes:
        context: of any day.
        root: the folder of the finished days.
        profiled: whether to measure.
        lock_seconds: how long to wait for a day that somebody else holds.
        open_session: opens a day's DuckDB.
    """

    context: DayContext
    root: Path
    profiled: bool = False
    lock_seconds: float = 0.0
    open_session: OpenSession = duckdb_session

    def profile(self, day: dt.date) -> NoProfile:
        """What measures the work on a day."""
        return DayProfile("skeleton", day.isoformat()) if self.profiled else NO_PROFILE


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A finished piece of work.

    Attributes:
        manifest: of the day; None for history.
        measures: what was measured; empty unless asked for.
    """

    seconds: float
    manifest: DayManifest | None = None
    measures: tuple[Measure, ...] = ()


class Work(Protocol):
    """A piece of work that stands for itself; it pickles."""

    @property
    def day(self) -> dt.date:
        """The day that messages name."""
        ...

    def run(self, shared: SharedWork, report: Callable[[str], None] | None = None) -> Done:
        """Do it here."""
        ...

    def in_steps(
        self, shared: SharedWork, report: Callable[[str], None] | None = None
    ) -> Generator[None, None, Done]:
        """Do it here, in steps.

        The first may be taken while another piece takes its last, which any thread may take. There are at most
        three; a piece of one step yields nothing.
        """
        ...

    def finished(self, shared: SharedWork) -> Done | None:
        """What a worker that died after the work was done would have answered."""
        ...

    def clear(self, shared: SharedWork) -> None:
        """Remove what a worker that was killed left behind."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DayWork:
    """Compute one day and write it.

    Attributes:
        fingerprint: what it is made from.
        reason: why it is not up to date.
    """

    day: dt.date
    fingerprint: dict[str, Any]
    reason: str

    def run(self, shared: SharedWork, report: Callable[[str], None] | None = None) -> Done:
        """Write the day, whole or not at all."""
        return Stepwise(self.in_steps(shared, report)).rest()

    def in_steps(
        self, shared: SharedWork, report: Callable[[str], None] | None = None
    ) -> Generator[None, None, Done]:
        """Prepare the day; make its rows; write the last of them, and commit."""
        keep_freed_memory()
        started = time.perf_counter()
        store = DayStore(shared.root, lock_seconds=shared.lock_seconds)
        profile = shared.profile(self.day)
        context = dataclasses.replace(shared.context, day=self.day, profile=profile)
        with profile.total():
            manifest = yield from skeleton_day_in_steps(
                context, store, self.fingerprint, report=report, open_session=shared.open_session
            )
        return Done(seconds=time.perf_counter() - started, manifest=manifest, measures=profile.measures())

    def finished(self, shared: SharedWork) -> Done | None:
        """The day as it stands, when it is this one."""
        manifest = DayStore(shared.root).manifest(self.day)
        if manifest is None or manifest.fingerprint != self.fingerprint:
            return None
        return Done(seconds=0.0, manifest=manifest)

    def clear(self, shared: SharedWork) -> None:
        """The day's temporary folder."""
        DayStore(shared.root).mend(self.day)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryWork:
    """Make the history of adjacent event days, which days that run side by side would each make for themselves."""

    days: tuple[dt.date, ...]

    @property
    def day(self) -> dt.date:
        """The last of them."""
        return self.days[-1]

    def run(self, shared: SharedWork, report: Callable[[str], None] | None = None) -> Done:
        """Make the files; what fails here fails again in the day that needs it, which says so better."""
        keep_freed_memory()
        started = time.perf_counter()
        profile = shared.profile(self.day)
        context = dataclasses.replace(shared.context, day=self.day, profile=profile)
        chain = HistoryChain.of(context.pipeline)
        if chain is not None:
            with profile.total(), contextlib.suppress(DaedalusError, NotExactError, OSError):
                HistoryCache(context, chain).make(self.days)
        return Done(seconds=time.perf_counter() - started, measures=profile.measures())

    def in_steps(
        self, shared: SharedWork, report: Callable[[str], None] | None = None
    ) -> Generator[None, None, Done]:
        """In one."""
        yield from ()
        return self.run(shared, report)

    def finished(self, shared: SharedWork) -> Done | None:
        """Files that are there are not made again anyway."""
        return None

    def clear(self, shared: SharedWork) -> None:
        """Nothing: a part of a file is read by nobody."""


def shared_history(context: DayContext, days: Sequence[dt.date], workers: int) -> list[HistoryWork]:
    """The history that `days` lack, cut for so many workers, each piece at most what one day would make at once.

    One worker makes it all in one go: what all event days read is then read once.
    """
    chain = HistoryChain.of(context.pipeline)
    if chain is None or not days:
        return []
    cache = HistoryCache(context, chain)
    missing = cache.missing(days)
    longest = len(cache.event_days(days[0]))
    total = sum(map(len, missing))
    share = total if workers <= 1 else min(longest, -(-total // workers))
    return [
        HistoryWork(days=tuple(run[start : start + share]))
        for run in missing
        for start in range(0, len(run), share)
    ]
