"""Skew: what is served beside what the sources give now at the same instant, each difference with its cause.

A served value was made at an instant of its own, by the definitions and sources of that moment. So a difference is
explained when the value is what its own instant gives (lag, ttl), what was written then from sources that have
changed since (late arrival), or what another version made. What none of these explains is a defect.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

Key = tuple[Any, ...]
Row = dict[str, Any] | None
_MOST_EXAMPLES = 5
_RELATIVE, _ABSOLUTE = 1e-9, 1e-12


class Cause(StrEnum):
    """Why a served value differs."""

    LATE = "late arrival"
    LAG = "lag"
    TTL = "ttl"
    VERSION = "version"
    DEFECT = "defect"


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnTraits:
    """What of a column's definition explains differences.

    Attributes:
        ttl: whether its view lets values expire.
        inexact: whether engines may differ in the last bits: float sums and means.
    """

    ttl: bool = False
    inexact: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedPath:
    """What one way of serving answers.

    Attributes:
        name: `quack` or `online`.
        rows: per key; None where it has no such entity.
        own: per key, what the sources give now at the instant that the values were made.
        written: per key, what was written at that instant; None where nothing is known.
        versions: per key, the definitions' version; empty where none is known.
        made_at: when the values were made; None is never.
        hints: per key and column, a cause that the way of serving knows itself.
    """

    name: str
    rows: Sequence[Row]
    own: Sequence[Row]
    written: Sequence[Row]
    versions: Sequence[str]
    made_at: dt.datetime | None
    hints: Mapping[tuple[int, str], Cause] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is compared.

    Attributes:
        names: the entity keys' names.
        keys: the sampled entities.
        columns: the columns to compare.
        version: of the service now.
        as_of: the instant of the comparison.
    """

    names: tuple[str, ...]
    keys: tuple[Key, ...]
    columns: Mapping[str, ColumnTraits]
    version: str
    as_of: dt.datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One value that is served otherwise than the sources give it.

    Attributes:
        column: empty when the whole entity is missing on one side.
    """

    path: str
    key: dict[str, Any]
    column: str
    cause: Cause
    offline: Any
    served: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SkewReport:
    """What was compared, and what differs.

    Attributes:
        made_at: per path, the instant that its values were made at.
        compared: per path, values compared.
        differences: every one.
    """

    service: str
    version: str
    as_of: dt.datetime
    entities: int
    made_at: dict[str, str]
    compared: dict[str, int]
    differences: tuple[Difference, ...]
    notices: tuple[str, ...] = ()

    def counts(self) -> list[dict[str, Any]]:
        """Differences by path, column and cause, with an example each."""
        found: dict[tuple[str, str, Cause], list[Difference]] = {}
        for one in self.differences:
            found.setdefault((one.path, one.column, one.cause), []).append(one)
        return [
            {
                "path": path,
                "column": column,
                "cause": cause.value,
                "values": len(some),
                "examples": [
                    {"key": one.key, "offline": one.offline, "served": one.served}
                    for one in some[:_MOST_EXAMPLES]
                ],
            }
            for (path, column, cause), some in sorted(found.items())
        ]

    def has(self, causes: Sequence[Cause]) -> bool:
        """Whether a difference has one of these causes."""
        return any(one.cause in causes for one in self.differences)


def aligned(table: pa.Table, names: Sequence[str], keys: Sequence[Key]) -> list[Row]:
    """The table's rows by key, in the order of the keys; None where it has none."""
    rows = {tuple(row[name] for name in names): row for row in table.to_pylist()}
    return [rows.get(key) for key in keys]


def differences(question: Question, path: ServedPath, offline: Sequence[Row]) -> Iterator[Difference]:
    """Every value of a path that is not what the sources give at the instant, with its cause."""
    for at, key in enumerate(question.keys):
        shown = dict(zip(question.names, key, strict=True))
        served, wanted = path.rows[at], offline[at]
        if served is None or wanted is None:
            if served is not wanted:
                yield Difference(
                    path=path.name,
                    key=shown,
                    column="",
                    cause=_cause_of_row(question, path, at),
                    offline="there" if wanted else "absent",
                    served="there" if served else "absent",
                )
            continue
        for column, traits in question.columns.items():
            if column in served and same(served[column], wanted[column], inexact=traits.inexact):
                continue
            yield Difference(
                path=path.name,
                key=shown,
                column=column,
                cause=_cause(question, path, at, column, wanted[column]),
                offline=wanted[column],
                served=served.get(column),
            )


def _cause(question: Question, path: ServedPath, at: int, column: str, wanted: Any) -> Cause:
    traits, served = question.columns[column], path.rows[at] or {}
    if path.versions[at] != question.version:
        return Cause.VERSION
    if column not in served:
        return Cause.DEFECT
    value, own, written = served[column], path.own[at], path.written[at]
    if (
        path.made_at != question.as_of
        and own is not None
        and same(value, own[column], inexact=traits.inexact)
    ):
        return Cause.TTL if traits.ttl and wanted is None else Cause.LAG
    if written is not None and column in written and same(value, written[column], inexact=traits.inexact):
        return Cause.LATE
    return path.hints.get((at, column), Cause.DEFECT)


def _cause_of_row(question: Question, path: ServedPath, at: int) -> Cause:
    """Why a whole entity is on one side only."""
    served, own, written = path.rows[at], path.own[at], path.written[at]
    if path.versions[at] and path.versions[at] != question.version:
        return Cause.VERSION
    if path.made_at is None or (path.made_at != question.as_of and (served is None) == (own is None)):
        return path.hints.get((at, ""), Cause.LAG)
    if (served is None) == (written is None):
        return path.hints.get((at, ""), Cause.LATE)
    return path.hints.get((at, ""), Cause.DEFECT)


def same(one: Any, other: Any, *, inexact: bool = False) -> bool:
    """Whether two values are one: NaN equals NaN, and only inexact ones may differ in the last bits.

    >>> same([float("nan"), None], [float("nan"), None]), same(0.1 + 0.2, 0.3), same(0.1 + 0.2, 0.3, inexact=True)
    (True, False, True)
    """
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(
            same(a, b, inexact=inexact) for a, b in zip(one, other, strict=True)
        )
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k], inexact=inexact) for k in one)
    if isinstance(one, dt.datetime) and isinstance(other, dt.datetime):
        return _utc(one) == _utc(other)
    if isinstance(one, float) and isinstance(other, float):
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        close = inexact and math.isclose(one, other, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
        return one == other or close
    return bool(one == other) and (one is None) == (other is None)


def _utc(value: dt.datetime) -> dt.datetime:
    return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value
