"""Loops over versions and rows for lookups as of a time, compiled on first use.

Plain functions here; `compiled` makes machine code of them, so importing this module costs nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def may_be_found(  # noqa: PLR0917
    codes: Any, ticks: Any, available: Any, low: int, newest: Any, wanted: Any
) -> None:
    """Mark the versions that a row at `low` or later can find; `newest` learns each key's newest time before.

    What was available before `low` is found only when none of its key is newer. Versions that come later may show
    that one marked earlier is not the newest: call it again over what was kept.
    """
    for i in range(codes.size):
        if available[i] >= low:
            wanted[i] = True
            continue
        code = codes[i]
        wanted[i] = ticks[i] >= newest[code]
        if wanted[i]:
            newest[code] = ticks[i]


def best_so_far(codes: Any, ticks: Any, ranks: Any, best: Any) -> None:
    """`best[i]` is the greatest by (tick, rank) of the versions up to `i` with the same code."""
    for i in range(codes.size):
        best[i] = i
        if i > 0 and codes[i - 1] == codes[i]:
            old = best[i - 1]
            if ticks[old] > ticks[i] or (ticks[old] == ticks[i] and ranks[old] > ranks[i]):
                best[i] = old


def starts_of(codes: Any, starts: Any) -> None:
    """`starts[c]` to `starts[c + 1]` are the places of code `c` in the sorted `codes`."""
    starts[:] = 0
    for i in range(codes.size):
        starts[codes[i] + 1] += 1
    for code in range(starts.size - 1):
        starts[code + 1] += starts[code]


def find_versions(  # noqa: PLR0917
    codes: Any,
    times: Any,
    starts: Any,
    available: Any,
    best: Any,
    ticks: Any,
    alive: int,
    out: Any,
) -> None:
    """`out[i]` is the best version of `codes[i]` that was available before `times[i]`; the last place for none.

    A code of -1 finds nothing. `alive` is how old a version may be, in ticks; negative for any age.
    """
    none = ticks.size
    for i in range(codes.size):
        out[i] = none
        code = codes[i]
        if code < 0:
            continue
        first = starts[code]
        low, high = first, starts[code + 1]
        while low < high:
            middle = (low + high) // 2
            if available[middle] < times[i]:
                low = middle + 1
            else:
                high = middle
        if low > first:
            found = best[low - 1]
            if alive < 0 or ticks[found] >= times[i] - alive:
                out[i] = found


def tied(codes: Any, ticks: Any) -> Any:
    """Whether each version, sorted by (code, tick), has the code and tick of a neighbour."""
    same = (codes[1:] == codes[:-1]) & (ticks[1:] == ticks[:-1])
    found = np.zeros(codes.size, np.bool_)
    found[1:] |= same
    found[:-1] |= same
    return found
