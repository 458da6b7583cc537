"""Rolling aggregations as definitions: what to collect from an entity's past, as seen from one row.

A spec is pure description. What needs no data is checked here, when the spec is made; what needs the columns
of a table (do they exist, do their types fit, does the condition bind) is checked by `daedalus.compute`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from daedalus.errors import DefinitionError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

#: Units of an integer time column, and how many of them make a second.
TICKS_PER_SECOND: Mapping[str, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


class Operation(StrEnum):
    """What becomes of the eligible rows; `daedalus.compute` says the value and type of each."""

    LIST = "list"
    COUNT = "count"
    COUNT_DISTINCT = "count_distinct"
    FLATTEN_DISTINCT = "flatten_distinct"
    FIRST = "first"
    LAST = "last"
    MIN = "min"
    MAX = "max"
    SUM = "sum"
    MEAN = "mean"
    SECONDS_SINCE_LAST = "seconds_since_last"


#: What a spec that names no time column means: this column, or the time of a spine that has no such column.
DEFAULT_TIMESTAMP_COLUMN = "event_timestamp"


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregationSpec:
    """One value per row: what `operation` makes of the earlier rows of the same entity.

    Attributes:
        name: the output column.
        group_by: the columns that must be equal (and not NULL) in both rows; at least one.
        operation: an `Operation` or its name.
        value_column: the history column that is collected; only `count` can do without.
        timestamp_column: the time of both rows: an Arrow timestamp, or int64 in `timestamp_unit`.
        include_current: False reads `[t - window, t)`; True reads `[t - window, t]`, the row itself included.
        window_days: days of 86 400 seconds, a fraction is fine; None is the whole past.
        condition: a boolean DuckDB expression over columns written `hist.name`; rows where it is not TRUE
            are not history.
        max_items: keep the newest so many rows (values, for `flatten_distinct`); None keeps all.
        exclude_self: leave out history rows whose value is the current row's own.
        delay_seconds: how long data takes to arrive; the whole window moves back by it.
        history_view: read another relation's rows instead of the spine's own earlier rows.
        history_group_by: what `group_by` is called there; None is the same names.
        history_timestamp_column: what `timestamp_column` is called there; None is the same name.

    Raises:
        DefinitionError: a value has the wrong type or is out of its bounds; lists every problem.

    Example:
        >>> AggregationSpec(
        ...     name="like_ids_7d", group_by=("user_id",), value_column="item_id", operation="list",
        ...     condition="hist.event = 'like'", window_days=7, max_items=32, exclude_self=True,
        ... ).operation
        <Operation.LIST: 'list'>
    """

    name: str
    group_by: tuple[str, ...]
    operation: Operation
    value_column: str | None = None
    timestamp_column: str = DEFAULT_TIMESTAMP_COLUMN
    timestamp_unit: str = "ms"
    include_current: bool = False
    window_days: float | None = None
    condition: str | None = None
    max_items: int | None = None
    exclude_self: bool = False
    delay_seconds: float = 0
    history_view: str | None = None
    history_group_by: tuple[str, ...] | None = None
    history_timestamp_column: str | None = None

    def __post_init__(self) -> None:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        found = list(_problems(given, where=""))
        found += [
            DefinitionError(f"{field.name} is None", where=_place(given, ""))
            for field in fields(self)
            if given[field.name] is None and field.default is not None
        ]
        if found:
            raise DefinitionError.gather(found)
        object.__setattr__(self, "operation", Operation(self.operation))
        object.__setattr__(self, "group_by", tuple(self.group_by))
        for name in ("window_days", "delay_seconds"):
            value = getattr(self, name)
            if isinstance(value, float) and value.is_integer():
                object.__setattr__(self, name, int(value))  # 7.0 days are 7, also in the pipeline's text
        if self.history_group_by is not None:
            object.__setattr__(self, "history_group_by", tuple(self.history_group_by))

    def means_time(self, name: str, columns: Container[str]) -> bool:
        """Whether `name`, the time of a table with these columns, is the time that this spec means."""
        unnamed = self.timestamp_column == DEFAULT_TIMESTAMP_COLUMN and self.timestamp_column not in columns
        return unnamed or self.timestamp_column == name

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], where: str = "") -> AggregationSpec:
        """The spec that YAML describes; `where` (file and path in it) begins every message.

        Raises:
            DefinitionError: unknown, missing or wrong keys, all of them in one error.
        """
        if not isinstance(mapping, Mapping):
            raise DefinitionError("an aggregation spec is a mapping of keys", where=where)
        found = [
            DefinitionError(f"unknown key {key!r}", where=_place(mapping, where), hint=_near_key(key))
            for key in mapping
            if key not in _KEYS
        ]
        known = {key: value for key, value in mapping.items() if key in _KEYS}
        found += [
            DefinitionError(f"{key} is missing", where=_place(mapping, where))
            for key in _REQUIRED
            if known.get(key) is None
        ]
        found += _problems(known, where)
        if found:
            raise DefinitionError.gather(found)
        # A key that YAML leaves empty has its default.
        return cls(**{key: value for key, value in known.items() if value is not None})

    def to_mapping(self) -> dict[str, Any]:
        """The keys that make this spec, defaults left out, in the order of the documents."""
        mapping: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.default is MISSING or value != field.default:
                mapping[field.name] = list(value) if isinstance(value, tuple) else value
        return mapping | {"operation": str(self.operation)}

    @property
    def where(self) -> str:
        """How messages name this spec."""
        return f"aggregation spec {self.name}"

    @property
    def history_keys(self) -> tuple[str, ...]:
        """The names of the group columns in the history."""
        return self.group_by if self.history_group_by is None else self.history_group_by

    @property
    def history_time(self) -> str:
        """The name of the time column in the history."""
        return self.history_timestamp_column or self.timestamp_column


_KEYS = tuple(field.name for field in fields(AggregationSpec))
_REQUIRED = ("name", "group_by", "operation")
_FLAGS = ("include_current", "exclude_self")
_OPTIONAL_TEXTS = ("value_column", "condition", "history_view", "history_timestamp_column")


def _place(mapping: Mapping[str, Any], where: str) -> str:
    name = mapping.get("name")
    spec = f"aggregation spec {name}" if isinstance(name, str) and name else "aggregation spec"
    return f"{where}: {spec}" if where else spec


def _near_key(key: object) -> str:
    return did_you_mean(str(key), _KEYS)


def _problems(given: Mapping[str, Any], where: str) -> Iterator[DefinitionError]:
    """Every rule that the given keys break, absent and empty keys left to their defaults."""
    place = _place(given, where)
    values = {key: value for key, value in given.items() if value is not None}
    for check in _CHECKS:
        for what, hint in check(values):
            yield DefinitionError(what, where=place, hint=hint)


_Problem = tuple[str, str]


def _check_texts(values: Mapping[str, Any]) -> Iterator[_Problem]:
    for key in ("name", "timestamp_column", *_OPTIONAL_TEXTS):
        value = values.get(key)
        if key in values and not (isinstance(value, str) and value.strip()):
            yield f"{key} is {value!r}, not a text", ""
    for key in ("group_by", "history_group_by"):
        if key in values:
            yield from _check_names(key, values[key])


def _check_names(key: str, value: object) -> Iterator[_Problem]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        yield f"{key} is {value!r}, not a list of column names", f"Write {key}: [{value}]"
    elif not value:
        yield f"{key} is empty", "Name at least one column"
    elif not all(isinstance(name, str) and name.strip() for name in value):
        yield f"{key} is {list(value)!r}, not a list of column names", ""
    elif len(set(value)) < len(value) and key == "group_by":
        yield f"{key} names a column twice: {', '.join(value)}", ""


def _check_choices(values: Mapping[str, Any]) -> Iterator[_Problem]:
    operation = values.get("operation")
    if "operation" in values and operation not in list(Operation):
        yield (
            f"unknown operation {operation!r}",
            did_you_mean(str(operation), [str(known) for known in Operation]),
        )
    unit = values.get("timestamp_unit")
    if "timestamp_unit" in values and not (isinstance(unit, str) and unit in TICKS_PER_SECOND):
        yield f"unknown timestamp_unit {unit!r}", "Use s, ms, us or ns"
    for key in _FLAGS:
        if key in values and not isinstance(values[key], bool):
            yield f"{key} is {values[key]!r}, not true or false", ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_numbers(values: Mapping[str, Any]) -> Iterator[_Problem]:
    items = values.get("max_items", 1)
    if isinstance(items, bool) or not isinstance(items, int):
        yield f"max_items is {items!r}, not a whole number", ""
    elif items < 1:
        yield f"max_items is {items}, but must be at least 1", "Leave it out to keep everything"
    delay = values.get("delay_seconds", 0)
    if not _is_number(delay):
        yield f"delay_seconds is {delay!r}, not a number", ""
    elif delay < 0:
        yield f"delay_seconds is {delay}, but must be at least 0", ""
    if "window_days" not in values:
        return
    window = values["window_days"]
    if not _is_number(window):
        yield f"window_days is {window!r}, not a number", "Leave it out for the whole past"
    elif window < 0 or (window == 0 and values.get("include_current") is not True):
        yield f"window_days is {window}, but must be more than 0", "0 needs include_current: true"


def _check_combinations(values: Mapping[str, Any]) -> Iterator[_Problem]:
    operation = values.get("operation")
    if "value_column" not in values:
        if operation in list(Operation) and operation != Operation.COUNT:
            yield f"{operation} needs a value_column", "Only count can do without"
        if values.get("exclude_self") is True:
            yield "exclude_self compares value_column, but none is given", "Name the value_column"
    if operation == Operation.FLATTEN_DISTINCT and values.get("exclude_self") is True:
        yield "exclude_self does not work on the lists that flatten_distinct reads", "Remove exclude_self"
    if "history_view" not in values:
        for key in ("history_group_by", "history_timestamp_column"):
            if key in values:
                yield f"{key} is given without a history_view", f"Name the history_view or remove {key}"
    own, theirs = values.get("group_by"), values.get("history_group_by")
    if isinstance(own, Sequence) and isinstance(theirs, Sequence) and len(own) != len(theirs):
        yield "history_group_by must name as many columns as group_by, in the same order", ""


_CHECKS: tuple[Callable[[Mapping[str, Any]], Iterator[_Problem]], ...] = (
    _check_texts,
    _check_choices,
    _check_numbers,
    _check_combinations,
)
