"""Feature views out of YAML."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from daedalus.catalog.dtypes import is_integer, is_time, joinable
from daedalus.catalog.entities import read_dtype
from daedalus.catalog.model import COMPUTED_NAMESPACES, FeatureViewDef, FieldDef
from daedalus.catalog.sections import shown
from daedalus.catalog.sources import read_source
from daedalus.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from daedalus.catalog.model import DataSourceDef, Entity, EntityKey
    from daedalus.catalog.sections import Section

_KEYS = (
    "name",
    "entity",
    "description",
    "owner",
    "tags",
    "ttl",
    "online",
    "source",
    "field_mapping",
    "delay_seconds",
    "fields",
)
_FIELD_KEYS = ("name", "dtype", "description", "nullable", "optional")
_LONGEST_DELAY = 100 * 365 * 86_400.0  # more, and nanosecond times would run over
_TTL = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def read_view(section: Section, entities: Mapping[str, Entity]) -> FeatureViewDef | None:
    """The view that a file describes, as far as it can be read; None without a name."""
    name = section.name("name")
    section.subject = f"view {name}" if name else ""
    section.allow(_KEYS)
    if name in COMPUTED_NAMESPACES:
        section.problem(
            f"the name {name!r} is reserved for computed columns", "name", hint="Rename the view."
        )
    keyed = _entities(section, entities)
    mapping = _field_mapping(section)
    written = read_source(section)
    declared = _fields(section)
    source = _canonical_source(written, mapping, declared)
    keys = {key.name: key for entity in keyed for key in entity.keys}
    fields = _all_fields(section, declared, keys, source)
    _check_mapping(section, mapping, fields)
    delay = section.number("delay_seconds", least=0)
    if delay is not None and delay > _LONGEST_DELAY:
        section.problem(f"delay_seconds is {delay:g}, more than a hundred years", "delay_seconds")
    ttl = _ttl(section)
    for key, value in (("ttl", ttl), ("delay_seconds", delay)):
        if value and not source.timestamp_field and section.has("source"):
            section.problem(f"{key} needs a timestamp_field in the source", key)
    if not name:
        return None
    return FeatureViewDef(
        name=name,
        entities=keyed,
        fields=fields,
        source=source,
        description=section.text("description"),
        owner=section.text("owner"),
        tags=section.texts("tags"),
        ttl_seconds=ttl,
        online=section.boolean("online"),
        delay_seconds=delay or 0.0,
        field_mapping=mapping,
        file=section.document.file,
    )


def _entities(section: Section, known: Mapping[str, Entity]) -> tuple[Entity, ...]:
    names = section.texts("entity", required=True, single=True)
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            section.problem(
                f"unknown entity {name!r}", "entity", hint=f"{hint} Others go into entities.yaml."
            )
    return tuple(known[name] for name in names if name in known)


def _field_mapping(section: Section) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[str, str]] = []
    for source, canonical in section.pairs("field_mapping"):
        taken = [other for other, name in pairs if name.lower() == canonical.lower()]
        if taken:
            what = f"{source!r} and {taken[0]!r} are both mapped to {canonical!r}"
            section.problem(what, "field_mapping", source, hint="Give each source column a name of its own.")
        elif section.check_column(canonical, "field_mapping", source):
            pairs.append((source, canonical))
    return tuple(pairs)


def _fields(section: Section) -> tuple[FieldDef, ...]:
    found: dict[str, FieldDef] = {}
    for item in section.sections("fields"):
        item.allow(_FIELD_KEYS)
        name = item.column_name("name")
        dtype = read_dtype(item, "dtype")
        if name.lower() in found:
            item.problem(f"the field {name!r} stands twice", "name", hint="Names differ by more than case.")
        elif name:
            found[name.lower()] = FieldDef(
                name=name,
                # Without a dtype the file is refused; the field stays, so that references to it are not.
                dtype=dtype,
                description=item.text("description"),
                nullable=item.boolean("nullable", default=True),
                optional=item.boolean("optional"),
            )
            if item.raw("nullable") is False and item.raw("optional") is True:
                item.problem(
                    "an optional field is NULL where the source lacks it", "nullable", hint="Remove one."
                )
    return tuple(found.values())


def _canonical_source(
    written: DataSourceDef, mapping: Iterable[tuple[str, str]], declared: Iterable[FieldDef]
) -> DataSourceDef:
    """The source with its special fields under canonical names."""
    renamed = dict(mapping)
    canonical = {*renamed.values(), *(field.name for field in declared)}

    def name_of(name: str) -> str:
        return name if name in canonical else renamed.get(name, name)

    return replace(
        written,
        timestamp_field=name_of(written.timestamp_field),
        created_field=name_of(written.created_field),
        sequence_field=name_of(written.sequence_field),
    )


def _all_fields(
    section: Section, declared: tuple[FieldDef, ...], keys: Mapping[str, EntityKey], source: DataSourceDef
) -> tuple[FieldDef, ...]:
    """Keys, time and tie-breaks that are not declared, then the declared fields in file order."""
    for index, field in enumerate(declared):
        key = keys.get(field.name)
        if key is not None and field.dtype and not joinable(key.dtype, field.dtype):
            what = f"the key {field.name!r} is {field.dtype}, but its entity says {key.dtype}"
            section.problem(
                what, "fields", index, hint="Leave the key out of fields: the entity declares it."
            )
        if field.name in {source.timestamp_field, source.created_field}:
            _check_time(section, field, index)
    implied = [FieldDef(name=key.name, dtype=key.dtype) for key in keys.values()]
    implied += [
        FieldDef(name=name, dtype=dtype)
        for name, dtype in (
            (source.timestamp_field, "TIMESTAMP"),
            (source.created_field, "TIMESTAMP"),
            (source.sequence_field, "BIGINT"),
        )
        if name
    ]
    names = {field.name for field in declared}
    first = {field.name: field for field in implied if field.name not in names}
    folded = {name.lower(): name for name in first}
    for index, field in enumerate(declared):
        if (other := folded.get(field.name.lower())) is not None:
            theirs = f"{other!r}, which the view's entity or source names"
            what = f"the field {field.name!r} differs only in case from {theirs}"
            section.problem(what, "fields", index, hint=f"Write {other}, or leave it out.")
    if source.timestamp_field and source.timestamp_field in (source.created_field, source.sequence_field):
        section.problem(
            "timestamp_field is also created_field or sequence_field", "source", hint="Remove one."
        )
    return (*first.values(), *declared)


def _check_time(section: Section, field: FieldDef, index: int) -> None:
    if field.dtype and not (is_time(field.dtype) or is_integer(field.dtype)):
        hint = "Declare TIMESTAMP, DATE, or a whole number with the source's timestamp_unit."
        section.problem(f"the time field {field.name!r} is {field.dtype}", "fields", index, hint=hint)
    if field.optional:
        section.problem(f"the time field {field.name!r} cannot be optional", "fields", index)


def _check_mapping(
    section: Section, mapping: Iterable[tuple[str, str]], fields: tuple[FieldDef, ...]
) -> None:
    names = {field.name for field in fields}
    for source, canonical in mapping:
        if canonical not in names:
            hint = f"{did_you_mean(canonical, names)} Mappings go from source column to field."
            section.problem(f"{canonical!r} is no field of the view", "field_mapping", source, hint=hint)


def _ttl(section: Section) -> float | None:
    value = section.raw("ttl")
    if value is None:
        return None
    match = _TTL.fullmatch(value.strip()) if isinstance(value, str) else None
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0 < seconds < 1e12:
        section.problem(
            f"ttl is {shown(value)}", "ttl", hint="Write a number and a unit: 30s, 15m, 6h, 90d, 2w."
        )
        return None
    return seconds
