"""Rows to records and back, exactly, a column at a time."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from daedalus.online.layout import BIAS, DELETED, FORMAT, HAS_NULLS, HEADER_DTYPE, unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from daedalus.online.layout import RecordLayout, Slot

_UNSIGNED = {1: "u1", 2: "<u2", 4: "<u4", 8: "<u8"}


# ------------------------------------------------------------------ writing


def encode(
    layout: RecordLayout,
    rows: pa.Table,
    *,
    order: NDArray[Any],
    written_us: int,
) -> list[bytes]:
    """One record per row.

    Args:
        layout: the schema; `rows` has its fields, in its types.
        rows: keys and other columns are ignored.
        order: of each row: `event`, `event_ns`, `created`, `sequence`, as `HEADER_DTYPE` has them.
        written_us: the time of writing, in microseconds since 1970.
    """
    count = rows.num_rows
    out = np.zeros(count, layout.dtype)
    out["format"], out["schema"], out["written"] = FORMAT, layout.schema_id, written_us
    for name in ("event", "event_ns", "created", "sequence"):
        out[name] = order[name]
    bits = np.zeros((count, layout.bits * 8), bool)
    pieces: list[list[bytes]] = []
    for index, slot in enumerate(layout.slots):
        array = _whole(rows.column(slot.name))
        valid = np.asarray(array.is_valid())
        bits[:, index] = valid
        if slot.kind == "fixed":
            out[f"w{slot.width}"][:, slot.at] = _fixed_values(array, valid, slot)
        else:
            lengths, column = _variable_values(array, valid, slot)
            out["w4"][:, layout.lengths_at + slot.at] = lengths
            pieces.append(column)
    out["valid"] = np.packbits(bits, axis=1, bitorder="little")
    fixed, size = out.tobytes(), layout.size
    heads = [fixed[at : at + size] for at in range(0, count * size, size)]
    return [b"".join(parts) for parts in zip(heads, *pieces, strict=True)] if pieces else heads


def tombstone(layout: RecordLayout, *, event_us: int, written_us: int) -> bytes:
    """The record of an entity that is no more: older rows do not bring it back."""
    row = np.frombuffer(layout.empty, layout.dtype).copy()
    row["flags"], row["event"], row["written"] = DELETED, event_us + BIAS, written_us
    return row.tobytes()


def order_of(
    event: pa.ChunkedArray | None,
    created: pa.ChunkedArray | None,
    sequence: pa.ChunkedArray | None,
    count: int,
) -> NDArray[Any]:
    """What decides which of two rows is newer, as records hold it; NULL is older than everything."""
    order = np.zeros(count, HEADER_DTYPE)
    if event is not None:
        ticks, per_us = _ticks(event)
        values, valid = _integers(ticks)
        order["event"] = np.where(valid, _biased(values // per_us), 0)
        order["event_ns"] = np.where(valid, values % per_us, 0)
    for name, column in (("created", created), ("sequence", sequence)):
        if column is not None:
            order[name] = _rank(column)
    return order


def _ticks(times: pa.ChunkedArray) -> tuple[pa.ChunkedArray, int]:
    """The times as integers, and how many of them make a microsecond."""
    fine = times.type.unit == "ns"
    unit = "ns" if fine else "us"
    zone = times.type.tz
    return times.cast(pa.timestamp(unit, zone)).cast(pa.int64()), 1000 if fine else 1


def _rank(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    """Unsigned numbers in the order of the values: exact for integers and times, by leading bytes for text."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = _ticks(column)[0]
    elif pa.types.is_date32(kind):
        column = column.cast(pa.int32())
    elif pa.types.is_uint64(kind):
        values, valid = _integers(column)
        return np.where(valid, np.maximum(values.astype(np.uint64), 1), 0)
    elif pa.types.is_floating(kind):
        return _rank_of_floats(column)
    elif not pa.types.is_integer(kind):
        texts = [b"" if one is None else str(one).encode()[:8] for one in column.to_pylist()]
        ranks = [int.from_bytes(text.ljust(8, b"\0"), "big") for text in texts]
        return np.array(ranks, np.uint64)
    values, valid = _integers(column.cast(pa.int64()))
    return np.where(valid, _biased(values), 0)


