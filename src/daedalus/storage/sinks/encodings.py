"""Which Parquet columns are worth a dictionary.

Lists of ids repeat from row to row: plain, they compress to as little as their dictionary codes would take, and
nobody has to look every item up. A sample of the shard decides, so that equal rows make equal files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator

_SAMPLE_ROWS = 4_096
#: Fewer items prove nothing, and cost nothing.
_FEWEST_ITEMS = 8_192


def dictionary_columns(shard: pa.Table) -> bool | list[str]:
    """The Parquet columns to write with a dictionary, by their paths; True is all of them.

    Example:
        >>> lists = pa.array([[n, n + 1] for n in range(10_000)])
        >>> dictionary_columns(pa.table({"n": [0] * 10_000, "ids": lists}))
        ['n']
    """
    sample = shard.slice(0, _SAMPLE_ROWS)
    plain = {f"{name}.list.element" for name in shard.column_names if _smaller_plain(sample.column(name))}
    if not plain:
        return True
    return [path for field in shard.schema for path in _leaves(field.type, field.name) if path not in plain]


def _smaller_plain(column: pa.ChunkedArray) -> bool:
    """Whether a list column's items take no more room compressed than as codes with their dictionary."""
    if not pa.types.is_list(column.type):
        return False
    kind = column.type.value_type
    if not pa.types.is_integer(kind) and not pa.types.is_temporal(kind):
        return False
    items = column.combine_chunks().flatten()
    if isinstance(items, pa.ChunkedArray):
        items = items.combine_chunks()
    items = items.drop_null()
    if len(items) < _FEWEST_ITEMS:
        return False
    width = kind.bit_width // 8
    data = np.frombuffer(items.buffers()[1], np.uint8)[items.offset * width :][: len(items) * width]
    plain = pa.Codec("zstd", 1).compress(data).size
    distinct = len(items.unique())
    return bool(plain <= len(items) * (distinct - 1).bit_length() / 8 + distinct * width)


def _leaves(kind: pa.DataType, path: str) -> Iterator[str]:
    """The paths of the Parquet columns that hold an Arrow column."""
    if pa.types.is_map(kind):
        yield from _leaves(kind.key_type, f"{path}.key_value.key")
        yield from _leaves(kind.item_type, f"{path}.key_value.value")
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _leaves(kind.value_type, f"{path}.list.element")
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(field.type, f"{path}.{field.name}")
    else:
        yield path
