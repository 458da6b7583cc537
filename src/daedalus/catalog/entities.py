"""Entities: those that ship, and those that a project's `entities.yaml` adds."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from daedalus.catalog.dtypes import canonical_dtype, joinable
from daedalus.catalog.model import Entity, EntityKey
from daedalus.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daedalus.catalog.sections import Section

#: The canonical entities, shared by every view; a project adds its own and never redefines these.
ENTITIES: Mapping[str, Entity] = MappingProxyType(
    {
        "user": Entity(name="user", keys=(EntityKey(name="user_id", dtype="BIGINT"),)),
        "artwork": Entity(name="artwork", keys=(EntityKey(name="artwork_id", dtype="BIGINT"),)),
    }
)


def read_entities(section: Section) -> dict[str, Entity]:
    """The entities of an `entities.yaml`, without the shipped ones."""
    section.allow(("entities",))
    found: dict[str, Entity] = {}
    for item in section.sections("entities"):
        entity = _read_entity(item)
        if entity is None:
            continue
        if entity.name in ENTITIES:
            hint = "It ships with Daedalus: use it, or choose another name."
            item.problem(f"the entity {entity.name!r} cannot be redefined", "name", hint=hint)
        elif entity.name in found:
            item.problem(f"the entity {entity.name!r} is defined twice", "name", hint="Rename or remove one.")
        else:
            found[entity.name] = entity
    if not section.given("entities") and isinstance(section.value, dict):
        section.problem("entities is missing", hint="Write entities: [{name: ..., keys: [{name: ...}]}].")
    return found


def _read_entity(item: Section) -> Entity | None:
    name = item.name("name")
    item.subject = f"entity {name}" if name else ""
    item.allow(("name", "keys", "description"))
    keys: list[EntityKey] = []
    for key in item.sections("keys", short=lambda text: {"name": text}):
        key.allow(("name", "dtype"))
        key_name = key.column_name("name")
        dtype = read_dtype(key, "dtype", default="BIGINT")
        if dtype and not joinable(dtype, dtype):
            key.problem(f"{dtype} cannot be a key", "dtype", hint="Use a whole number, text or UUID.")
        if key_name.lower() in {known.name.lower() for known in keys}:
            key.problem(f"the key {key_name!r} stands twice", "name")
        elif key_name and dtype:
            keys.append(EntityKey(name=key_name, dtype=dtype))
    if not item.has("keys"):
        item.problem("keys is missing", hint="Write keys: [{name: user_id, dtype: BIGINT}].")
    elif item.raw("keys") == []:
        item.problem("keys is empty", "keys")
    if not name or not keys:
        return None
    return Entity(name=name, keys=tuple(keys), description=item.text("description"))


def read_dtype(section: Section, key: str, *, default: str = "") -> str:
    """The canonical dtype under a key; empty (and noted) when it is none."""
    if not section.has(key):
        if not default:
            section.problem(f"{key} is missing", hint="Write a DuckDB type, such as BIGINT or VARCHAR[].")
        return default
    text = section.text(key, required=True)
    if not text:
        return ""
    try:
        return canonical_dtype(text)
    except DefinitionError as exc:
        section.relay(exc, key)
        return ""
