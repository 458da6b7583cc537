"""The Arrow side of dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from daedalus.catalog.dtype_tree import DecimalType, Dtype, ListType, MapType, Scalar, StructType
from daedalus.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Callable

_ARROW: dict[str, pa.DataType] = {
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "UTINYINT": pa.uint8(),
    "USMALLINT": pa.uint16(),
    "UINTEGER": pa.uint32(),
    "UBIGINT": pa.uint64(),
    "HUGEINT": pa.decimal128(38, 0),
    "HALF_FLOAT": pa.float16(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "VARCHAR": pa.string(),
    "BLOB": pa.binary(),
    "UUID": pa.uuid(),
    "DATE": pa.date32(),
    "TIME": pa.time64("us"),
    "TIME_NS": pa.time64("ns"),
    "TIMESTAMP": pa.timestamp("us"),
    "TIMESTAMP_S": pa.timestamp("s"),
    "TIMESTAMP_MS": pa.timestamp("ms"),
    "TIMESTAMP_NS": pa.timestamp("ns"),
    "TIMESTAMPTZ": pa.timestamp("us", tz="UTC"),
    "INTERVAL": pa.month_day_nano_interval(),
}
_FROM_ARROW = {arrow: name for name, arrow in _ARROW.items() if name != "HUGEINT"}

#: Arrow types that read as another's dtype, by the test that recognises them.
_READ_AS: tuple[tuple[Callable[[Any], bool], str], ...] = (
    (pa.types.is_large_string, "VARCHAR"),
    (pa.types.is_string_view, "VARCHAR"),
    (pa.types.is_large_binary, "BLOB"),
    (pa.types.is_binary_view, "BLOB"),
    (pa.types.is_fixed_size_binary, "BLOB"),
    (pa.types.is_date64, "DATE"),
    (pa.types.is_time32, "TIME"),
    (pa.types.is_duration, "INTERVAL"),
    (pa.types.is_timestamp, "TIMESTAMPTZ"),
)


def arrow_type(dtype: Dtype) -> pa.DataType:
    """The Arrow type of a parsed dtype."""
    match dtype:
        case Scalar(name=name):
            return _ARROW[name]
        case DecimalType(precision=precision, scale=scale):
            return pa.decimal128(precision, scale)
        case ListType(element=element, size=None):
            return pa.list_(pa.field("item", arrow_type(element)))
        case ListType(element=element, size=size):
            return pa.list_(pa.field("item", arrow_type(element)), size)
        case StructType(fields=fields):
            return pa.struct([pa.field(name, arrow_type(part)) for name, part in fields])
        case MapType(key=key, value=value):
            return pa.map_(arrow_type(key), arrow_type(value))


def parsed_arrow(arrow: pa.DataType) -> Dtype:
    """The dtype of an Arrow type; DefinitionError when there is none."""
    known = _FROM_ARROW.get(arrow)
    if known is not None:
        return Scalar(known)
    if pa.types.is_dictionary(arrow):
        return parsed_arrow(arrow.value_type)
    if pa.types.is_fixed_size_list(arrow):
        return ListType(parsed_arrow(arrow.value_type), arrow.list_size)
    if _is_variable_list(arrow):
        return ListType(parsed_arrow(arrow.value_type), None)
    if pa.types.is_struct(arrow) and arrow.num_fields:
        return StructType(tuple((field.name, parsed_arrow(field.type)) for field in arrow))
    if pa.types.is_map(arrow):
        return MapType(parsed_arrow(arrow.key_type), parsed_arrow(arrow.item_type))
    if pa.types.is_decimal(arrow) and arrow.precision <= 38 and arrow.scale >= 0:
        return DecimalType(arrow.precision, arrow.scale)
    for recognises, name in _READ_AS:
        if recognises(arrow):
            return Scalar(name)
    raise DefinitionError(f"the Arrow type {arrow} has no dtype", hint="Cast the column in the source.")


def _is_variable_list(arrow: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_list_view, pa.types.is_large_list_view)
    return any(test(arrow) for test in tests)
