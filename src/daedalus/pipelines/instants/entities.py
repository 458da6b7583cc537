"""The entities of a service at an instant, each with its newest visible spine row, as a table in a DuckDB file."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from daedalus.errors import DefinitionError, ExecutionError, did_you_mean
from daedalus.pipelines.days.relations import DayRelations
from daedalus.pipelines.days.stream import DayStream
from daedalus.pipelines.days.visibility import visible_sql
from daedalus.pipelines.duckdb_session import duckdb_session
from daedalus.pipelines.operators import ROW
from daedalus.sql.identifiers import quote_ident, quote_literal
from daedalus.storage.view_source import UNIT_US

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from daedalus.catalog.model import FeatureViewDef
    from daedalus.pipelines.days.context import DayContext
    from daedalus.pipelines.days.relation_graph import RelationGraph
    from daedalus.pipelines.days.visibility import AsOf
    from daedalus.pipelines.instants.as_of import AsOfPipeline


def write_entities(
    plan: AsOfPipeline,
    context: DayContext,
    as_of: AsOf,
    *,
    instant: str,
    file: Path,
    asked: pa.Table | None = None,
) -> AsOf:
    """The instant with its rows: the file's table `entities`, ordered by key, with `__row`.

    Args:
        plan: how candidates are made.
        context: the day of the instant.
        as_of: the instant.
        instant: the same, for messages.
        file: a DuckDB file, made here: it keeps every type as it is.
        asked: the keys to make rows for, in the columns of the entity keys; one that was never seen has NULLs for
            the spine's own columns. None makes one for every key that the spine has.

    Raises:
        DefinitionError: `asked` lacks a key.
        ExecutionError: reading failed, or nothing was seen yet: the time is most likely a mistake.
    """
    import duckdb

    view = context.catalog.view(plan.view)
    of_candidates = replace(context, pipeline=plan.candidates, as_of=as_of)
    with duckdb_session(context.config.duckdb_settings()) as connection:
        relations = DayRelations(of_candidates, connection)
        stream = DayStream(of_candidates, relations)
        for operator in plan.candidates:
            stream.add(operator)
        graph = relations.graph
        types = graph.types(plan.relation)
        keys = [quote_ident(key) for key in plan.keys]
        newest = _newest_sql(plan, of_candidates, as_of, graph)
        if asked is not None:
            connection.register("__asked", _checked(asked, plan.keys))
            newest = (
                f"SELECT * FROM (SELECT DISTINCT {', '.join(keys)} FROM __asked) "
                f"LEFT JOIN ({newest}) USING ({', '.join(keys)})"
            )
        items = [
            f"{_instant_sql(view, types[name], as_of, context.ticks_per_second)} AS {quote_ident(name)}"
            if name == view.timestamp_field
            else f"CAST({quote_ident(name)} AS {types[name]}) AS {quote_ident(name)}"
            for name in plan.columns
        ]
        order = f"row_number() OVER (ORDER BY {', '.join(keys)}) - 1 AS {ROW}"
        graph.execute(f"ATTACH {quote_literal(str(file))} AS __entities", plan.relation)
        graph.execute(
            f"CREATE TABLE __entities.main.entities AS SELECT {', '.join(items)}, {order} FROM ({newest})",
            plan.relation,
        )
        found = graph.execute("FROM __entities.main.entities LIMIT 1", plan.relation).fetchall()
        # A source may have begun a transaction at its snapshot, and a file with work in one cannot be let go.
        with contextlib.suppress(duckdb.TransactionException):
            connection.commit()
        graph.execute("DETACH __entities", plan.relation)
    if not found:
        raise ExecutionError(
            f"no entity ({', '.join(plan.keys)}) was seen up to {instant}",
            where=f"view {plan.view}",
            hint="Choose a later time",
        )
    return replace(as_of, rows=file, absent=relations.absent[plan.relation])


def _newest_sql(plan: AsOfPipeline, context: DayContext, as_of: AsOf, graph: RelationGraph) -> str:
    """A SELECT of each entity's newest visible candidate."""
    view = context.catalog.view(plan.view)
    created = graph.types(plan.relation).get(view.source.created_field, "")
    visible = visible_sql(view, created, as_of, context.ticks_per_second, with_ttl=True)
    keys = [quote_ident(key) for key in plan.keys]
    conditions = [visible, *(f"{key} IS NOT NULL" for key in keys)]
    return (
        f"SELECT * FROM ({graph.sql(plan.relation)}) WHERE {' AND '.join(conditions)} "
        f"QUALIFY row_number() OVER (PARTITION BY {', '.join(keys)} ORDER BY {ROW} DESC) = 1"
    )


def _checked(asked: pa.Table, keys: tuple[str, ...]) -> pa.Table:
    for key in keys:
        if key not in asked.column_names:
            raise DefinitionError(
                f"the entities lack the key {key!r}",
                where="entities",
                hint=did_you_mean(key, asked.column_names),
            )
        if asked.column(key).null_count:
            raise DefinitionError(
                f"the key {key!r} is NULL in {asked.column(key).null_count} of the entities", where="entities"
            )
    return asked.select(list(keys))


def _instant_sql(view: FeatureViewDef, dtype: str, as_of: AsOf, per_second: int) -> str:
    """The instant as a value of the spine's time column."""
    if not dtype.startswith(("TIMESTAMP", "DATE")):
        ticks = as_of.ticks * 1_000_000 // per_second
        unit = UNIT_US[view.source.timestamp_unit]
        value = as_of.ticks if unit < 1 else ticks // round(unit)
        return f"CAST({value} AS {dtype})"
    if dtype == "TIMESTAMP_NS" and per_second == 1_000_000_000:
        return f"make_timestamp_ns({as_of.ticks})"
    return f"CAST(make_timestamp({as_of.ticks * 1_000_000 // per_second}) AS {dtype})"
