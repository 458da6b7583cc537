"""Keys of entities as the bytes that records and events are found by."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence


#: From so many rows on, NumPy is the shorter way to Python's numbers.
_FEW = 32


def key_texts(columns: Sequence[pa.Array | pa.ChunkedArray], prefix: bytes = b"") -> list[bytes | None]:
    """The keys of rows as bytes, one for each combination of values; None where a part is NULL.

    Args:
        columns: one per part of the key.
        prefix: what each begins with.

    >>> key_texts([pa.array([7, None]), pa.array(["a", "b"])], b"p:")
    [b'p:7|a', None]
    """
    if len(columns) == 1:
        return _parts(columns[0], prefix)
    parts = [_parts(column, b"") for column in columns]
    return [
        None if None in row else prefix + b"|".join(one for one in row if one is not None)
        for row in zip(*parts, strict=True)
    ]


def _parts(column: pa.Array | pa.ChunkedArray, prefix: bytes) -> list[bytes | None]:
    kind = column.type
    if pa.types.is_integer(kind):
        form = prefix.replace(b"%", b"%%") + b"%d"
        if column.null_count or len(column) < _FEW:
            return [None if one is None else form % one for one in column.to_pylist()]
        return [form % one for one in np.asarray(column).tolist()]
    if pa.types.is_timestamp(kind):
        return _parts(column.cast(pa.int64()), prefix)
    plain = [
        one if one is None or isinstance(one, bytes) else str(one).encode() for one in column.to_pylist()
    ]
    return [
        None if one is None else prefix + one.replace(b"\\", b"\\\\").replace(b"|", b"\\p") for one in plain
    ]


def slices(size: int, step: int) -> list[tuple[int, int]]:
    """`(start, end)` of pieces of at most `step`.

    >>> slices(5, 2)
    [(0, 2), (2, 4), (4, 5)]
    """
    return list(pairwise([*range(0, size, step), size])) if size else []


def add_keys(names: list[bytes], prefix: bytes, keys: Sequence[pa.Array]) -> slice | list[int]:
    """Append the keys' names; where they stand, -1 for one that cannot exist."""
    start, texts = len(names), key_texts(keys, prefix)
    if not any(column.null_count for column in keys):
        names += cast("list[bytes]", texts)
        return slice(start, len(names))
    places = []
    for key in texts:
        places.append(-1 if key is None else len(names))
        if key is not None:
            names.append(key)
    return places


def picked(records: list[bytes | None], places: slice | list[int]) -> list[bytes | None]:
    """What was found at the places that `add_keys` gave; None for a key that cannot exist."""
    if isinstance(places, slice):
        return records[places]
    return [None if place < 0 else records[place] for place in places]
