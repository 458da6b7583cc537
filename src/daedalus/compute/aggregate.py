"""`aggregate_pit_table`: every spine row with what its entity's past amounts to, by one of three engines."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pyarrow as pa

from daedalus.catalog.aggregation import AggregationSpec, Operation
from daedalus.compute.checks import check_specs, output_field
from daedalus.compute.conditions import Session, condition_fragment
from daedalus.compute.finders import DuckDBFinder, KernelFinder, PolarsFinder
from daedalus.compute.lists import list_lengths
from daedalus.compute.operations import compute_rows, prepare_rows
from daedalus.compute.view import View
from daedalus.compute.windows import ends_of_another, widest_of
from daedalus.compute.workspace import Workspace, layout_key
from daedalus.errors import DefinitionError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from daedalus.compute.layout import Finder

Spec = AggregationSpec | Mapping[str, Any]
T = TypeVar("T")
R = TypeVar("R")


class Engine(StrEnum):
    """What sorts the history and finds the windows' ends. All give the same table; they differ in speed."""

    DUCKDB = "duckdb"
    POLARS = "polars"
    KERNEL = "kernel"


class AggregatePitTable(Protocol):
    """The call that `get_aggregate_pit_table` returns."""

    def __call__(
        self,
        spine: pa.Table,
        specs: Iterable[Spec],
        *,
        history: Mapping[str, pa.Table] | None = None,
        duckdb_config: Mapping[str, Any] | None = None,
    ) -> pa.Table:
        """See `aggregate_pit_table`."""


def get_aggregate_pit_table(engine: Engine | str) -> AggregatePitTable:
    """The aggregation on one engine, named or as an `Engine`.

    Raises:
        DefinitionError: there is no such engine.

    Example:
        >>> get_aggregate_pit_table("duckdb")(pa.table({"user_id": [1], "event_timestamp": [0]}), []).num_rows
        1
    """
    if engine not in list(Engine):
        raise DefinitionError(
            f"unknown engine {str(engine)!r}",
            where="compute.engine",
            hint=did_you_mean(str(engine), [str(known) for known in Engine]),
        )
    return partial(_aggregate, Engine(engine))


def aggregate_pit_table(
    spine: pa.Table,
    specs: Iterable[Spec],
    *,
    history: Mapping[str, pa.Table] | None = None,
    duckdb_config: Mapping[str, Any] | None = None,
) -> pa.Table:
    """Every spine row with what each spec makes of the rows its entity had before it.

    Args:
        spine: (n, *) table, in any order; it is its own history unless a spec names a `history_view`.
        specs: `AggregationSpec`s, or mappings with the same keys as in YAML.
        history: the table of each `history_view`.
        duckdb_config: forwarded to `duckdb.connect(config=...)`.

    Returns:
        The spine's rows, order, columns and schema metadata, plus one column per spec, in their order. Lists
        are `list<item: T>`, oldest value first; T and every value are kept exactly.

    Semantics:
        A row at time t sees rows of its group at `t - window <= u < t`: never its own instant, unless
        `include_current`. NULL keys, times and values are nowhere seen. `max_items` keeps the newest rows
        after every filter. No eligible row gives `[]` or 0 for lists and counts, else NULL.

    Raises:
        DefinitionError: a spec does not fit the tables; names every misfit and its mend.
        ExecutionError: a condition fails on a row, an integer sum leaves int64, or a list column is too long.

    Example:
        >>> hour = 3_600_000
        >>> spine = pa.table({
        ...     "user_id": [1] * 7,
        ...     "event_timestamp": [0, hour, hour, 2 * hour, 3 * hour, 24 * hour, 51 * hour // 2],
        ...     "event": ["like_click", "like_click", "view", "like_click", "view", "view", "view"],
        ...     "artwork_id": [7, 8, 7, 9, 9, 5, 5],
        ... })
        >>> spec = {
        ...     "name": "liked", "group_by": ["user_id"], "value_column": "artwork_id", "operation": "list",
        ...     "window_days": 1, "condition": "hist.event = 'like_click'", "max_items": 2,
        ...     "exclude_self": True,
        ... }
        >>> aggregate_pit_table(spine, [spec])["liked"].to_pylist()
        [[], [7], [], [7, 8], [7, 8], [8, 9], [9]]
    """
    return _aggregate(DEFAULT_ENGINE, spine, specs, history=history, duckdb_config=duckdb_config)


#: The engine of `aggregate_pit_table`; the fastest, as benchmarks/rolling.py measures.
DEFAULT_ENGINE = Engine.KERNEL


def aggregate_relations(
    spine: pa.Table,
    specs: Iterable[Spec],
    *,
    histories: Mapping[str | None, pa.Table],
    row_number: str | None = None,
    engine: Engine | str = DEFAULT_ENGINE,
    duckdb_config: Mapping[str, Any] | None = None,
) -> list[pa.Array]:
    """One array per spec, for a spine whose history is another, longer table.

    For pipelines, where the spine holds one day's rows (or a chunk of them) and its history the days before.

    Args:
        spine: the rows to compute values for: groups, time and, for `exclude_self`, values.
        specs: as in `aggregate_pit_table`.
        histories: the table of each `history_view`, and under None the history of specs that name none.
        row_number: an integer column of the histories that orders rows of one instant; a history without it
            is ordered by position.
        engine: which engine.
        duckdb_config: as in `aggregate_pit_table`.
    """
    with Aggregation(
        spine, specs, histories=histories, row_number=row_number, engine=engine, duckdb_config=duckdb_config
    ) as aggregation:
        return aggregation.columns()


