"""Slices after `exclude_self` and `max_items`: the newest so many rows that are not the row's own value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from daedalus.compute.view import View


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowed:
    """Per spine row the slice [low, high) whose rows, its own value left out, are the eligible ones.

    Attributes:
        begin: with `end`: the slice of `View.occurrences()[0]` that lists the rows to leave out.
        counts: how many rows remain.
    """

    low: NDArray[np.int32]
    high: NDArray[np.int32]
    begin: NDArray[np.int32]
    end: NDArray[np.int32]
    counts: NDArray[np.int64]

    @property
    def own_count(self) -> NDArray[np.int64]:
        """How many rows of the slice are left out."""
        return (self.end - self.begin).astype(np.int64)


def narrow(view: View) -> Narrowed:
    """Cut every slice to its newest `max_items` eligible rows."""
    low, high = view.ends.low, view.ends.high
    if view.own is None:
        # Not high - limit: that could leave int32.
        low = np.where(high - low > view.limit, high - np.int32(view.limit), low).astype(np.int32)
        nothing = np.zeros(view.size, np.int32)
        counts = (high - low).astype(np.int64)
        return Narrowed(low=low, high=high, begin=nothing, end=nothing, counts=counts)
    return view.memo(("narrow", *_window_key(view)), lambda: _narrow_own(view))


def _window_key(view: View) -> tuple[object, ...]:
    spec = view.spec
    return (spec.window_days, spec.delay_seconds, spec.include_current, spec.max_items)


def _narrow_own(view: View) -> Narrowed:
    from daedalus.compute import _kernels

    own, has_own = view.own_arrays()
    low, high = view.ends.low.copy(), view.ends.high
    begin, end = np.zeros(view.size, np.int32), np.zeros(view.size, np.int32)
    places, keys, start = view.occurrences()[0], view.keys(), view.selection.start
    _kernels.find_own(
        places, keys, start, view.layout.spine.group, low, high, own, has_own, view.limit, begin, end
    )
    counts = (high - low).astype(np.int64) - (end - begin)
    return Narrowed(low=low, high=high, begin=begin, end=end, counts=counts)
