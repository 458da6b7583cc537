"""How many rows of a day came in, which filter dropped how many, and which join keys were NULL.

Joins and aggregations keep their rows, so a filter's count is that of any relation between it and the next
filter: one that is kept as a table costs nothing to count. Where there is none, the rows that did not arrive are
sent through the filters again; where even these would have to be made anew, filters share a count.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from daedalus.pipelines.days.context import DAY_US, day_start_us
from daedalus.pipelines.operators import TICK, Filter, Join, PointInTimeJoin, Project, Scan
from daedalus.pipelines.run_sources import is_run_relation
from daedalus.sql.identifiers import quote_ident
from daedalus.storage.sources.base import TickRange
from daedalus.storage.view_reader import ViewReader

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from daedalus.pipelines.days.context import DayContext
    from daedalus.pipelines.days.relations import DayRelations
    from daedalus.pipelines.operators import AnyOperator

#: Keys of `DayManifest.counters`.
ROWS_IN = "rows in"
DROPPED = "dropped "
KEYED = "rows joined"
NULL_KEY = "null key "


@dataclass(slots=True)
class DayCounts:
    """The counters of one day.

    Attributes:
        rows_in: the spine's rows of the day.
        after: (filters, rows that passed them), in the order of the chain; rows None are not known.
        keys: rows that reached the joins, and NULLs per key column.
        nulls_beside: NULLs per key column of the lookups that are set beside the rows.
    """

    rows_in: int = 0
    after: list[tuple[str, int | None]] = field(default_factory=list)
    keys: dict[str, int] = field(default_factory=dict)
    nulls_beside: Mapping[str, int] = field(default_factory=dict)
    _key_names: tuple[str, ...] = ()
    _in_tail: dict[str, int] = field(default_factory=dict)

    def count_before(
        self, context: DayContext, relations: DayRelations, chain: Sequence[AnyOperator], cheap: Iterable[str]
    ) -> None:
        """Count what happened up to the end of `chain`, the operators before the stream of chunks.

        Args:
            context: the day.
            relations: all relations of `chain`, defined.
            chain: the main chain's operators, from the spine's scan on.
            cheap: relations that are read from files.
        """
        self.rows_in = _spine_rows(context, relations, chain)
        at_hand = set(cheap)
        for index, operator in enumerate(chain):
            if _drops(operator):
                self.after.append((operator.name, _rows_after(relations, chain, index, at_hand)))
        self._count_keys(context, relations, chain)

    def last_together(self) -> tuple[str, ...]:
        """The last filters, where they have no counts of their own and are several."""
        known = [index for index, (_, rows) in enumerate(self.after, 1) if rows is not None]
        names = tuple(name for name, _ in self.after[max(known, default=0) :])
        return names if len(names) > 1 else ()

    def forget(self, names: Collection[str]) -> None:
        """Leave filters out, for each is to be counted by itself."""
        self.after = [one for one in self.after if one[0] not in names]

    def drop(self, operator: str, rows: int) -> None:
        """A filter of the stream dropped these rows of a chunk."""
        self._in_tail[operator] = self._in_tail.get(operator, 0) + rows

    def counters(self, rows_out: int, nulls: Mapping[str, int] | None = None) -> dict[str, int]:
        """The counters of the finished day.

        Args:
            rows_out: rows that were written.
            nulls: how many of them are NULL, per column: for keys that could not be counted where they were joined.
        """
        found = {ROWS_IN: self.rows_in}
        rows, names = self.rows_in, []
        end = rows_out + sum(self._in_tail.values())
        after = self.after
        if after:  # joins keep their rows: what passed the last filter is what the stream began with
            after = [*after[:-1], (after[-1][0], end)]
        for name, passed in after:
            names.append(name)
            if passed is not None:
                found[DROPPED + ", ".join(names)] = rows - passed
                rows, names = passed, []
        found |= {DROPPED + name: dropped for name, dropped in self._in_tail.items()}
        if not self.keys:
            known = {NULL_KEY + name: nulls[name] for name in self._key_names if nulls and name in nulls}
            self.keys = {KEYED: rows_out} | known if known else {}
        return found | self.keys | {NULL_KEY + name: count for name, count in self.nulls_beside.items()}

    def _count_keys(self, context: DayContext, relations: DayRelations, chain: Sequence[AnyOperator]) -> None:
        """NULLs in the key columns of the joins, where a relation with all of them is kept as a table."""
        joins = [one for one in context.pipeline if isinstance(one, Join | PointInTimeJoin)]
        outputs = {operator.output for operator in chain}
        keys = [left for one in joins if one.inputs[0] in outputs for left, _ in one.on]
        self._key_names = tuple(dict.fromkeys(keys))
        graph = relations.graph
        kept = [one.output for one in chain if graph.knows(one.output) and graph.is_kept(one.output)]
        if not kept:
            return
        last = kept[-1]
        types = relations.graph.types(last)
        names = [name for name in self._key_names if name in types]
        counts = ", ".join(["count(*)", *(f"count({quote_ident(name)})" for name in names)])
        row = relations.graph.execute(f"SELECT {counts} FROM {quote_ident(last)}", last).fetchall()[0]
        self.keys = {KEYED: row[0]} | {
            NULL_KEY + name: row[0] - known for name, known in zip(names, row[1:], strict=True)
        }


def _drops(operator: AnyOperator) -> bool:
    return isinstance(operator, Filter) and not operator.target_day


def _spine_rows(context: DayContext, relations: DayRelations, chain: Sequence[AnyOperator]) -> int:
    spine = chain[0]
    if (
        not isinstance(spine, Scan)
        or spine.predicate
        or spine.keep is not None
        or is_run_relation(spine.source_ref)
    ):
        return _count(relations, spine.output)
    known = _kept_count(relations, chain, 0, set())
    if known is not None:
        return known
    source = context.sources.source(spine.source_ref)
    view = context.catalog.view(spine.source_ref)
    start = day_start_us(context.day)
    reader = ViewReader(view, source, relations.graph.connection, context.ticks_per_second)
    sql = reader.select_sql((), TickRange(low_us=start, high_us=start + DAY_US))
    return int(relations.graph.execute(f"SELECT count(*) FROM ({sql})", spine.name).fetchall()[0][0])


def _kept_count(
    relations: DayRelations, chain: Sequence[AnyOperator], index: int, at_hand: set[str]
) -> int | None:
    """The day's rows of the operator at `index`, from a relation at hand that has the same ones."""
    for place, operator in enumerate(chain[index:]):
        if place and _drops(operator):
            break
        name = operator.output
        if relations.graph.knows(name) and (relations.graph.is_kept(name) or name in at_hand):
            return _count(relations, name)
    return None


