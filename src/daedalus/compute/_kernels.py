# ruff: noqa: PLR0917 - compiled functions take their arrays by position.
"""Loops over sorted history, compiled by Numba, and like Numba imported only when used; lists: `_list_kernels`.

Shapes and names used throughout:
    keys: int64 per kept history row, in (group, time, row) order; equal keys are equal values.
    low, high: per spine row, the slice [low, high) of the kept history that it may see.
    own, has_own: per spine row the key of its own value, and whether there is one to leave out.
Nothing here is quadratic in the rows of a group; the cost of each kernel is stated where it is not linear.
"""

from __future__ import annotations

import numpy as np
from numba import njit


def compiled(function):  # type: ignore[no-untyped-def]
    return njit(function, cache=True, nogil=True)


# -- order and slices ------------------------------------------------------------------------------------


@compiled
def least_and_most(keys, valid):  # type: ignore[no-untyped-def]
    """The smallest and the largest valid key; none: the first is larger."""
    low, high = np.int64((1 << 63) - 1), np.int64(-(1 << 63))
    for row in range(len(keys)):
        if valid[row]:
            low = min(low, keys[row])
            high = max(high, keys[row])
    return low, high


@compiled
def count_from(keys, valid, low):  # type: ignore[no-untyped-def]
    """Each valid key's distance from the lowest, -1 for the others."""
    out = np.empty(len(keys), np.int32)
    for row in range(len(keys)):
        out[row] = keys[row] - low if valid[row] else -1
    return out


@compiled
def count_groups(group, valid, groups):  # type: ignore[no-untyped-def]
    """Where each group of valid rows begins in an order by group; one more entry than groups."""
    start = np.zeros(groups + 1, np.int64)
    for row in range(len(group)):
        if valid[row]:
            start[group[row] + 1] += 1
    for number in range(groups):
        start[number + 1] += start[number]
    return start


@compiled
def sort_rows(group, time, valid, start):  # type: ignore[no-untyped-def]
    """Valid rows sorted by (group, time, row), and their times. O(n), and O(n log n) of rows that are in no order."""
    groups = len(start) - 1
    free = start[:-1].copy()
    order = np.empty(start[groups], np.int32)
    sorted_time = np.empty(start[groups], np.int64)
    for row in range(len(group)):
        if valid[row]:
            place = free[group[row]]
            order[place] = row
            sorted_time[place] = time[row]
            free[group[row]] = place + 1
    for number in range(groups):
        first, last = start[number], start[number + 1]
        for place in range(first + 1, last):
            if sorted_time[place] < sorted_time[place - 1]:
                # Stable, so rows of one instant keep their row order.
                better = np.argsort(sorted_time[first:last], kind="mergesort")
                order[first:last] = order[first:last][better]
                sorted_time[first:last] = sorted_time[first:last][better]
                break
    return order, sorted_time


@compiled
def take(values, rows):  # type: ignore[no-untyped-def]
    """`values[rows]`; NumPy's own does not let go of the interpreter's lock, and copies the places first."""
    out = np.empty(len(rows), values.dtype)
    for place in range(len(rows)):
        out[place] = values[rows[place]]
    return out


@compiled
def keep_rows(order, keep):  # type: ignore[no-untyped-def]
    """The rows of `order` that are kept, and before each of its positions (and its end) how many are."""
    before = np.empty(len(order) + 1, np.int32)
    rows = np.empty(len(order), np.int32)
    count = 0
    for place in range(len(order)):
        before[place] = count
        row = order[place]
        rows[count] = row
        count += keep[row]
    before[len(order)] = count
    return rows[:count], before


@compiled
def sweep(spine_order, spine, ticks, inclusive, start, history_time, out):  # type: ignore[no-untyped-def]
    """Per bound and spine row, the first position of its group whose time is >= bound (> bound when inclusive).

    A bound lies so many ticks before the row, and not before the lowest instant. Spine rows come sorted by
    (group, time), so bounds rise, and each group is walked once per bound.

    `spine` is the group and the time per spine row, `ticks` (unsigned) and `inclusive` are per bound. `out` is
    bounds x spine rows; rows that are not in `spine_order` are left as they are.
    """
    spine_group, spine_time = spine
    lowest, sign = np.int64(-(1 << 63)), np.uint64(1 << 63)
    places = np.zeros(len(ticks), np.int64)
    group = -1
    for row in spine_order:
        if spine_group[row] != group:
            group = spine_group[row]
            places[:] = start[group]
        last = start[group + 1]
        time = spine_time[row]
        # Counted from the lowest instant, as unsigned numbers: nothing can overflow.
        since = np.uint64(time) ^ sign
        for bound in range(len(ticks)):
            limit = lowest if since < ticks[bound] else np.int64((since - ticks[bound]) ^ sign)
            place = places[bound]
            if inclusive[bound]:
                while place < last and history_time[place] <= limit:
                    place += 1
            else:
                while place < last and history_time[place] < limit:
                    place += 1
            places[bound] = place
            out[bound, row] = place


