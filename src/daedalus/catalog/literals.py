"""Whether a YAML literal is a value of a dtype."""

from __future__ import annotations

import datetime as dt
import math
import re
from typing import Any

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
from daedalus.catalog.sections import shown

_BITS = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64, "HUGEINT": 128}
_FLOAT_MAX = {"HALF_FLOAT": 65504.0, "FLOAT": 3.4028234663852886e38, "DOUBLE": 1.7976931348623157e308}
_UUID = re.compile(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}")
_INTERVAL = re.compile(r"[-+\d].*")


def literal_problem(value: Any, dtype: str) -> str:
    """Why the value is not one of the dtype; empty when it is. NULL is a value of every dtype.

    >>> literal_problem([0], "BIGINT[]"), literal_problem(300, "TINYINT")
    ('', '300 does not fit TINYINT')
    """
    return _problem(value, parse_dtype(dtype))


def _problem(value: Any, dtype: Dtype) -> str:
    if value is None:
        return ""
    match dtype:
        case ListType(element=element, size=size):
            return _list_problem(value, element, size)
        case StructType(fields=fields):
            return _struct_problem(value, fields)
        case MapType(value=item_dtype):
            if not isinstance(value, dict):
                return f"{shown(value)} is not a mapping"
            return next((found for item in value.values() if (found := _problem(item, item_dtype))), "")
        case DecimalType(precision=precision, scale=scale):
            if isinstance(value, bool) or not isinstance(value, int | float):
                return f"{shown(value)} is not a number"
            return "" if abs(value) < 10 ** (precision - scale) else f"{value} does not fit {spell(dtype)}"
        case Scalar(name=name):
            return _scalar_problem(value, name)


def _list_problem(value: Any, element: Dtype, size: int | None) -> str:
    if not isinstance(value, list):
        return f"{shown(value)} is not a list"
    if size is not None and len(value) != size:
        return f"the list has {len(value)} items, not {size}"
    return next((found for item in value if (found := _problem(item, element))), "")


def _struct_problem(value: Any, fields: tuple[tuple[str, Dtype], ...]) -> str:
    if not isinstance(value, dict):
        return f"{shown(value)} is not a mapping"
    names = [name for name, _ in fields]
    if set(value) != set(names):
        return f"the mapping needs exactly the keys {', '.join(names)}"
    return next((found for name, part in fields if (found := _problem(value[name], part))), "")


def _scalar_problem(value: Any, name: str) -> str:
    if name == "BOOLEAN":
        return "" if isinstance(value, bool) else f"{shown(value)} is not true or false"
    if name in _BITS or name.removeprefix("U") in _BITS:
        return _integer_problem(value, name)
    if name in _FLOAT_MAX:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{shown(value)} is not a number"
        if isinstance(value, float) and not math.isfinite(value):
            return ""
        return f"{value} does not fit {name}" if abs(value) > _FLOAT_MAX[name] else ""
    if not isinstance(value, str):
        return f"{shown(value)} is not text" + (
            "" if name in {"VARCHAR", "BLOB"} else f", as {name} is written"
        )
    return "" if _readable(value, name) else f"{value!r} is not {name}"


def _integer_problem(value: Any, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
        return f"{shown(value)} is not a whole number"
    unsigned = name not in _BITS
    bits = _BITS[name.removeprefix("U") if unsigned else name]
    low, high = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return "" if low <= value <= high else f"{value} does not fit {name}"


def _readable(text: str, name: str) -> bool:
    if name in {"VARCHAR", "BLOB"}:
        return True
    if name == "UUID":
        return _UUID.fullmatch(text) is not None
    if name == "INTERVAL":
        return _INTERVAL.fullmatch(text) is not None
    parse = dt.time if name.startswith("TIME") and not name.startswith("TIMESTAMP") else dt.datetime
    try:
        (dt.date if name == "DATE" else parse).fromisoformat(text)
    except ValueError:
        return False
    return True