def _rank_of_floats(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    floats = np.asarray(_whole(column.cast(pa.float64())).fill_null(0.0)) + 0.0
    raw = floats.view(np.uint64)
    signed = np.where(raw >> np.uint64(63) == 1, ~raw, raw | np.uint64(BIAS))
    return np.where(np.asarray(column.is_valid()), signed, 0)


def _integers(column: pa.ChunkedArray) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    array = _whole(column)
    return np.asarray(array.fill_null(0)), np.asarray(array.is_valid())


def _biased(values: NDArray[np.int64]) -> NDArray[np.uint64]:
    return values.astype(np.int64).view(np.uint64) ^ np.uint64(BIAS)


def _whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The column as one array that begins at its buffers' beginning."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return column


def _fixed_values(array: pa.Array, valid: NDArray[np.bool_], slot: Slot) -> NDArray[Any]:
    values = _raw(array, slot.width)
    mask = valid if values.ndim == 1 else valid[:, None]
    return np.where(mask, values, 0) if not valid.all() else values


def _raw(array: pa.Array, width: int) -> NDArray[Any]:
    """The bytes of an array of fixed width as unsigned numbers; those of NULL are anything."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    count, offset = len(array), array.offset
    if not count:
        return np.zeros((0, 2) if width == 16 else 0, np.uint64)
    buffer = array.buffers()[1]
    dtype = np.dtype(_UNSIGNED[8 if width == 16 else width])
    per = 2 if width == 16 else 1
    values = np.frombuffer(buffer, dtype, count * per, offset * width)
    return values.reshape(count, 2) if width == 16 else values


def _variable_values(
    array: pa.Array, valid: NDArray[np.bool_], slot: Slot
) -> tuple[NDArray[np.uint32], list[bytes]]:
    """Lengths (in items) and bytes, row by row."""
    if slot.kind == "other":
        column = [_nested_bytes(array, at, slot) if ok else b"" for at, ok in enumerate(valid.tolist())]
    elif slot.kind == "text":
        column = [b"" if one is None else one for one in array.cast(pa.binary()).to_pylist()]
    else:
        return _list_values(array, valid, slot)
    return np.fromiter(map(len, column), np.uint32, len(column)), column


def _list_values(
    array: pa.Array, valid: NDArray[np.bool_], slot: Slot
) -> tuple[NDArray[np.uint32], list[bytes]]:
    if pa.types.is_fixed_size_list(array.type):
        array = array.cast(pa.list_(array.type.value_field))
    offsets = np.asarray(array.offsets)
    ends = np.where(valid, offsets[1:], offsets[:-1])
    lengths = (ends - offsets[:-1]).astype(np.uint32)
    items = array.values
    known = None if not items.null_count else np.asarray(items.is_valid())
    raw = _raw(items, slot.width)
    if known is not None:
        raw = np.where(known if raw.ndim == 1 else known[:, None], raw, 0)
    data, width = raw.tobytes(), slot.width
    starts, stops = offsets[:-1].tolist(), ends.tolist()
    column = [data[start * width : stop * width] for start, stop in zip(starts, stops, strict=True)]
    if known is not None:
        for at, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            if not known[start:stop].all():
                column[at] += np.packbits(known[start:stop], bitorder="little").tobytes()
                lengths[at] |= HAS_NULLS
    return lengths, column


def _nested_bytes(array: pa.Array, at: int, slot: Slot) -> bytes:
    """One nested value as Arrow's own message, without its schema."""
    # Taken, not sliced: a slice's message holds the other rows' children, too.
    one = array.take(pa.array([at]))
    batch = pa.record_batch([one], schema=pa.schema([pa.field(slot.name, slot.type)]))
    return bytes(batch.serialize())


# ------------------------------------------------------------------ reading


class Decoded:
    """Records of one layout: header fields, and the columns as Arrow arrays.

    Args:
        layout: of every record.
        records: as stored.
        heads: their fixed parts, already apart.
    """

    def __init__(self, layout: RecordLayout, records: Sequence[bytes], heads: bytes) -> None:
        self.layout = layout
        self._records = records
        self.head: NDArray[Any] = np.frombuffer(heads, layout.dtype)

    @classmethod
    def of(cls, layout: RecordLayout, records: Sequence[bytes]) -> Decoded | None:
        """The records, or None when one of them is not of this layout."""
        size = layout.size
        heads = b"".join(records) if not layout.variable else b"".join([one[:size] for one in records])
        if len(heads) != size * len(records):
            return None
        found = cls(layout, records, heads)
        same = (found.head["schema"] == layout.schema_id) & (found.head["format"] == FORMAT)
        return found if same.all() else None

    def columns(self, shown: NDArray[np.bool_] | None = None) -> list[pa.Array]:
        """One array per field; NULL in rows that are not `shown`.

        Raises:
            ExecutionError: a record is longer or shorter than it says.
        """
        layout, count = self.layout, len(self.head)
        validity, by_column = self._validity(shown)
        groups = {
            width: pa.py_buffer(np.ascontiguousarray(self.head[f"w{width}"].swapaxes(0, 1)))
            for width in layout.widths
        }
        starts = self._starts() if layout.variable else None
        columns = []
        # A read of one entity is mostly this loop: plain types take the short way.
        for slot, valid_at, plain in layout.steps:
            if starts is None or slot.kind == "fixed":
                width, bits = slot.width, validity[valid_at]
                if plain and bits is None:
                    buffers = [None, groups[width]]
                    columns.append(pa.Array.from_buffers(slot.type, count, buffers, 0, slot.at * count))
                    continue
                data = groups[width].slice(slot.at * width * count, width * count)
                columns.append(_from_fixed(slot.type, count, bits, data, width))
            else:
                valid = None if validity[valid_at] is None else by_column[valid_at]
                columns.append(self._variable(slot, valid, validity[valid_at], starts))
        return columns

    def _validity(
        self, shown: NDArray[np.bool_] | None
    ) -> tuple[list[pa.Buffer | None], Sequence[NDArray[np.bool_]]]:
        """Per field its validity bits, None where every row has a value; and the same as booleans."""
        layout = self.layout
        if shown is None and (self.head["valid"] == layout.all_valid).all():
            return [None] * len(layout.slots), ()
        bits = np.unpackbits(self.head["valid"], axis=1, bitorder="little").view(bool)
        if shown is not None:
            bits = bits & shown[:, None]
        by_column = np.ascontiguousarray(bits[:, : len(layout.slots)].T)
        whole: list[bool] = np.all(by_column, axis=1).tolist()
        packed = np.packbits(by_column, axis=1, bitorder="little")
        buffers = [None if one else pa.py_buffer(row) for one, row in zip(whole, packed, strict=True)]
        return buffers, list(by_column)

    def _lengths(self, slot: Slot) -> NDArray[np.int64]:
        return self.head["w4"][:, self.layout.lengths_at + slot.at].astype(np.int64)

    def _sizes(self, slot: Slot) -> NDArray[np.int64]:
        """Bytes of the slot's values, row by row."""
        lengths = self._lengths(slot)
        if slot.kind != "list":
            return lengths
        nulls = lengths >= HAS_NULLS
        items = np.where(nulls, lengths - HAS_NULLS, lengths)
        return items * slot.width + np.where(nulls, (items + 7) // 8, 0)

    def _starts(self) -> NDArray[np.int64]:
        """Where each slot's bytes begin, by slot and row; a last row holds the ends."""
        layout = self.layout
        starts = np.empty((len(layout.variable) + 1, len(self.head)), np.int64)
        starts[0] = layout.size
        for at, slot in enumerate(layout.variable):
            np.add(starts[at], self._sizes(slot), out=starts[at + 1])
        if starts[-1].tolist() != [len(one) for one in self._records]:
            raise unreadable(layout.subject, "its length is not what it says")
        return starts

    def _variable(
        self,
        slot: Slot,
        valid: NDArray[np.bool_] | None,
        validity: pa.Buffer | None,
        starts: NDArray[np.int64],
    ) -> pa.Array:
        """One column with lengths; `valid` is None where every row has a value."""
        firsts, ends = starts[slot.at], starts[slot.at + 1]
        if valid is not None:
            ends = np.where(valid, ends, firsts)
        pieces = [
            record[start:end]
            for record, start, end in zip(self._records, firsts.tolist(), ends.tolist(), strict=True)
        ]
        if slot.kind == "other":
            return _nested_array(slot, pieces, np.ones(len(pieces), bool) if valid is None else valid)
        if slot.kind == "text":
            data = [validity, _offsets(ends - firsts), pa.py_buffer(b"".join(pieces))]
            return pa.Array.from_buffers(slot.type, len(pieces), data)
        lengths = self._lengths(slot)
        return _list_array(slot, pieces, lengths if valid is None else np.where(valid, lengths, 0), validity)


def _offsets(sizes: NDArray[np.int64]) -> pa.Buffer:
    offsets = np.zeros(len(sizes) + 1, np.int32)
    np.cumsum(sizes, out=offsets[1:])
    return pa.py_buffer(offsets)


def _from_fixed(
    arrow: pa.DataType, count: int, validity: pa.Buffer | None, data: pa.Buffer, width: int
) -> pa.Array:
    if isinstance(arrow, pa.BaseExtensionType):
        storage = _from_fixed(arrow.storage_type, count, validity, data, width)
        return pa.ExtensionArray.from_storage(arrow, storage)
    if pa.types.is_boolean(arrow):
        bits = np.packbits(np.frombuffer(data, bool, count), bitorder="little")
        return pa.Array.from_buffers(arrow, count, [validity, pa.py_buffer(bits)])
    return pa.Array.from_buffers(arrow, count, [validity, data])


def _list_array(
    slot: Slot, pieces: list[bytes], lengths: NDArray[np.int64], validity: pa.Buffer | None
) -> pa.Array:
    flagged = lengths >= HAS_NULLS
    lengths = np.where(flagged, lengths - HAS_NULLS, lengths)
    fixed = slot.type.list_size if pa.types.is_fixed_size_list(slot.type) else None
    item_bits: pa.Buffer | None = None
    if flagged.any():
        known = [np.ones(length, bool) for length in lengths.tolist()]
        for at in np.flatnonzero(flagged).tolist():
            size = int(lengths[at]) * slot.width
            tail = np.frombuffer(pieces[at][size:], np.uint8)
            known[at] = np.unpackbits(tail, count=int(lengths[at]), bitorder="little").astype(bool)
            pieces[at] = pieces[at][:size]
        if fixed is not None:
            known = [one if len(one) else np.ones(fixed, bool) for one in known]
        item_bits = pa.py_buffer(np.packbits(np.concatenate(known), bitorder="little"))
    if fixed is not None:
        blank = bytes(fixed * slot.width)
        pieces = [piece or blank for piece in pieces]
    data = b"".join(pieces)
    item = slot.type.value_type
    items = _from_fixed(item, len(data) // slot.width, item_bits, pa.py_buffer(data), slot.width)
    buffers = [validity] if fixed is not None else [validity, _offsets(lengths)]
    return pa.Array.from_buffers(slot.type, len(pieces), buffers, children=[items])


def _nested_array(slot: Slot, pieces: list[bytes], valid: NDArray[np.bool_]) -> pa.Array:
    schema = pa.schema([pa.field(slot.name, slot.type)])
    arrays = [
        pa.ipc.read_record_batch(pa.py_buffer(piece), schema).column(0) if ok else pa.nulls(1, slot.type)
        for piece, ok in zip(pieces, valid.tolist(), strict=True)
    ]
    return pa.concat_arrays(arrays) if arrays else pa.array([], slot.type)


# ------------------------------------------------------------------ keys


def key_texts(columns: Sequence[pa.Array | pa.ChunkedArray]) -> list[bytes | None]:
    """The keys of rows as bytes, one for each combination of values; None where a part is NULL.

    >>> key_texts([pa.array([7, None]), pa.array(["a", "b"])])
    [b'7|a', None]
    """
    parts = [_key_part(column) for column in columns]
    if len(parts) == 1:
        return parts[0]
    return [
        None if any(one is None for one in row) else b"|".join(one for one in row if one is not None)
        for row in zip(*parts, strict=True)
    ]


def _key_part(column: pa.Array | pa.ChunkedArray) -> list[bytes | None]:
    kind = column.type
    if pa.types.is_integer(kind):
        if not column.null_count:
            return [b"%d" % one for one in np.asarray(column).tolist()]
        return [None if one is None else b"%d" % one for one in column.to_pylist()]
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        plain = column.cast(pa.binary()).to_pylist()
        return [None if one is None else one.replace(b"\\", b"\\\\").replace(b"|", b"\\p") for one in plain]
    if pa.types.is_timestamp(kind):
        return _key_part(column.cast(pa.int64()))
    return [None if one is None else str(one).encode() for one in column.to_pylist()]


def slices(size: int, step: int) -> list[tuple[int, int]]:
    """`(start, end)` of pieces of at most `step`.

    >>> slices(5, 2)
    [(0, 2), (2, 4), (4, 5)]
    """
    return list(pairwise([*range(0, size, step), size])) if size else []
