"""Loops over versions and rows for lookups as of a time, compiled on first use.

Plain functions here; `compiled` makes machine code of them, so importing this module costs nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

#: The time of a row without one.
_NEVER = int(np.iinfo(np.int64).min)


def may_be_found(  # noqa: PLR0917
    codes: Any, ticks: Any, available: Any, low: int, high: int, newest: Any
) -> int:
    """Count the versions that a row from `low` to `high` can find; the code of each other one becomes -1.

    What was available before `low` is found only when none of its key is newer; `newest` learns each key's newest
    time from before `low`. Versions that come later may show that one counted earlier is not the newest: call it
    again over what was kept.
    """
    found = 0
    for i in range(codes.size):
        code = codes[i]
        if code < 0:
            continue
        if available[i] >= low:
            if available[i] >= high:
                codes[i] = -1
                continue
        elif ticks[i] < newest[code]:
            codes[i] = -1
            continue
        else:
            newest[code] = ticks[i]
        found += 1
    return found


def order_by_code(codes: Any, available: Any, starts: Any, order: Any) -> bool:
    """Write the places of codes that are not negative into `order`, by (code, available).

    Args:
        codes: any order.
        available: beside them.
        starts: zeros, one more than there are codes.
        order: as many as there are places.

    Returns:
        False where the times of the codes are so far from ascending that another way is quicker.
    """
    for i in range(codes.size):
        if codes[i] >= 0:
            starts[codes[i] + 1] += 1
    for code in range(starts.size - 1):
        starts[code + 1] += starts[code]
    for i in range(codes.size):
        code = codes[i]
        if code >= 0:
            order[starts[code]] = i
            starts[code] += 1
    # Places of one code were entered in order of `i`; versions are mostly read in order of their time.
    moves = 8 * order.size
    for at in range(1, order.size):
        place = order[at]
        to = at
        while to > 0 and codes[order[to - 1]] == codes[place] and available[order[to - 1]] > available[place]:
            order[to] = order[to - 1]
            to -= 1
            moves -= 1
            if moves < 0:
                return False
        order[to] = place
    return True


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


def newest_of_codes(starts: Any, best: Any, out: Any) -> None:
    """`out[c]` is the best version of code `c`; the place behind the last version for none."""
    for code in range(out.size):
        out[code] = best[starts[code + 1] - 1] if starts[code + 1] > starts[code] else best.size


def find_newest(codes: Any, times: Any, newest: Any, ticks: Any, alive: int, out: Any) -> None:  # noqa: PLR0917
    """`out[i]` is the newest version of `codes[i]`; the last place for none.

    A code of -1 finds nothing. `alive` is how old a version may be at `times[i]`, in ticks; negative for any age.
    """
    none = ticks.size
    for i in range(codes.size):
        found = none if codes[i] < 0 else newest[codes[i]]
        if alive >= 0 and found != none and (times[i] == _NEVER or ticks[found] < times[i] - alive):
            found = none
        out[i] = found


def tied(codes: Any, ticks: Any) -> Any:
    """Whether each version, sorted by (code, tick), has the code and tick of a neighbour."""
    same = (codes[1:] == codes[:-1]) & (ticks[1:] == ticks[:-1])
    found = np.zeros(codes.size, np.bool_)
    found[1:] |= same
    found[:-1] |= same
    return found
