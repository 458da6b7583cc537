"""The online store of a project: load it, read it, push to it, ask how it is."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daedalus.errors import DefinitionError
from daedalus.platform.materialization import materialize, online_views, parse_instant
from daedalus.platform.records import recorded_run

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pyarrow as pa

    from daedalus.catalog.model import FeatureServiceDef
    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.online import (
        EventCounts,
        EventIndex,
        OnlineTable,
        RedisOnlineStore,
        StoreHealth,
        WriteCounts,
    )
    from daedalus.online.features import OnlineFeatures, OnlineService
    from daedalus.online.loading import TableLoad
    from daedalus.online.rolling import RollingPlan
    from daedalus.pipelines.instants.materialize_run import MaterializationResult
    from daedalus.platform.materialization import Instant
    from daedalus.platform.project import RunOptions
    from daedalus.platform.registry import PlatformRegistry


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


@contextlib.contextmanager
def online_store(registry: PlatformRegistry, options: RunOptions | None = None) -> Iterator[RedisOnlineStore]:
    """The project's store, as `online_store` in runtime.yaml says.

    Raises:
        DefinitionError: none is configured, or its URL is wrong.
    """
    from daedalus.online import RedisOnlineStore

    store = RedisOnlineStore(registry.config(options).online_store)
    try:
        yield store
    finally:
        store.close()


def served(catalog: FeatureCatalog, service: str) -> FeatureServiceDef:
    """The service; refused when it is not for serving."""
    definition = catalog.service(service)
    if not definition.serving_allowed:
        raise DefinitionError(
            "it may not be served",
            where=f"service {service} ({definition.file})",
            hint="serving_allowed is false: that is for its owner to change",
        )
    return definition


def views_of(catalog: FeatureCatalog, service: FeatureServiceDef) -> tuple[str, ...]:
    """The views with `online: true` that a service reads."""
    names = [join.view for join in service.views] + [one.view for one in service.lookbacks]
    return tuple(dict.fromkeys(name for name in names if catalog.view(name).online))


def materialize_online(
    registry: PlatformRegistry,
    service: str,
    *,
    as_of: Instant = None,
    entities: pa.Table | Path | str | None = None,
    prune: bool = False,
    options: RunOptions | None = None,
    progress: Callable[..., None] | None = None,
    note: Callable[[str, int], None] | None = None,
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
        note: told how far the load is: table, rows.

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
                load_view(registry, name, as_of=instant, store=store, prune=prune, options=options, note=note)
                for name in views_of(catalog, definition)
            ]
            tables.append(_load_rows(store, result, definition.version, prune=prune, note=note))
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
                online={one.table: _plain(one) for one in tables},
                events=events,
            )
    return result, load


def load_view(
    registry: PlatformRegistry,
    view: str,
    *,
    as_of: Instant = None,
    store: RedisOnlineStore,
    prune: bool = False,
    options: RunOptions | None = None,
    note: Callable[[str, int], None] | None = None,
) -> TableLoad:
    """Store a view's newest visible row per entity."""
    from daedalus.online import table_of_view
    from daedalus.online.loading import load_table
    from daedalus.platform.materialization import materialize_view

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
            progress=None if note is None else lambda rows: note(table.subject, rows),
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


def service_table(service: str, version: str, keys: tuple[str, ...], schema: pa.Schema) -> OnlineTable:
    """The online table of a service's materialized rows.

    Raises:
        DefinitionError: a key is not among the service's columns.
    """
    from daedalus.catalog.dtypes import from_arrow
    from daedalus.online import OnlineTable
    from daedalus.online.layout import RecordLayout

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


def _load_rows(
    store: RedisOnlineStore,
    result: MaterializationResult,
    version: str,
    *,
    prune: bool,
    note: Callable[[str, int], None] | None,
) -> TableLoad:
    from daedalus.online.loading import load_table

    schema, instant = _materialized_schema(result.path), parse_instant(result.as_of)
    table = service_table(result.service, version, result.keys, schema)
    load = load_table(
        store,
        table,
        _materialized_rows(result.path, instant),
        as_of=instant,
        sources=result.content_hash,
        prune=prune,
        progress=None if note is None else lambda rows: note(table.subject, rows),
    )
    # What readers need to know of rows that they did not write.
    store.set_state(table, store.state(table) | {"layout": table.layout.to_mapping()})
    return load


def rolling_plan(
    registry: PlatformRegistry, service: str, options: RunOptions | None = None
) -> RollingPlan | None:
    """How a service's rolling features are computed from events; None when it does not say so.

    Raises:
        DefinitionError: a spec reads more than the events of a view.
    """
    from daedalus.catalog.model import OnlineRolling
    from daedalus.online.rolling import RollingPlan

    config = registry.config(options)
    catalog = registry.facade(config).catalog
    definition = catalog.service(service)
    if definition.online_rolling is not OnlineRolling.EVENTS:
        return None
    return RollingPlan.of(registry.pipeline(service, config), catalog.view(definition.spine), catalog)


def event_indexes(
    registry: PlatformRegistry, view: str, options: RunOptions | None = None
) -> tuple[EventIndex, ...]:
    """By what the services find a view's events, each kept as long as the longest window needs."""
    from daedalus.online.rolling import merged

    catalog = registry.facade(registry.config(options)).catalog
    plans = (
        rolling_plan(registry, name, options)
        for name, one in sorted(catalog.services.items())
        if one.serving_allowed
    )
    indexes = (index for plan in plans if plan is not None for index in plan.all_indexes())
    return merged(index for index in indexes if index.view == view)


