"""How the fields of one schema lie in a record, and what the schema is called.

A record is a fixed part, the same for every row of a schema, then the bytes of texts, lists and nested values in
field order. The fixed part groups fields by width, so that whole columns are made at once from many records.

    format u8 | flags u8 | schema 4 bytes | order 26 bytes | written u64 | valid bits | 16 | 8 | 4 | 2 | 1 byte fields

`order` is the event time, `created_field` and `sequence_field`, each as an unsigned big-endian number that sorts as
the value does, 0 where there is none: the server compares these bytes and never anything else.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from daedalus.catalog.dtypes import to_arrow
from daedalus.errors import ExecutionError

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMAT = 1
DELETED = 1
#: Added to a signed number, so that its unsigned bytes sort as it does; 0 is left for "none".
BIAS = 1 << 63
HEADER = [
    ("format", "u1"),
    ("flags", "u1"),
    ("schema", "S4"),
    ("event", ">u8"),
    ("event_ns", ">u2"),
    ("created", ">u8"),
    ("sequence", ">u8"),
    ("written", ">u8"),
]
HEADER_DTYPE = np.dtype(HEADER)
WIDTHS = (16, 8, 4, 2, 1)
#: By width how NumPy reads the values' bytes; those of 16 as two numbers.
UNSIGNED = {1: "u1", 2: "<u2", 4: "<u4", 8: "<u8", 16: "<u8"}
#: Of a length: the list has NULL items, whose bits follow the items.
HAS_NULLS = 1 << 31


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one field lies.

    Attributes:
        kind: `fixed`, `text`, `list`, or `other`, which is anything nested.
        width: bytes of a value, or of a list's items.
        at: its place among the fields of its width, or among those with a length.
    """

    name: str
    type: pa.DataType
    kind: str
    width: int
    at: int


class RecordLayout:
    """One schema of one view or service, as it is stored.

    Args:
        subject: `view NAME` or `service NAME`.
        keys: (name, dtype) of the entity keys; they make the record's key and are not in the record.
        fields: (name, dtype) of the other fields, in order.
        definition: which version of the definitions made the values.
    """

    def __init__(
        self,
        subject: str,
        *,
        keys: Iterable[tuple[str, str]],
        fields: Iterable[tuple[str, str]],
        definition: str = "",
    ) -> None:
        self.subject = subject
        self.keys = tuple(keys)
        self.fields = tuple(fields)
        self.definition = definition
        self.slots = tuple(self._slots())
        self.variable = tuple(slot for slot in self.slots if slot.kind != "fixed")
        counts = {
            width: sum(1 for one in self.slots if one.kind == "fixed" and one.width == width)
            for width in WIDTHS
        }
        self.lengths_at = counts[4]
        counts[4] += len(self.variable)
        self.bits = -(-len(self.slots) // 8)
        self.dtype = np.dtype(
            [
                *HEADER,
                ("valid", "u1", (self.bits,)),
                ("w16", "<u8", (counts[16], 2)),
                ("w8", "<u8", (counts[8],)),
                ("w4", "<u4", (counts[4],)),
                ("w2", "<u2", (counts[2],)),
                ("w1", "u1", (counts[1],)),
            ]
        )
        self.size = self.dtype.itemsize
        #: The valid bits of a row that has every value.
        self.all_valid = np.packbits(np.arange(self.bits * 8) < len(self.slots), bitorder="little").tobytes()

    def _slots(self) -> Iterable[Slot]:
        places: dict[int | str, int] = {}
        for name, dtype in self.fields:
            arrow = to_arrow(dtype)
            kind, width = _kind(arrow)
            group: int | str = width if kind == "fixed" else "variable"
            yield Slot(name, arrow, kind, width, places.get(group, 0))
            places[group] = places.get(group, 0) + 1

    def to_mapping(self) -> dict[str, Any]:
        """Plain data, as the store's catalogue of schemas keeps it."""
        return {
            "subject": self.subject,
            "keys": [list(one) for one in self.keys],
            "fields": [list(one) for one in self.fields],
            "definition": self.definition,
        }

    @classmethod
    def from_mapping(cls, data: dict[str, Any]) -> RecordLayout:
        """The layout that `to_mapping` described."""
        return cls(
            data["subject"],
            keys=[(name, dtype) for name, dtype in data["keys"]],
            fields=[(name, dtype) for name, dtype in data["fields"]],
            definition=data["definition"],
        )

    @cached_property
    def text(self) -> str:
        """The same as text, equal for equal layouts."""
        return json.dumps(self.to_mapping(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @cached_property
    def schema_id(self) -> bytes:
        """Four bytes that records carry; never ends in a zero byte, which NumPy would drop."""
        digest = hashlib.sha256(self.text.encode()).digest()
        return digest[:3] + bytes([digest[3] | 1])

    @cached_property
    def schema(self) -> pa.Schema:
        """The fields, keys left out."""
        return pa.schema([pa.field(slot.name, slot.type) for slot in self.slots])

    @cached_property
    def empty(self) -> bytes:
        """A record in which every field is NULL, which stands for one that is not there."""
        row = np.zeros(1, self.dtype)
        row["format"], row["schema"] = FORMAT, self.schema_id
        return row.tobytes()


def _kind(arrow: pa.DataType) -> tuple[str, int]:
    width = fixed_width(arrow)
    if width:
        return "fixed", width
    if pa.types.is_string(arrow) or pa.types.is_binary(arrow):
        return "text", 1
    if pa.types.is_list(arrow) or pa.types.is_fixed_size_list(arrow):
        width = fixed_width(arrow.value_type)
        if width:
            return "list", width
    return "other", 1


def fixed_width(arrow: pa.DataType) -> int:
    """Bytes of a value of the type; 0 when they differ."""
    if pa.types.is_boolean(arrow):
        return 1
    if isinstance(arrow, pa.BaseExtensionType):
        return fixed_width(arrow.storage_type)
    if pa.types.is_nested(arrow):
        return 0
    try:
        bits: int = arrow.bit_width
    except ValueError:
        return 0
    return bits // 8 if bits // 8 in WIDTHS else 0


def unreadable(subject: str, why: str) -> ExecutionError:
    """The error of a record that nobody can read."""
    return ExecutionError(
        f"a record of the online store cannot be read: {why}",
        where=subject,
        hint="Materialize it again with --online; what other programs wrote under its keys must go",
    )
