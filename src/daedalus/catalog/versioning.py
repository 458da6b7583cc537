"""What changed between a locked schema and the definitions: each change is breaking, additive or cosmetic.

Structural, no hashes. *Breaking*: a model trained on the locked version reads other values, other rows or no
values. *Additive*: everything it reads is as before, and something is new. *Cosmetic*: only words changed.
A breaking change needs a new `version` of the service; `daeda registry check` sees to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from daedalus.catalog import schema_parts as parts
from daedalus.catalog.lock_file import LOCK_NAME, RegistryLock, read_lock, update_lock, version_key
from daedalus.catalog.logical_schema import Schema, service_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "LOCK_NAME",
    "ChangeKind",
    "RegistryLock",
    "Schema",
    "SchemaChange",
    "diff_schemas",
    "diff_service",
    "read_lock",
    "service_schema",
    "unversioned",
    "update_lock",
]


class ChangeKind(StrEnum):
    """What a change means to a model that was trained on the locked version."""

    BREAKING = "breaking"
    ADDITIVE = "additive"
    COSMETIC = "cosmetic"


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaChange:
    """One change of one service.

    Attributes:
        path: where in the schema, such as `columns.user_age.dtype`.
        before: the locked value; None when there was none.
        after: the value now; None when there is none.
        reason: why it is of its kind, one sentence.
    """

    service: str
    path: str
    kind: ChangeKind
    before: Any
    after: Any
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """The change as plain data."""
        return {name: getattr(self, name) for name in self.__slots__} | {"kind": self.kind.value}


def diff_schemas(
    locked: Mapping[str, Schema] | None, current: Mapping[str, Schema]
) -> tuple[SchemaChange, ...]:
    """Every change of every service, services by name.

    Args:
        locked: schemas by service, as `read_lock(path).services` gives them; None when nothing is locked yet.
        current: schemas by service, as the definitions make them now.
    """
    before = locked or {}
    found: list[SchemaChange] = []
    for name in sorted({*before, *current}):
        found += diff_service(name, before.get(name), current.get(name))
    return tuple(found)


def diff_service(name: str, locked: Schema | None, current: Schema | None) -> tuple[SchemaChange, ...]:
    """Every change of one service; None where it is not locked, or not defined any more."""
    if locked is None and current is None:
        return ()
    if locked is None:
        found = ("", ChangeKind.ADDITIVE, None, _version(current), "the service is new")
        return (_change(name, found),)
    if current is None:
        reason = "the service is gone; nothing makes its columns any more"
        return (_change(name, ("", ChangeKind.BREAKING, _version(locked), None, reason)),)
    pair = parts.Pair.of(locked, current)
    changes = [_change(name, found) for compare in parts.COMPARISONS for found in compare(pair)]
    order = list(ChangeKind)
    return tuple(sorted(changes, key=lambda change: order.index(change.kind)))


def unversioned(
    changes: tuple[SchemaChange, ...],
    locked: Mapping[str, Schema] | None,
    current: Mapping[str, Schema],
) -> tuple[SchemaChange, ...]:
    """The breaking changes of services that did not get a newer version than the locked one."""
    locked = locked or {}
    return tuple(
        change
        for change in changes
        if change.kind is ChangeKind.BREAKING
        and not _is_newer(current.get(change.service), locked.get(change.service))
    )


def _is_newer(current: Schema | None, locked: Schema | None) -> bool:
    if current is None or locked is None:
        return False
    return version_key(current["version"]) > version_key(locked["version"])


def _version(schema: Schema | None) -> str:
    return str(schema["version"]) if schema is not None else ""


def _change(service: str, found: parts.Found) -> SchemaChange:
    path, kind, before, after, reason = found
    return SchemaChange(
        service=service, path=path, kind=ChangeKind(kind), before=before, after=after, reason=reason
    )
