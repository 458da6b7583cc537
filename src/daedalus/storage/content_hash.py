"""One hash of ordered content: equal for equal schema, values and row order, however the rows were chunked.

Each column keeps one running hash per kind of buffer (validity, list lengths, values), so batch boundaries,
buffer offsets and the bytes under NULLs do not matter. NaNs are all the same NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


_NAN_PIECE = 1 << 16


class _ColumnHash:
    """Running hashes of one column, nested columns included."""

    def __init__(self) -> None:
        self._streams: dict[str, xxhash.xxh3_128] = {}

    def _feed(self, stream: str, data: Any) -> None:
        self._streams.setdefault(stream, xxhash.xxh3_128()).update(data)

    def update(self, array: pa.Array, path: str = "") -> None:
        if isinstance(array, pa.DictionaryArray):
            array = array.dictionary_decode()
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        self._feed(f"{path}?", _valid(array))
        kind = array.type
        if pa.types.is_map(kind):
            array = _map_as_list(array)
            kind = array.type
        if pa.types.is_fixed_size_list(kind):
            self.update(array.flatten(), f"{path}[]")
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            lengths = pc.fill_null(pc.list_value_length(array), 0).cast(pa.int64())
            self._feed(f"{path}len", lengths.to_numpy(zero_copy_only=False).tobytes())
            self.update(array.flatten(), f"{path}[]")
        elif pa.types.is_struct(kind):
            for index, child in enumerate(array.flatten()):
                self.update(child, f"{path}.{index}")
        else:
            self._leaf(array, path)

    def _leaf(self, array: pa.Array, path: str) -> None:
        kind = array.type
        if pa.types.is_null(kind):
            return
        if _is_text_like(kind):
            binary = pc.fill_null(array.cast(pa.large_binary()), b"")
            lengths = pc.binary_length(binary).to_numpy(zero_copy_only=False)
            self._feed(f"{path}len", lengths.astype("<i8").tobytes())
            self._feed(path, _joined(binary))
        elif pa.types.is_boolean(kind):
            self._feed(
                path, pc.fill_null(array, False).cast(pa.uint8()).to_numpy(zero_copy_only=False).tobytes()
            )
        else:
            self._feed(path, _fixed_width(array))

    def digest(self) -> bytes:
        total = xxhash.xxh3_128()
        for name in sorted(self._streams):
            total.update(name.encode())
            total.update(self._streams[name].digest())
        return total.digest()


def _valid(array: pa.Array) -> np.ndarray:
    if array.null_count == 0:
        return np.ones(len(array), dtype=bool)
    valid: np.ndarray = array.is_valid().to_numpy(zero_copy_only=False).astype(bool)
    return valid


def _map_as_list(array: pa.Array) -> pa.Array:
    entries = pa.list_(pa.struct([("key", array.type.key_type), ("value", array.type.item_type)]))
    return array.cast(entries)


def _is_text_like(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())


def _joined(binary: pa.Array) -> bytes:
    """The bytes of all values, end to end."""
    offsets = np.frombuffer(binary.buffers()[1], dtype="<i8", count=len(binary) + 1 + binary.offset)
    first, last = offsets[binary.offset], offsets[binary.offset + len(binary)]
    data = binary.buffers()[2]
    return b"" if data is None else memoryview(data)[first:last].tobytes()


def _fixed_width(array: pa.Array) -> bytes | np.ndarray:
    """Values of a fixed-width column as bytes, NULLs as zero bytes and every NaN as one NaN."""
    width: int = array.type.bit_width // 8
    data = array.buffers()[1]
    if data is None or len(array) == 0:
        return b"\0" * (width * len(array))
    raw = np.frombuffer(data, dtype=np.uint8)[array.offset * width : (array.offset + len(array)) * width]
    floating = pa.types.is_floating(array.type)
    if array.null_count == 0 and not (floating and _has_nan(raw.view(f"<f{width}"))):
        return raw
    raw = raw.copy()
    if floating:
        values = raw.view(f"<f{width}")
        values[np.isnan(values)] = np.nan
    if array.null_count:
        raw.reshape(-1, width)[~_valid(array)] = 0
    return raw


def _has_nan(values: np.ndarray) -> bool:
    """Whether any is NaN, looked at in pieces that stay in the processor's cache."""
    return any(np.isnan(values[at : at + _NAN_PIECE]).any() for at in range(0, len(values), _NAN_PIECE))


class ContentHash:
    """Hashes record batches of one schema as they are written.

    Args:
        schema: the schema of every batch.
        exclude: columns left out of the hash (operational ids).

    Example:
        >>> table = pa.table({"a": [1, None, 3], "l": [[1], [], None]})
        >>> whole = content_hash(table.to_batches())
        >>> split = content_hash(table.slice(0, 1).to_batches() + table.slice(1).to_batches())
        >>> whole == split
        True
    """

    def __init__(self, schema: pa.Schema, exclude: Sequence[str] = ()) -> None:
        self._names = [name for name in schema.names if name not in exclude]
        self._types = [str(schema.field(name).type) for name in self._names]
        self._columns = [_ColumnHash() for _ in self._names]

    def update(self, batch: pa.RecordBatch) -> None:
        """Add the rows of `batch`, in order."""
        for name, column in zip(self._names, self._columns, strict=True):
            column.update(batch.column(name))

    def column_digests(self) -> dict[str, str]:
        """Per hashed column 32 hexadecimal digits: equal for equal type, values and row order."""
        named = zip(self._names, self._types, self._columns, strict=True)
        return {
            name: xxhash.xxh3_128_hexdigest(kind.encode() + column.digest()) for name, kind, column in named
        }

    def hexdigest(self) -> str:
        """32 hexadecimal digits."""
        total = xxhash.xxh3_128()
        for name, kind, column in zip(self._names, self._types, self._columns, strict=True):
            total.update(f"{len(name)}:{name}:{kind}".encode())
            total.update(column.digest())
        return total.hexdigest()


def content_hash(batches: Iterable[pa.RecordBatch]) -> str:
    """The hash of the rows of `batches` (at least one batch), in order."""
    running: ContentHash | None = None
    for batch in batches:
        running = running or ContentHash(batch.schema)
        running.update(batch)
    if running is None:
        raise ValueError("content_hash needs at least one batch, which may be empty")
    return running.hexdigest()
