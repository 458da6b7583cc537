"""The online store of a project: open it, read it, push to it, ask how it is."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daedalus.catalog.model import OnlineRolling
from daedalus.errors import DefinitionError
from daedalus.online import EventCounts, OnlineTable, RedisOnlineStore, WriteCounts, table_of_view
from daedalus.online.features import OnlineService
from daedalus.online.layout import RecordLayout
from daedalus.online.pushing import fitted, visible
from daedalus.online.rolling import RollingPlan, merged
from daedalus.platform.materialization import parse_instant

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from daedalus.catalog.model import FeatureServiceDef
    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.online import EventIndex, StoreHealth
    from daedalus.online.features import OnlineFeatures
    from daedalus.platform.materialization import Instant
    from daedalus.platform.project import RunOptions
    from daedalus.platform.registry import PlatformRegistry


@contextlib.contextmanager
def online_store(registry: PlatformRegistry, options: RunOptions | None = None) -> Iterator[RedisOnlineStore]:
    """The project's store, as `online_store` in runtime.yaml says.

    Raises:
        DefinitionError: none is configured, or its URL is wrong.
    """
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


def rolling_plan(
    registry: PlatformRegistry, service: str, options: RunOptions | None = None
) -> RollingPlan | None:
    """How a service's rolling features are computed from events; None when it does not say so.

    Raises:
        DefinitionError: a spec reads more than the events of a view.
    """
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
    catalog = registry.facade(registry.config(options)).catalog
    plans = (
        rolling_plan(registry, name, options)
        for name, one in sorted(catalog.services.items())
        if one.serving_allowed
    )
    indexes = (index for plan in plans if plan is not None for index in plan.all_indexes())
    return merged(index for index in indexes if index.view == view)


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


def online_health(registry: PlatformRegistry, options: RunOptions | None = None) -> StoreHealth:
    """Whether the project's store answers, and when each table was last loaded."""
    with online_store(registry, options) as store:
        return store.health()
