"""What the Arrow messages of one schema have in common, worked out once: where buffers lie, and the message's head.

The head is written by Arrow itself, for one row; per message only its numbers are set anew.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from daedalus.online.layout import UNSIGNED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from daedalus.online.layout import RecordLayout, Slot

#: Plans for so many numbers of rows are kept per schema; services ask in batches of few sizes.
_PLANS = 64


@dataclass(frozen=True, slots=True)
class Block:
    """Columns of one width, side by side in the body.

    Attributes:
        group: the field of the records' fixed part.
        columns: which of the group's; None takes the first `size`.
        stride: values from one column to the next, a multiple of 8 bytes.
        bits: booleans, which Arrow has as bits.
        places: where each begins in a record.
    """

    group: str
    columns: NDArray[np.int64] | None
    width: int
    size: int
    stride: int
    bits: bool
    places: tuple[int, ...]

    def of_one(self, head: bytes) -> bytes:
        """The columns of one record: its own bytes, a boolean's byte being its first bit."""
        if self.width >= 8:
            return head[self.places[0] : self.places[-1] + self.width]
        pad = bytes(8 - self.width)
        return b"".join([head[at : at + self.width] + pad for at in self.places])

    def taken(self, head: NDArray[Any]) -> NDArray[Any]:
        """The columns of all records."""
        values = head[self.group]
        values = values[:, : self.size] if self.columns is None else values[:, self.columns]
        columns = values.swapaxes(0, 1)
        if self.bits:
            columns = np.packbits(columns, axis=1, bitorder="little")
        if columns.shape[1] == self.stride:
            return np.ascontiguousarray(columns)
        out = np.zeros((self.size, self.stride, *columns.shape[2:]), UNSIGNED[self.width])
        out[:, : columns.shape[1]] = columns
        return out


@dataclass(frozen=True, slots=True)
class Plan:
    """What every message of so many rows has in common.

    Attributes:
        nodes: per column, and per items of a list, rows and NULLs.
        buffers: per buffer its place in the body and its bytes; those that vary are 0.
        size: bytes of the blocks.
    """

    count: int
    blocks: tuple[Block, ...]
    nodes: tuple[int, ...]
    buffers: tuple[int, ...]
    size: int


@lru_cache(maxsize=256)
def decoder_of(layout: RecordLayout) -> Decoder:
    """The decoder of a layout, made once."""
    return Decoder(layout)


