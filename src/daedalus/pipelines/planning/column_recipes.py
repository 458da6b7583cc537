"""How each output column is made, as one digest per column: which columns a changed pipeline makes differently.

A recipe is the digest of a column's own operator and of the recipes of everything it reads; rows have one, too.
What does not change values is no part of it: engines and tiers, names of operators, how far back a scan reads.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from daedalus.catalog.model import Unset
from daedalus.metadata.provenance import digest
from daedalus.pipelines.days.rolling_tiers import history_columns, history_inputs
from daedalus.pipelines.operators import (
    QID_COLUMN,
    ROW,
    TICK,
    ArrowUdfTransform,
    Filter,
    Join,
    JoinKind,
    PointInTimeJoin,
    Project,
    RayUdfTransform,
    RollingAggregate,
    Scan,
    Sink,
)
from daedalus.pipelines.schema import checked_fragment, filter_fragments

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daedalus.pipelines.operators import AnyOperator, OperatorPipeline


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a column, or a relation's rows, come to be.

    Attributes:
        text: digest of everything on the way.
        scans: the scans that it reads.
    """

    text: str
    scans: frozenset[str] = frozenset()


@dataclass(slots=True)
class Relation:
    """The recipes of one relation: of which rows it has, and of its columns in order."""

    rows: Recipe
    columns: dict[str, Recipe] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeChange:
    """What a changed pipeline makes differently.

    Attributes:
        rows: whether there may be other rows, or rows in another order; then every column is made anew.
        columns: made differently, or new.
        gone: not made any more.
    """

    rows: bool
    columns: tuple[str, ...]
    gone: tuple[str, ...]


def output_recipes(pipeline: OperatorPipeline) -> Relation:
    """The recipes of the finished rows."""
    found: dict[str, Relation] = {}
    for operator in pipeline:
        inputs = [found[name] for name in operator.inputs]
        found[operator.output] = _made(operator, inputs, found)
    last = found[pipeline.operators[-1].output]
    named = {name: recipe for name, recipe in last.columns.items() if name not in (TICK, ROW)}
    return Relation(last.rows, named)


def recipe_change(before: OperatorPipeline, now: OperatorPipeline) -> RecipeChange:
    """What `now` makes differently from `before`."""
    old, new = output_recipes(before), output_recipes(now)
    rows = old.rows.text != new.rows.text
    made = [
        name
        for name, recipe in new.columns.items()
        if rows or name not in old.columns or old.columns[name].text != recipe.text
    ]
    return RecipeChange(
        rows=rows, columns=tuple(made), gone=tuple(name for name in old.columns if name not in new.columns)
    )


def columns_reading(pipeline: OperatorPipeline, scans: Iterable[str]) -> tuple[str, ...]:
    """The output columns that depend on any of these scans; all of them where the rows do."""
    wanted = set(scans)
    final = output_recipes(pipeline)
    everything = bool(final.rows.scans & wanted)
    return tuple(name for name, recipe in final.columns.items() if everything or recipe.scans & wanted)


def _recipe(parts: Any, reads: Iterable[Recipe]) -> Recipe:
    read = list(reads)
    text = json.dumps([parts, [one.text for one in read]], default=_plain, sort_keys=True)
    return Recipe(digest(text), frozenset().union(*(one.scans for one in read)))


def _plain(value: Any) -> Any:
    return value.to_mapping() if hasattr(value, "to_mapping") else str(value)


def _made(operator: AnyOperator, inputs: list[Relation], found: dict[str, Relation]) -> Relation:
    match operator:
        case Scan():
            return _scanned(operator)
        case Filter():
            return _filtered(operator, inputs[0])
        case Project():
            return _projected(operator, inputs[0])
        case Join():
            return _joined(operator, inputs, [operator.how, operator.ttl_seconds])
        case PointInTimeJoin() if not operator.specs:
            asof = [operator.created_column, operator.delay_seconds, operator.ttl_seconds]
            return _joined(operator, inputs, asof)
        case RollingAggregate() | PointInTimeJoin():
            return _aggregated(operator, inputs[0], found)
        case ArrowUdfTransform():
            arguments = [inputs[0].columns[name] for name in operator.arguments]
            made = {operator.column: _recipe(["udf", operator.function, operator.dtype], arguments)}
        case RayUdfTransform():
            how = [operator.udf_name, operator.store_name, operator.dtype, operator.dimension]
            made = {operator.column: _recipe(["ray", *how], [inputs[0].columns[operator.source_id_column]])}
        case Sink():
            return _numbered(operator, inputs[0])
    return Relation(inputs[0].rows, {**inputs[0].columns, **made})


