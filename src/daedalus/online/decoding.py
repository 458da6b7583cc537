"""Records back to columns: the body of one Arrow message from the bytes of all records, read by Arrow at once.

Twenty columns made one by one cost more than the read of one entity itself. So a few NumPy calls, each for all
columns of a width, put the body together, under a head as `arrow_plan` has it; Arrow's reader copies nothing.
"""

from __future__ import annotations

import struct
from itertools import accumulate
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from daedalus.online.arrow_plan import decoder_of
from daedalus.online.layout import FORMAT, HAS_NULLS, unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from daedalus.online.arrow_plan import Decoder, Plan
    from daedalus.online.layout import RecordLayout, Slot

_FORMAT = bytes([FORMAT])


class Decoded:
    """Records of one layout: header fields, and the columns as Arrow.

    Args:
        layout: of every record.
        records: as stored.
        heads: their fixed parts, already apart.
    """

    __slots__ = ("_heads", "_records", "head", "layout")

    def __init__(self, layout: RecordLayout, records: Sequence[bytes], heads: bytes) -> None:
        self.layout = layout
        self._records = records
        self._heads = heads
        self.head: NDArray[Any] = np.frombuffer(heads, layout.dtype)

    @classmethod
    def of(cls, layout: RecordLayout, records: Sequence[bytes]) -> Decoded | None:
        """The records, or None when one of them is not of this layout."""
        size = layout.size
        heads = b"".join(records) if not layout.variable else b"".join([one[:size] for one in records])
        if len(heads) != size * len(records):
            return None
        found, count = cls(layout, records, heads), len(records)
        # As bytes: NumPy takes ten times as long to compare a few short texts.
        same = found.head["schema"].tobytes() == layout.schema_id * count
        return found if same and found.head["format"].tobytes() == _FORMAT * count else None

    def batch(self, shown: NDArray[np.bool_] | None = None) -> pa.RecordBatch:
        """The fields as columns; NULL in rows that are not `shown`.

        Raises:
            ExecutionError: a record is longer or shorter than it says.
        """
        layout, count = self.layout, len(self.head)
        if not count:
            return pa.RecordBatch.from_arrays(
                [pa.array([], one.type) for one in layout.slots], schema=layout.schema
            )
        decoder = decoder_of(layout)
        message = Message(decoder.plan(count), self.head, self._heads)
        valid = self._validity(shown)
        if valid is not None:
            message.put_validity(decoder, valid)
        others: dict[str, pa.Array] = {}
        if layout.variable:
            self._variable(decoder, message, valid, others)
        batch = message.read(decoder)
        if not others:
            return batch
        columns = [others[one.name] if one.name in others else batch.column(one.name) for one in layout.slots]
        return pa.RecordBatch.from_arrays(columns, schema=layout.schema)

    def _validity(self, shown: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
        """By field and row whether there is a value; None where all are."""
        layout = self.layout
        if shown is None and self.head["valid"].tobytes() == layout.all_valid * len(self.head):
            return None
        bits = np.unpackbits(self.head["valid"], axis=1, bitorder="little").view(bool)
        if shown is not None:
            bits = bits & shown[:, None]
        return np.ascontiguousarray(bits[:, : len(layout.slots)].T)

    def _variable(
        self, decoder: Decoder, message: Message, valid: NDArray[np.bool_] | None, others: dict[str, pa.Array]
    ) -> None:
        """Add the columns that have lengths; nested ones are made apart."""
        # In lists, not arrays: of a few rows, NumPy takes longer to begin than Python to finish.
        layout = self.layout
        lengths: list[list[int]] = self.head["w4"][:, layout.lengths_at :].T.tolist()
        bounds = [[layout.size] * message.count]
        for slot, _ in decoder.variable:
            sizes = lengths[slot.at] if slot.kind != "list" else _list_bytes(lengths[slot.at], slot.width)
            bounds.append(list(map(add, bounds[-1], sizes)))
        if bounds[-1] != list(map(len, self._records)):
            raise unreadable(layout.subject, "its length is not what it says")
        for slot, at in decoder.variable:
            firsts, ends, own = bounds[slot.at], bounds[slot.at + 1], lengths[slot.at]
            shown = None if valid is None or valid[at].all() else valid[at].tolist()
            if shown is not None:
                own = [length if ok else 0 for length, ok in zip(own, shown, strict=True)]
                ends = [end if ok else first for first, end, ok in zip(firsts, ends, shown, strict=True)]
            pieces = [
                record[first:end] for record, first, end in zip(self._records, firsts, ends, strict=True)
            ]
            if slot.kind == "text":
                message.put_text(decoder.buffer_of[at], pieces, own)
            elif slot.kind == "list":
                message.put_list(decoder, slot, at, pieces, own)
            else:
                others[slot.name] = _nested_array(slot, pieces, shown)


def _list_bytes(lengths: list[int], width: int) -> list[int]:
    """Bytes of lists, with the bits of their NULL items."""
    return [
        one * width if one < HAS_NULLS else (one - HAS_NULLS) * width + (one - HAS_NULLS + 7) // 8
        for one in lengths
    ]


def _nested_array(slot: Slot, pieces: list[bytes], shown: list[bool] | None) -> pa.Array:
    schema = pa.schema([pa.field(slot.name, slot.type)])
    known = [True] * len(pieces) if shown is None else shown
    return pa.concat_arrays(
        [
            pa.ipc.read_record_batch(pa.py_buffer(piece), schema).column(0) if ok else pa.nulls(1, slot.type)
            for piece, ok in zip(pieces, known, strict=True)
        ]
    )


class Message:
    """A record batch in the making."""

    __slots__ = ("buffers", "count", "nodes", "parts", "size")

    def __init__(self, plan: Plan, head: NDArray[Any], heads: bytes) -> None:
        self.count = plan.count
        self.nodes, self.buffers = list(plan.nodes), list(plan.buffers)
        # Of one record nothing needs to be turned, and NumPy would take longest to say so.
        self.parts: list[Any] = (
            [block.of_one(heads) for block in plan.blocks]
            if plan.count == 1
            else [block.taken(head) for block in plan.blocks]
        )
        self.size = plan.size

    def read(self, decoder: Decoder) -> pa.RecordBatch:
        """The columns, nested ones left out."""
        if decoder.frame is None:
            return pa.RecordBatch.from_arrays([], schema=decoder.schema)
        head = decoder.frame.filled(self.count, self.size, self.nodes, self.buffers)
        return pa.ipc.read_record_batch(pa.py_buffer(b"".join([head, *self.parts])), decoder.schema)

    def put(self, buffer: int, data: Any, size: int) -> None:
        """Append a buffer of so many bytes."""
        self.buffers[2 * buffer : 2 * buffer + 2] = self.size, size
        self.parts.append(data)
        if size % 8:
            self.parts.append(bytes(-size % 8))
        self.size += size + -size % 8

    def put_validity(self, decoder: Decoder, valid: NDArray[np.bool_]) -> None:
        """Say which values there are; `valid` has a row per field."""
        packed = np.packbits(valid, axis=1, bitorder="little")
        missing = (self.count - valid.sum(axis=1)).tolist()
        for at, nulls in enumerate(missing):
            if nulls and decoder.node_of[at] >= 0:
                self.nodes[2 * decoder.node_of[at] + 1] = nulls
                self.put(decoder.buffer_of[at], packed[at], packed.shape[1])

    def put_text(self, buffer: int, pieces: list[bytes], sizes: list[int]) -> None:
        """Texts or bytes."""
        data = b"".join(pieces)
        self.put_offsets(buffer + 1, sizes)
        self.put(buffer + 2, data, len(data))

    def put_offsets(self, buffer: int, sizes: list[int]) -> None:
        """Where each row's part of what follows begins."""
        size = self.count + 1
        self.put(buffer, struct.pack(f"<{size}i", *accumulate(sizes, initial=0)), 4 * size)

    def put_list(
        self, decoder: Decoder, slot: Slot, at: int, pieces: list[bytes], lengths: list[int]
    ) -> None:
        """Lists of values of one width; NULL items are told by bits after the items."""
        node, buffer = decoder.node_of[at] + 1, decoder.buffer_of[at] + 1
        flagged = [row for row, length in enumerate(lengths) if length >= HAS_NULLS]
        for row in flagged:
            lengths[row] -= HAS_NULLS
        fixed = slot.type.list_size if pa.types.is_fixed_size_list(slot.type) else None
        if fixed is None:
            self.put_offsets(buffer, lengths)
            buffer += 1
        known = _known_items(slot, pieces, lengths, flagged, fixed) if flagged else None
        if fixed is not None:
            blank = bytes(fixed * slot.width)
            pieces = [piece or blank for piece in pieces]
        data = b"".join(pieces)
        items = len(data) // slot.width
        if pa.types.is_boolean(slot.type.value_type):
            data = np.packbits(np.frombuffer(data, np.uint8), bitorder="little").tobytes()
        self.nodes[2 * node] = items
        if known is not None:
            self.nodes[2 * node + 1] = items - int(known.sum())
            bits = np.packbits(known, bitorder="little")
            self.put(buffer, bits, len(bits))
        self.put(buffer + 1, data, len(data))


def _known_items(
    slot: Slot, pieces: list[bytes], lengths: list[int], flagged: list[int], fixed: int | None
) -> NDArray[np.bool_]:
    """Which items are no NULL; their bits are taken off the pieces."""
    known = [np.ones(length, bool) for length in lengths]
    for row in flagged:
        size = lengths[row] * slot.width
        tail = np.frombuffer(pieces[row][size:], np.uint8)
        known[row] = np.unpackbits(tail, count=lengths[row], bitorder="little").astype(bool)
        pieces[row] = pieces[row][:size]
    if fixed is not None:
        known = [one if len(one) else np.ones(fixed, bool) for one in known]
    return np.concatenate(known)
