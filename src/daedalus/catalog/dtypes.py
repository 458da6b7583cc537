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

from typing import TYPE_CHECKING

from daedalus.catalog.dtype_tree import (
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
    # Loading a catalog must not pay for importing Arrow; converting to it does.
    import pyarrow as pa

__all__ = [
    "INTEGERS",
    "canonical_dtype",
    "element_dtype",
    "from_arrow",
    "is_integer",
    "is_list",
    "is_time",
    "joinable",
    "list_size",
    "storable",
    "to_arrow",
    "to_duckdb",
]

#: Dtypes of whole numbers.
INTEGERS = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT"}
)
_FLOATS = frozenset({"HALF_FLOAT", "FLOAT", "DOUBLE"})
_TIMES = frozenset({"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMPTZ", "DATE"})


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
    from daedalus.catalog._dtype_arrow import arrow_type

    return arrow_type(parse_dtype(dtype))


def from_arrow(arrow: pa.DataType) -> str:
    """The dtype of an Arrow type; DefinitionError when Daedalus has none.

    >>> import pyarrow as pa
    >>> from_arrow(pa.list_(pa.large_string()))
    'VARCHAR[]'
    """
    from daedalus.catalog._dtype_arrow import parsed_arrow

    return spell(parsed_arrow(arrow))


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
    return canonical_dtype(dtype) in INTEGERS


def _is_numeric(dtype: Dtype) -> bool:
    return isinstance(dtype, DecimalType) or (isinstance(dtype, Scalar) and dtype.name in INTEGERS | _FLOATS)


def is_time(dtype: str) -> bool:
    """Whether the values are instants or days."""
    return canonical_dtype(dtype) in _TIMES


def joinable(left: str, right: str) -> bool:
    """Whether values of the two dtypes can be equal without a conversion that loses anything.

    >>> joinable("BIGINT", "INTEGER"), joinable("BIGINT", "VARCHAR"), joinable("DOUBLE", "DOUBLE")
    (True, False, False)
    """
    one, other = canonical_dtype(left), canonical_dtype(right)
    if one in INTEGERS and other in INTEGERS:
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
