"""Record batches as NumPy arrays by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from daedalus.errors import ExecutionError
from daedalus.storage.arrow_kinds import is_list

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from daedalus.reading.batches import BatchStream


class NumpyBatches:
    """The batches of a stream as mappings of arrays.

    Args:
        stream: what is read.
        dimensions: by column the length that its lists have, where they have one.
    """

    def __init__(self, stream: BatchStream, dimensions: Mapping[str, int]) -> None:
        self.stream = stream
        self._dimensions = dimensions

    def __len__(self) -> int:
        """How many batches there are."""
        return len(self.stream)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration reads."""
        self.stream.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        for batch in self.stream:
            yield to_numpy(batch, self._dimensions)


def to_numpy(
    batch: pa.RecordBatch, dimensions: Mapping[str, int] | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays by column name, with `NAME.valid` and, for lists, `NAME.offsets` beside them.

    >>> out = to_numpy(pa.record_batch({"n": [1, None], "l": [[1, 2], []]}))
    >>> {name: values.tolist() for name, values in out.items()}
    {'n': [1, 0], 'n.valid': [True, False], 'l': [1, 2], 'l.offsets': [0, 2, 2], 'l.valid': [True, True]}
    """
    out: dict[str, np.ndarray[Any, Any]] = {}
    known = dimensions or {}
    for field, array in zip(batch.schema, batch.columns, strict=True):
        out |= _column(field.name, array, known.get(field.name))
        if field.nullable:
            out[f"{field.name}.valid"] = _valid(array)
    return out


def _column(name: str, array: pa.Array, dimension: int | None) -> dict[str, np.ndarray[Any, Any]]:
    kind = array.type
    if not is_list(kind) or not _is_plain(kind.value_type):
        return {name: _plain(array) if _is_plain(kind) else _objects(array)}
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    items = _plain(array.flatten())
    width = kind.list_size if pa.types.is_fixed_size_list(kind) else dimension
    if width is None:
        return {name: items, f"{name}.offsets": np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])}
    if pa.types.is_fixed_size_list(kind):
        lengths = np.where(_valid(array), width, 0)
        items = items if len(items) == lengths.sum() else _fixed_items(array, width)
    filled = lengths > 0
    wrong = lengths[filled & (lengths != width)]
    if len(wrong):
        raise ExecutionError(f"column {name} holds a list of {wrong[0]} items, its dimension is {width}")
    matrix = np.zeros((len(array), width), items.dtype)
    matrix[filled] = items.reshape(-1, width)
    return {name: matrix}


def _fixed_items(array: pa.Array, width: int) -> np.ndarray[Any, Any]:
    """The items of the lists that are not NULL, where Arrow keeps room for those that are."""
    values = array.values.slice(array.offset * width, len(array) * width)
    items: np.ndarray[Any, Any] = _plain(values).reshape(-1, width)[_valid(array)].ravel()
    return items


def _is_plain(kind: pa.DataType) -> bool:
    """Whether NumPy has a type for the values."""
    types = pa.types
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_timestamp(kind)
        or types.is_date(kind)
    )


def _plain(array: pa.Array) -> np.ndarray[Any, Any]:
    """Values of a fixed width; NULL is 0, NaN or NaT."""
    kind = array.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        times: np.ndarray[Any, Any] = array.to_numpy(zero_copy_only=False)
        return times
    # Through floats, as Arrow converts integers with NULLs, large ids would lose digits.
    bare = pa.Array.from_buffers(kind, len(array), [None, array.buffers()[1]], offset=array.offset)
    values: np.ndarray[Any, Any] = bare.to_numpy(zero_copy_only=False)
    if array.null_count:
        values = values.copy()
        values[~_valid(array)] = np.nan if pa.types.is_floating(kind) else 0
    return values


def _objects(array: pa.Array) -> np.ndarray[Any, Any]:
    return np.fromiter(array.to_pylist(), dtype=object, count=len(array))


def _valid(array: pa.Array) -> np.ndarray[Any, Any]:
    valid: np.ndarray[Any, Any] = array.is_valid().to_numpy(zero_copy_only=False)
    return valid
