"""Functions that a pipeline names by their dotted path."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.compute as pc


def hundreds(values: pa.Array) -> pa.Array:
    """Each number, a hundred times."""
    return pc.multiply(values, 100)


def shout(values: pa.Array) -> pa.Array:
    """Each text in capitals."""
    return pc.utf8_upper(values)


def too_few(values: pa.Array) -> pa.Array:
    """One value less than there are rows."""
    return values.slice(1)


def fails(_values: pa.Array) -> pa.Array:
    """Never returns."""
    raise ZeroDivisionError("by nought")


def process_id(values: pa.Array) -> pa.Array:
    """Where the function ran."""
    return pa.array([os.getpid()] * len(values), pa.int64())


#: Named by mistake.
NOT_ONE = 1


def plain(values: pa.Array) -> list[int]:
    """No Arrow."""
    return [1] * len(values)