# -- occurrences of one value ----------------------------------------------------------------------------


@compiled
def sort_occurrences(keys, start):  # type: ignore[no-untyped-def]
    """Per group, positions sorted by (key, position); their dense number of the key within the group."""
    places = np.empty(len(keys), np.int32)
    numbers = np.empty(len(keys), np.int32)
    for group in range(len(start) - 1):
        first, last = start[group], start[group + 1]
        if first == last:
            continue
        local = np.argsort(keys[first:last], kind="mergesort")
        number = 0
        for step in range(last - first):
            place = first + local[step]
            if step > 0 and keys[place] != keys[places[first + step - 1]]:
                number += 1
            places[first + step] = place
            numbers[place] = number
    return places, numbers


@compiled
def _first_occurrence(places, keys, first, last, key, position):  # type: ignore[no-untyped-def]
    """The first index in places[first:last] at or after (key, position)."""
    while first < last:
        middle = (first + last) // 2
        place = places[middle]
        if keys[place] < key or (keys[place] == key and place < position):
            first = middle + 1
        else:
            last = middle
    return first


@compiled
def find_own(places, keys, start, group, low, high, own, has_own, limit, begin, end):  # type: ignore[no-untyped-def]
    """Narrow [low, high) to the newest `limit` rows that differ from the row's own value.

    `places[begin:end]` are the positions of its own value within the narrowed slice. O(log n) per row.
    """
    for row in range(len(low)):
        begin[row] = 0
        end[row] = 0
        if low[row] == high[row]:
            continue
        first, last = start[group[row]], start[group[row] + 1]
        a = b = 0
        if has_own[row]:
            a = _first_occurrence(places, keys, first, last, own[row], low[row])
            b = _first_occurrence(places, keys, a, last, own[row], high[row])
        # The oldest own occurrence behind which no more than `limit` others lie.
        left, right = a, b
        while left < right:
            middle = (left + right) // 2
            if (high[row] - places[middle]) - (b - middle) <= limit:
                right = middle
            else:
                left = middle + 1
        lowest = low[row] if left == a else places[left - 1] + 1
        low[row] = max(lowest, high[row] - (b - left) - limit)
        begin[row] = left
        end[row] = b


@compiled
def previous_same(places, keys, start):  # type: ignore[no-untyped-def]
    """Per position the previous one of the same group and key, -1 when there is none."""
    out = np.full(len(keys), -1, np.int32)
    for group in range(len(start) - 1):
        for step in range(start[group] + 1, start[group + 1]):
            if keys[places[step]] == keys[places[step - 1]]:
                out[places[step]] = places[step - 1]
    return out


@compiled
def count_distinct(earlier, start, by_high, group, low, high, out):  # type: ignore[no-untyped-def]
    """Different keys within each slice: a Fenwick tree that marks each key's latest position. O(log n) each.

    `by_high` lists the spine rows group by group with rising `high`.
    """
    tree = np.zeros(len(earlier) + 1, np.int32)
    current, base, size, place = -1, 0, 0, 0
    for row in by_high:
        if group[row] != current:
            current = group[row]
            base = start[current]
            size = start[current + 1] - base
            place = 0
        while place < high[row] - base:
            # Trees of all groups lie side by side: group g uses tree[base : base + size], numbered from 1.
            index = place + 1
            while index <= size:
                tree[base + index - 1] += 1
                index += index & -index
            before = earlier[base + place]
            if before >= 0:
                index = before - base + 1
                while index <= size:
                    tree[base + index - 1] -= 1
                    index += index & -index
            place += 1
        total = 0
        index = high[row] - base
        while index > 0:
            total += tree[base + index - 1]
            index -= index & -index
        index = low[row] - base
        while index > 0:
            total -= tree[base + index - 1]
            index -= index & -index
        out[row] = total


# -- folds over slices -----------------------------------------------------------------------------------


@compiled
def _better(keys, here, there, largest):  # type: ignore[no-untyped-def]
    """Whether position `here` beats `there`; equal keys: the older position."""
    if here < 0 or there < 0:
        return there < 0 <= here
    if keys[here] == keys[there]:
        return here < there
    return (keys[here] > keys[there]) == largest


