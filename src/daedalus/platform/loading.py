"""Finished days for notebooks and training loops."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Literal, get_args

from daedalus.errors import DefinitionError, ExecutionError, did_you_mean
from daedalus.platform.project import RunOptions, Stage, final_stage
from daedalus.platform.registry import PlatformRegistry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from daedalus.metadata.days import DayStore
    from daedalus.reading import TrainingData

_STAGES = get_args(Stage)
_SHOWN = 10


def load(
    service: str,
    start: dt.date | str,
    end: dt.date | str | None = None,
    *,
    columns: Sequence[str] | None = None,
    stage: Stage | None = None,
    missing: Literal["error", "skip"] = "error",
    project: Path | str = ".",
    output_root: Path | str | None = None,
) -> TrainingData:
    """The finished rows of a service from day `start` to day `end`, both included.

    Nothing is read but manifests and one file's schema; reading happens as the result is asked for rows.

    Args:
        service: its name.
        start: a date, or `YYYY-MM-DD`.
        end: the last day; None is `start`.
        columns: these alone, in this order; None takes the whole contract.
        stage: None takes what the service ends with: `enriched` where it has embeddings, else `skeleton`.
        missing: `skip` leaves out days that are not there instead of refusing.
        project: the project's folder.
        output_root: where the runs wrote; None as configured.

    Raises:
        DefinitionError: no such service or column, or a day that is none.
        ExecutionError: a day is not there, or its skeleton was made anew after it was enriched; and which.
    """
    overrides = {} if output_root is None else {"output_root": str(output_root)}
    return load_days(
        PlatformRegistry.open(project),
        service,
        start,
        end,
        columns=columns,
        stage=stage,
        missing=missing,
        options=RunOptions(overrides=overrides),
    )


def load_days(
    registry: PlatformRegistry,
    service: str,
    start: dt.date | str,
    end: dt.date | str | None = None,
    *,
    columns: Sequence[str] | None = None,
    stage: Stage | None = None,
    missing: Literal["error", "skip"] = "error",
    options: RunOptions | None = None,
) -> TrainingData:
    """The same of a project that is open already."""
    from daedalus.metadata.days import DayStore
    from daedalus.reading.days import open_days

    days = _days(start, end)
    for name, value, known in (("stage", stage, (None, *_STAGES)), ("missing", missing, ("error", "skip"))):
        if value not in known:
            shown = [one for one in known if one is not None]
            raise DefinitionError(
                f"unknown {name} {value!r}", where="load", hint=did_you_mean(str(value), shown)
            )
    config = registry.config(options)
    definition = registry.facade(config).service(service)
    chosen = stage or final_stage(registry.pipeline(service, config))
    folder = config.output_path / service
    store = DayStore(folder / chosen)
    if chosen == "enriched":
        _require_of_its_skeleton(service, store, DayStore(folder / "skeleton"), days)
    data = open_days(
        service,
        chosen,
        store,
        days,
        skip_missing=missing == "skip",
        dimensions={one.name: one.dimension for one in definition.columns if one.dimension is not None},
    )
    return data if columns is None else data.select(columns)


def _require_of_its_skeleton(
    service: str, enriched: DayStore, skeleton: DayStore, days: Sequence[dt.date]
) -> None:
    """Refuse enriched days whose skeleton was made anew since; where that is gone, nothing contradicts them."""
    outdated = []
    for day in days:
        made, rows = enriched.manifest(day), skeleton.manifest(day)
        if made is None or rows is None:
            continue
        if made.fingerprint.get("skeleton", {}).get("content") != rows.content_hash:
            outdated.append(day.isoformat())
    if outdated:
        shown = ", ".join(outdated[:_SHOWN]) + (" ..." if len(outdated) > _SHOWN else "")
        raise ExecutionError(
            f"the skeleton has changed since these days were enriched: {shown}",
            where=str(enriched.root),
            hint=f"Run daeda pipeline train {service} --enrich-only for them, or take stage='skeleton'",
            day=outdated[0],
        )


def _days(start: dt.date | str, end: dt.date | str | None) -> list[dt.date]:
    first = _day(start, "start")
    last = first if end is None else _day(end, "end")
    if last < first:
        raise DefinitionError(f"end {last} is before start {first}", where="load")
    return [first + dt.timedelta(days=number) for number in range((last - first).days + 1)]


def _day(value: dt.date | str, name: str) -> dt.date:
    if isinstance(value, dt.datetime):
        return value.date()
    if isinstance(value, dt.date):
        return value
    try:
        return dt.datetime.strptime(value, "%Y-%m-%d").date()  # noqa: DTZ007 - a day has no zone
    except (TypeError, ValueError):
        raise DefinitionError(
            f"{name} is {value!r}, but must be a date or YYYY-MM-DD", where="load"
        ) from None
