"""Specs sorted into what can share work, and which method answers each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING

from daedalus.catalog.aggregation import Operation
from daedalus.catalog.model import SECONDS_PER_DAY
from daedalus.errors import DefinitionError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from daedalus.catalog.aggregation import AggregationSpec
    from daedalus.compute.sql_tier.relations import Relation

INTEGERS = frozenset(
    {f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")}
    | {"INTEGER", "UINTEGER"}
)
FLOATS = frozenset({"FLOAT", "DOUBLE"})
#: Up to so many items a scalar is folded from the row's own short list.
FOLDED_ITEMS = 256
#: Beyond this no timestamp of 64 bits can lie: clamps absurd windows.
_FAR = 2**65

_FOLDS = frozenset({Operation.SUM, Operation.MEAN, Operation.MIN, Operation.MAX, Operation.COUNT_DISTINCT})


class Method(StrEnum):
    """How a value is found once the row's positions in the history are known."""

    COUNT = "count"
    TIME = "time"
    POINT = "point"
    SLICE = "slice"
    PREFIX = "prefix"
    WINDOW = "window"


@dataclass(frozen=True, slots=True, order=True)
class Cut:
    """A border in the history: rows before `t - offset` lie behind it; with `inclusive`, rows at it too."""

    offset: int
    strict: bool

    @property
    def name(self) -> str:
        """A plain identifier, unique among a source's cuts."""
        return f"{'b' if self.strict else 'u'}{self.offset}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One spec, resolved: which counter of its source, which cuts, which method.

    Attributes:
        index: position among all specs.
        counter: position of the value column among the source's value columns.
        dtype: DuckDB type of the value column, None without one.
        high: rows behind this cut have been seen.
        low: rows behind this cut are too old; None without a window.
    """

    index: int
    spec: AggregationSpec
    counter: int
    dtype: str | None
    high: Cut
    low: Cut | None
    method: Method

    @property
    def is_float(self) -> bool:
        """Whether the value has NaN and two zeros."""
        return self.dtype in FLOATS

    @property
    def excludes(self) -> bool:
        """Whether rows with the spine row's own value are left out."""
        return self.spec.exclude_self


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The history that several specs share: one relation, its keys and one condition.

    Attributes:
        name: prefix of its stages, a plain identifier.
        own_keys: group columns in the spine.
        their_keys: the same in the history.
        values: the value columns counted; None counts every row.
    """

    name: str
    history: Relation
    own_keys: tuple[str, ...]
    their_keys: tuple[str, ...]
    condition: str | None
    values: tuple[str | None, ...]
    items: tuple[Item, ...]

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """Every border needed, the one that sees most first."""
        found = {cut for item in self.items for cut in (item.high, item.low) if cut is not None}
        return tuple(sorted(found))


def ticks(seconds: float | Fraction, per_second: int) -> int:
    """Seconds as whole ticks, rounded to the nearest."""
    return min(round(Fraction(seconds) * per_second), _FAR)


def sql_refusal(spec: AggregationSpec, dtype: str | None = None) -> str | None:
    """Why the SQL tier leaves this spec to the Arrow tier, in one sentence; None when it does not.

    Args:
        spec: the spec.
        dtype: DuckDB type of its value column. Without it, what depends on the type is refused.
    """
    operation = spec.operation
    if operation == Operation.FLATTEN_DISTINCT:
        return "flatten_distinct stops at a number of values, which SQL cannot do without reading all of them"
    if not spec.exclude_self:
        return None
    capped = spec.max_items is not None
    if operation == Operation.LIST and not capped:
        return "a list with exclude_self and no max_items would rebuild every list item by item"
    folded = capped and (spec.max_items or 0) <= FOLDED_ITEMS
    if operation not in _FOLDS or folded or (operation == Operation.COUNT_DISTINCT and not capped):
        return None
    if operation in {Operation.SUM, Operation.MEAN} and not capped and dtype in INTEGERS:
        return None
    return f"{operation} with exclude_self over more than {FOLDED_ITEMS} rows cannot be taken apart exactly"


def sources_of(
    specs: Iterable[AggregationSpec],
    *,
    spine: Relation,
    histories: Mapping[str | None, Relation],
    ticks_per_second: int,
    prefix: str,
) -> tuple[Source, ...]:
    """The specs grouped by (history, keys, condition), in the order of first appearance."""
    groups: dict[tuple[object, ...], list[tuple[int, AggregationSpec]]] = {}
    for index, spec in enumerate(specs):
        key = (spec.history_view, spec.group_by, spec.history_keys, spec.condition)
        groups.setdefault(key, []).append((index, spec))
    return tuple(
        _source(f"{prefix}{number}", members, spine, histories, ticks_per_second)
        for number, members in enumerate(groups.values())
    )


def _source(
    name: str,
    members: list[tuple[int, AggregationSpec]],
    spine: Relation,
    histories: Mapping[str | None, Relation],
    ticks_per_second: int,
) -> Source:
    first = members[0][1]
    if first.history_view not in histories:
        known = did_you_mean(str(first.history_view), [view for view in histories if view])
        raise DefinitionError(f"unknown history view {first.history_view!r}", where=first.where, hint=known)
    history = histories[first.history_view]
    values = tuple(dict.fromkeys(spec.value_column for _, spec in members))
    for _, spec in members:
        _check_columns(spec, spine, history)
    return Source(
        name=name,
        history=history,
        own_keys=first.group_by,
        their_keys=first.history_keys,
        condition=first.condition,
        values=values,
        items=tuple(_item(index, spec, history, values, ticks_per_second) for index, spec in members),
    )


def _item(
    index: int,
    spec: AggregationSpec,
    history: Relation,
    values: tuple[str | None, ...],
    ticks_per_second: int,
) -> Item:
    dtype = None if spec.value_column is None else history.dtype(spec.value_column)
    refusal = sql_refusal(spec, dtype)
    if refusal is not None:
        raise DefinitionError(refusal, where=spec.where, hint="Run this spec with another engine")
    delay = ticks(spec.delay_seconds, ticks_per_second)
    low = None
    if spec.window_days is not None:
        window = ticks(Fraction(spec.window_days) * SECONDS_PER_DAY, ticks_per_second)
        if window < (0 if spec.include_current else 1):
            raise DefinitionError(f"window_days is {spec.window_days}, less than a tick", where=spec.where)
        low = Cut(min(delay + window, _FAR), strict=True)
    return Item(
        index=index,
        spec=spec,
        counter=values.index(spec.value_column),
        dtype=dtype,
        high=Cut(delay, strict=not spec.include_current),
        low=low,
        method=_method(spec, dtype),
    )


def _method(spec: AggregationSpec, dtype: str | None) -> Method:
    operation = spec.operation
    if operation == Operation.COUNT:
        return Method.COUNT
    if operation == Operation.LIST:
        return Method.SLICE
    if operation in {Operation.FIRST, Operation.LAST}:
        return Method.POINT
    if operation == Operation.SECONDS_SINCE_LAST:
        return Method.POINT if spec.exclude_self else Method.TIME
    summed = operation in {Operation.SUM, Operation.MEAN}
    if summed and dtype not in INTEGERS | FLOATS:
        raise DefinitionError(f"{operation} of {dtype} is not defined", where=spec.where)
    if spec.max_items is not None and spec.max_items <= FOLDED_ITEMS:
        return Method.SLICE
    if summed and dtype in INTEGERS and spec.max_items is None:
        return Method.PREFIX
    return Method.WINDOW


def _check_columns(spec: AggregationSpec, spine: Relation, history: Relation) -> None:
    value = () if spec.value_column is None else (spec.value_column,)
    own = spec.group_by + (value if spec.exclude_self else ())
    for relation, needed, label in ((spine, own, "spine"), (history, spec.history_keys + value, "history")):
        for column in needed:
            if relation.dtype(column) is None:
                raise DefinitionError(
                    f"unknown column {column!r} of the {label}",
                    where=spec.where,
                    hint=did_you_mean(column, relation.columns),
                )
