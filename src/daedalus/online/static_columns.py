"""Columns of a view beside events and requests: what a service joins before it aggregates, from the newest rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from daedalus.errors import DefinitionError
from daedalus.online.arrays import one_array
from daedalus.online.keys import key_texts
from daedalus.online.model import ReadRequest, Status, table_of_view
from daedalus.pipelines.operators import Join, Keep, PointInTimeJoin, Scan

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.online.model import OnlineStore, OnlineTable, TableValues
    from daedalus.pipelines.operators import AnyOperator, OperatorPipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticJoin:
    """Columns of a view's newest row beside each event.

    Attributes:
        view: whose; its name and what is joined make two joins equal.
        table: the view's, without ttl.
        on: (column of the events, key of the view) pairs, in the order of the table's keys.
        columns: (name, column of the view) pairs.
    """

    view: str
    table: OnlineTable = field(compare=False)
    on: tuple[tuple[str, str], ...]
    columns: tuple[tuple[str, str], ...]

    @property
    def names(self) -> frozenset[str]:
        """The columns that it adds."""
        return frozenset(name for name, _ in self.columns)

    def keys(self, rows: pa.Table) -> list[pa.Array]:
        """The view's keys, as the rows have them."""
        return [one_array(rows.column(name)) for name, _ in self.on]

    def added(self, rows: pa.Table, found: TableValues, places: pa.Array) -> pa.Table:
        """The rows with the columns; `places` says which of the entities found belongs to each row."""
        own = dict(zip(found.table.keys, found.keys, strict=True))
        known = pa.array(found.status == Status.FOUND)
        for name, column in self.columns:
            if column in own:
                values = pc.if_else(known, own[column], pa.scalar(None, own[column].type))
            else:
                values = found.batch.column(column)
            rows = rows.append_column(name, values.take(places))
        return rows


def static_join(
    pipeline: OperatorPipeline, made: AnyOperator | None, catalog: FeatureCatalog, spec: str
) -> StaticJoin | None:
    """What an operator of the history joins; None when it does something else.

    Raises:
        DefinitionError: the newest rows in the store do not say what it joins; names the mend.
    """
    if isinstance(made, PointInTimeJoin) and made.columns and not made.specs:
        raise _refused(
            pipeline, spec, made, "by `asof`, and the store has the newest rows alone", "Join it by latest"
        )
    if not isinstance(made, Join) or made.how != "left" or made.marker:
        return None
    right = pipeline.producer(made.inputs[1])
    if not isinstance(right, Scan) or right.keep is not Keep.NEWEST or right.predicate:
        return None
    view = catalog.view(right.source_ref)
    if not view.online:
        raise _refused(
            pipeline, spec, made, f"from view {view.name}", f"Set online: true in view {view.name}"
        )
    if made.ttl_seconds is not None:
        why = f"from view {view.name}, whose ttl counts from each event, and rows past it leave the store"
        raise _refused(pipeline, spec, made, why, "Leave the view's ttl out")
    by_key = {key: name for name, key in made.on}
    table = replace(table_of_view(view), ttl_seconds=None)
    on = tuple((by_key[key], key) for key in table.keys)
    return StaticJoin(view=view.name, table=table, on=on, columns=made.columns)


def _refused(
    pipeline: OperatorPipeline, spec: str, made: AnyOperator, why: str, mend: str
) -> DefinitionError:
    return DefinitionError(
        f"rolling:{spec} cannot come from events: {made.name!r} joins what it reads {why}",
        where=f"service {pipeline.service}, online.rolling",
        hint=f"{mend}, or write rolling: materialized",
    )


def with_static_columns(
    store: OnlineStore, tables: Sequence[tuple[pa.Table, Sequence[StaticJoin]]], as_of: dt.datetime
) -> list[pa.Table]:
    """The tables with the columns of their joins, in one round trip; NULL where the view has no visible row."""
    wanted = [(at, join) for at, (_, joins) in enumerate(tables) for join in joins]
    found = [rows for rows, _ in tables]
    if not wanted:
        return found
    requests, places = [], []
    for at, join in wanted:
        keys = join.keys(found[at])
        # A user's events are of few items, and an item's row is the same for all of them.
        seen: dict[bytes | None, int] = {}
        texts = key_texts(keys)
        place = [seen.setdefault(text, len(seen)) for text in texts]
        firsts = np.zeros(len(seen), np.int64)
        firsts[place[::-1]] = np.arange(len(place))[::-1]
        requests.append(ReadRequest(table=join.table, keys=[key.take(pa.array(firsts)) for key in keys]))
        places.append(pa.array(place, pa.int64()))
    answers = store.read(requests, as_of=as_of).tables
    for (at, join), answer, own in zip(wanted, answers, places, strict=True):
        found[at] = join.added(found[at], answer, own)
    return found
