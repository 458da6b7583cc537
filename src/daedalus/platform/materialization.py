"""Materialization: a service's features as of a time, one training partition, and views for the online store."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from daedalus.errors import DefinitionError, did_you_mean
from daedalus.metadata.days import InstantStore
from daedalus.pipelines.operators import SinkFormat
from daedalus.platform.records import recorded_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import pyarrow as pa

    from daedalus.pipelines.executor import ExecutionResult
    from daedalus.pipelines.materialize_run import MaterializationResult
    from daedalus.pipelines.view_snapshot import ViewSnapshot
    from daedalus.platform.registry import PlatformRegistry, RunOptions

Instant = dt.datetime | str | None


def parse_instant(value: Instant) -> dt.datetime:
    """An instant in UTC: ISO text (a day is its midnight; without a zone it is UTC), a datetime, or None for now.

    >>> parse_instant("2026-05-02T10:30+02:00")
    datetime.datetime(2026, 5, 2, 8, 30, tzinfo=datetime.timezone.utc)
    """
    if value is None:
        return dt.datetime.now(dt.UTC)
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            raise DefinitionError(
                f"{value!r} is no time",
                where="as_of",
                hint="Write YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS, with Z or an offset; without one it is UTC",
            ) from None
    return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


def parse_format(value: str) -> SinkFormat:
    """A sink format by name; DefinitionError with a near match."""
    known = [one.value for one in SinkFormat]
    if value not in known:
        raise DefinitionError(f"unknown format {value!r}", where="format", hint=did_you_mean(value, known))
    return SinkFormat(value)


def materialize(
    registry: PlatformRegistry,
    service: str,
    *,
    as_of: Instant = None,
    format: str = "parquet",
    output: str = "",
    entities: pa.Table | None = None,
    options: RunOptions | None = None,
    progress: Callable[..., None] | None = None,
) -> MaterializationResult:
    """Write the service's features for each of its entities as of a time, and record the run.

    Args:
        registry: the project.
        service: its name.
        as_of: the instant; None is now.
        format: `parquet`, `duckdb` or `ducklake`.
        output: a folder, a DuckDB file or a lake's catalog; empty is the default under the output root.
        entities: the keys to make rows for; None is every one that the spine has.
        options: settings for this run.
        progress: told how far it is.

    Raises:
        DefinitionError: no such service, format or time.
        ExecutionError: names the operator; an earlier materialization is left as it was.
    """
    from daedalus.pipelines.materialize_run import MaterializeRequest, run_materialization
    from daedalus.pipelines.records import source_items

    instant, sink = parse_instant(as_of), parse_format(format)
    config = registry.config(options)
    pipeline = registry.pipeline(service, config)
    request: dict[str, Any] = {
        "as_of": instant.isoformat(),
        "format": sink.value,
        **({"output": output} if output else {}),
        **({} if options is None else options.to_dict()),
    }
    with recorded_run(registry, kind="materialize", service=service, config=config, request=request) as run:
        result = run_materialization(
            MaterializeRequest(
                pipeline=pipeline,
                run_config=config,
                catalog=registry.facade(config).catalog,
                as_of=instant,
                format=sink,
                output=output,
                entities=entities,
                run_id=run.run_id,
                progress=run.watching(progress),
            )
        )
        run.record_day(
            "materialize",
            result.as_of,
            state="written",
            rows=result.row_count,
            content_hash=result.content_hash,
            seconds=result.seconds,
            schema=result.schema,
        )
        roots = (config.source_root, str(config.project_root))
        run.facts(
            output_path=result.path,
            table=result.table,
            snapshot=result.snapshot,
            notices=list(result.notices),
            sources=source_items([result.fingerprint], roots),
            summary={"rows": result.row_count, "as_of": result.as_of, "format": result.format},
        )
    return result


def materialize_day(
    registry: PlatformRegistry,
    service: str,
    day: dt.date,
    *,
    options: RunOptions | None = None,
    progress: Callable[..., None] | None = None,
) -> ExecutionResult:
    """One training partition, exactly as `train` makes it."""
    return registry.train(service, target_dates=(day,), options=options, progress=progress)


def online_views(registry: PlatformRegistry) -> tuple[str, ...]:
    """The views with `online: true`, by name."""
    return tuple(sorted(name for name, view in registry.catalog.views.items() if view.online))


def materialize_view(
    registry: PlatformRegistry,
    view: str,
    as_of: Instant = None,
    *,
    batch_rows: int = 65_536,
    options: RunOptions | None = None,
) -> AbstractContextManager[ViewSnapshot]:
    """A view's newest visible row per entity, as a stream of Arrow batches, for the online store.

        with materialize_view(registry, "user_profile") as snapshot:
            for batch in snapshot.batches: ...

    Raises:
        DefinitionError: no such view, or it does not say `online: true`.
    """
    from daedalus.pipelines.view_snapshot import view_snapshot

    config = registry.config(options)
    catalog = registry.facade(config).catalog
    definition = catalog.view(view)
    if not definition.online:
        raise DefinitionError(
            "it is not meant for the online store",
            where=f"view {view} ({definition.file})",
            hint="Set online: true in the view",
        )
    return view_snapshot(view, catalog, config, parse_instant(as_of), batch_rows=batch_rows)


def list_materializations(
    registry: PlatformRegistry, service: str, *, options: RunOptions | None = None
) -> list[dict[str, Any]]:
    """The Parquet materializations of a service under the output root, oldest first."""
    from daedalus.pipelines.materialize_run import FOLDER

    config = registry.config(options)
    registry.facade(config).catalog.service(service)
    store = InstantStore(config.output_path / service / FOLDER)
    found = []
    for instant in store.instants():
        manifest = store.manifest(instant)
        if manifest is not None:
            found.append(
                {
                    "as_of": f"{manifest.day}Z",
                    "rows": manifest.row_count,
                    "content_hash": manifest.content_hash,
                    "written_at": manifest.written_at,
                    "path": str(store.path(instant)),
                }
            )
    return found
