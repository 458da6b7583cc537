"""Rows to records, exactly, a column at a time."""

from __future__ import annotations

from decimal import localcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from daedalus.online.arrays import one_array
from daedalus.online.layout import BIAS, DELETED, FORMAT, HAS_NULLS, HEADER_DTYPE, UNSIGNED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from daedalus.online.layout import RecordLayout, Slot


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
        array = one_array(rows.column(slot.name))
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
    """Unsigned numbers in the order of the values.

    Exact for whole numbers, times, and decimals whose digits fit 64 bits (beyond, they count as the largest); by the
    first eight bytes for text and all else.
    """
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = _ticks(column)[0]
    elif pa.types.is_date32(kind):
        column = column.cast(pa.int32())
    elif pa.types.is_time(kind):
        column = column.cast(pa.int32() if pa.types.is_time32(kind) else pa.int64())
    elif pa.types.is_decimal(kind):
        column = _digits(column)
    elif pa.types.is_uint64(kind):
        values, valid = _integers(column)
        return np.where(valid, np.maximum(values.astype(np.uint64), 1), 0)
    elif pa.types.is_floating(kind):
        return _rank_of_floats(column)
    elif not pa.types.is_integer(kind):
        plain = [one if isinstance(one, bytes | None) else str(one).encode() for one in column.to_pylist()]
        texts = [(one or b"")[:8] for one in plain]
        ranks = [int.from_bytes(text.ljust(8, b"\0"), "big") for text in texts]
        return np.array(ranks, np.uint64)
    values, valid = _integers(column.cast(pa.int64()))
    return np.where(valid, _biased(values), 0)


def _digits(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Decimals as the whole numbers that they are without their point."""
    most = 2**63 - 1
    with localcontext(prec=100):
        values = [
            None if one is None else max(-most, min(int(one.scaleb(column.type.scale)), most))
            for one in column.to_pylist()
        ]
    return pa.chunked_array([pa.array(values, pa.int64())])


def _rank_of_floats(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    floats = np.asarray(one_array(column.cast(pa.float64())).fill_null(0.0)) + 0.0
    raw = floats.view(np.uint64)
    signed = np.where(raw >> np.uint64(63) == 1, ~raw, raw | np.uint64(BIAS))
    return np.where(np.asarray(column.is_valid()), signed, 0)


def _integers(column: pa.ChunkedArray) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    array = one_array(column)
    return np.asarray(array.fill_null(0)), np.asarray(array.is_valid())


def _biased(values: NDArray[np.int64]) -> NDArray[np.uint64]:
    return values.astype(np.int64).view(np.uint64) ^ np.uint64(BIAS)


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
    dtype = np.dtype(UNSIGNED[width])
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