class Decoder:
    """What reading the records of one layout needs, worked out once.

    Attributes:
        schema: of the columns that are in the message.
        frame: of its head; None where it has no column.
        node_of: per field the place of its node; -1 for a nested field, which is not in the message.
        buffer_of: per field the place of its first buffer.
        variable: the fields with lengths, and their places among the fields.
    """

    def __init__(self, layout: RecordLayout) -> None:
        self.layout = layout
        self.node_of: list[int] = []
        self.buffer_of: list[int] = []
        nodes = buffers = 0
        for slot in layout.slots:
            apart = slot.kind == "other"
            self.node_of.append(-1 if apart else nodes)
            self.buffer_of.append(-1 if apart else buffers)
            if not apart:
                nodes += 2 if slot.kind == "list" else 1
                buffers += _buffers(slot)
        self.variable = tuple((slot, at) for at, slot in enumerate(layout.slots) if slot.kind != "fixed")
        self.schema = pa.schema([pa.field(one.name, one.type) for one in layout.slots if one.kind != "other"])
        self.frame = Frame.of(self.schema) if nodes else None
        self._nodes, self._buffers = nodes, buffers
        self._plans: dict[int, Plan] = {}

    def plan(self, count: int) -> Plan:
        """What messages of so many rows have in common."""
        found = self._plans.get(count)
        if found is None:
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            found = self._plans[count] = self._planned(count)
        return found

    def _planned(self, count: int) -> Plan:
        nodes = [count, 0] * self._nodes
        buffers = [0, 0] * self._buffers
        blocks, size = [], 0
        fields: Any = self.layout.dtype.fields
        for (width, bits), places in self._groups().items():
            own = -(-count // 8) if bits else count
            stride = own + -own % max(8 // width, 1)
            slots = [self.layout.slots[at] for at in places]
            columns = [slot.at for slot in slots]
            plain = columns == list(range(len(columns)))
            start = int(fields[f"w{width}"][1])
            blocks.append(
                Block(
                    group=f"w{width}",
                    columns=None if plain else np.array(columns),
                    width=width,
                    size=len(columns),
                    stride=stride,
                    bits=bits,
                    places=tuple(start + width * column for column in columns),
                )
            )
            for at in places:
                buffer = 2 * self.buffer_of[at] + 2
                buffers[buffer : buffer + 2] = size, own * width
                size += stride * width
        return Plan(count, tuple(blocks), tuple(nodes), tuple(buffers), size)

    def _groups(self) -> dict[tuple[int, bool], list[int]]:
        """Places of the fields of fixed width, by width and whether Arrow has them as bits."""
        groups: dict[tuple[int, bool], list[int]] = {}
        for at, slot in enumerate(self.layout.slots):
            if slot.kind == "fixed":
                groups.setdefault((slot.width, pa.types.is_boolean(slot.type)), []).append(at)
        return groups


def _buffers(slot: Slot) -> int:
    """How many buffers Arrow has for a column."""
    if slot.kind == "list":
        return 3 if pa.types.is_fixed_size_list(slot.type) else 4
    return 2 if slot.kind == "fixed" else 3


@dataclass(frozen=True, slots=True)
class Frame:
    """The head of a record batch message as Arrow wrote it, and where its numbers stand.

    A message is a flatbuffer: tables name the place of their fields by a table of offsets before them, vectors
    begin with their length. Arrow's format fixes the numbers of the fields.
    """

    head: bytes
    rows_at: int
    body_at: int
    nodes: struct.Struct
    nodes_at: int
    buffers: struct.Struct
    buffers_at: int

    @classmethod
    def of(cls, schema: pa.Schema) -> Frame:
        """The frame of a schema."""
        # A row with a value in every field: flatbuffers leave out a number that is 0.
        row = pa.RecordBatch.from_arrays([_some(field.type) for field in schema], schema=schema)
        data = row.serialize().to_pybytes()
        start = 8
        size = start + struct.unpack_from("<i", data, 4)[0]
        message = start + struct.unpack_from("<I", data, start)[0]

        def field(table: int, number: int) -> int:
            offsets = table - struct.unpack_from("<i", data, table)[0]
            return table + int(struct.unpack_from("<H", data, offsets + 4 + 2 * number)[0])

        def target(place: int) -> int:
            return place + int(struct.unpack_from("<I", data, place)[0])

        batch = target(field(message, 2))
        nodes, buffers = target(field(batch, 1)), target(field(batch, 2))
        counts = [struct.unpack_from("<I", data, place)[0] for place in (nodes, buffers)]
        return cls(
            head=data[:size],
            rows_at=field(batch, 0),
            body_at=field(message, 3),
            nodes=struct.Struct(f"<{2 * counts[0]}q"),
            nodes_at=nodes + 4,
            buffers=struct.Struct(f"<{2 * counts[1]}q"),
            buffers_at=buffers + 4,
        )

    def filled(self, count: int, size: int, nodes: Sequence[int], buffers: Sequence[int]) -> bytearray:
        """The head of a message of so many rows, and so many bytes of body."""
        head = bytearray(self.head)
        struct.pack_into("<q", head, self.rows_at, count)
        struct.pack_into("<q", head, self.body_at, size)
        self.nodes.pack_into(head, self.nodes_at, *nodes)
        self.buffers.pack_into(head, self.buffers_at, *buffers)
        return head


def _some(kind: pa.DataType) -> pa.Array:
    """One value of the type, whatever its bytes."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _some(kind.storage_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(
            pa.concat_arrays([_some(kind.value_type)] * kind.list_size), type=kind
        )
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), _some(kind.value_type), type=kind)
    zeros = pa.py_buffer(bytes(16))
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return pa.Array.from_buffers(kind, 1, [None, pa.py_buffer(struct.pack("<2i", 0, 1)), zeros])
    return pa.Array.from_buffers(kind, 1, [None, zeros])
