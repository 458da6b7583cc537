"""Loops over ids, compiled on first use: a hash table from id to row, and the bookkeeping of a vector cache.

Plain functions here; `compiled` makes machine code of them, so importing this module costs nothing.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

_EMPTY = -1
_ASKED = -2


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as machine code that releases the GIL; kept on disk between processes where possible."""
    import numba

    try:
        return numba.njit(nogil=True, cache=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # no writable place for the cache: a read-only container
        return numba.njit(nogil=True)(function)  # type: ignore[no-any-return]


def fill_table(keys: Any, table_keys: Any, table_rows: Any, shift: int) -> int:
    """Enter row `i` under `keys[i]`; return a row whose key was there before, or -1."""
    mask = np.int64(table_keys.size - 1)
    for row in range(keys.size):
        key = keys[row]
        at = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(shift))
        while table_rows[at] != _EMPTY:
            if table_keys[at] == key:
                return row
            at = (at + 1) & mask
        table_keys[at] = key
        table_rows[at] = row
    return -1


def find_rows(keys: Any, table_keys: Any, table_rows: Any, shift: int, out: Any) -> None:
    """`out[i]` is the row entered under `keys[i]`, or -1."""
    mask = np.int64(table_keys.size - 1)
    for i in range(keys.size):
        key = keys[i]
        at = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(shift))
        while table_rows[at] != _EMPTY and table_keys[at] != key:
            at = (at + 1) & mask
        out[i] = table_rows[at]


def collect_misses(rows: Any, slot_of: Any, last_used: Any, tick: int, misses: Any) -> tuple[int, int]:
    """Mark cached rows as used at `tick`, list each row without a slot once; return (misses, cached)."""
    missing = 0
    present = 0
    for i in range(rows.size):
        row = rows[i]
        if row < 0:
            continue
        slot = slot_of[row]
        if slot >= 0:
            if last_used[slot] != tick:
                last_used[slot] = tick
                present += 1
        elif slot == _EMPTY:
            slot_of[row] = _ASKED
            misses[missing] = row
            missing += 1
    return missing, present


def slots_of_rows(rows: Any, slot_of: Any, out: Any) -> None:
    """`out[i]` is the cache slot of `rows[i]`, -1 for a row of -1."""
    for i in range(rows.size):
        row = rows[i]
        out[i] = slot_of[row] if row >= 0 else -1
