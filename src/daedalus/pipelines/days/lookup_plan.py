"""Which lookups are set beside the rows of a day instead of joined to them, and the rest of the DAG.

Almost always a looked-up column is only passed on to the output. Then its value need not travel through SQL: the
other operators make their rows without it, and each chunk of finished rows is given its values by position. What
other operators do read is found before them, and is a column of the rows that they begin with.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

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
    Join,
    Keep,
    PointInTimeJoin,
    Project,
    ProjectColumn,
    Scan,
)
from daedalus.pipelines.run_relations import QID_RELATION, is_run_relation
from daedalus.pipelines.schema import relation_columns
from daedalus.sql.identifiers import quote_ident

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.operators import AnyOperator, OperatorPipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """One lookup that is set beside the rows: as of each row's time, or of the newest row of a key.

    Attributes:
        operator: the join; its right input is `scan`.
        columns: the output columns that it fills: as the contract writes them, defaults included.
        read: its columns that other operators read, by the names that the join gives them.
    """

    operator: PointInTimeJoin | Join
    scan: Scan
    columns: tuple[ProjectColumn, ...]
    read: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The rows' columns that it looks up by."""
        return tuple(left for left, _ in self.operator.on)

    @property
    def given(self) -> tuple[tuple[str, str], ...]:
        """(name that the join gives it, right column) of all that is wanted of it."""
        wanted = {*(column.sql for column in self.columns), *map(quote_ident, self.read)}
        return tuple(pair for pair in self.operator.columns if quote_ident(pair[0]) in wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupPlan:
    """A pipeline without the lookups, and how they come back.

    Attributes:
        pipeline: the other operators.
        lookups: at least one.
        held: where the looked-up columns stand in the output.
        rows: the relation that has the keys and times of all rows that can be finished.
        begin: the relation that the other operators begin with: `rows`, or these and what is read of the lookups.
    """

    pipeline: OperatorPipeline
    lookups: tuple[Lookup, ...]
    held: HeldColumns
    rows: str
    begin: str

    @classmethod
    def of(
        cls, pipeline: OperatorPipeline, catalog: FeatureCatalog, *, held: bool = True
    ) -> LookupPlan | None:
        """The plan of a pipeline; None when it has no lookup that can be set beside its rows.

        Args:
            pipeline: of a day.
            catalog: its views.
            held: whether the rows are held in Arrow. Where they are not, only lookups as of a time are set beside
                them, of which no other operator reads a column: joins of newest rows are cheaper than their keys.
        """
        chain = main_chain(pipeline)
        first = _first_of_day(pipeline, chain)
        final = chain[-1]
        if first == 0 or not isinstance(final, Project) or final.extend:
            return None
        rows = chain[first - 1].output
        if not {ROW, TICK} <= set(relation_columns(pipeline)[rows]):
            return None
        late = chain[first:]
        if any(isinstance(operator, Project) and not operator.extend for operator in late[:-1]):
            return None
        found = [
            operator
            for operator in late
            if (held or isinstance(operator, PointInTimeJoin))
            and _is_simple(operator, pipeline, chain, first)
        ]
        while found:
            filled = {operator.name: _filled(pipeline, catalog, operator, final) for operator in found}
            aside = _held(late[:-1], final, found, filled)
            good = [operator for operator in found if held or not _read(operator, aside)]
            if len(good) == len(found):
                return cls._of(pipeline, chain[first - 1 :], found, filled)
            found = good
        return None

    @classmethod
    def _of(
        cls,
        pipeline: OperatorPipeline,
        late: Sequence[AnyOperator],
        found: Sequence[PointInTimeJoin | Join],
        filled: Mapping[str, tuple[ProjectColumn, ...]],
    ) -> LookupPlan:
        """The plan that sets these lookups beside the rows, which the first operator of `late` makes."""
        final = late[-1]
        if not isinstance(final, Project):  # `of` looked
            raise TypeError(f"{final.op_kind} is no contract")
        held = _held(late[1:-1], final, found, filled)
        names = set(map(quote_ident, held.columns))
        filled = {
            name: tuple(column for column in columns if column.sql in names)
            for name, columns in filled.items()
        }
        held = _held(late[1:-1], final, found, filled)  # what is read is filled where it always was
        lookups = tuple(
            Lookup(
                operator=operator,
                scan=_scan_of(pipeline, operator),
                columns=filled[operator.name],
                read=_read(operator, held),
            )
            for operator in found
        )
        read = [name for lookup in lookups for name in lookup.read]
        rows = late[0].output
        begin = Project(
            name=f"{rows}__looked_up",
            inputs=(rows,),
            columns=tuple(ProjectColumn(name=name, sql="") for name in read),
            extend=True,
        )
        return cls(
            pipeline=_without(pipeline, late, found, held, begin if read else None),
            lookups=lookups,
            held=held,
            rows=rows,
            begin=begin.output if read else rows,
        )

    @property
    def reads(self) -> bool:
        """Whether operators read what lookups find."""
        return self.begin != self.rows

    @property
    def needs_held(self) -> bool:
        """Whether it is only for rows that are held in Arrow."""
        return self.reads or any(isinstance(lookup.operator, Join) for lookup in self.lookups)

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


def _is_simple(
    operator: AnyOperator, pipeline: OperatorPipeline, chain: Sequence[AnyOperator], first: int
) -> TypeGuard[PointInTimeJoin | Join]:
    """Whether it looks up rows of one view by keys that the rows at `first` have from the beginning."""
    if not isinstance(operator, PointInTimeJoin | Join):
        return False
    right = pipeline.producer(operator.inputs[1])
    if operator.engine is not Engine.SQL or not isinstance(right, Scan):
        return False
    if isinstance(operator, Join):
        before_rows = {one.output for one in chain[:first]}
        if not (_is_of_map(operator, right) or _is_of_newest(operator, right, before_rows)):
            return False
    elif not _is_as_of_a_time(pipeline, operator, right):
        return False
    late = chain[first:]
    before = late[: late.index(operator)]
    keys = {left for left, _ in operator.on}
    at_hand = set(relation_columns(pipeline)[late[0].inputs[0]])
    return bool(keys) and keys <= at_hand and not any(_makes(one) & {*keys, TICK} for one in before)


def _is_as_of_a_time(pipeline: OperatorPipeline, operator: PointInTimeJoin, right: Scan) -> bool:
    if operator.specs or right.keep is not None or not right.ordered or is_run_relation(right.source_ref):
        return False
    return sum(right.output in one.inputs for one in pipeline) == 1


def _is_of_newest(operator: Join, right: Scan, before_rows: Collection[str]) -> bool:
    """Whether it joins the newest row of each key: of all keys, or at least of those that the rows have."""
    if operator.how != "left" or operator.marker or is_run_relation(right.source_ref):
        return False
    pairs = {(column, left) for left, column in operator.on}
    whole = not right.restrict or (right.inputs[0] in before_rows and pairs >= set(right.restrict))
    once = len(pairs) == len(operator.on) == len(right.keys)
    return right.keep is Keep.NEWEST and once and {column for column, _ in pairs} == set(right.keys) and whole


def _is_of_map(operator: Join, right: Scan) -> bool:
    """Whether it joins the numbers of the run's sessions."""
    plain = operator.how == "left" and not operator.marker and operator.ttl_seconds is None
    return plain and right.source_ref == QID_RELATION and len(operator.on) == 1


def _makes(operator: AnyOperator) -> set[str]:
    if isinstance(operator, Project):
        return {column.name for column in operator.columns if column.sql != quote_ident(column.name)}
    names = {name for name, _ in getattr(operator, "columns", ()) if isinstance(name, str)}
    return names | {spec.name for spec in getattr(operator, "specs", ())}


def _scan_of(pipeline: OperatorPipeline, operator: PointInTimeJoin | Join) -> Scan:
    scan = pipeline.producer(operator.inputs[1])
    if not isinstance(scan, Scan):  # _is_simple looked
        raise TypeError(f"{scan.op_kind} has no versions")
    return scan


def _filled(
    pipeline: OperatorPipeline, catalog: FeatureCatalog, operator: PointInTimeJoin | Join, final: Project
) -> tuple[ProjectColumn, ...]:
    """The output columns that only pass one of the lookup's columns on, or fill it."""
    scan = _scan_of(pipeline, operator)
    dtypes, is_map = _dtypes(catalog, operator, scan), is_run_relation(scan.source_ref)
    sources = Counter(column.sql for column in final.columns)
    found = []
    for column in final.columns:
        if column.sql not in dtypes or sources[column.sql] > 1:
            continue
        has_default = column.default is not Unset.UNSET or bool(column.default_sql)
        same = not column.dtype or to_duckdb(column.dtype) == dtypes[column.sql]
        if same and (not has_default if is_map else column.nullable or has_default):
            found.append(column)
    return tuple(found)


def _dtypes(catalog: FeatureCatalog, operator: PointInTimeJoin | Join, scan: Scan) -> dict[str, str]:
    """The types of the lookup's columns, by their names in SQL."""
    if is_run_relation(scan.source_ref):
        return {quote_ident(name): "BIGINT" for name, column in operator.columns if column == scan.columns[1]}
    view = catalog.view(scan.source_ref)
    return {quote_ident(name): to_duckdb(view.field(column).dtype) for name, column in operator.columns}


def _held(
    late: Sequence[AnyOperator],
    final: Project,
    found: Sequence[PointInTimeJoin | Join],
    filled: Mapping[str, tuple[ProjectColumn, ...]],
) -> HeldColumns:
    """The looked-up columns that nothing reads; what fills them is the lookup's business."""
    ours = {column.name for columns in filled.values() for column in columns}
    passed = tuple(
        ProjectColumn(name=column.name, sql=column.sql) if column.name in ours else column
        for column in final.columns
    )
    others = [operator for operator in late if operator not in found]
    made = {column.sql for column in final.columns if column.name not in ours}
    names = [name for operator in found for name, _ in operator.columns if quote_ident(name) not in made]
    return HeldColumns.of([*others, dataclasses.replace(final, columns=passed)], names)


def _read(operator: PointInTimeJoin | Join, held: HeldColumns) -> tuple[str, ...]:
    """The columns of a lookup that other operators read."""
    return tuple(name for name, _ in operator.columns if name not in held.columns)


def _without(
    pipeline: OperatorPipeline,
    late: Sequence[AnyOperator],
    found: Sequence[PointInTimeJoin | Join],
    held: HeldColumns,
    begin: Project | None,
) -> OperatorPipeline:
    """The pipeline without the lookups, and without their scans where nothing else reads them.

    Args:
        pipeline: with them.
        late: its main chain from the operator on that makes the rows.
        found: the lookups.
        held: the last of its operators is the output.
        begin: what the rest of the chain begins with in place of the rows; None for the rows.
    """
    rows = late[0].output
    instead = {operator.output: operator.inputs[0] for operator in found}
    scans = {operator.inputs[1] for operator in found}
    still_read = {name for operator in pipeline if operator not in found for name in operator.inputs}
    gone = {*instead, *(scans - still_read)}
    trimmed = held.operators[-1]
    operators: list[AnyOperator] = []
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
        if begin is not None and operator in late and inputs[:1] == [rows]:
            inputs[0] = begin.output
        operators.append(dataclasses.replace(one, inputs=tuple(inputs)))
        if begin is not None and operator.output == rows:
            operators.append(begin)
    return dataclasses.replace(pipeline, operators=tuple(operators))
