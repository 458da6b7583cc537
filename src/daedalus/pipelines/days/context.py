"""One target day: its bounds in time, its settings, and what it reads."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daedalus.pipelines.operator_sql import Tick
from daedalus.pipelines.operators import Scan, TimeRange
from daedalus.pipelines.profiling import NO_PROFILE, NoProfile
from daedalus.storage.sources.base import TickRange

if TYPE_CHECKING:
    from pathlib import Path

    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.days.visibility import AsOf
    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.pipelines.run_sources import RunSources
    from daedalus.pipelines.settings import TrainingRunConfig

_EPOCH = dt.date(1970, 1, 1)
DAY_US = 86_400_000_000
_ROUNDING_US = 1_000_000
#: Longer windows are no bound for a source: a century.
_LONGEST_SECONDS = 36_525 * 86_400


def day_start_us(day: dt.date) -> int:
    """The UTC day's first instant, in microseconds since 1970."""
    return (day - _EPOCH).days * DAY_US


@dataclass(frozen=True, slots=True, kw_only=True)
class DayContext:
    """What the operators of one day need to know.

    Attributes:
        spine_ticks: ticks per second of the spine view's own time column.
        output_root: where `qid_map.parquet` lives.
        profile: what measures the day.
        as_of: the instant of a materialization; None in training.
    """

    pipeline: OperatorPipeline
    catalog: FeatureCatalog
    config: TrainingRunConfig
    sources: RunSources
    day: dt.date
    ticks_per_second: int
    spine_ticks: int
    output_root: Path
    profile: NoProfile = NO_PROFILE
    as_of: AsOf | None = None

    @property
    def tick(self) -> Tick:
        """The day's bounds in ticks."""
        scale = self.ticks_per_second // 1_000_000
        start = day_start_us(self.day) * scale
        return Tick(self.ticks_per_second, start, start + DAY_US * scale)

    def time_range(self, scan: Scan) -> TickRange | None:
        """The part of a view's time that a scan reads for this day."""
        return scan_range(scan, self.day)


def scan_range(scan: Scan, day: dt.date) -> TickRange | None:
    """The part of a view's time that a scan reads for `day`; None is everything."""
    start = day_start_us(day)
    match scan.time_range:
        case TimeRange.ALL:
            return None
        case TimeRange.PAST:
            return TickRange(high_us=start + DAY_US)
        case TimeRange.WINDOW if scan.lookback_seconds > _LONGEST_SECONDS:
            return TickRange(high_us=start + DAY_US)
        case TimeRange.WINDOW:
            # A window that is no whole number of seconds is rounded to ticks, of a second at most: read a
            # little more, it is cut exactly later.
            slack = 0 if scan.lookback_seconds == int(scan.lookback_seconds) else _ROUNDING_US
            low = start - math.ceil(scan.lookback_seconds * 1_000_000) - slack
            return TickRange(low_us=low, high_us=start + DAY_US)
