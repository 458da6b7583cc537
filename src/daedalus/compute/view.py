"""One spec as the operations see it: its slices, its kept history, and what specs like it share."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from daedalus.compute.columns import Keys
from daedalus.compute.layout import Ends

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    import pyarrow as pa
    from numpy.typing import NDArray

    from daedalus.catalog.aggregation import AggregationSpec
    from daedalus.compute.workspace import Workspace

T = TypeVar("T")


class View:
    """A spec over a workspace.

    Attributes:
        size: how many spine rows there are.
        limit: how many rows (or values) are kept at most.
        own: the spine rows' own values when they are left out, comparable with `keys()`; else None.
    """

    def __init__(self, spec: AggregationSpec, workspace: Workspace) -> None:
        self.spec = spec
        self.workspace = workspace
        self.layout = workspace.layout(spec)
        self.selection = workspace.selection(spec)
        self.ends = workspace.ends(spec)
        self.size = workspace.spine.num_rows
        self.limit = min(spec.max_items or 2**31 - 1, 2**31 - 1)
        self._widest: View | None = None
        self.own: Keys | None = workspace.keys(spec)[1] if spec.exclude_self else None

    def rows(self, places: NDArray[np.int64]) -> View:
        """The same spec for some of the spine rows only, in the order of `places`."""
        from daedalus.compute import _kernels

        some = copy.copy(self)
        some.size = len(places)
        some.ends = Ends(_kernels.take(self.ends.low, places), _kernels.take(self.ends.high, places))
        if self.own is not None:
            keys, valid = _kernels.take(self.own.keys, places), _kernels.take(self.own.valid, places)
            some.own = Keys(keys=keys, valid=valid)
        return some

    @property
    def widest(self) -> View:
        """The view of the longest window among the specs that are equal but for their windows; maybe this one."""
        return self._widest or self

    def share(self, widest: View) -> None:
        """Name the view of the longest window."""
        self._widest = None if widest is self else widest

    @property
    def history_schema(self) -> pa.Schema:
        """The schema of the history table."""
        return self.workspace.histories[self.spec.history_view].schema

    def memo(self, name: Hashable, make: Callable[[], T]) -> T:
        """Something derived from the kept rows and their values, shared by specs that keep the same."""
        selection = self.workspace.selection_key(self.spec)
        key = ("view", name, *selection, self.spec.value_column, self.spec.exclude_self)
        return self.workspace.memo.get(key, make)

    def values(self) -> pa.Array:
        """The whole history column of values."""
        return self.workspace.history_column(self.spec.history_view, self.spec.value_column or "")

    def history_time(self) -> NDArray[np.int64]:
        """The time of every history row, as an integer."""
        from daedalus.compute.columns import joint_keys

        view, name = self.spec.history_view, self.spec.history_time
        time = self.workspace.history_column(view, name)
        return self.workspace.memo.get(("time", view, name), lambda: joint_keys([time])[0].keys)

    def keys(self, *, ordered: bool = False) -> NDArray[np.int64]:
        """The kept values as comparable keys."""
        return self.workspace.kept_keys(self.spec, ordered=ordered)

    def own_arrays(self, *, ordered: bool = False) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Per spine row the key of the value to leave out, and whether there is one; `ordered` for all rows only."""
        if self.own is None:
            return np.zeros(self.size, np.int64), np.zeros(self.size, np.bool_)
        found = self.workspace.keys(self.spec, ordered=True)[1] if ordered else None
        own = self.own if found is None else found
        return own.keys, own.valid

    def jump(self) -> NDArray[np.int32]:
        """Per kept row the nearest earlier one with another value."""
        from daedalus.compute import _list_kernels

        keys = self.keys()
        return self.memo("previous other", lambda: _list_kernels.previous_other(keys))

    def occurrences(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Kept positions by (group, value, position); per position its value's number within the group."""
        from daedalus.compute import _kernels

        keys, start = self.keys(), self.selection.start

        def make() -> tuple[NDArray[np.int32], NDArray[np.int32]]:
            places, numbers = _kernels.sort_occurrences(keys, start)
            return places, numbers

        return self.memo("occurrences", make)