def load_events(
    registry: PlatformRegistry,
    view: str,
    *,
    as_of: Instant = None,
    store: RedisOnlineStore,
    options: RunOptions | None = None,
) -> EventCounts:
    """Store a view's events up to an instant, as far back as the services' windows reach."""
    import datetime as dt

    import pyarrow as pa

    from daedalus.online import EventCounts
    from daedalus.pipelines.instants.view_events import view_events

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push did: to the newest row per entity, and to the events of every index."""

    view: str
    rows: int
    newest: WriteCounts | None
    events: EventCounts | None


def push_online(
    registry: PlatformRegistry,
    view: str,
    rows: pa.Table,
    *,
    as_of: Instant = None,
    options: RunOptions | None = None,
    store: RedisOnlineStore | None = None,
) -> Pushed:
    """Store rows of a view as they happen: as events, where services need them, and as the newest row per entity.

    Args:
        registry: the project.
        view: says `online: true`, or its events are those of a service with `online: {rolling: events}`.
        rows: the view's fields, by canonical name; those that are missing are NULL.
        as_of: now. A row that is not visible yet is an event, but not the newest row.
        options: settings.
        store: an open one; None opens the project's.

    Raises:
        DefinitionError: the view is not online, or the rows do not fit it.
        ExecutionError: the store failed; pushing again finishes, and counts nothing twice.
    """
    from daedalus.online import EventCounts, WriteCounts, table_of_view
    from daedalus.online.pushing import fitted, visible

    definition = registry.facade(registry.config(options)).catalog.view(view)
    indexes = event_indexes(registry, view, options)
    if not definition.online and not indexes:
        raise DefinitionError(
            "it is not online",
            where=f"view {view} ({definition.file})",
            hint="Set online: true in the view, or online: {rolling: events} in a service that reads its events",
        )
    instant = parse_instant(as_of)
    fitting = fitted(definition, rows)
    with contextlib.ExitStack() as opened:
        store = store or opened.enter_context(online_store(registry, options))
        events = None
        for index in indexes:
            events = (events or EventCounts()) + store.append_events(index, fitting, as_of=instant)
        newest = None
        if definition.online:
            seen = fitting.filter(visible(definition, fitting, instant))
            newest = store.write(table_of_view(definition), seen, as_of=instant)
            newest += WriteCounts(skipped=fitting.num_rows - seen.num_rows)
    return Pushed(view=view, rows=rows.num_rows, newest=newest, events=events)


@contextlib.contextmanager
def online_service(
    registry: PlatformRegistry, service: str, *, options: RunOptions | None = None
) -> Iterator[OnlineService]:
    """Open a service for reading; keep it open for many reads.

        with online_service(registry, "dssm_ranking") as online:
            online.get(pa.table({"user_id": [1], "artwork_id": [2]})).values

    Raises:
        DefinitionError: no such service, it may not be served, or it was never loaded.
    """
    from daedalus.online.features import OnlineService

    catalog = registry.facade(registry.config(options)).catalog
    definition = served(catalog, service)
    with online_store(registry, options) as store:
        yield OnlineService(
            store,
            definition,
            catalog,
            _loaded_table(store, service),
            rolling_plan(registry, service, options),
        )


def _loaded_table(store: RedisOnlineStore, service: str) -> OnlineTable:
    """The table of a service's rows as they were loaded last."""
    from daedalus.online import OnlineTable
    from daedalus.online.layout import RecordLayout

    nothing = RecordLayout(f"service {service}", keys=[], fields=[])
    known = store.state(OnlineTable(kind="service", name=service, layout=nothing)).get("layout")
    if known is None:
        raise DefinitionError(
            "nothing of it is in the online store",
            where=f"service {service}",
            hint=f"Run daeda materialize {service} --online",
        )
    return OnlineTable(kind="service", name=service, layout=RecordLayout.from_mapping(known))


def get_online(
    registry: PlatformRegistry,
    service: str,
    rows: list[dict[str, Any]],
    *,
    as_of: Instant = None,
    options: RunOptions | None = None,
) -> OnlineFeatures:
    """A service's columns for some entities, from the online store alone.

    Args:
        registry: the project.
        service: its name.
        rows: per entity its keys, and what else the request knows of the spine's columns.
        as_of: the instant; None is now.
        options: settings.
    """
    with online_service(registry, service, options=options) as online:
        return online.get(online.request_table(rows), as_of=parse_instant(as_of))


def _files(path: str) -> list[Any]:
    from pathlib import Path

    count = len(list(Path(path).glob("part-*-0.parquet")))
    return [Path(path) / f"part-{number}-0.parquet" for number in range(count)]


def _materialized_schema(path: str) -> pa.Schema:
    import pyarrow.parquet as pq

    return pq.read_schema(_files(path)[0]).remove_metadata()


def _materialized_rows(path: str, instant: dt.datetime) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from daedalus.online import EVENT_TIME

    for file in _files(path):
        for batch in pq.ParquetFile(file).iter_batches(32_768):
            times = pa.repeat(pa.scalar(instant, pa.timestamp("us", "UTC")), batch.num_rows)
            yield batch.append_column(EVENT_TIME, times)


def online_health(registry: PlatformRegistry, options: RunOptions | None = None) -> StoreHealth:
    """Whether the project's store answers, and when each table was last loaded."""
    with online_store(registry, options) as store:
        return store.health()


def _plain(load: TableLoad) -> dict[str, Any]:
    from daedalus.catalog.facade import describe

    return dict(describe(load)) | {"rows_per_second": load.rows_per_second}
