"""Dtypes: DuckDB's type names, each with one Arrow type and back.

    BOOLEAN, TINYINT ... UBIGINT,      the Arrow type of that name
    FLOAT, DOUBLE, DATE, BLOB
    VARCHAR (TEXT, STRING)             string; large, view and dictionary strings come back as VARCHAR
    HALF_FLOAT                         halffloat; Daedalus' own: FLOAT inside DuckDB, which has no such type
    TIMESTAMP, _S, _MS, _NS            timestamp[us], [s], [ms], [ns]
    TIMESTAMPTZ                        timestamp[us, tz=UTC]; an instant of any zone or unit comes back so
    TIME, TIME_NS                      time64[us], time64[ns]
    INTERVAL                           month_day_nano_interval
    UUID                               the arrow.uuid extension, 16 bytes; text would come back as VARCHAR
    HUGEINT                            decimal128(38, 0), as DuckDB exports it; comes back as DECIMAL(38,0)
    DECIMAL(p,s)                       decimal128(p, s)
    T[], T[n]                          list<item: T>, fixed_size_list<item: T>[n]
    STRUCT(a T, ...), MAP(K, V)        struct, map

ENUM, JSON, BIT, UNION, UHUGEINT and TIMETZ are refused with what to declare instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from daedalus.catalog._dtype_parser import (
    DecimalType,
    Dtype,
    ListType,
    MapType,
    Scalar,
    StructType,
    parse_dtype,
    spell,
)
from daedalus.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "canonical_dtype",
    "element_dtype",
    "from_arrow",
    "is_integer",
    "is_list",
    "is_numeric",
    "is_time",
    "joinable",
    "list_size",
    "storable",
    "to_arrow",
    "to_duckdb",
]

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

_INTEGERS = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT"}
)
_FLOATS = frozenset({"HALF_FLOAT", "FLOAT", "DOUBLE"})
_TIMES = frozenset({"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMPTZ", "DATE"})

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


def canonical_dtype(text: str) -> str:
    """The one spelling of a dtype, upper case; DefinitionError with a near match or a mend.

    >>> canonical_dtype("text"), canonical_dtype("float[ 1152 ]"), canonical_dtype("struct(a int8)[]")
    ('VARCHAR', 'FLOAT[1152]', 'STRUCT(a BIGINT)[]')
    >>> canonical_dtype("varchr")
    Traceback (most recent call last):
    daedalus.errors.DefinitionError: unknown dtype 'varchr'. Did you mean 'VARCHAR'?
    """
    return spell(parse_dtype(text))


def to_arrow(dtype: str) -> pa.DataType:
    """The Arrow type of a dtype; list items are named `item` and nullable.

    >>> to_arrow("HALF_FLOAT[]")
    ListType(list<item: halffloat>)
    """
    return _to_arrow(parse_dtype(dtype))


def _to_arrow(dtype: Dtype) -> pa.DataType:
    match dtype:
        case Scalar(name=name):
            return _ARROW[name]
        case DecimalType(precision=precision, scale=scale):
            return pa.decimal128(precision, scale)
        case ListType(element=element, size=None):
            return pa.list_(pa.field("item", _to_arrow(element)))
        case ListType(element=element, size=size):
            return pa.list_(pa.field("item", _to_arrow(element)), size)
        case StructType(fields=fields):
            return pa.struct([pa.field(name, _to_arrow(part)) for name, part in fields])
        case MapType(key=key, value=value):
            return pa.map_(_to_arrow(key), _to_arrow(value))


def from_arrow(arrow: pa.DataType) -> str:
    """The dtype of an Arrow type; DefinitionError when Daedalus has none.

    >>> from_arrow(pa.list_(pa.large_string()))
    'VARCHAR[]'
    """
    return spell(_from_arrow(arrow))


def _from_arrow(arrow: pa.DataType) -> Dtype:
    known = _FROM_ARROW.get(arrow)
    if known is not None:
        return Scalar(known)
    if pa.types.is_dictionary(arrow):
        return _from_arrow(arrow.value_type)
    if pa.types.is_fixed_size_list(arrow):
        return ListType(_from_arrow(arrow.value_type), arrow.list_size)
    if _is_variable_list(arrow):
        return ListType(_from_arrow(arrow.value_type), None)
    if pa.types.is_struct(arrow) and arrow.num_fields:
        return StructType(tuple((field.name, _from_arrow(field.type)) for field in arrow))
    if pa.types.is_map(arrow):
        return MapType(_from_arrow(arrow.key_type), _from_arrow(arrow.item_type))
    if pa.types.is_decimal(arrow) and arrow.precision <= 38 and arrow.scale >= 0:
        return DecimalType(arrow.precision, arrow.scale)
    for recognises, name in _READ_AS:
        if recognises(arrow):
            return Scalar(name)
    raise DefinitionError(f"the Arrow type {arrow} has no dtype", hint="Cast the column in the source.")


def _is_variable_list(arrow: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_list_view, pa.types.is_large_list_view)
    return any(test(arrow) for test in tests)


def to_duckdb(dtype: str) -> str:
    """The type that a DuckDB session uses for the dtype, as SQL: half floats widen, STRUCT fields are quoted.

    >>> to_duckdb("HALF_FLOAT[1152]"), to_duckdb("STRUCT(a HALF_FLOAT)")
    ('FLOAT[1152]', 'STRUCT("a" FLOAT)')
    """
    return _to_duckdb(parse_dtype(dtype))


def _to_duckdb(dtype: Dtype) -> str:
    match dtype:
        case Scalar(name="HALF_FLOAT"):
            return "FLOAT"
        case Scalar(name=name):
            return name
        case DecimalType():
            return spell(dtype)
        case ListType(element=element, size=size):
            return f"{_to_duckdb(element)}[{'' if size is None else size}]"
        case StructType(fields=fields):
            quoted = ('"' + name.replace('"', '""') + '" ' + _to_duckdb(part) for name, part in fields)
            return "STRUCT(" + ", ".join(quoted) + ")"
        case MapType(key=key, value=value):
            return f"MAP({_to_duckdb(key)}, {_to_duckdb(value)})"


def is_list(dtype: str) -> bool:
    """Whether the values are lists, of fixed or varying length."""
    return isinstance(parse_dtype(dtype), ListType)


def element_dtype(dtype: str) -> str:
    """The dtype of a list's items; DefinitionError when it is not a list.

    >>> element_dtype("BIGINT[][]")
    'BIGINT[]'
    """
    parsed = parse_dtype(dtype)
    if not isinstance(parsed, ListType):
        raise DefinitionError(f"{spell(parsed)} is not a list")
    return spell(parsed.element)


def list_size(dtype: str) -> int | None:
    """The fixed length of a list dtype; None for any other dtype.

    >>> list_size("FLOAT[1152]"), list_size("FLOAT[]")
    (1152, None)
    """
    parsed = parse_dtype(dtype)
    return parsed.size if isinstance(parsed, ListType) else None


def is_integer(dtype: str) -> bool:
    """Whether the values are whole numbers."""
    return canonical_dtype(dtype) in _INTEGERS


def is_numeric(dtype: str) -> bool:
    """Whether the values are numbers."""
    return _is_numeric(parse_dtype(dtype))


def _is_numeric(dtype: Dtype) -> bool:
    return isinstance(dtype, DecimalType) or (isinstance(dtype, Scalar) and dtype.name in _INTEGERS | _FLOATS)


def is_time(dtype: str) -> bool:
    """Whether the values are instants or days."""
    return canonical_dtype(dtype) in _TIMES


def joinable(left: str, right: str) -> bool:
    """Whether values of the two dtypes can be equal without a conversion that loses anything.

    >>> joinable("BIGINT", "INTEGER"), joinable("BIGINT", "VARCHAR"), joinable("DOUBLE", "DOUBLE")
    (True, False, False)
    """
    one, other = canonical_dtype(left), canonical_dtype(right)
    if one in _INTEGERS and other in _INTEGERS:
        return True
    return one == other and one not in _FLOATS and isinstance(parse_dtype(one), Scalar | DecimalType)


def storable(source: str, target: str) -> bool:
    """Whether values of `source` are of a kind that `target` can hold; a single value may still not fit.

    >>> storable("INTEGER", "BIGINT"), storable("FLOAT[]", "HALF_FLOAT[1152]"), storable("VARCHAR", "BIGINT")
    (True, True, False)
    """
    return _storable(parse_dtype(source), parse_dtype(target))


def _storable(source: Dtype, target: Dtype) -> bool:
    if source == target or (_is_numeric(source) and _is_numeric(target)):
        return True
    match source, target:
        case ListType(element=one, size=left), ListType(element=other, size=right):
            return _storable(one, other) and (left is None or right is None or left == right)
        case StructType(fields=one), StructType(fields=other):
            same_names = [name for name, _ in one] == [name for name, _ in other]
            return same_names and all(_storable(a, b) for (_, a), (_, b) in zip(one, other, strict=True))
        case MapType(), MapType():
            return _storable(source.key, target.key) and _storable(source.value, target.value)
        case Scalar(name=one), Scalar(name=other):
            return one in _TIMES and other in _TIMES
    return False
