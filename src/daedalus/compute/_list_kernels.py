# ruff: noqa: PLR0917 - compiled functions take their arrays by position.
"""Loops that gather lists, compiled by Numba; names as in `_kernels`."""

from __future__ import annotations

import numpy as np

from daedalus.compute._kernels import compiled


@compiled
def copy_slices(values, low, offsets, out):  # type: ignore[no-untyped-def]
    """Each row's slice of `values`, one after the other."""
    for row in range(len(low)):
        source, target = low[row], offsets[row]
        for step in range(offsets[row + 1] - target):
            out[target + step] = values[source + step]


@compiled
def previous_other(keys):  # type: ignore[no-untyped-def]
    """Per position the nearest earlier one with another key, -1 when there is none."""
    out = np.empty(len(keys), np.int32)
    for place in range(len(keys)):
        if place == 0:
            out[place] = -1
        elif keys[place] != keys[place - 1]:
            out[place] = place - 1
        else:
            out[place] = out[place - 1]
    return out


@compiled
def count_others(keys, jump, low, high, own, has_own, limit, lengths, exact):  # type: ignore[no-untyped-def]
    """How many of the newest values other than its own each row keeps; `exact`: none was left out.

    O(output): a run of the row's own value is jumped over in one step.
    """
    for row in range(len(low)):
        first, last = low[row], high[row]
        newest = max(first, last - limit)
        clean = True
        mine = own[row]
        if has_own[row]:
            met = 0
            for place in range(newest, last):
                met += keys[place] == mine
            clean = met == 0
        exact[row] = clean
        if clean:
            lengths[row] = last - newest
            continue
        kept = 0
        place = last - 1
        while place >= first and kept < limit:
            if keys[place] == mine:
                place = jump[place]
            else:
                kept += 1
                place -= 1
        lengths[row] = kept


@compiled
def copy_others(values, keys, jump, high, own, exact, offsets, out):  # type: ignore[no-untyped-def]
    """The values counted by `count_others`, oldest first."""
    for row in range(len(high)):
        target = offsets[row]
        free = offsets[row + 1]
        if exact[row]:
            source = high[row] - (free - target)
            for step in range(free - target):
                out[target + step] = values[source + step]
            continue
        place = high[row] - 1
        while free > target:
            if keys[place] == own[row]:
                place = jump[place]
            else:
                free -= 1
                out[free] = values[place]
                place -= 1


# -- flatten_distinct ------------------------------------------------------------------------------------


@compiled
def most_distinct(first, low, high, limit):  # type: ignore[no-untyped-def]
    """How many positions `recent_distinct` finds at most."""
    total = 0
    for row in range(len(low)):
        total += min(first[high[row]] - first[low[row]], limit)
    return total


@compiled
def recent_distinct(elements, first, start, by_high, group, low, high, limit, room, lengths, begin):  # type: ignore[no-untyped-def]
    """Per spine row the positions of the most recently seen distinct elements. O(elements + output).

    `elements`: per flattened element its dense number, -1 for NULL; kept row p holds
    `elements[first[p]:first[p + 1]]`. A linked list keeps the numbers of the group in order of their last
    sight, so the walk of a row ends with the first number it does not keep.
    Row r's positions are out[begin[r] : begin[r] + lengths[r]], newest first; `out` has `room`, and grows.
    """
    count = 0
    for number in elements:
        count = max(count, number + 1)
    newer = np.full(count, -1, np.int32)
    older = np.full(count, -1, np.int32)
    seen_row = np.full(count, -1, np.int32)
    seen_at = np.zeros(count, np.int64)
    owner = np.full(count, -1, np.int32)
    out = np.empty(max(room, 1), np.int32)
    used, current, head, place = 0, -1, -1, 0
    for row in by_high:
        if group[row] != current:
            current, head = group[row], -1
            place = start[current]
        while place < high[row]:
            for at in range(first[place], first[place + 1]):
                number = elements[at]
                if number < 0:
                    continue
                seen_row[number] = place
                seen_at[number] = at
                if head == number:
                    continue
                if owner[number] == current:
                    older[newer[number]] = older[number]
                    if older[number] >= 0:
                        newer[older[number]] = newer[number]
                owner[number] = current
                newer[number] = -1
                older[number] = head
                if head >= 0:
                    newer[head] = number
                head = number
            place += 1
        begin[row] = used
        number = head
        while number >= 0 and seen_row[number] >= low[row] and used - begin[row] < limit:
            if used == len(out):
                grown = np.empty(2 * used, np.int32)
                grown[:used] = out
                out = grown
            out[used] = seen_at[number]
            used += 1
            number = older[number]
        lengths[row] = used - begin[row]
    return out[:used]


@compiled
def count_since(found, begin, since, lengths):  # type: ignore[no-untyped-def]
    """How many of each row's falling positions found[begin : begin + lengths] are at or after `since`; into lengths."""
    for row in range(len(begin)):
        place = begin[row]
        end = place + lengths[row]
        while place < end and found[place] >= since[row]:
            place += 1
        lengths[row] = place - begin[row]


@compiled
def copy_backwards(values, found, begin, offsets, out):  # type: ignore[no-untyped-def]
    """Each row's values[found[begin : ...]], last position first."""
    for row in range(len(begin)):
        target = offsets[row]
        last = begin[row] + offsets[row + 1] - target - 1
        for step in range(offsets[row + 1] - target):
            out[target + step] = values[found[last - step]]
