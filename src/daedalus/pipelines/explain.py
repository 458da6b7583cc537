"""What would run: a second walker over the DAG that the executor runs.

Without a day the SQL shows what does not depend on one; with a day, the statements are the ones the executor
would compose, over the sources as they are now.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daedalus.catalog.dtypes import canonical_dtype, to_duckdb
from daedalus.catalog.services import spec_dtype
from daedalus.pipelines.days.lookup_plan import LookupPlan
from daedalus.pipelines.days.relations import DayRelations, kept_relations
from daedalus.pipelines.duckdb_session import duckdb_session
from daedalus.pipelines.operators import (
    ArrowUdfTransform,
    Engine,
    PointInTimeJoin,
    RayUdfTransform,
    RollingAggregate,
    Scan,
    Sink,
    SinkFormat,
)
from daedalus.pipelines.pipeline_checks import check_pipeline, check_scans
from daedalus.pipelines.run_sources import RunSources
from daedalus.pipelines.schema import output_names, relation_columns
from daedalus.secrets import mask
from daedalus.sql.identifiers import quote_ident

if TYPE_CHECKING:
    import datetime as dt

    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.days.context import DayContext
    from daedalus.pipelines.days.lookup_plan import Lookup
    from daedalus.pipelines.operators import AnyOperator, OperatorPipeline
    from daedalus.pipelines.settings import TrainingRunConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedOperator:
    """One operator as it would run.

    Attributes:
        columns: the columns of its relation, positions left out.
        stage: `skeleton`, or `enrich` for the operators after it.
        kept: whether its rows are kept as a table, or it composes into whatever reads it.
        sql: its SELECT over its inputs; empty without a day, or where no SQL runs.
    """

    name: str
    op_kind: str
    engine: str
    stage: str
    inputs: tuple[str, ...]
    columns: tuple[str, ...]
    kept: bool
    sql: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A pipeline, operator by operator, in order."""

    service: str
    version: str
    file: str
    day: str
    operators: tuple[ExplainedOperator, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for programs."""
        return {
            "service": self.service,
            "version": self.version,
            "file": self.file,
            "day": self.day,
            "operators": [
                {name: getattr(operator, name) for name in ExplainedOperator.__slots__}
                | {"inputs": list(operator.inputs), "columns": list(operator.columns)}
                for operator in self.operators
            ],
        }

    def to_text(self) -> str:
        """For people."""
        origin = self.file or "compiled from the service"
        lines = [f"{self.service} {self.version} ({origin})" + (f", day {self.day}" if self.day else "")]
        for number, operator in enumerate(self.operators, 1):
            kept = ", kept" if operator.kept else ""
            lines += ["", f"{number}. {operator.name}  [{operator.op_kind}, {operator.engine}{kept}]"]
            if operator.detail:
                lines.append(f"   {operator.detail}")
            if operator.inputs:
                lines.append(f"   reads    {', '.join(operator.inputs)}")
            lines.append(f"   columns  {', '.join(operator.columns)}")
            lines += [f"   | {line}" for line in operator.sql.splitlines()]
        return "\n".join(lines)


def explain_pipeline(
    pipeline: OperatorPipeline,
    *,
    catalog: FeatureCatalog,
    config: TrainingRunConfig,
    day: dt.date | None = None,
) -> Explanation:
    """Walk the pipeline as the executor would, without computing anything.

    Args:
        pipeline: what would run.
        catalog: the views it scans.
        config: the settings of the run.
        day: also show the SQL of this day; reads the sources' schemas, not their rows.

    Raises:
        CompileError: the pipeline does not stand.
        SourceError: with a day, a source cannot be read.
    """
    check_pipeline(pipeline)
    check_scans(pipeline, catalog)
    columns = relation_columns(pipeline)
    kept = kept_relations(pipeline)
    plan = LookupPlan.of(pipeline, catalog)
    beside = {lookup.operator.name: _place(lookup) for lookup in plan.lookups} if plan is not None else {}
    statements = {} if day is None else _statements(pipeline, catalog, config, day)
    explained = [
        ExplainedOperator(
            name=operator.name,
            op_kind=operator.op_kind,
            engine=operator.engine.value,
            stage="enrich" if isinstance(operator, RayUdfTransform) else "skeleton",
            inputs=operator.inputs,
            columns=output_names(columns, operator.output),
            kept=operator.output in kept,
            sql=statements.get(operator.name, ""),
            detail=beside.get(operator.name) or _detail(operator),
        )
        for operator in pipeline
    ]
    return Explanation(
        service=pipeline.service,
        version=pipeline.version,
        file=pipeline.file,
        day="" if day is None else day.isoformat(),
        operators=tuple(explained),
    )


def _place(lookup: Lookup) -> str:
    """Where a lookup happens that is no join in SQL."""
    return f"beside the rows, for {', '.join(lookup.read)}" if lookup.read else "beside the finished rows"


def _detail(operator: AnyOperator) -> str:
    """What an operator does beyond its kind, in a few words."""
    specs = getattr(operator, "specs", ())
    if specs:
        return f"{operator.rolling_engine}: {', '.join(spec.name for spec in specs)}"  # type: ignore[union-attr]
    if isinstance(operator, Scan):
        keep = f", {operator.keep.value} row per {', '.join(operator.keys)}" if operator.keep else ""
        return f"{operator.source_ref}, {operator.time_range.value}{keep}"
    if isinstance(operator, Sink) and operator.format is not SinkFormat.PARQUET:
        place = f" {mask(operator.path)}" if operator.path else ""
        return f"each day's Parquet, then {operator.format.value}{place}"
    predicate = getattr(operator, "predicate", "")
    return f"where {predicate}" if predicate else ""


def _statements(
    pipeline: OperatorPipeline, catalog: FeatureCatalog, config: TrainingRunConfig, day: dt.date
) -> dict[str, str]:
    """Operator name to its SELECT, from the very functions that the executor calls, over empty relations."""
    from daedalus.pipelines.skeleton_run import day_context

    sources = RunSources(catalog, config)
    context: DayContext = day_context(pipeline, catalog, config, sources, day)
    found: dict[str, str] = {}
    with contextlib.closing(sources), duckdb_session(config.duckdb_settings()) as connection:
        relations = DayRelations(context, connection, dry=True)
        for operator in pipeline:
            if isinstance(operator, Sink | RayUdfTransform):
                continue
            if operator.engine is Engine.SQL:
                found[operator.name] = relations.add(operator)
            else:
                _add_placeholder(relations, operator, catalog)
    return found


def _add_placeholder(relations: DayRelations, operator: AnyOperator, catalog: FeatureCatalog) -> None:
    """Define an Arrow operator's relation by its columns alone: NULLs of the types that it would make."""
    graph, source = relations.graph, operator.inputs[0]
    made: dict[str, str] = {}
    if isinstance(operator, RollingAggregate | PointInTimeJoin):
        history = graph.types(operator.inputs[1])
        made = {spec.name: spec_dtype(spec, history, catalog) for spec in operator.specs}
    elif isinstance(operator, ArrowUdfTransform):
        made = {operator.column: canonical_dtype(operator.dtype)}
    known = graph.types(source)
    nulls = {
        name: f"CAST(NULL AS {to_duckdb(dtype or 'INTEGER')}) AS {quote_ident(name)}"
        for name, dtype in made.items()
    }
    replaced = ", ".join(null for name, null in nulls.items() if name in known)
    items = [
        f"* REPLACE ({replaced})" if replaced else "*",
        *(null for name, null in nulls.items() if name not in known),
    ]
    graph.define(operator.output, f"SELECT {', '.join(items)} FROM {quote_ident(source)}", operator.inputs)
    relations.absent[operator.output] = relations.absent.get(source, frozenset()) - set(made)
