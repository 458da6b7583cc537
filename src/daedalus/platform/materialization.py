"""Materialization: a service's features as of a time, one training partition, and views for the online store."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daedalus.errors import DefinitionError, did_you_mean
from daedalus.metadata.days import InstantStore
from daedalus.metadata.provenance import digest
from daedalus.pipelines.operators import SinkFormat
from daedalus.pipelines.records import day_payload, source_items
from daedalus.platform.records import recorded_run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    import pyarrow as pa

    from daedalus.pipelines.executor import ExecutionResult
    from daedalus.pipelines.instants.materialize_run import MaterializationResult, MaterializeRequest
    from daedalus.pipelines.instants.view_snapshot import ViewSnapshot
    from daedalus.platform.project import RunOptions
    from daedalus.platform.registry import PlatformRegistry

Instant = dt.datetime | str | None


def parse_instant(value: Instant) -> dt.datetime:
    """An instant in UTC: ISO text (a day is its midnight; without a zone it is UTC), a datetime, or None for now.

    >>> parse_instant("2026-05-02T10:30+02:00")
    datetime.datetime(2026, 5, 2, 8, 30, tzinfo=datetime.timezone.utc)
    """
    if value is None:
        return dt.datetime.now(dt.UTC)
    try:
        found = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
        return found.replace(tzinfo=dt.UTC) if found.tzinfo is None else found.astimezone(dt.UTC)
    except (ValueError, OverflowError):  # OverflowError: an offset leads out of the years 1 to 9999
        raise DefinitionError(
            f"{value!r} is no time",
            where="as_of",
            hint="Write YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS, with Z or an offset; without one it is UTC",
        ) from None


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
    entities: pa.Table | Path | str | None = None,
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
        entities: the keys to make rows for, as a table or a Parquet file, relative to the project; None is every
            one that the spine has.
        options: settings for this run.
        progress: told how far it is.

    Raises:
        DefinitionError: no such service, format, time or file.
        ExecutionError: names the operator; an earlier materialization is left as it was.
    """
    from daedalus.pipelines.instants.materialize_run import MaterializeRequest

    instant, sink = parse_instant(as_of), parse_format(format)
    config = registry.config(options)
    keys = read_entities(registry, entities)
    asked: dict[str, Any] = {
        "as_of": instant.isoformat(),
        "format": sink.value,
        **({"output": output} if output else {}),
        **({} if keys is None else {"entities": _entities_fact(registry, entities, keys)}),
        **({} if options is None else options.to_dict()),
    }
    request = MaterializeRequest(
        pipeline=registry.pipeline(service, config),
        run_config=config,
        catalog=registry.facade(config).catalog,
        as_of=instant,
        format=sink,
        output=output,
        entities=keys,
        progress=progress,
    )
    return materialize_recorded(registry, request, kind="materialize", asked=asked)


def materialize_recorded(
    registry: PlatformRegistry,
    request: MaterializeRequest,
    *,
    kind: str,
    asked: Mapping[str, Any],
    facts: Mapping[str, Any] | None = None,
) -> MaterializationResult:
    """Materialize, recorded as one run; `asked` is what was asked for, as plain data."""
    from daedalus.pipelines.instants.materialize_run import run_materialization
    from daedalus.platform.openlineage import lineage_events

    config, service = request.run_config, request.pipeline.service
    with (
        recorded_run(registry, kind=kind, service=service, config=config, request=asked, facts=facts) as run,
        lineage_events(registry, service, config, run.run_id, kind) as lineage,
    ):
        told = run.watching(request.progress)
        result = run_materialization(replace(request, run_id=run.run_id, progress=told))
        roots = (config.source_root, str(config.project_root))
        run.record_day(
            "materialize",
            result.as_of,
            **day_payload(result.manifest, roots),
            state="written",
            seconds=result.seconds,
            **({} if result.snapshot is None else {"snapshot": result.snapshot}),
        )
        run.facts(
            output_path=result.path,
            table=result.table,
            snapshot=result.snapshot,
            notices=[*result.notices, *lineage.notices],
            sources=source_items([result.manifest.fingerprint], roots),
            summary={"rows": result.row_count, "as_of": result.as_of, "format": result.format},
        )
        lineage.materialized(result)
    return replace(result, notices=(*result.notices, *lineage.notices))


def read_entities(registry: PlatformRegistry, entities: pa.Table | Path | str | None) -> pa.Table | None:
    """The keys to make rows for; a Parquet file is read.

    Raises:
        DefinitionError: there is no such file, or it is no Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if entities is None or isinstance(entities, pa.Table):
        return entities
    path = registry.project_root / entities
    if not path.is_file():
        raise DefinitionError("there is no such file", where=f"entities {path}")
    try:
        return pq.ParquetFile(path).read()
    except (OSError, pa.ArrowException) as error:
        raise DefinitionError(f"it is no Parquet file: {error}", where=f"entities {path}") from None


def entities_digest(keys: pa.Table) -> str:
    """Tells one table of keys from another."""
    from daedalus.storage.content_hash import content_hash

    return digest(content_hash(keys.to_batches()) + str(keys.schema.names))


def _entities_fact(registry: PlatformRegistry, entities: Any, keys: pa.Table) -> dict[str, Any]:
    """What a record says of the keys: where they were read, and enough to know them again."""
    fact: dict[str, Any] = {"rows": keys.num_rows, "digest": entities_digest(keys)}
    if isinstance(entities, Path | str):
        path = (registry.project_root / entities).absolute()
        inside = path.is_relative_to(registry.project_root)
        fact["file"] = path.relative_to(registry.project_root).as_posix() if inside else str(path)
    return fact


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
    from daedalus.pipelines.instants.view_snapshot import view_snapshot

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
    from daedalus.pipelines.instants.materialize_run import FOLDER

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
