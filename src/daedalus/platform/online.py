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

    import pyarrow as pa

    from daedalus.catalog.model import FeatureServiceDef
    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.online import OnlineTable, RedisOnlineStore, StoreHealth
    from daedalus.online.loading import TableLoad
    from daedalus.pipelines.materialize_run import MaterializationResult
    from daedalus.platform.materialization import Instant
    from daedalus.platform.registry import PlatformRegistry, RunOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineLoad:
    """What was loaded for a service: its online views, then its own rows.

    Attributes:
        run_id: of the load; the materialization that the rows come from is a run of its own.
    """

    run_id: str
    service: str
    as_of: str
    tables: tuple[TableLoad, ...]

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
    entities: pa.Table | None = None,
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
        entities: the keys to make the service's rows for; None is every one that the spine has.
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
            load = OnlineLoad(
                run_id=run.run_id, service=service, as_of=instant.isoformat(), tables=tuple(tables)
            )
            run.facts(
                summary={"rows": load.rows, "as_of": load.as_of, "tables": len(tables)},
                materialization=result.run_id,
                online={one.table: _plain(one) for one in tables},
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
