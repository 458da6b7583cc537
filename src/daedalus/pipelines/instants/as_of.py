"""The pipeline of a service as of one instant `T`: the same operators over one row per entity, not over events.

What changes, and nothing else:
- the target rows are not the day's events but one row per entity key, whose instant is `T`: its own columns are
  those of the entity's newest spine row that is visible at `T` (after the filters that come before the target
  day: the embedding coverage), its time column is `T`;
- operators that made those rows' static columns run over the new rows, too; the history stays the events';
- a `latest` join sees what is visible at `T`, and nothing later;
- what judges or numbers a day's sessions is left out: the session filter, `qid`.

Rolling specs, `asof` joins, lookbacks, ages, derived columns, curation, the content filter and the output are
the service's own operators, unchanged.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daedalus.errors import CompileError
from daedalus.pipelines.days.shape import main_chain, output_operator
from daedalus.pipelines.operators import (
    QID_COLUMN,
    AnyOperator,
    Filter,
    Join,
    JoinKind,
    OperatorPipeline,
    Project,
    RayUdfTransform,
    RollingAggregate,
    Scan,
    Sink,
    TimeRange,
)
from daedalus.pipelines.pipeline_checks import check_pipeline
from daedalus.pipelines.run_relations import AS_OF_RELATION, QID_RELATION, is_run_relation
from daedalus.sql.identifiers import quote_ident

if TYPE_CHECKING:
    from daedalus.catalog.model import FeatureServiceDef, FeatureViewDef

SUFFIX = "__as_of"


@dataclass(frozen=True, slots=True, kw_only=True)
class AsOfPipeline:
    """What a materialization runs.

    Attributes:
        candidates: makes the relation from whose rows each entity's newest is taken.
        relation: that relation's name.
        view: the spine view's name.
        keys: the entity keys: one row for each combination of their values.
        columns: the spine columns that the rows carry.
        pipeline: makes the output from the rows.
    """

    candidates: OperatorPipeline
    relation: str
    view: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    pipeline: OperatorPipeline


def entity_keys(service: FeatureServiceDef, spine: FeatureViewDef) -> tuple[str, ...]:
    """The keys that tell a service's entities apart: the grain's entity keys, else the spine view's.

    The grain's other columns (the time, a session) belong to events, not to entities.
    """
    return tuple(name for name in service.grain if name in spine.join_keys) or tuple(spine.join_keys)


def as_of_pipeline(pipeline: OperatorPipeline, spine: FeatureViewDef, keys: tuple[str, ...]) -> AsOfPipeline:
    """The service's pipeline, compiled or edited by hand, as one that materializes it.

    Raises:
        CompileError: the pipeline has no filter that picks the target day's rows.
    """
    chain = main_chain(pipeline)
    target = next((i for i, one in enumerate(chain) if isinstance(one, Filter) and one.target_day), None)
    first = chain[0]
    if target is None or not isinstance(first, Scan) or is_run_relation(first.source_ref):
        raise CompileError(
            "nothing tells the target day's rows from their history, so it cannot be read as of a time",
            where=f"pipeline {pipeline.service}",
            hint="Keep the filter with target_day: true that the compiler writes",
        )
    columns = tuple(dict.fromkeys((*keys, *first.columns)))
    relation, candidates = _candidates(pipeline, spine, chain[:target], columns)
    rewritten = _Rewriting(pipeline, chain, target, columns).run()
    check_pipeline(rewritten)
    return AsOfPipeline(
        candidates=candidates,
        relation=relation,
        view=spine.name,
        keys=keys,
        columns=columns,
        pipeline=rewritten,
    )


def _candidates(
    pipeline: OperatorPipeline, spine: FeatureViewDef, before: list[AnyOperator], columns: tuple[str, ...]
) -> tuple[str, OperatorPipeline]:
    """The spine's rows of all time, through the last operator before the target day that drops rows."""
    dropping = [
        one
        for one in before
        if isinstance(one, Filter) or (isinstance(one, Join) and one.how is JoinKind.INNER)
    ]
    relation = (dropping[-1] if dropping else before[0]).output
    created = spine.source.created_field
    wanted = tuple(dict.fromkeys((*columns, *([created] if created else []))))
    operators = tuple(
        dataclasses.replace(one, columns=wanted, time_range=TimeRange.PAST, lookback_seconds=0.0)
        if isinstance(one, Scan) and one.name == before[0].name
        else one
        for one in pipeline.upstream(relation)
    )
    return relation, dataclasses.replace(pipeline, operators=operators)


