"""What may change about a table that has days already: columns are added, types grow. The rest is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daedalus.catalog.dtype_tree import DecimalType, ListType, MapType, Scalar, StructType, parse_dtype
from daedalus.errors import ExecutionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daedalus.catalog.dtype_tree import Dtype

#: Bits, and whether there is a sign.
_INTEGERS = {
    "TINYINT": (8, True),
    "SMALLINT": (16, True),
    "INTEGER": (32, True),
    "BIGINT": (64, True),
    "HUGEINT": (128, True),
    "UTINYINT": (8, False),
    "USMALLINT": (16, False),
    "UINTEGER": (32, False),
    "UBIGINT": (64, False),
}
_DIGITS = {8: 3, 16: 5, 32: 10, 64: 20}
#: Whole numbers of so many bits that a float holds exactly.
_EXACT_BITS = {"FLOAT": 16, "DOUBLE": 32}
_GROWING = (("HALF_FLOAT", "FLOAT", "DOUBLE"), ("TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One step of a table towards a new schema.

    Attributes:
        dtype: the column's dtype from now on.
        added: whether the column is new; its type grows otherwise.
    """

    column: str
    dtype: str
    added: bool


def widens(old: str, new: str) -> bool:
    """Whether every value of one dtype is a value of the other.

    >>> widens("INTEGER", "BIGINT"), widens("UINTEGER", "BIGINT"), widens("BIGINT", "DOUBLE")
    (True, True, False)
    >>> widens("INTEGER[]", "BIGINT[]"), widens("FLOAT[3]", "FLOAT[]"), widens("FLOAT[3]", "FLOAT[4]")
    (True, True, False)
    """
    return _widens(parse_dtype(old), parse_dtype(new))


def _widens(old: Dtype, new: Dtype) -> bool:
    if old == new:
        return True
    match old, new:
        case Scalar(name=one), Scalar(name=other):
            return _scalar_widens(one, other)
        case Scalar(name=one), DecimalType(precision=precision, scale=scale) if one in _INTEGERS:
            return precision - scale >= _DIGITS.get(_INTEGERS[one][0], 39)
        case DecimalType(), DecimalType():
            return new.scale >= old.scale and new.precision - new.scale >= old.precision - old.scale
        case ListType(), ListType():
            return _widens(old.element, new.element) and new.size in (None, old.size)
        case MapType(), MapType():
            return _widens(old.key, new.key) and _widens(old.value, new.value)
        case StructType(), StructType():
            return [name for name, _ in old.fields] == [name for name, _ in new.fields] and all(
                _widens(one, other) for (_, one), (_, other) in zip(old.fields, new.fields, strict=True)
            )
    return False


def _scalar_widens(old: str, new: str) -> bool:
    if old in _INTEGERS and new in _INTEGERS:
        (old_bits, old_signed), (new_bits, new_signed) = _INTEGERS[old], _INTEGERS[new]
        if old_signed == new_signed:
            return old_bits <= new_bits
        return new_signed and old_bits < new_bits
    if old in _INTEGERS and new in _EXACT_BITS:
        return _INTEGERS[old][0] <= _EXACT_BITS[new]
    return any(old in order and new in order and order.index(old) <= order.index(new) for order in _GROWING)


def plan_changes(table: Mapping[str, str], rows: Mapping[str, str], *, where: str) -> list[Change]:
    """What the table needs before it can take the rows.

    Args:
        table: the columns it has, name to dtype.
        rows: the columns to write, name to dtype.
        where: the table, for messages.

    A column whose dtype in the table is the wider one stays as it is.

    Raises:
        ExecutionError: a column is gone or has a type of another kind; names it, both types and the mend.
    """
    folded = {name.lower(): name for name in rows}
    for name in table:
        if name.lower() not in folded:
            raise ExecutionError(
                f"the table has a column {name!r} that the rows no longer have",
                where=where,
                hint=f"Keep the column in the contract, write to another place, or drop it there: "
                f'ALTER TABLE ... DROP COLUMN "{name}"',
            )
    known = {name.lower(): dtype for name, dtype in table.items()}
    changes = []
    for name, dtype in rows.items():
        old = known.get(name.lower())
        if old is None:
            changes.append(Change(column=name, dtype=dtype, added=True))
        elif old == dtype or widens(dtype, old):
            continue
        elif widens(old, dtype):
            changes.append(Change(column=name, dtype=dtype, added=False))
        else:
            raise ExecutionError(
                f"column {name!r} is {old} in the table and {dtype} in the rows: "
                "a type may only grow without loss",
                where=where,
                hint=f"Declare dtype {old} in the contract, give the column a new name, or write to another place",
            )
    return changes
