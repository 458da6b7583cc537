"""Loading the online store of a project: services and views from their sources, events as far back as windows reach."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from daedalus.catalog.dtypes import from_arrow
from daedalus.errors import DefinitionError
from daedalus.online import EVENT_TIME, EventCounts, OnlineTable, table_of_view
from daedalus.online.layout import RecordLayout
from daedalus.online.loading import TableLoad, load_table
from daedalus.pipelines.instants.view_events import view_events
from daedalus.platform.materialization import materialize, materialize_view, online_views, parse_instant
from daedalus.platform.online import event_indexes, online_store, rolling_plan, served
from daedalus.platform.records import recorded_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daedalus.catalog.model import FeatureServiceDef
    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.online import RedisOnlineStore
    from daedalus.pipelines.instants.materialize_run import MaterializationResult
    from daedalus.platform.materialization import Instant
    from daedalus.platform.project import RunOptions
    from daedalus.platform.registry import PlatformRegistry

#: Rows that are read and sent at a time.
_BATCH_ROWS = 32_768


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineLoad:
    """What was loaded for a service: its online views, then its own rows.

    Attributes:
        run_id: of the load; the materialization that the rows come from is a run of its own.
        events: per view, events that are new to the store.
    """

    run_id: str
    service: str
    as_of: str
    tables: tuple[TableLoad, ...]
    events: dict[str, int]

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(one.rows for one in self.tables)


def materialize_online(
    registry: PlatformRegistry,
    service: str,
    *,
    as_of: Instant = None,
    entities: pa.Table | Path | str | None = None,
    prune: bool = False,
    options: RunOptions | None = None,
    progress: Callable[..., None] | None = None,
) -> tuple[MaterializationResult, OnlineLoad]:
    """Materialize a service to Parquet, then store its rows and its online views' newest rows for serving.

    Args:
        registry: the project.
        service: its name; it says `serving_allowed: true`.
        as_of: the instant; None is now. Asked again for an instant, an interrupted load goes on.
        entities: the keys to make the service's rows for, a table or a Parquet file; None is all that the spine has.
        prune: mark entities as deleted that the store has and the sources no longer have.
        options: settings for this run.
        progress: told how far the materialization is.

    Raises:
        DefinitionError: no such service, it may not be served, or no store is configured.
        ExecutionError: a source or the store failed; what was loaded stays, and running again finishes.
    """
    if prune and entities is not None:
        raise DefinitionError("a part of the entities says nothing of the others", where="prune")
    config = registry.config(options)
    catalog = registry.facade(config).catalog
    definition = served(catalog, service)
    instant = parse_instant(as_of)
    plan = rolling_plan(registry, service, options)
    with online_store(registry, options) as store:
        store.require()
        result = materialize(
            registry, service, as_of=instant, entities=entities, options=options, progress=progress
        )
        asked: dict[str, Any] = {"as_of": instant.isoformat(), "prune": prune}
        with recorded_run(registry, kind="online", service=service, config=config, request=asked) as run:
            tables = [
                load_view(registry, name, as_of=instant, store=store, prune=prune, options=options)
                for name in views_of(catalog, definition)
            ]
            tables.append(_load_rows(store, result, definition.version, prune=prune))
            events = {
                view: load_events(registry, view, as_of=instant, store=store, options=options).added
                for view in (() if plan is None else sorted(plan.views))
            }
            load = OnlineLoad(
                run_id=run.run_id,
                service=service,
                as_of=instant.isoformat(),
                tables=tuple(tables),
                events=events,
            )
            run.facts(
                summary={"rows": load.rows, "as_of": load.as_of, "tables": len(tables)},
                materialization=result.run_id,
                online={one.table: one.to_dict() for one in tables},
                events=events,
            )
    return result, load


def views_of(catalog: FeatureCatalog, service: FeatureServiceDef) -> tuple[str, ...]:
    """The views with `online: true` that a service reads."""
    names = [join.view for join in service.views] + [one.view for one in service.lookbacks]
    return tuple(dict.fromkeys(name for name in names if catalog.view(name).online))


def load_view(
    registry: PlatformRegistry,
    view: str,
    *,
    as_of: Instant = None,
    store: RedisOnlineStore,
    prune: bool = False,
    options: RunOptions | None = None,
) -> TableLoad:
    """Store a view's newest visible row per entity."""
    table = table_of_view(registry.facade(registry.config(options)).catalog.view(view))
    instant = parse_instant(as_of)
    with materialize_view(registry, view, instant, options=options) as snapshot:
        return load_table(
            store,
            table,
            snapshot.batches,
            as_of=instant,
            sources=snapshot.sources,
            prune=prune,
        )


