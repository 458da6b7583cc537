"""Arrow casts that refuse where a value would change; Arrow's own safe cast rounds floats without a word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from typing import Any


def cast_exactly(column: Any, kind: pa.DataType) -> Any:
    """The same values as another type; a list's items, too.

    Args:
        column: an array or a chunked array; so is the result.
        kind: the type to give it.

    Raises:
        pyarrow.ArrowInvalid: a value would change; ArrowNotImplementedError (of the same family) where there is no
            such cast.

    >>> cast_exactly(pa.array([1.5, float("nan")]), pa.float32()).type
    DataType(float)
    >>> cast_exactly(pa.array([0.1]), pa.float32())
    Traceback (most recent call last):
    pyarrow.lib.ArrowInvalid: a value would be rounded or written otherwise
    >>> cast_exactly(pa.array(["007"]), pa.int64())
    Traceback (most recent call last):
    pyarrow.lib.ArrowInvalid: a value would be rounded or written otherwise
    """
    if column.type == kind:
        return column
    if isinstance(column, pa.ChunkedArray):
        # Chunk by chunk: Arrow may join chunks while casting, and then they are no pairs to compare.
        return pa.chunked_array([cast_exactly(chunk, kind) for chunk in column.chunks], kind)
    cast = column.cast(kind)
    if _may_change(column.type, kind) and not _same_values(column, cast.cast(column.type)):
        raise pa.ArrowInvalid("a value would be rounded or written otherwise")
    return cast


def _may_change(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether a cast that Arrow calls safe may still lose something."""
    while hasattr(source, "value_type") and hasattr(target, "value_type"):
        source, target = source.value_type, target.value_type
    if pa.types.is_floating(source) and pa.types.is_floating(target):
        return bool(target.bit_width < source.bit_width)
    texts = (pa.types.is_string, pa.types.is_large_string)
    is_text = any(check(source) for check in texts)
    return is_text and not any(check(target) for check in texts)


def _same_values(one: pa.Array, other: pa.Array) -> bool:
    """Whether both hold the same values, every NaN equal to every NaN."""
    while hasattr(one.type, "value_type"):
        one, other = one.flatten(), other.flatten()
    if not pa.types.is_floating(one.type):
        return bool(one.equals(other))
    same = pc.or_(pc.equal(one, other), pc.and_(pc.is_nan(one), pc.is_nan(other)))
    return bool(pc.all(pc.fill_null(same, True), min_count=0).as_py())
