"""Columns that come in pieces, as one."""

from __future__ import annotations

import pyarrow as pa


def one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The column as one array, however many pieces it has; none, where a filter left no row.

    >>> one_array(pa.chunked_array([[1], [2]])).to_pylist(), one_array(pa.chunked_array([], pa.int64())).to_pylist()
    ([1, 2], [])
    """
    found = column if isinstance(column, pa.Array) else column.combine_chunks()
    # What is too long for one array's offsets stays in pieces, and this says so.
    return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found
