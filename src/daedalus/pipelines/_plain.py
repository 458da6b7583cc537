"""Frozen dataclasses to plain YAML data and back, driven by their fields.

Tuples become lists, pair tuples marked by `mapping_field` become mappings, nested descriptions become mappings,
and a field that holds its default is left out.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import MISSING, field, fields
from enum import Enum
from functools import cache
from typing import Any

from daedalus.catalog.aggregation import AggregationSpec
from daedalus.errors import CompileError, did_you_mean

if typing.TYPE_CHECKING:
    from collections.abc import Mapping


def mapping_field() -> Any:
    """A tuple of (key, value) text pairs, written as a mapping."""
    return field(default=(), metadata={"mapping": True})


def specs_field() -> Any:
    """A tuple of aggregation specs, written as a list of mappings with the YAML keys."""
    return field(default=(), metadata={"items": AggregationSpec})


def as_mapping(item: Any) -> dict[str, Any]:
    """The fields of a frozen dataclass that differ from their defaults, as plain data, in field order."""
    data: dict[str, Any] = {}
    for one in fields(item):
        value = getattr(item, one.name)
        if one.name == "output" and value == item.name:
            continue
        shown = one.name == "engine"  # a default that authors are meant to see and edit
        if (
            not shown
            and one.default is not MISSING
            and value == one.default
            and type(value) is type(one.default)
        ):
            continue
        data[one.name] = dict(value) if one.metadata.get("mapping") else _plain(value)
    return data


def _plain(value: Any) -> Any:
    if isinstance(value, AggregationSpec):
        return value.to_mapping()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if dataclasses.is_dataclass(value):
        return as_mapping(value)
    return value


def from_mapping(cls: type, data: Mapping[str, Any], where: str) -> Any:
    """Build `cls` from plain data, strictly.

    Raises:
        CompileError: an unknown or missing key, or a value of the wrong type; `where` names the operator.
    """
    known = {one.name: one for one in fields(cls)}
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in known:
            raise CompileError(f"unknown key {key!r}", where=where, hint=did_you_mean(str(key), known))
        values[key] = _read(known[key], _hints(cls)[key], value, f"{where}, {key}")
    for name, one in known.items():
        if name not in values and one.default is MISSING and one.default_factory is MISSING:
            raise CompileError(f"missing key {name!r}", where=where)
    return cls(**values)


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _read(one: dataclasses.Field[Any], hint: Any, value: Any, where: str) -> Any:
    if one.metadata.get("mapping"):
        if not isinstance(value, dict) or not all(
            isinstance(text, str) for pair in value.items() for text in pair
        ):
            raise CompileError("expected a mapping of names to texts", where=where)
        return tuple(value.items())
    if "items" in one.metadata:
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise CompileError("expected a list of mappings", where=where)
        return tuple(_item(one.metadata["items"], item, where) for item in value)
    return _coerce(hint, value, where)


def _item(cls: type, item: dict[str, Any], where: str) -> Any:
    if cls is AggregationSpec:
        return AggregationSpec.from_mapping(item, where)
    return from_mapping(cls, item, f"{where}, {item.get('name', '?')}")


def _coerce(hint: Any, value: Any, where: str) -> Any:
    """`value` as the annotated type: enums by value, lists to tuples of text, whole numbers to floats."""
    if hint is Any:
        return value
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    for option in options:
        if typing.get_origin(option) is tuple:
            if isinstance(value, list) and all(isinstance(item, str) for item in value):
                return tuple(value)
        elif isinstance(option, type) and issubclass(option, Enum):
            if value in [member.value for member in option]:  # a list: YAML's value may not hash
                return option(value)
            raise CompileError(
                f"unknown value {value!r}",
                where=where,
                hint=did_you_mean(str(value), [m.value for m in option]),
            )
        elif option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        elif (
            isinstance(option, type)
            and isinstance(value, option)
            and (option is bool) == isinstance(value, bool)
        ):
            return value
    expected = getattr(hint, "__name__", str(hint))
    raise CompileError(f"expected {expected}, got {value!r}", where=where)