class _Rewriting:
    """The row side of a pipeline over the entities' rows; its history side stays."""

    def __init__(
        self,
        pipeline: OperatorPipeline,
        chain: list[AnyOperator],
        target: int,
        columns: tuple[str, ...],
    ) -> None:
        self._pipeline = pipeline
        self._chain = chain
        self._target = target
        self._columns = columns
        #: Relation of the main chain to the one that stands for it on the row side.
        self._rows: dict[str, str] = {}
        self._made: list[AnyOperator] = []

    def run(self) -> OperatorPipeline:
        """The pipeline, without what nothing reads any more."""
        source = Scan(
            name=f"entities{SUFFIX}", source_ref=AS_OF_RELATION, columns=self._columns, ordered=True
        )
        on_chain = {operator.output: index for index, operator in enumerate(self._chain)}
        for operator in self._pipeline:
            index = on_chain.get(operator.output)
            if index is None or index < self._target:
                self._made.append(operator)  # history, or a side relation
            if index == 0:
                self._made.append(source)
                self._rows[operator.output] = source.output
            elif index is not None:
                self._follow(operator, before_target=index <= self._target)
            elif isinstance(operator, RayUdfTransform | Sink):
                self._made.pop()
        end = self._rows[output_operator(self._pipeline).output]
        for operator in self._pipeline:
            if isinstance(operator, RayUdfTransform):
                self._made.append(dataclasses.replace(operator, inputs=(end,)))
                end = operator.output
        self._made.append(Sink(name="sink", inputs=(end,)))
        whole = dataclasses.replace(self._pipeline, operators=tuple(self._made))
        return dataclasses.replace(whole, operators=whole.upstream("sink"))

    def _follow(self, operator: AnyOperator, *, before_target: bool) -> None:
        """One operator of the main chain over the row side."""
        source = self._rows[operator.inputs[0]]
        if self._is_left_out(operator, before_target=before_target):
            self._rows[operator.output] = source
            return
        others = operator.inputs[1:]
        if not isinstance(operator, RollingAggregate):
            others = tuple(self._row_side(name) for name in others)
        changed = dataclasses.replace(operator, inputs=(source, *others))
        if before_target:
            changed = _renamed(changed)
        if isinstance(changed, Filter) and changed.target_day:
            changed = dataclasses.replace(changed, target_day=False)
        if isinstance(changed, Project):
            kept = tuple(one for one in changed.columns if not _is_qid(one.name, one.sql))
            changed = dataclasses.replace(changed, columns=kept)
        self._made.append(changed)
        self._rows[operator.output] = changed.output

    def _is_left_out(self, operator: AnyOperator, *, before_target: bool) -> bool:
        if isinstance(operator, Filter):
            # Filters before the target day have picked the candidates; groups are a day's events.
            picks_day = operator.target_day and not operator.predicate
            return bool(operator.counts) or picks_day or (before_target and not operator.target_day)
        if isinstance(operator, Join):
            right = self._pipeline.producer(operator.inputs[1])
            return isinstance(right, Scan) and right.source_ref == QID_RELATION
        return False

    def _row_side(self, name: str) -> str:
        """A side relation as the rows need it: what is restricted to the rows' keys is read for the new rows."""
        operator = self._pipeline.producer(name)
        if name in self._rows and operator in self._chain:
            return name  # the events themselves: history
        if any(one.output == name + SUFFIX for one in self._made):
            return name + SUFFIX
        if isinstance(operator, Scan):
            inputs = tuple(self._rows.get(one, one) for one in operator.inputs)
        else:
            inputs = tuple(self._row_side(one) for one in operator.inputs)
        if inputs == operator.inputs:
            return name
        self._made.append(_renamed(dataclasses.replace(operator, inputs=inputs)))
        return name + SUFFIX


def _renamed(operator: AnyOperator) -> AnyOperator:
    return dataclasses.replace(operator, name=f"{operator.name}{SUFFIX}", output=f"{operator.output}{SUFFIX}")


def _is_qid(name: str, sql: str) -> bool:
    return name == QID_COLUMN and sql == quote_ident(QID_COLUMN)
