"""When a view's rows are, by its Parquet files' footers, and whether its `timestamp_unit` can be right."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daedalus.errors import ExecutionError
from daedalus.storage.sources.parquet import ParquetSource
from daedalus.storage.view_source import UNIT_US

if TYPE_CHECKING:
    from daedalus.catalog.model import FeatureViewDef
    from daedalus.storage.sources.base import Source

_EPOCH = dt.date(1970, 1, 1)
_DAY_US = 86_400 * 10**6
#: Where the newest row of a feature's source is not expected, in microseconds: before 1990, or from 2100 on.
_EARLY_US, _LATE_US = 7_305 * _DAY_US, 47_482 * _DAY_US


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTimes:
    """The times of a view's rows.

    Attributes:
        first_us: the oldest, in microseconds since 1970.
        last_us: the newest.
        better_unit: the `timestamp_unit` by which the newest would be a time of our days, where the declared one
            makes it none; empty otherwise.
    """

    view: FeatureViewDef
    first_us: int
    last_us: int
    better_unit: str

    @property
    def span(self) -> str:
        """The first day and, where it is another, the last."""
        return " to ".join(dict.fromkeys((_day(self.first_us), _day(self.last_us))))

    @property
    def doubt(self) -> str:
        """What looks wrong about the unit, in a sentence; empty when nothing does."""
        if not self.better_unit:
            return ""
        return (
            f"{self.view.source.timestamp_field!r} is read in {self.view.source.timestamp_unit}, "
            f"which makes its newest row one of {_day(self.last_us)}"
        )

    @property
    def mend(self) -> str:
        """What to write, where there is a doubt."""
        return (
            f"Write timestamp_unit: {self.better_unit} in the source of {self.view.file}"
            if self.doubt
            else ""
        )


def source_times(view: FeatureViewDef, source: Source) -> SourceTimes | None:
    """The times that a view's Parquet files hold by their footers; None where those do not say, and for databases."""
    if not view.timestamp_field or not isinstance(source, ParquetSource):
        return None
    snapshot = source.snapshot()
    bounds = [file.range_us(snapshot.time_column, snapshot.unit_us) for file in snapshot.files if file.rows]
    known = [(low, high) for low, high in bounds if low is not None and high is not None]
    if not known or len(known) < len(bounds):
        return None
    last = max(high for _, high in known)
    counted = any(name == snapshot.time_column for file in snapshot.files for name, _, _ in file.integers)
    return SourceTimes(
        view=view,
        first_us=min(low for low, _ in known),
        last_us=last,
        better_unit=_better_unit(last / snapshot.unit_us, view.source.timestamp_unit) if counted else "",
    )


def no_events(
    what: str, view: FeatureViewDef, times: SourceTimes | None, *, otherwise: str = ""
) -> ExecutionError:
    """The error that a view has no events where they were looked for; it says where there are some.

    Args:
        what: the message.
        view: whose events are missing.
        times: as `source_times` gives them.
        otherwise: what to do, where the times of the view's rows are as they should be.
    """
    mend = otherwise
    if times is not None and times.doubt:
        mend = f"{times.doubt}. {times.mend}"
    elif times is not None:
        mend = f"Its rows are of {times.span}" + (f". {otherwise}" if otherwise else "")
    return ExecutionError(what, where=f"view {view.name}", hint=mend)


def _better_unit(ticks: float, declared: str) -> str:
    """The unit that makes a count of ticks since 1970 a time of our days, if the declared one does not.

    >>> _better_unit(1.776e9, "ms"), _better_unit(1.776e12, "ms"), _better_unit(1.776e12, "s"), _better_unit(12, "ms")
    ('s', '', 'ms', '')
    """
    fitting = [unit for unit, us in UNIT_US.items() if _EARLY_US <= ticks * us < _LATE_US]
    return fitting[0] if fitting and declared not in fitting else ""


def _day(us: int) -> str:
    """The day of an instant.

    >>> _day(0), _day(1_776 * 10**15)
    ('1970-01-01', 'a day beyond the calendar')
    """
    try:
        return (_EPOCH + dt.timedelta(microseconds=us)).isoformat()
    except OverflowError:
        return "a day beyond the calendar"
