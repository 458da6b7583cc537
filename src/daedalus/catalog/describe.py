"""Definitions as plain data, in the words of their YAML files; credentials masked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daedalus.catalog.model import JoinMode, OnlineRolling, Unset
from daedalus.secrets import MASK, mask

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from daedalus.catalog.model import (
        Entity,
        FeatureServiceDef,
        FeatureViewDef,
        FieldDef,
        ServiceColumn,
        SessionFilter,
        SqlStep,
    )

_SOURCE_TEXTS = (
    "path",
    "database_path",
    "table_name",
    "query",
    "timestamp_field",
    "created_field",
    "sequence_field",
    "data_path",
)


def entity_to_dict(entity: Entity) -> dict[str, Any]:
    """An entity as `entities.yaml` writes it."""
    keys = [{"name": key.name, "dtype": key.dtype} for key in entity.keys]
    return {"name": entity.name, "keys": keys} | _set({"description": entity.description})


def view_to_dict(view: FeatureViewDef) -> dict[str, Any]:
    """A view as its file writes it, keys and time field among its fields; every credential is `***`."""
    source: dict[str, Any] = _set({key: mask(getattr(view.source, key)) for key in _SOURCE_TEXTS})
    if view.source.timestamp_unit != "ms":
        source["timestamp_unit"] = view.source.timestamp_unit
    pinned = {"version": view.source.snapshot_version, "as_of": view.source.snapshot_as_of or None}
    if snapshot := {key: value for key, value in pinned.items() if value is not None}:
        source["snapshot"] = snapshot
    if view.source.credentials:
        source["credentials"] = {key: MASK for key, _ in view.source.credentials}
    return {
        "name": view.name,
        "entity": [entity.name for entity in view.entities],
        **_set({"description": view.description, "owner": view.owner, "tags": list(view.tags)}),
        **_set({"ttl": f"{view.ttl_seconds:.15g}s" if view.ttl_seconds else "", "online": view.online}),
        "source": source,
        **_set({"field_mapping": dict(view.field_mapping), "delay_seconds": view.delay_seconds}),
        "fields": [_field(field) for field in view.fields],
    }


def _field(field: FieldDef) -> dict[str, Any]:
    found: dict[str, Any] = {"name": field.name, "dtype": field.dtype} | _set(
        {"description": field.description}
    )
    if not field.nullable:
        found["nullable"] = False
    return found | _set({"optional": field.optional})


def service_to_dict(service: FeatureServiceDef) -> dict[str, Any]:
    """A service as its file writes it."""
    session = service.session_filter
    return {
        "name": service.name,
        "version": service.version,
        **_set({"owner": service.owner, "description": service.description, "tags": list(service.tags)}),
        "serving_allowed": service.serving_allowed,
        "spine": service.spine,
        **_set(
            {
                "grain": list(service.grain),
                "views": [
                    {"view": join.view}
                    | _set({"alias": join.alias if join.alias != join.view else ""})
                    | _set({"join": "asof" if join.join is JoinMode.ASOF else "", "on": dict(join.on)})
                    for join in service.views
                ],
                "static_columns": [str(ref) for ref in service.static_columns],
                "aggregation_specs": [spec.to_mapping() for spec in service.aggregation_specs],
                "lookbacks": [
                    {"name": one.name, "view": one.view, "on": dict(one.on), "value_column": one.value_column}
                    | _set({"window_days": one.window_days, "max_items": one.max_items})
                    for one in service.lookbacks
                ],
                "age_columns": [
                    {"name": age.name, "created": str(age.created)} for age in service.age_columns
                ],
                "derived": _steps(service.derived, with_column=False),
                "session_column": service.session_column,
                "session_filter": _session_filter(session) if session is not None else None,
                "curation": _steps(service.curation, with_column=True),
                "content_filter": _steps(service.content_filter, with_column=False),
                "columns": [_column(column) for column in service.columns],
                "online": {"rolling": service.online_rolling.value}
                if service.online_rolling is not OnlineRolling.MATERIALIZED
                else None,
            }
        ),
    }


def _steps(steps: Iterable[SqlStep], *, with_column: bool) -> list[dict[str, Any]]:
    return [
        {"name": step.name} | ({"column": step.column} if with_column else {}) | {"sql": step.sql}
        for step in steps
    ]


def _session_filter(rules: SessionFilter) -> dict[str, Any]:
    return {
        "session_column": rules.session_column,
        "event_column": rules.event_column,
        "view_events": list(rules.view_events),
        "like_events": list(rules.like_events),
        "drop_view_only": rules.drop_view_only,
        "drop_single_like": rules.drop_single_like,
    }


def _column(column: ServiceColumn) -> dict[str, Any]:
    found: dict[str, Any] = {"name": column.name}
    found |= _set({"ref": str(column.ref) if column.ref is not None else "", "dtype": column.dtype})
    found |= _set({"shape": {"dimension": column.dimension} if column.dimension else None})
    if column.default is not Unset.UNSET:
        found["default"] = column.default
    found |= _set({"default_sql": column.default_sql})
    return found if column.nullable else found | {"nullable": False}


def _set(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that say something: the others have their defaults."""
    return {key: value for key, value in values.items() if value}
