"""What a tracker is told of a run, and what it does with it."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from daedalus.metadata.plain import cleaned
from daedalus.pipelines.records import final_days

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from daedalus.pipelines.records import TrainingDayRecord, TrainingRunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedMetric:
    """One number of a run, or of one of its days.

    Attributes:
        step: the day as a number, 20260502; 0 for the run.
        timestamp_ms: the day's midnight, or the run's end; milliseconds since 1970, UTC.
    """

    name: str
    value: float
    step: int
    timestamp_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """A run as trackers show it, free of secrets; plain data throughout.

    Attributes:
        status: as the run's record says it: `succeeded`, `failed`, ...
        started_at: ISO, UTC; so is `ended_at`.
        tags: what the run is: service@version, its record's id, the commit, ...
        params: the configuration's scalars, nested keys joined by dots.
        metrics: rows, days, seconds; per day rows, seconds, bytes, dropped rows and NULL rates.
        documents: whole JSON documents by file name: the configuration, the record.
        files: paths of files to keep with the run, the report for one.
    """

    run_id: str
    service: str
    version: str
    status: str
    started_at: str
    ended_at: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: tuple[TrackedMetric, ...]
    documents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, record: TrainingRunRecord, config: Mapping[str, Any], files: tuple[str, ...] = ()
    ) -> TrackedRun:
        """A recorded run, with its configuration as `TrainingRunConfig.to_dict` gives it."""
        document = record.to_dict()
        for day in document["days"]:
            del day["columns"]  # the run records have them; here they would be most of the bytes
        configuration = cleaned(dict(config))
        return cls(
            run_id=record.run_id,
            service=record.service,
            version=record.version,
            status=record.status,
            started_at=record.started_at,
            ended_at=record.ended_at,
            tags=_tags(record),
            params=dict(_scalars(configuration)),
            metrics=tuple(_metrics(record)),
            documents={"config.json": configuration, "run.json": cleaned(document)},
            files=files,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrackedRun:
        """What `to_dict` gave, also after a round through JSON."""
        metrics = tuple(TrackedMetric(**metric) for metric in data["metrics"])
        return cls(**{**data, "metrics": metrics, "files": tuple(data["files"])})


@runtime_checkable
class ExperimentTracker(Protocol):
    """Where finished runs are shown."""

    def log_run(self, run: TrackedRun) -> Mapping[str, str]:
        """Show a run; returns where it is to be found."""
        ...


class NullTracker:
    """Shows nothing: the default."""

    def log_run(self, run: TrackedRun) -> Mapping[str, str]:
        """Do nothing."""
        return {}


def _tags(record: TrainingRunRecord) -> dict[str, str]:
    days = sorted({day.day for day in record.days})
    tags = {
        "daedalus.feature_service": f"{record.service}@{record.version}"
        if record.version
        else record.service,
        "daedalus.service": record.service,
        "daedalus.version": record.version,
        "daedalus.run_id": record.run_id,
        "daedalus.kind": record.kind,
        "daedalus.status": record.status,
        "daedalus.attempt": str(record.attempt),
        "daedalus.git_sha": record.git_sha,
        "daedalus.git_dirty": str(record.git_dirty).lower() if record.git_sha else "",
        "daedalus.config_files": ", ".join(name for name, _ in record.config_files),
        "daedalus.first_day": days[0] if days else "",
        "daedalus.last_day": days[-1] if days else "",
        "daedalus.output_path": record.output_path,
        "daedalus.error": "" if record.error is None else str(record.error.get("message", "")),
    }
    return {name: str(cleaned(value)) for name, value in tags.items() if value}


def _scalars(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Scalars of nested mappings, and lists of scalars; lists of mappings are in the document."""
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _scalars(value, f"{name}.")
        elif isinstance(value, list | tuple):
            if not any(isinstance(item, dict | list | tuple) for item in value):
                yield name, ", ".join(map(str, value))
        else:
            yield name, "" if value is None else str(value)


def _metrics(record: TrainingRunRecord) -> Iterator[TrackedMetric]:
    final = {(day.stage, day.day) for day in final_days(record.days)}
    end = milliseconds(record.ended_at or record.started_at)
    written = {day.day for day in record.days if day.state == "written"}
    of_run = {
        "rows": record.row_count,
        "days": len({day.day for day in record.days}),
        "days_written": len(written),
        "seconds": (end - milliseconds(record.started_at)) / 1000,
    }
    for name, value in of_run.items():
        yield TrackedMetric(name=name, value=float(value), step=0, timestamp_ms=end)
    for day in record.days:
        when = dt.date.fromisoformat(day.day)
        at = milliseconds(day.day)
        for name, number in _of_day(day, is_final=(day.stage, day.day) in final):
            yield TrackedMetric(name=name, value=number, step=int(f"{when:%Y%m%d}"), timestamp_ms=at)


def _of_day(day: TrainingDayRecord, *, is_final: bool) -> Iterator[tuple[str, float]]:
    """What is told of one day after one stage; a day's rows and NULL rates after the last one."""
    if day.state == "written":
        yield f"day.{day.stage}.seconds", float(day.seconds)
    for name, count in day.counters.items():
        yield f"day.{day.stage}.{name}", float(count)
    if is_final:
        yield "day.rows", float(day.rows)
        yield "day.bytes", float(sum(size for _, size in day.files))
        for name, stats in day.columns.items():
            if stats.get("rows"):
                yield f"day.null_rate.{name}", stats["nulls"] / stats["rows"]


def milliseconds(text: str) -> int:
    """Milliseconds since 1970 of an ISO instant or day; UTC where it has no zone."""
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return int(moment.timestamp() * 1000)
