"""Arrow columns from numpy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from seeder.plan import zipf

if TYPE_CHECKING:
    from seeder.plan import Array


def timestamps(us: Array, nulls: Array | None = None) -> pa.Array:
    """Whole milliseconds, as clients and services report them."""
    return pa.array(us // 1_000 * 1_000, type=pa.timestamp("us"), mask=nulls)


def texts(codes: Array, words: tuple[str, ...], nulls: Array | None = None) -> pa.Array:
    """The word that each code stands for."""
    return pa.array(words).take(pa.array(codes, mask=nulls))


def pick(uniform: Array, choices: tuple[Any, ...]) -> Array:
    """Each choice with a share that falls with its place."""
    return zipf(uniform, len(choices), 0.8)


def lists(values: Array, counts: Array, *, nulls: Array, null_values: Array | None = None) -> pa.Array:
    """A list column from flat values and the length of each row's list."""
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(values, mask=null_values), mask=pa.array(nulls)
    )


def hex_texts(keys: Array, nulls: Array) -> pa.Array:
    """16 hexadecimal digits per key."""
    digits = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
    raw = keys.astype(">u8").view(np.uint8).reshape(len(keys), 8)
    data = np.empty((len(keys), 16), dtype=np.uint8)
    data[:, 0::2], data[:, 1::2] = digits[raw >> 4], digits[raw & 15]
    offsets = np.arange(0, 16 * len(keys) + 1, 16, dtype=np.int32)
    valid = pa.array(~nulls).buffers()[1]
    return pa.StringArray.from_buffers(
        len(keys), pa.py_buffer(offsets), pa.py_buffer(data.reshape(-1)), valid
    )
