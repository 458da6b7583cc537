"""Which lookups as of a time are set beside the finished rows instead of joined to them, and the rest of the DAG.

Almost always a looked-up column is only passed on to the output. Then its value need not travel through SQL: the
other operators make their rows without it, and each chunk of finished rows is given its values by position.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daedalus.catalog.dtypes import to_duckdb
from daedalus.catalog.model import Unset
from daedalus.pipelines.days.held_columns import HeldColumns
from daedalus.pipelines.days.shape import main_chain, output_operator
from daedalus.pipelines.operator_sql import column_sql
from daedalus.pipelines.operators import (
    ROW,
    TICK,
    Engine,
    Filter,
    PointInTimeJoin,
    Project,
    ProjectColumn,
    Scan,
)
from daedalus.pipelines.run_sources import is_run_relation
from daedalus.pipelines.schema import relation_columns
from daedalus.sql.identifiers import quote_ident

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.operators import AnyOperator, OperatorPipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """One lookup that is set beside the rows.

    Attributes:
        operator: the join; its right input is `scan`.
        columns: the output columns that it fills: as the contract writes them, defaults included.
    """

    operator: PointInTimeJoin
    scan: Scan
    columns: tuple[ProjectColumn, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupPlan:
    """A pipeline without the lookups, and how they come back.

    Attributes:
        pipeline: the other operators.
        lookups: at least one.
        held: where the looked-up columns stand in the output.
        rows: the relation that has the keys and times of all rows that can be finished.
    """

    pipeline: OperatorPipeline
    lookups: tuple[Lookup, ...]
    held: HeldColumns
    rows: str

    @classmethod
    def of(cls, pipeline: OperatorPipeline, catalog: FeatureCatalog) -> LookupPlan | None:
        """The plan of a pipeline; None when it has no lookup that can be set beside its rows."""
        chain = main_chain(pipeline)
        first = _first_of_day(pipeline, chain)
        final = chain[-1]
        if first == 0 or not isinstance(final, Project) or final.extend:
            return None
        rows = chain[first - 1].output
        if not {ROW, TICK} <= set(relation_columns(pipeline)[rows]):
            return None
        late = chain[first:]
        found = [
            operator
            for operator in late
            if isinstance(operator, PointInTimeJoin) and _is_simple(pipeline, late, operator)
        ]
        while found:
            filled = {operator.name: _filled(pipeline, catalog, operator, final) for operator in found}
            held = _held(late[:-1], final, found, filled)
            good = [
                operator
                for operator in found
                if filled[operator.name] is not None
                and {name for name, _ in operator.columns} <= set(held.columns)
            ]
            if len(good) == len(found):
                return cls(
                    pipeline=_without(pipeline, found, held),
                    lookups=tuple(
                        Lookup(
                            operator=operator,
                            scan=_scan_of(pipeline, operator),
                            columns=filled[operator.name] or (),
                        )
                        for operator in found
                    ),
                    held=held,
                    rows=rows,
                )
            found = good
        return None

    def passed_on(self, types: dict[str, str], absent: frozenset[str]) -> dict[str, str] | None:
        """Output columns and the columns of `rows` that they are; None where anything else is done with the rows.

        Args:
            types: the columns of `rows`.
            absent: those of them that their source lacks.
        """
        final = output_operator(self.pipeline)
        readers = [operator for operator in self.pipeline if self.rows in operator.inputs]
        if readers != [final] or not isinstance(final, Project):
            return None
        names = {quote_ident(name): name for name in types}
        made = {column.name: column_sql(column, types, absent, final.name) for column in final.columns}
        if not names.keys() >= set(made.values()) or made.keys() & {ROW, TICK}:
            return None
        return {column: names[sql] for column, sql in made.items()}


def _first_of_day(pipeline: OperatorPipeline, chain: Sequence[AnyOperator]) -> int:
    """The place after which a row of the chain is a row of the day, read by nothing else."""
    readers = Counter(name for operator in pipeline for name in operator.inputs)
    first = 0
    for index, operator in enumerate(chain):
        shared = operator is not chain[-1] and readers[operator.output] > 1
        whole = isinstance(operator, Filter) and (operator.counts or operator.target_day)
        if shared or whole:
            first = index + 1
    return first


def _is_simple(pipeline: OperatorPipeline, late: Sequence[AnyOperator], operator: PointInTimeJoin) -> bool:
    """Whether it looks up versions of one view by keys that its rows have from the beginning."""
    right = pipeline.producer(operator.inputs[1])
    if operator.specs or operator.engine is not Engine.SQL or not isinstance(right, Scan):
        return False
    if right.keep is not None or not right.ordered or is_run_relation(right.source_ref):
        return False
    if sum(right.output in one.inputs for one in pipeline) > 1:
        return False
    before = late[: late.index(operator)]
    columns = relation_columns(pipeline)
    keys = {left for left, _ in operator.on}
    at_hand = set(columns[late[0].inputs[0]])
    return bool(keys) and keys <= at_hand and not any(_makes(one) & {*keys, TICK} for one in before)


def _makes(operator: AnyOperator) -> set[str]:
    if isinstance(operator, Project):
        return {column.name for column in operator.columns if column.sql != quote_ident(column.name)}
    names = {name for name, _ in getattr(operator, "columns", ()) if isinstance(name, str)}
    return names | {spec.name for spec in getattr(operator, "specs", ())}


def _scan_of(pipeline: OperatorPipeline, operator: PointInTimeJoin) -> Scan:
    scan = pipeline.producer(operator.inputs[1])
    if not isinstance(scan, Scan):  # _is_simple looked
        raise TypeError(f"{scan.op_kind} has no versions")
    return scan


def _filled(
    pipeline: OperatorPipeline, catalog: FeatureCatalog, operator: PointInTimeJoin, final: Project
) -> tuple[ProjectColumn, ...] | None:
    """The output columns that only pass the lookup's columns on, or fill them; None where one does more."""
    view = catalog.view(_scan_of(pipeline, operator).source_ref)
    dtypes = {quote_ident(name): to_duckdb(view.field(column).dtype) for name, column in operator.columns}
    filled = tuple(column for column in final.columns if column.sql in dtypes)
    sources = [column.sql for column in filled]
    for column in filled:
        has_default = column.default is not Unset.UNSET or bool(column.default_sql)
        same = not column.dtype or to_duckdb(column.dtype) == dtypes[column.sql]
        if not same or not (column.nullable or has_default) or sources.count(column.sql) > 1:
            return None
    return filled


