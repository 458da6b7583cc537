"""Do the specs fit the tables? Every refusal that needs schemas, before any work is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from daedalus.catalog.aggregation import Operation
from daedalus.compute.columns import common_type, plain_type
from daedalus.errors import DefinitionError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daedalus.catalog.aggregation import AggregationSpec

#: History schemas by name; None is the history of specs without a `history_view`.
Schemas = Mapping[str | None, pa.Schema]


def check_specs(spine: pa.Schema, specs: Sequence[AggregationSpec], histories: Schemas) -> None:
    """Refuse specs that the tables cannot answer.

    Raises:
        DefinitionError: every misfit found, each with its spec's name and the mend.
    """
    problems = [*_check_names(spine, specs)]
    for spec in specs:
        problems += _check_spec(spine, spec, histories)
    if problems:
        raise DefinitionError.gather(problems)


def output_field(spec: AggregationSpec, history: pa.Schema) -> pa.Field:
    """The column that the spec adds, from the schema of its history."""
    match spec.operation:
        case Operation.COUNT | Operation.COUNT_DISTINCT:
            return pa.field(spec.name, pa.int64())
        case Operation.MEAN | Operation.SECONDS_SINCE_LAST:
            return pa.field(spec.name, pa.float64())
    kind = history.field(spec.value_column).type
    match spec.operation:
        case Operation.SUM:
            whole = pa.types.is_integer(plain_type(kind))
            return pa.field(spec.name, pa.int64() if whole else pa.float64())
        case Operation.LIST:
            return pa.field(spec.name, pa.list_(pa.field("item", kind)))
        case Operation.FLATTEN_DISTINCT:
            return pa.field(spec.name, pa.list_(pa.field("item", kind.value_type)))
        case _:
            return pa.field(spec.name, kind)


def _check_names(spine: pa.Schema, specs: Sequence[AggregationSpec]) -> Iterator[DefinitionError]:
    for name, times in Counter(spine.names).items():
        if times > 1:
            yield DefinitionError(f"the spine has {times} columns named {name!r}", hint="Rename all but one")
    for name, times in Counter(spec.name for spec in specs).items():
        if times > 1:
            yield DefinitionError(f"{times} aggregation specs are named {name!r}", hint="Rename all but one")
    for spec in specs:
        if spec.name in spine.names:
            yield DefinitionError(
                "the spine has a column of this name already", where=spec.where, hint="Rename the spec"
            )


def _check_spec(spine: pa.Schema, spec: AggregationSpec, histories: Schemas) -> Iterator[DefinitionError]:
    if spec.history_view not in histories:
        known = [name for name in histories if name is not None]
        yield DefinitionError(
            f"no history is given for history_view {spec.history_view!r}",
            where=spec.where,
            hint=did_you_mean(str(spec.history_view), known) or 'Pass history={"name": table}',
        )
        return
    history = histories[spec.history_view]
    missing = [*_missing(spine, _spine_columns(spec), spec, "the spine")]
    missing += _missing(history, _history_columns(spec), spec, _history_name(spec))
    yield from missing
    if missing:
        return
    for rule in (_time_problems, _key_problems, _value_problems):
        for what, hint in rule(spine, spec, history):
            yield DefinitionError(what, where=spec.where, hint=hint)


def _history_name(spec: AggregationSpec) -> str:
    return "the spine" if spec.history_view is None else f"history {spec.history_view}"


def _spine_columns(spec: AggregationSpec) -> dict[str, str]:
    """The spine columns the spec reads, each with the key that names it."""
    columns = dict.fromkeys(spec.group_by, "group_by") | {spec.timestamp_column: "timestamp_column"}
    if spec.exclude_self and spec.value_column is not None:
        columns[spec.value_column] = "value_column (which exclude_self compares)"
    return columns


def _history_columns(spec: AggregationSpec) -> dict[str, str]:
    keys = "group_by" if spec.history_group_by is None else "history_group_by"
    time = "timestamp_column" if spec.history_timestamp_column is None else "history_timestamp_column"
    columns = dict.fromkeys(spec.history_keys, keys) | {spec.history_time: time}
    return columns if spec.value_column is None else columns | {spec.value_column: "value_column"}


def _missing(
    schema: pa.Schema, columns: Mapping[str, str], spec: AggregationSpec, place: str
) -> Iterator[DefinitionError]:
    for name, key in columns.items():
        found = schema.get_all_field_indices(name)
        if not found:
            hint = did_you_mean(name, schema.names)
            yield DefinitionError(f"{key} {name!r} is not a column of {place}", where=spec.where, hint=hint)
        elif len(found) > 1:
            what = f"{place} has {len(found)} columns named {name!r}"
            yield DefinitionError(what, where=spec.where, hint="Rename all but one")


def _time_problems(spine: pa.Schema, spec: AggregationSpec, history: pa.Schema) -> Iterator[tuple[str, str]]:
    ours, theirs = spine.field(spec.timestamp_column).type, history.field(spec.history_time).type
    if not (pa.types.is_timestamp(ours) or pa.types.is_int64(ours)):
        mend = f"Cast it to a timestamp, or to int64 in {spec.timestamp_unit}"
        yield f"time column {spec.timestamp_column!r} is {ours}, not a timestamp or int64", mend
    elif ours != theirs:
        yield (
            f"time column {spec.timestamp_column!r} of the spine is {ours}, "
            f"but {spec.history_time!r} of {_history_name(spec)} is {theirs}",
            "Cast one to the type and unit of the other",
        )


def _key_problems(spine: pa.Schema, spec: AggregationSpec, history: pa.Schema) -> Iterator[tuple[str, str]]:
    for ours, theirs in zip(spec.group_by, spec.history_keys, strict=True):
        one, two = spine.field(ours).type, history.field(theirs).type
        for kind in (one, two):
            if pa.types.is_floating(plain_type(kind)):
                yield f"group_by {ours!r} is {kind}; floats do not identify anything", "Cast it to an integer"
                break
            if not _is_scalar(kind):
                yield f"group_by {ours!r} is {kind}, not a scalar", "Group by scalar columns"
                break
        else:
            if common_type(one, two) is None:
                what = f"group_by {ours!r} is {one} in the spine, but {theirs!r} is {two} in the history"
                yield what, "Cast one to the type of the other"


def _value_problems(spine: pa.Schema, spec: AggregationSpec, history: pa.Schema) -> Iterator[tuple[str, str]]:
    if spec.value_column is None:
        return
    kind = history.field(spec.value_column).type
    if not _allowed(spec.operation, kind):
        yield f"{spec.operation} does not take {spec.value_column!r}, a {kind}", _takes(spec.operation)
    elif spec.exclude_self:
        own = spine.field(spec.value_column).type
        if not _is_scalar(kind) or not _is_scalar(own):
            mend = "Remove exclude_self or name a scalar column"
            yield f"exclude_self does not compare {spec.value_column!r}, a {own}", mend
        elif common_type(own, kind) is None:
            what = (
                f"exclude_self compares {spec.value_column!r}, {own} in the spine and {kind} in the history"
            )
            yield what, "Cast one to the type of the other"


def _is_scalar(kind: pa.DataType) -> bool:
    kind = plain_type(kind)
    return not (pa.types.is_nested(kind) or pa.types.is_run_end_encoded(kind))


def _is_orderable(kind: pa.DataType) -> bool:
    tests = (
        _is_number,
        pa.types.is_decimal,
        pa.types.is_boolean,
        pa.types.is_date,
        pa.types.is_time,
        pa.types.is_timestamp,
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_null,
    )
    return any(test(kind) for test in tests)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def is_any_list(kind: pa.DataType) -> bool:
    """Whether the type is one of Arrow's lists, of whatever layout."""
    tests = (
        pa.types.is_list,
        pa.types.is_large_list,
        pa.types.is_fixed_size_list,
        pa.types.is_list_view,
        pa.types.is_large_list_view,
    )
    return any(test(kind) for test in tests)


def _allowed(operation: Operation, kind: pa.DataType) -> bool:
    match operation:
        case Operation.COUNT | Operation.SECONDS_SINCE_LAST:
            return True
        case Operation.FLATTEN_DISTINCT:
            return is_any_list(kind) and _is_scalar(kind.value_type)
        case Operation.MIN | Operation.MAX:
            return _is_orderable(_under_dictionary(kind))
        case Operation.SUM | Operation.MEAN:
            return _is_number(_under_dictionary(kind))
        case _:
            return _is_scalar(kind)


def _under_dictionary(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _takes(operation: Operation) -> str:
    match operation:
        case Operation.FLATTEN_DISTINCT:
            return "It takes a list of scalars"
        case Operation.MIN | Operation.MAX:
            return "It takes numbers, booleans, dates, times and text"
        case Operation.SUM | Operation.MEAN:
            return "It takes integers and floats"
        case _:
            return "It takes scalars; for a column of lists use flatten_distinct"