def _rows_after(
    relations: DayRelations, chain: Sequence[AnyOperator], index: int, at_hand: set[str]
) -> int | None:
    """Rows of the day that passed the filter at `index`; None when counting them would repeat the joins."""
    known = _kept_count(relations, chain, index, at_hand)
    if known is None and all(map(_is_light, chain[: index + 1])):
        return _count(relations, chain[index].output)
    return known


def _is_light(operator: AnyOperator) -> bool:
    """Whether its rows cost little more than reading its source."""
    if isinstance(operator, Join):
        return bool(operator.marker) and not operator.columns  # says which rows an id relation covers
    return isinstance(operator, Scan | Project) or (isinstance(operator, Filter) and not operator.counts)


def _count(relations: DayRelations, name: str) -> int:
    """The relation's rows of the target day."""
    graph, tick = relations.graph, relations.context.tick
    held = graph.held(name)
    if held is not None and TICK in held.column_names:  # a filter is slow to reach Arrow
        ticks = pc.fill_null(held[TICK], tick.day_end)
        return int(np.count_nonzero((ticks.to_numpy() >= tick.day_start) & (ticks.to_numpy() < tick.day_end)))
    inside = (
        f" WHERE {TICK} >= {tick.day_start} AND {TICK} < {tick.day_end}" if TICK in graph.types(name) else ""
    )
    sql = f"SELECT count(*) FROM ({graph.sql(name)}){inside}"
    return int(graph.execute(sql, name).fetchall()[0][0])
