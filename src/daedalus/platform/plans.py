"""What a run of a service would do: which days it would write and why, because of which columns, in what time."""

from __future__ import annotations

import contextlib
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daedalus.metadata.store import MetadataStore, RunStatus
from daedalus.pipelines.records import TrainingRunRecord
from daedalus.platform.causes import Cause, project_causes
from daedalus.platform.versions import diff_registry

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

    from daedalus.catalog.versioning import SchemaChange
    from daedalus.metadata.store import StoredRun
    from daedalus.pipelines.planning.run_inputs import DayState
    from daedalus.pipelines.settings import TrainingRunConfig
    from daedalus.platform.project import RunOptions, Stages
    from daedalus.platform.registry import PlatformRegistry

_RUNS_LOOKED_AT = 10
_WHOLE_DAYS = "a day is written whole: the named columns are why, and the others are computed again with them"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What a run would do.

    Attributes:
        days: each day of each stage; those with a `reason` would be written.
        locked: whether there is a lock file. `changes` are the service's against it.
        last_run: the newest run that succeeded; empty when there is none. `since` is what differs from it.
        seconds: the estimated time of the days that would be written, from past runs; None without any.
        estimated_from: how many written days the estimate rests on.
    """

    service: str
    version: str
    days: tuple[DayState, ...]
    locked: bool
    changes: tuple[SchemaChange, ...]
    last_run: str
    since: tuple[Cause, ...]
    seconds: float | None
    estimated_from: int
    notices: tuple[str, ...] = ()

    @property
    def writes(self) -> tuple[DayState, ...]:
        """The days that would be written."""
        return tuple(day for day in self.days if day.reason)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for programs."""
        return {
            "service": self.service,
            "version": self.version,
            "days": [
                {
                    "day": day.day,
                    "stage": day.stage,
                    "state": "runs" if day.reason else "up to date",
                    "reason": day.reason,
                    "columns": list(day.columns),
                    "rows": day.rows,
                }
                for day in self.days
            ],
            "days_to_write": len({day.day for day in self.writes}),
            "locked": self.locked,
            "lock_changes": [change.to_dict() for change in self.changes],
            "last_run": self.last_run,
            "since_last_run": [cause.to_dict() for cause in self.since],
            "seconds": self.seconds,
            "estimated_from": self.estimated_from,
            "notices": list(self.notices),
        }


def plan_run(
    registry: PlatformRegistry,
    service: str,
    *,
    target_dates: Sequence[dt.date] = (),
    stages: Stages = "all",
    options: RunOptions | None = None,
) -> RunPlan:
    """Find out what `train` with the same arguments would do; reads footers and times, computes nothing."""
    from daedalus.pipelines.notices import edited_notices
    from daedalus.pipelines.planning.run_inputs import RunInputs

    config = registry.config(options)
    catalog = registry.facade(config).catalog
    pipeline = registry.pipeline(service, config)
    with contextlib.closing(RunInputs(pipeline, catalog, config, target_dates)) as inputs:
        days = tuple(inputs.states(inputs.target_days(stages=stages), stages=stages))
    lock = diff_registry(registry, options=options)
    store = MetadataStore(config.output_path)
    runs = [
        run
        for run in store.runs(service=service, kind="train", limit=_RUNS_LOOKED_AT)
        if run.status is RunStatus.SUCCEEDED
    ]
    seconds, basis = _estimate(store, runs, days, config)
    notices = edited_notices(pipeline)
    if any(day.columns and day.stage == "skeleton" for day in days):
        notices.append(_WHOLE_DAYS)
    return RunPlan(
        service=service,
        version=catalog.service(service).version,
        days=days,
        locked=lock.locked,
        changes=tuple(change for change in lock.changes if change.service == service) if lock.locked else (),
        last_run=runs[0].run_id if runs else "",
        since=tuple(_since(registry, store, runs[0], config)) if runs else (),
        seconds=seconds,
        estimated_from=basis,
        notices=tuple(notices),
    )


def _since(
    registry: PlatformRegistry, store: MetadataStore, run: StoredRun, config: TrainingRunConfig
) -> list[Cause]:
    return project_causes(registry, TrainingRunRecord.of(run, store), run.facts.get("git"), config)


def _estimate(
    store: MetadataStore, runs: Sequence[StoredRun], days: Sequence[DayState], config: TrainingRunConfig
) -> tuple[float | None, int]:
    """The median time of a written day of each stage, over the newest runs that wrote any."""
    taken: dict[str, list[float]] = {}
    for run in runs:
        for (stage, _), payload in store.days(run.run_id).items():
            if payload.get("state") == "written" and payload.get("seconds"):
                taken.setdefault(stage, []).append(payload["seconds"])
    wanted = [day for day in days if day.reason and taken.get(day.stage)]
    basis = sum(len(seconds) for seconds in taken.values())
    if not basis:
        return None, 0
    total: Mapping[str, float] = {stage: statistics.median(seconds) for stage, seconds in taken.items()}
    skeleton = [total[day.stage] for day in wanted if day.stage == "skeleton"]
    others = [total[day.stage] for day in wanted if day.stage != "skeleton"]
    return round(sum(skeleton) / max(1, config.day_workers or 1) + sum(others), 1), basis
