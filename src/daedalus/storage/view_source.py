"""What a view's definition says of its source: names, units; and how errors of our own SQL over it begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daedalus.catalog.dtypes import INTEGERS

if TYPE_CHECKING:
    from daedalus.catalog.model import FeatureViewDef

#: Begins the text of an error that our own SQL raises, so that its message can be told from DuckDB's.
ERROR_MARK = "[daedalus] "

#: Microseconds per unit of an integer time.
UNIT_US = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0, "ns": 0.001}


def source_name_of(view: FeatureViewDef, canonical: str) -> str:
    """The source's name of a canonical field."""
    for source_name, name in view.field_mapping:
        if name == canonical:
            return source_name
    return canonical


def view_source_unit(view: FeatureViewDef) -> float:
    """Microseconds per unit of the view's raw time column; 1 for timestamps."""
    field = view.field(view.timestamp_field) if view.timestamp_field else None
    is_integer = field is not None and field.dtype in INTEGERS
    return UNIT_US[view.source.timestamp_unit] if is_integer else 1.0


def needs_nanoseconds(view: FeatureViewDef) -> bool:
    """Whether the view's time is finer than a microsecond."""
    if not view.timestamp_field:
        return False
    dtype = view.field(view.timestamp_field).dtype
    return dtype == "TIMESTAMP_NS" or (dtype in INTEGERS and view.source.timestamp_unit == "ns")