class Aggregation:
    """An aggregation that gives its columns for any of its spine rows: searched once, gathered in pieces.

    Long lists of a whole day need not be in memory at once: what is kept is the sorted history and each row's
    place in it. Use as a context manager; the arguments are those of `aggregate_relations`.
    """

    def __init__(
        self,
        spine: pa.Table,
        specs: Iterable[Spec],
        *,
        histories: Mapping[str | None, pa.Table],
        row_number: str | None = None,
        engine: Engine | str = DEFAULT_ENGINE,
        duckdb_config: Mapping[str, Any] | None = None,
    ) -> None:
        checked = _checked(specs)
        schemas = {name: table.schema for name, table in histories.items()}
        check_specs(spine.schema, checked, schemas)
        for spec in checked:
            condition_fragment(spec, schemas[spec.history_view])
        self._session = Session(duckdb_config)
        self._threads = _threads(duckdb_config)
        try:
            workspace = Workspace(
                spine,
                histories,
                checked,
                finder=_finder(Engine(engine), self._session),
                session=self._session,
                row_number=row_number,
            )
            # What many specs share comes first: threads that need it would wait for the one that makes it.
            self._each(workspace.layout, _one_per_layout(checked, histories))
            families = _families(checked, histories)
            made = self._each(lambda family: _views(family, checked, workspace), families)
            views = {place: view for family in made for place, view in family.items()}
            self._views = [views[place] for place in range(len(checked))]
        except BaseException:
            self._session.close()
            raise

    def __enter__(self) -> Aggregation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the DuckDB session and let go of the tables."""
        self._session.close()
        self._views = []

    def columns(self, places: NDArray[np.int64] | None = None) -> list[pa.Array]:
        """One array per spec, for the spine rows at `places`; None is all of them."""
        return self._each(lambda view: compute_rows(view, places), self._views)

    def spilled(self, places: NDArray[np.int64]) -> list[pa.Array]:
        """As `columns`, with lengths for the lists that `windows.restored` makes of longer ones."""
        ends = ends_of_another([view.spec for view in self._views])
        return self._each(
            lambda at: (list_lengths if at in ends else compute_rows)(self._views[at], places),
            range(len(self._views)),
        )

    def _each(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """The work done on every item. Compiled loops and Arrow let go of the interpreter's lock."""
        if min(self._threads, len(items)) < 2:
            return [work(item) for item in items]
        with ThreadPoolExecutor(min(self._threads, len(items))) as pool:
            return list(pool.map(work, items))


def _one_per_layout(
    specs: Sequence[AggregationSpec], histories: Mapping[str | None, pa.Table]
) -> list[AggregationSpec]:
    """A spec for each history and way to order it, the longest history first."""
    found = {layout_key(spec): spec for spec in specs}
    return sorted(found.values(), key=lambda spec: -histories[spec.history_view].num_rows)


def _families(specs: Sequence[AggregationSpec], histories: Mapping[str | None, pa.Table]) -> list[list[int]]:
    """The places of specs that are equal but for their windows, the longest window first; long work first."""
    found: dict[int, list[int]] = {}
    for place, widest in enumerate(widest_of(specs)):
        family = found.setdefault(widest, [widest])
        if place != widest:
            family.append(place)

    def cost(family: list[int]) -> tuple[bool, int]:
        spec = specs[family[0]]
        return spec.operation is Operation.FLATTEN_DISTINCT, histories[spec.history_view].num_rows

    return sorted(found.values(), key=cost, reverse=True)


def _views(family: Sequence[int], specs: Sequence[AggregationSpec], workspace: Workspace) -> dict[int, View]:
    """The views of a family, which know the one that sees furthest back, ready to gather rows from."""
    views = {place: View(specs[place], workspace) for place in family}
    widest = views[family[0]]
    for view in views.values():
        view.share(widest)
    prepare_rows(widest)
    return views


def _threads(config: Mapping[str, Any] | None) -> int:
    """How many threads to use: as many as DuckDB is told to, else one per core."""
    asked = str((config or {}).get("threads", ""))
    return int(asked) if asked.isdigit() else os.cpu_count() or 1


def _aggregate(
    engine: Engine,
    spine: pa.Table,
    specs: Iterable[Spec],
    *,
    history: Mapping[str, pa.Table] | None = None,
    duckdb_config: Mapping[str, Any] | None = None,
) -> pa.Table:
    checked = _checked(specs)
    histories: dict[str | None, pa.Table] = {None: spine}
    histories.update(history or {})
    arrays = aggregate_relations(
        spine, checked, histories=histories, engine=engine, duckdb_config=duckdb_config
    )
    return _with_columns(spine, checked, arrays, histories)


def _checked(specs: Iterable[Spec]) -> list[AggregationSpec]:
    return [
        spec if isinstance(spec, AggregationSpec) else AggregationSpec.from_mapping(spec) for spec in specs
    ]


def _with_columns(
    spine: pa.Table,
    specs: Sequence[AggregationSpec],
    arrays: Sequence[pa.Array],
    histories: Mapping[str | None, pa.Table],
) -> pa.Table:
    added = [output_field(spec, histories[spec.history_view].schema) for spec in specs]
    schema = pa.schema([*spine.schema, *added], metadata=spine.schema.metadata)
    return pa.Table.from_arrays([*spine.columns, *arrays], schema=schema)


def _finder(engine: Engine, session: Session) -> Finder:
    match engine:
        case Engine.DUCKDB:
            return DuckDBFinder(session)
        case Engine.POLARS:
            return PolarsFinder()
        case Engine.KERNEL:
            return KernelFinder()