def _scanned(scan: Scan) -> Relation:
    own = Recipe(digest(scan.source_ref), frozenset({scan.name}))
    how = [scan.predicate, scan.keys, scan.keep, scan.time_range if scan.keep else ""]
    names = [*scan.columns, TICK, *([ROW] if scan.ordered else [])]
    columns = {name: _recipe(["field", name], [own]) for name in names}
    return Relation(_recipe(["scan", *how], [own]), columns)


def _filtered(operator: Filter, source: Relation) -> Relation:
    predicate, counts = filter_fragments(operator, source.columns, operator.name)
    read = {name for one in (predicate, *counts.values()) if one is not None for name in one.columns}
    read |= set(operator.group_by)
    parts = ["filter", operator.predicate, operator.target_day, operator.group_by, operator.counts]
    columns = [source.columns[name] for name in sorted(read) if name in source.columns]
    return Relation(_recipe(parts, [source.rows, *columns]), dict(source.columns))


def _projected(operator: Project, source: Relation) -> Relation:
    made: dict[str, Recipe] = {}
    for column in operator.columns:
        read: list[Recipe] = []
        if column.sql:
            fragment = checked_fragment(column.sql, source.columns, operator.name)
            read = [source.columns[name] for name in fragment.columns]
        default = None if column.default is Unset.UNSET else [column.default]
        how = [column.sql, column.dtype, default, column.default_sql, column.nullable]
        made[column.name] = _recipe(["project", *how], read)
    if operator.extend:
        return Relation(source.rows, {**source.columns, **made})
    kept = {name: source.columns[name] for name in (TICK, ROW) if name in source.columns}
    return Relation(source.rows, {**made, **kept})


def _joined(operator: Join | PointInTimeJoin, inputs: list[Relation], how: list[Any]) -> Relation:
    left, right = inputs
    keys = [left.columns[name] for name, _ in operator.on] + [right.columns[name] for _, name in operator.on]
    shared = [right.rows, *keys]
    if isinstance(operator, PointInTimeJoin):
        times = [side.columns[TICK] for side in (left, right) if TICK in side.columns]
        shared += times
    made = {
        name: _recipe([operator.op_kind, *how], [*shared, right.columns[column]])
        for name, column in operator.columns
    }
    if isinstance(operator, Join) and operator.marker:
        made[operator.marker] = _recipe(["matched", *how], shared)
    dropping = isinstance(operator, Join) and operator.how is JoinKind.INNER
    rows = _recipe(["inner", *how], [left.rows, *shared]) if dropping else left.rows
    return Relation(rows, {**left.columns, **made})


def _aggregated(
    operator: RollingAggregate | PointInTimeJoin, rows: Relation, found: dict[str, Relation]
) -> Relation:
    made: dict[str, Recipe] = {}
    for spec in operator.specs:
        alone = dataclasses.replace(operator, specs=(spec,))
        read = [rows.columns[name] for name in (TICK, *spec.group_by) if name in rows.columns]
        for view, names in history_columns(alone).items():
            history = found[history_inputs(operator)[view]]
            read += [history.rows, *(history.columns[name] for name in names if name in history.columns)]
        made[spec.name] = _recipe(["aggregate", spec, getattr(operator, "delay_seconds", 0)], read)
    return Relation(rows.rows, {**rows.columns, **made})


def _numbered(operator: Sink, source: Relation) -> Relation:
    if QID_COLUMN not in source.columns:
        return source
    how = ["qid", operator.session_column, operator.sessions_from, operator.qid]
    numbered = _recipe(how, [source.columns[QID_COLUMN]])
    return Relation(source.rows, source.columns | {QID_COLUMN: numbered})
