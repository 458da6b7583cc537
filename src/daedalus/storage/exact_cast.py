"""Arrow casts that refuse where a value would change; Arrow's own safe cast rounds floats without a word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from daedalus.storage.arrow_kinds import is_text

if TYPE_CHECKING:
    from typing import Any

_UUID = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_NO_UUID = "00000000-0000-0000-0000-000000000000"


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
    if _innermost(kind) == pa.uuid() and is_text(_innermost(column.type)):
        return _uuids(column, kind)
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
    return is_text(source) and not is_text(target)


def _innermost(kind: pa.DataType) -> pa.DataType:
    while pa.types.is_list(kind):
        kind = kind.value_type
    return kind


def _uuids(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """UUIDs of their texts, as DuckDB gives them to Arrow; lists of them, too."""
    if pa.types.is_list(kind):
        items = _uuids(column.values, kind.value_type)
        # Arrow takes NULLs only with offsets that begin at their buffer's beginning.
        offsets = pc.add(column.offsets, pa.scalar(0, pa.int32()))
        return pa.ListArray.from_arrays(offsets, items, type=kind, mask=column.is_null())
    filled = pc.fill_null(column.cast(pa.string()), _NO_UUID)
    if not pc.all(pc.match_substring_regex(filled, _UUID), min_count=0).as_py():
        raise pa.ArrowInvalid("a text is no UUID")
    digits = pc.replace_substring(filled, "-", "")
    data = digits.buffers()[2].to_pybytes()[: 32 * len(digits)] if len(digits) else b""
    storage = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(digits), [None, pa.py_buffer(bytes.fromhex(data.decode()))]
    )
    if column.null_count:
        storage = pc.if_else(column.is_valid(), storage, pa.scalar(None, pa.binary(16)))
    return pa.ExtensionArray.from_storage(kind, storage)


def _same_values(one: pa.Array, other: pa.Array) -> bool:
    """Whether both hold the same values, every NaN equal to every NaN."""
    while hasattr(one.type, "value_type"):
        one, other = one.flatten(), other.flatten()
    if not pa.types.is_floating(one.type):
        return bool(one.equals(other))
    same = pc.or_(pc.equal(one, other), pc.and_(pc.is_nan(one), pc.is_nan(other)))
    return bool(pc.all(pc.fill_null(same, True), min_count=0).as_py())