def load_views(
    registry: PlatformRegistry, *, as_of: Instant = None, options: RunOptions | None = None
) -> tuple[TableLoad, ...]:
    """Store every view with `online: true`."""
    instant = parse_instant(as_of)
    with online_store(registry, options) as store:
        return tuple(
            load_view(registry, name, as_of=instant, store=store, options=options)
            for name in online_views(registry)
        )


def _load_rows(
    store: RedisOnlineStore,
    result: MaterializationResult,
    version: str,
    *,
    prune: bool,
) -> TableLoad:
    schema, instant = _materialized_schema(result.path), parse_instant(result.as_of)
    table = service_table(result.service, version, result.keys, schema)
    load = load_table(
        store,
        table,
        _materialized_rows(result.path, instant),
        as_of=instant,
        sources=result.content_hash,
        prune=prune,
    )
    # What readers need to know of rows that they did not write.
    store.set_state(table, store.state(table) | {"layout": table.layout.to_mapping()})
    return load


def service_table(service: str, version: str, keys: tuple[str, ...], schema: pa.Schema) -> OnlineTable:
    """The online table of a service's materialized rows.

    Raises:
        DefinitionError: a key is not among the service's columns.
    """
    dtypes = {field.name: from_arrow(field.type) for field in schema}
    absent = [name for name in keys if name not in dtypes]
    if absent:
        raise DefinitionError(
            f"its rows are found by {', '.join(keys)}, but {', '.join(absent)} is not among its columns",
            where=f"service {service}",
            hint="Add the key to columns",
        )
    layout = RecordLayout(
        f"service {service}",
        keys=[(name, dtypes[name]) for name in keys],
        fields=[(name, dtype) for name, dtype in dtypes.items() if name not in keys],
        definition=version,
    )
    return OnlineTable(kind="service", name=service, layout=layout)


def load_events(
    registry: PlatformRegistry,
    view: str,
    *,
    as_of: Instant = None,
    store: RedisOnlineStore,
    options: RunOptions | None = None,
) -> EventCounts:
    """Store a view's events up to an instant, as far back as the services' windows reach."""
    config = registry.config(options)
    catalog, instant = registry.facade(config).catalog, parse_instant(as_of)
    counts = EventCounts()
    for index in event_indexes(registry, view, options):
        keep = index.keep_seconds
        since = None if keep is None else instant - dt.timedelta(seconds=keep + 1)
        with view_events(view, catalog, config, since=since, until=instant) as batches:
            for batch in batches:
                counts += store.append_events(index, pa.Table.from_batches([batch]), as_of=instant)
    return counts


def _files(path: str) -> list[Path]:
    """The files of a materialization, in the order of its rows."""
    count = len(list(Path(path).glob("part-*-0.parquet")))
    return [Path(path) / f"part-{number}-0.parquet" for number in range(count)]


def _materialized_schema(path: str) -> pa.Schema:
    return pq.read_schema(_files(path)[0]).remove_metadata()


def _materialized_rows(path: str, instant: dt.datetime) -> Iterator[pa.RecordBatch]:
    for file in _files(path):
        for batch in pq.ParquetFile(file).iter_batches(_BATCH_ROWS):
            times = pa.repeat(pa.scalar(instant, pa.timestamp("us", "UTC")), batch.num_rows)
            yield batch.append_column(EVENT_TIME, times)
