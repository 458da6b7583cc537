"""Quoted names and literals, in DuckDB's dialect."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

from daedalus.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Mapping

_HUGEINT_MIN, _HUGEINT_MAX = -(2**127), 2**127 - 1


def quote_ident(name: str) -> str:
    """The name as a quoted identifier; whatever it holds, it stays one name.

    >>> quote_ident("event")
    '"event"'
    >>> quote_ident('x"; DROP TABLE ev; --')
    '"x""; DROP TABLE ev; --"'
    """
    if not name:
        raise DefinitionError("a name must not be empty")
    return '"' + _printable(name, "name").replace('"', '""') + '"'


def qualified(*parts: str) -> str:
    """A dotted name, each part quoted.

    >>> qualified("hist", "event")
    '"hist"."event"'
    """
    if not parts:
        raise DefinitionError("a name must not be empty")
    return ".".join(quote_ident(part) for part in parts)


def quote_literal(value: object) -> str:
    """The value as a DuckDB literal of the type that Python's stands for.

    Floats are written as DOUBLE casts, because DuckDB reads `0.1` as a DECIMAL; aware datetimes become
    TIMESTAMPTZ in UTC; a mapping becomes a STRUCT; negative numbers stand in parentheses, so that a minus
    before them cannot make a comment.

    >>> quote_literal("it's"), quote_literal(None), quote_literal([1, -2])
    ("'it''s'", 'NULL', '[1, (-2)]')
    >>> quote_literal(0.5)
    "CAST('0.5' AS DOUBLE)"
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, str):
        return "'" + _printable(value, "text value").replace("'", "''") + "'"
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return _cast(_float_text(value), "DOUBLE")
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(quote_literal(item) for item in value) + "]"
    if isinstance(value, dict):
        return _struct(value)
    return _other(value)


def _other(value: object) -> str:
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            return _cast(value.isoformat(sep=" "), "TIMESTAMP")
        return _cast(value.astimezone(dt.UTC).isoformat(sep=" "), "TIMESTAMPTZ")
    if isinstance(value, dt.date):
        return _cast(value.isoformat(), "DATE")
    if isinstance(value, dt.time) and value.tzinfo is None:
        return _cast(value.isoformat(), "TIME")
    if isinstance(value, dt.timedelta):
        microseconds = value // dt.timedelta(microseconds=1)
        return f"to_microseconds({_integer(microseconds)})"
    if isinstance(value, bytes):
        return _cast("".join(f"\\x{byte:02X}" for byte in value), "BLOB")
    if isinstance(value, UUID):
        return _cast(str(value), "UUID")
    raise DefinitionError(
        f"a {type(value).__name__} has no SQL literal",
        hint="Use text, a number, a boolean, a date or time, or a list or mapping of these.",
    )


def _printable(text: str, label: str) -> str:
    if "\0" in text:
        raise DefinitionError(f"a {label} must not contain a zero character, got {text!r}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise DefinitionError(f"a {label} must be valid Unicode, got {text!r}") from exc
    return text


def _cast(text: str, dtype: str) -> str:
    return f"CAST('{text}' AS {dtype})"


def _integer(value: int) -> str:
    if not _HUGEINT_MIN <= value <= _HUGEINT_MAX:
        raise DefinitionError(f"the integer {value} does not fit HUGEINT")
    return f"({value})" if value < 0 else str(value)


def _float_text(value: float) -> str:
    if math.isnan(value):
        return "nan"
    return repr(float(value))


def _decimal(value: Decimal) -> str:
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise DefinitionError(
            f"the decimal {value} has no SQL literal", hint="Use a float for NaN and infinity."
        )
    scale = max(-exponent, 0)
    width = max(len(digits) + max(exponent, 0), scale, 1)
    if width > 38:
        raise DefinitionError(f"the decimal {value} does not fit DECIMAL(38)")
    return _cast(f"{value:f}", f"DECIMAL({width},{scale})")


def _struct(value: Mapping[object, object]) -> str:
    if not value:
        raise DefinitionError("an empty mapping has no SQL literal", hint="A STRUCT needs a field.")
    for key in value:
        if not isinstance(key, str) or not key:
            raise DefinitionError(f"a STRUCT field needs a name, got {key!r}")
    return (
        "{" + ", ".join(f"{quote_literal(key)}: {quote_literal(item)}" for key, item in value.items()) + "}"
    )
