"""Which operators of a day are a statement, which run on chunks of rows, and which are set beside finished rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daedalus.pipelines.days.held_columns import HeldColumns
from daedalus.pipelines.days.rolling_tiers import spine_columns
from daedalus.pipelines.operators import (
    TICK,
    ArrowUdfTransform,
    Engine,
    Filter,
    Join,
    PointInTimeJoin,
    Project,
    RayUdfTransform,
    RollingAggregate,
    Sink,
)
from daedalus.sql.identifiers import quote_ident

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daedalus.pipelines.days.history_cache import HistoryChain
    from daedalus.pipelines.operators import AnyOperator, OperatorPipeline


def output_operator(pipeline: OperatorPipeline) -> AnyOperator:
    """The last operator of the skeleton stage: what the enrichment, or the sink, reads."""
    operator = pipeline.operators[-1]
    while isinstance(operator, Sink | RayUdfTransform):
        operator = pipeline.producer(operator.inputs[0])
    return operator


def main_chain(pipeline: OperatorPipeline) -> list[AnyOperator]:
    """The operators that each row of the output passes through, first inputs only, in order."""
    chain: list[AnyOperator] = []
    operator: AnyOperator | None = output_operator(pipeline)
    while operator is not None:
        chain.append(operator)
        operator = pipeline.producer(operator.inputs[0]) if operator.inputs else None
    return chain[::-1]


def runs_in_sql(operator: AnyOperator) -> bool:
    """Whether the operator becomes part of a statement."""
    return operator.engine is Engine.SQL and not isinstance(operator, ArrowUdfTransform)


def made_columns(operator: AnyOperator) -> list[str]:
    """The columns that an operator of the Arrow tier adds."""
    if isinstance(operator, RollingAggregate | PointInTimeJoin):
        return [spec.name for spec in operator.specs]
    return [operator.column] if isinstance(operator, ArrowUdfTransform) else []


@dataclass(frozen=True, slots=True)
class BesideRows:
    """A tail whose aggregates no operator reads: they are set beside the rows that SQL finishes.

    Attributes:
        held: the tail's SQL operators without the aggregates' columns, and where those come back.
    """

    aggregates: tuple[RollingAggregate | PointInTimeJoin, ...]
    held: HeldColumns

    @classmethod
    def of(cls, tail: Sequence[AnyOperator], columns: Mapping[str, Sequence[str]]) -> BesideRows | None:
        """The tail as such; None where an operator reads an aggregate, or is no SQL."""
        others = [operator for operator in tail if runs_in_sql(operator)]
        late = tuple(
            operator
            for operator in tail
            if isinstance(operator, RollingAggregate | PointInTimeJoin) and operator not in others
        )
        if not late or len(late) + len(others) < len(tail):
            return None
        if not all(reads_rows_before(tail, operator, columns) for operator in late):
            return None
        made = [name for operator in late for name in made_columns(operator)]
        held = HeldColumns.of(others, made) if others else HeldColumns(tuple(made), (), ())
        return cls(late, held) if set(held.columns) == set(made) else None


def of_target_rows(pipeline: OperatorPipeline, chain: HistoryChain) -> set[str]:
    """Lookups made on the way to the history that, when that is in files, only the target day's rows read."""
    names = set(chain.outside)
    for operator in pipeline:
        path = operator
        while path.inputs and not (isinstance(path, Filter) and path.target_day):
            path = pipeline.producer(path.inputs[0])
        if not path.inputs and operator not in chain.operators:
            names -= set(operator.inputs)
        if not isinstance(operator, Join | PointInTimeJoin):
            names -= set(operator.inputs)
        names -= set(operator.inputs[:1])
    return names


def reads_rows_before(
    tail: Sequence[AnyOperator],
    operator: RollingAggregate | PointInTimeJoin,
    columns: Mapping[str, Sequence[str]],
) -> bool:
    """Whether an aggregate of the tail can be made from the rows before it: keys and times are not made in it."""
    if operator not in tail or operator.engine is not Engine.SQL_ARROW_UDF:
        return False
    wanted = {TICK, *spine_columns(operator.specs, columns[operator.inputs[0]])}
    return not any(writes(one, wanted) for one in tail[: tail.index(operator)])


def writes(operator: AnyOperator, names: set[str]) -> bool:
    """Whether the operator makes one of these columns."""
    if isinstance(operator, Project):
        return any(
            column.name in names and column.sql != quote_ident(column.name) for column in operator.columns
        )
    if isinstance(operator, Join | PointInTimeJoin) and not getattr(operator, "specs", ()):
        return any(name in names for name, _ in operator.columns)
    return bool(names.intersection(made_columns(operator)))


def streamed_tail(pipeline: OperatorPipeline) -> list[AnyOperator]:
    """The longest end of the main chain that chunks can pass through, beginning with an Arrow operator.

    A relation that another operator reads, too, and a filter that counts over groups need all rows at once:
    whatever comes before them is not in the tail.
    """
    chain = main_chain(pipeline)
    readers = Counter(name for operator in pipeline for name in operator.inputs)
    first = 0
    for index, operator in enumerate(chain):
        shared = operator is not chain[-1] and readers[operator.output] > 1
        if shared or (isinstance(operator, Filter) and operator.counts):
            first = index + 1
    late = [index for index in range(first, len(chain)) if not runs_in_sql(chain[index])]
    return chain[late[0] :] if late else []