@compiled
def extreme_tree(keys, largest):  # type: ignore[no-untyped-def]
    """A segment tree of positions: the extreme of each node and the extreme of another key than that."""
    size = len(keys)
    best = np.full(2 * size, -1, np.int32)
    other = np.full(2 * size, -1, np.int32)
    for place in range(size):
        best[size + place] = place
    for node in range(size - 1, 0, -1):
        best[node], other[node] = _join(
            keys, largest, best[2 * node], other[2 * node], best[2 * node + 1], other[2 * node + 1]
        )
    return best, other


@compiled
def _join(keys, largest, best, other, best2, other2):  # type: ignore[no-untyped-def]
    if _better(keys, best2, best, largest):
        best, other, best2, other2 = best2, other2, best, other
    if best2 >= 0 and keys[best2] != keys[best] and _better(keys, best2, other, largest):
        other = best2
    if other2 >= 0 and keys[other2] != keys[best] and _better(keys, other2, other, largest):
        other = other2
    return best, other


@compiled
def extremes(keys, largest, best, other, low, high, own, has_own, out):  # type: ignore[no-untyped-def]
    """The position of the extreme of each slice, the row's own value left out; -1 for none. O(log n) each."""
    size = len(keys)
    for row in range(len(low)):
        one, two = np.int32(-1), np.int32(-1)
        left, right = low[row] + size, high[row] + size
        while left < right:
            if left & 1:
                one, two = _join(keys, largest, one, two, best[left], other[left])
                left += 1
            if right & 1:
                right -= 1
                one, two = _join(keys, largest, one, two, best[right], other[right])
            left >>= 1
            right >>= 1
        if has_own[row] and one >= 0 and keys[one] == own[row]:
            one = two
        out[row] = one


@compiled
def sum_tree(values):  # type: ignore[no-untyped-def]
    """Pairwise sums: node i holds node 2i + node 2i+1, the leaves lie from `len(values)` on."""
    size = len(values)
    tree = np.zeros(2 * size, np.float64)
    tree[size:] = values
    for node in range(size - 1, 0, -1):
        tree[node] = tree[2 * node] + tree[2 * node + 1]
    return tree


@compiled
def _tree_sum(tree, low, high):  # type: ignore[no-untyped-def]
    size = len(tree) // 2
    left_sum = right_sum = 0.0
    left, right = low + size, high + size
    while left < right:
        if left & 1:
            left_sum += tree[left]
            left += 1
        if right & 1:
            right -= 1
            right_sum += tree[right]
        left >>= 1
        right >>= 1
    return left_sum + right_sum


@compiled
def float_sums(tree, low, high, places, begin, end, few, out):  # type: ignore[no-untyped-def]
    """The float sum of each slice without places[begin:end], gap by gap; rows with more than `few`: NaN.

    Never subtracts. O(few * log n) per row; the rows left over are for `sums_without`.
    """
    for row in range(len(low)):
        if end[row] - begin[row] > few:
            out[row] = np.nan
            continue
        total = 0.0
        first = low[row]
        for step in range(begin[row], end[row]):
            total += _tree_sum(tree, first, places[step])
            first = places[step] + 1
        out[row] = total + _tree_sum(tree, first, high[row])


@compiled
def sums_without(values, numbers, bits, rows, low, high, number, out):  # type: ignore[no-untyped-def]
    """Float sums of slices without one key: O(log n) levels of a wavelet matrix, one in memory at a time.

    At each level the slice splits by one bit of the keys' numbers; the half that cannot hold the left-out
    number is summed, the other half is followed. Every value is added once, none is subtracted.
    Overwrites `values`, `numbers`, `low` and `high`.
    """
    size = len(values)
    for row in rows:
        out[row] = 0.0
    zeros = np.empty(size + 1, np.int32)
    next_values = np.empty_like(values)
    next_numbers = np.empty_like(numbers)
    for level in range(bits - 1, -1, -1):
        zeros[0] = 0
        for place in range(size):
            zeros[place + 1] = zeros[place] + (1 - ((numbers[place] >> level) & 1))
        split = zeros[size]
        for place in range(size):
            target = zeros[place] if zeros[place + 1] > zeros[place] else split + place - zeros[place]
            next_values[target] = values[place]
            next_numbers[target] = numbers[place]
        values, next_values = next_values, values
        numbers, next_numbers = next_numbers, numbers
        tree = sum_tree(values)
        for step in range(len(rows)):
            first, last = low[step], high[step]
            zero_first, zero_last = zeros[first], zeros[last]
            one_first, one_last = split + first - zero_first, split + last - zero_last
            if (number[step] >> level) & 1:
                out[rows[step]] += _tree_sum(tree, zero_first, zero_last)
                low[step], high[step] = one_first, one_last
            else:
                out[rows[step]] += _tree_sum(tree, one_first, one_last)
                low[step], high[step] = zero_first, zero_last