def _held(
    late: Sequence[AnyOperator],
    final: Project,
    found: Sequence[PointInTimeJoin],
    filled: dict[str, tuple[ProjectColumn, ...] | None],
) -> HeldColumns:
    """The looked-up columns that nothing reads; what fills them is the lookup's business."""
    ours = {column.name for columns in filled.values() for column in columns or ()}
    passed = tuple(
        ProjectColumn(name=column.name, sql=column.sql) if column.name in ours else column
        for column in final.columns
    )
    others = [operator for operator in late if operator not in found]
    names = [name for operator in found for name, _ in operator.columns]
    return HeldColumns.of([*others, dataclasses.replace(final, columns=passed)], names)


def _without(
    pipeline: OperatorPipeline, found: Sequence[PointInTimeJoin], held: HeldColumns
) -> OperatorPipeline:
    """The pipeline without the lookups and their scans."""
    instead = {operator.output: operator.inputs[0] for operator in found}
    gone = {name for operator in found for name in (operator.output, operator.inputs[1])}
    trimmed = held.operators[-1]
    operators = []
    for operator in pipeline:
        if operator.output in gone:
            continue
        one = trimmed if operator.output == trimmed.output else operator
        inputs = []
        for name in one.inputs:
            source = name
            while source in instead:
                source = instead[source]
            inputs.append(source)
        operators.append(dataclasses.replace(one, inputs=tuple(inputs)))
    return dataclasses.replace(pipeline, operators=tuple(operators))
