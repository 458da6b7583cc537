"""The column names of every relation of a pipeline, from the descriptions alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daedalus.catalog.dtypes import canonical_dtype
from daedalus.errors import CompileError, DefinitionError, did_you_mean
from daedalus.pipelines.operators import (
    ROW,
    TICK,
    ArrowUdfTransform,
    Filter,
    Join,
    PointInTimeJoin,
    Project,
    RayUdfTransform,
    RollingAggregate,
    Scan,
    Sink,
)
from daedalus.sql.fragments import parse_fragment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from daedalus.pipelines.operators import AnyOperator, OperatorPipeline
    from daedalus.sql.fragments import Fragment

Names = tuple[str, ...]


def relation_columns(pipeline: OperatorPipeline) -> dict[str, Names]:
    """Relation to its column names, in order, positions included.

    Raises:
        CompileError: an operator names a column that its input lacks; with near matches.
    """
    where = pipeline.file or f"pipeline {pipeline.service}"
    found: dict[str, Names] = {}
    for operator in pipeline:
        place = f"{where}, operator {operator.name}"
        found[operator.output] = _columns(operator, [found[name] for name in operator.inputs], place)
    return found


def _columns(operator: AnyOperator, inputs: list[Names], place: str) -> Names:
    match operator:
        case Scan():
            return _scanned(operator, inputs, place)
        case Filter():
            filter_fragments(operator, inputs[0], place)
            return inputs[0]
        case Project():
            return _projected(operator, inputs[0], place)
        case Join():
            _require((left for left, _ in operator.on), inputs[0], place)
            _require((right for _, right in (*operator.on, *operator.columns)), inputs[1], place)
            added = [name for name, _ in operator.columns] + ([operator.marker] if operator.marker else [])
            return _with(inputs[0], added, place)
        case PointInTimeJoin():
            _require((left for left, _ in operator.on), inputs[0], place)
            known = (operator.created_column,) if operator.created_column else ()
            rights = (right for _, right in (*operator.on, *operator.columns))
            _require((*rights, *known), inputs[1], place)
            _require_positions(inputs[1] if operator.columns else inputs[0], place)
            _check_specs(operator, inputs, place)
            added = [name for name, _ in operator.columns] + [spec.name for spec in operator.specs]
            return _with(inputs[0], added, place)
        case RollingAggregate():
            _check_specs(operator, inputs, place)
            return _with(inputs[0], [spec.name for spec in operator.specs], place)
        case ArrowUdfTransform():
            _require(operator.arguments, inputs[0], place)
            _require_dtype(operator.dtype, place)
            return _with(inputs[0], [operator.column], place, replaces=True)
        case RayUdfTransform():
            _require([operator.source_id_column], inputs[0], place)
            return _with(inputs[0], [operator.column], place, replaces=True)
        case Sink():
            return inputs[0]


def _scanned(scan: Scan, inputs: list[Names], place: str) -> Names:
    _require((column for _, column in scan.restrict), inputs[0] if inputs else (), place)
    twice = next((name for name in scan.columns if scan.columns.count(name) > 1), None)
    if twice is not None:
        raise CompileError(f"column {twice!r} is read twice", where=place, hint="Remove one")
    if scan.keep is not None and not scan.keys:
        raise CompileError("keep without keys", where=place, hint="Name the fields that rows are kept per")
    return (*scan.columns, TICK, *((ROW,) if scan.ordered else ()))


def _require_positions(names: Names, place: str, what: str = "input") -> None:
    """Rows that are told apart by their time and their place in the total order."""
    if not {TICK, ROW}.issubset(names):
        raise CompileError(
            f"its {what} has no total order", where=place, hint="Set ordered: true in the scan it begins with"
        )


def _check_specs(operator: RollingAggregate | PointInTimeJoin, inputs: list[Names], place: str) -> None:
    """What specs read is there: keys in the rows, the rest in the history that each of them names."""
    own, others = inputs[1], inputs[2:]
    if operator.specs:
        _require_positions(inputs[0], place)
    histories: dict[str | None, Names] = {None: own}
    if isinstance(operator, RollingAggregate):
        histories |= {view: names for (view, _), names in zip(operator.histories, others, strict=True)}
    for spec in operator.specs:
        at = f"{place}, spec {spec.name}"
        if isinstance(operator, RollingAggregate) and spec.history_view not in histories:
            known = [view for view, _ in operator.histories]
            raise CompileError(
                f"no input is named in histories for history_view {spec.history_view!r}",
                where=at,
                hint=did_you_mean(str(spec.history_view), known)
                if known
                else "Name one, or leave the key out",
            )
        history = histories.get(spec.history_view, own)
        value = (spec.value_column,) if spec.value_column else ()
        _require((*spec.group_by, *(value if spec.exclude_self else ())), inputs[0], at)
        _require_positions(history, at, what="history")
        _require((*spec.history_keys, *value), history, at, what="history")
        if spec.condition is not None:
            _checked(spec.condition, history, f"{at}, condition", qualifier="hist")


def _require_dtype(dtype: str, place: str) -> None:
    try:
        canonical_dtype(dtype)
    except DefinitionError as error:
        raise CompileError(error.what, where=place, hint=error.hint) from None


def _projected(operator: Project, names: Names, place: str) -> Names:
    for column in operator.columns:
        at = f"{place}, column {column.name}"
        if column.sql:
            checked_fragment(column.sql, names, at)
        if column.default_sql:
            checked_fragment(column.default_sql, (), f"{at}, default_sql")
        if column.dtype:
            _require_dtype(column.dtype, at)
    made = [column.name for column in operator.columns]
    if len(set(made)) != len(made):
        raise CompileError("a column is made twice", where=place, hint="Rename or remove one")
    if operator.extend:
        return (*names, *(name for name in made if name not in names))
    return (*made, *(position for position in (TICK, ROW) if position in names))


def filter_fragments(
    operator: Filter, names: Iterable[str], place: str
) -> tuple[Fragment | None, dict[str, Fragment]]:
    """The parsed predicate (None when empty) and the parsed counts of a filter."""
    available = tuple(names)
    _require(operator.group_by, available, place)
    counts = {
        name: checked_fragment(sql, available, f"{place}, counts.{name}") for name, sql in operator.counts
    }
    if not operator.predicate:
        return None, counts
    predicate = checked_fragment(operator.predicate, (*available, *counts), f"{place}, predicate")
    return predicate, counts


def checked_fragment(sql: str, names: Iterable[str], place: str) -> Fragment:
    """The parsed expression; what is wrong with it is a CompileError that names the operator."""
    return _checked(sql, names, place)


def _checked(sql: str, names: Iterable[str], place: str, qualifier: str | None = None) -> Fragment:
    try:
        return parse_fragment(sql, columns=names, where=place, qualifier=qualifier)
    except DefinitionError as error:
        raise CompileError(error.what, where=error.where, hint=error.hint) from None


def _require(wanted: Iterable[str], names: Names, place: str, what: str = "input") -> None:
    for name in wanted:
        if name not in names:
            raise CompileError(
                f"its {what} has no column {name!r}", where=place, hint=did_you_mean(name, names)
            )


def _with(names: Names, added: Iterable[str], place: str, *, replaces: bool = False) -> Names:
    new = list(added)
    for index, name in enumerate(new):
        if name in new[:index]:
            raise CompileError(f"column {name!r} is made twice", where=place, hint="Rename or remove one")
        if name in names and not replaces:
            raise CompileError(
                f"its input has a column {name!r} already", where=place, hint="Rename the new column"
            )
    return (*names, *(name for name in new if name not in names))


def output_names(columns: Mapping[str, Names], relation: str) -> Names:
    """The columns of a relation without positions."""
    return tuple(name for name in columns[relation] if name not in (TICK, ROW))
