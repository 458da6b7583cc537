"""A feature service becomes an operator DAG: pure, contract-driven, without touching an engine.

What the contract does not ask for is not compiled: a lookback column makes a point-in-time join, an embedding
column makes an enrichment operator, and a service without them gets neither.

The order is the one in which the documents describe a day: events scan, embedding coverage, static columns,
the target day's rows, session filter, view joins, rolling aggregation, point-in-time lookups, ages, derived
columns, curation, content filter, output columns, enrichment, sink. Narrow joins come before the wide lists.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from daedalus.catalog.model import JoinMode
from daedalus.errors import CompileError
from daedalus.pipelines.compiling.columns import ContractColumns
from daedalus.pipelines.compiling.request import CompileRequest
from daedalus.pipelines.compiling.specs import SpecPlan
from daedalus.pipelines.operators import (
    QID_COLUMN,
    AnyOperator,
    Engine,
    Filter,
    Join,
    Keep,
    OperatorPipeline,
    PointInTimeJoin,
    Project,
    ProjectColumn,
    QidKind,
    RollingAggregate,
    Scan,
    Sink,
    SinkFormat,
    TimeRange,
)
from daedalus.pipelines.pipeline_checks import check_pipeline
from daedalus.pipelines.run_relations import QID_RELATION
from daedalus.pipelines.training_adapter import resolve_training_service
from daedalus.sql.identifiers import quote_ident, quote_literal

if TYPE_CHECKING:
    from daedalus.catalog.model import FeatureServiceDef, FeatureViewDef, Lookback, ViewJoin
    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.settings import TrainingRunConfig

__all__ = ["CompileRequest", "build_compile_request", "compile_service_to_pipeline"]

TARGET = "target_rows"
COVERED = "__covered"
#: Operators that every service may get.
RESERVED_NAMES = frozenset(
    {TARGET, "ages", "coverage", "covered_events", "covered_ids", "cumulative", "cumulative_udf", "join_qid"}
    | {"output", "qid_map", "rolling", "rolling_udf", "session_filter", "sink"}
)


def build_compile_request(
    service_name: str, catalog: FeatureCatalog, config: TrainingRunConfig
) -> CompileRequest:
    """Look the service up and resolve its contract the way training does.

    Raises:
        DefinitionError: no such service (with near matches), or a contract that does not resolve.
    """
    service = resolve_training_service(catalog.service(service_name), catalog, config)
    return CompileRequest(service=service, catalog=catalog, config=config)


def compile_service_to_pipeline(request: CompileRequest) -> OperatorPipeline:
    """The operator DAG of a service, in topological order.

    Raises:
        DefinitionError: a reference that does not resolve: a spec, a store, a column; with near matches.
        CompileError: references are fine, but the parts do not fit (a name used twice, a cycle).
    """
    pipeline = _Compilation(request).run()
    check_pipeline(pipeline)
    return pipeline


@dataclass(slots=True)
class _Compilation:
    """The state of one compilation: operators so far, and the relation that the next one extends."""

    request: CompileRequest
    operators: list[AnyOperator] = field(default_factory=list)
    columns: ContractColumns = field(init=False)
    specs: SpecPlan = field(init=False)
    past: str = ""
    target: str = ""

    def __post_init__(self) -> None:
        self.columns = ContractColumns.of(self.request.service, self.request.catalog, self.request.config)
        self.specs = SpecPlan.of(self.columns, self.request)

    @property
    def service(self) -> FeatureServiceDef:
        return self.request.service

    @property
    def spine(self) -> FeatureViewDef:
        return self.request.catalog.view(self.service.spine)

    def _check_names(self) -> None:
        """Views and lookbacks name relations: they may not be called like one of Daedalus' own."""
        aliases = [self.service.spine, *(join.alias for join in self.service.views)]
        for name in [*aliases, *(lookback.name for lookback in self.columns.lookbacks())]:
            if name in RESERVED_NAMES:
                raise CompileError(
                    f"the name {name!r} of a view, alias or lookback is one of the pipeline's own",
                    where=f"service {self.service.name} ({self.service.file})",
                    hint="Give the view an alias of another name, or rename it",
                )

    def run(self) -> OperatorPipeline:
        self._check_names()
        history = self._history(self.spine.name, TimeRange.WINDOW, "")
        rows = self._add(Filter(name=TARGET, inputs=(history,), target_day=True))
        self.target = rows = self._session_filter(rows)
        rows = self._view_joins(rows)
        rows = self._qid(rows)
        rows = self._rolling(rows, history)
        rows = self._cumulative(rows)
        rows = self._lookbacks(rows)
        rows = self._computed(rows)
        rows = self._output(rows)
        rows = self._enrich(rows)
        config = self.request.config
        self._add(
            Sink(
                name="sink",
                inputs=(rows,),
                session_column=self.service.session_column,
                sessions_from=self._covered_name() if self.service.session_column else "",
                qid=QidKind.DENSE if self.service.session_column and config.dense_qid else QidKind.MAP,
                format=SinkFormat(config.sink.format),
                path=config.sink.path,
                data_path=config.sink.data_path,
            )
        )
        return OperatorPipeline(
            service=self.service.name, version=self.service.version, operators=tuple(self.operators)
        )

    def _add(self, operator: AnyOperator) -> str:
        self.operators.append(operator)
        return operator.output

    # ------------------------------------------------------------------ spine and history (steps 1 to 4)

    def _history(self, name: str, time_range: TimeRange, predicate: str, static: bool = True) -> str:
        """The spine view's rows over a time range, covered, with static columns; returns the relation."""
        suffix = "" if time_range is TimeRange.WINDOW else "_past"
        rows = self._add(
            Scan(
                name=f"{name}{suffix}",
                source_ref=self.spine.name,
                columns=self.columns.spine_columns(),
                time_range=time_range,
                lookback_seconds=self.specs.lookback_seconds if time_range is TimeRange.WINDOW else 0.0,
                predicate=predicate,
                ordered=True,
            )
        )
        rows = self._coverage(rows, suffix)
        return self._static_columns(rows, suffix) if static else rows

    def _covered_name(self) -> str:
        return "covered_events" if self.columns.coverage is not None else self.spine.name

    def _coverage(self, rows: str, suffix: str) -> str:
        coverage = self.columns.coverage
        if coverage is None:
            return rows
        ids = "covered_ids"
        if not any(operator.output == ids for operator in self.operators):
            self._add(Scan(name=ids, source_ref=coverage.source_ref, columns=(coverage.store_column,)))
        marked = self._add(
            Join(
                name=f"coverage{suffix}",
                inputs=(rows, ids),
                on=((coverage.id_column, coverage.store_column),),
                marker=COVERED,
            )
        )
        events = ", ".join(quote_literal(event) for event in coverage.events)
        watched = f"coalesce({quote_ident(coverage.event_column)} IN ({events}), false)"
        return self._add(
            Filter(
                name=f"covered_events{suffix}",
                inputs=(marked,),
                predicate=f"{quote_ident(COVERED)} OR NOT {watched}",
            )
        )

    def _static_columns(self, rows: str, suffix: str) -> str:
        wanted = rows
        for alias, pairs in self.columns.static_by_alias().items():
            join = self.columns.join(alias)
            right = self._view_scan(join, wanted, suffix)
            rows = self._add(self._lookup(f"static_{alias}{suffix}", join, rows, right, pairs))
        return rows

    # ------------------------------------------------------------------ target rows and joins (5, 6, 8)

    def _session_filter(self, rows: str) -> str:
        rules = self.service.session_filter
        if rules is None or not (rules.drop_view_only or rules.drop_single_like):
            return rows
        event = quote_ident(rules.event_column)
        views = ", ".join(quote_literal(value) for value in rules.view_events)
        likes = ", ".join(quote_literal(value) for value in rules.like_events)
        counts = [("__rows", "true"), ("__views", f"{event} IN ({views})")]
        dropped = []
        if rules.drop_view_only:
            dropped.append("__views = __rows")
        if rules.drop_single_like:
            counts.append(("__likes", f"{event} IN ({likes})"))
            dropped.append("(__likes = 1 AND __views = __rows - 1)")
        return self._add(
            Filter(
                name="session_filter",
                inputs=(rows,),
                group_by=(rules.session_column,),
                counts=tuple(counts),
                predicate=f"{quote_ident(rules.session_column)} IS NULL OR NOT ({' OR '.join(dropped)})",
            )
        )

    def _view_joins(self, rows: str) -> str:
        wanted = rows
        for alias, pairs in self.columns.joined_by_alias().items():
            join = self.columns.join(alias)
            right = self._view_scan(join, wanted, "")
            rows = self._add(self._lookup(f"join_{alias}", join, rows, right, pairs))
        return rows

    def _view_scan(self, join: ViewJoin, rows: str, suffix: str) -> str:
        """The scan of a joined view, shared by its static and its assembly join."""
        name = f"{join.alias}{suffix}"
        if any(operator.output == name for operator in self.operators):
            return name
        view = self.request.catalog.view(join.view)
        keys = self.columns.join_keys(join)
        asof = join.join is JoinMode.ASOF and bool(view.timestamp_field)
        return self._add(
            Scan(
                name=name,
                inputs=(rows,),
                source_ref=view.name,
                columns=self.columns.view_columns(join),
                time_range=TimeRange.PAST if asof else TimeRange.ALL,
                keys=() if asof else tuple(view.join_keys),
                keep=None if asof else Keep.NEWEST,
                ordered=asof,
                restrict=tuple((key, column) for column, key in keys),
            )
        )

    def _lookup(
        self, name: str, join: ViewJoin, rows: str, right: str, pairs: tuple[tuple[str, str], ...]
    ) -> AnyOperator:
        view = self.request.catalog.view(join.view)
        if join.join is JoinMode.ASOF and view.timestamp_field:
            return PointInTimeJoin(
                name=name,
                inputs=(rows, right),
                on=self.columns.join_keys(join),
                columns=pairs,
                timestamp_column=self.spine.timestamp_field,
                created_column=view.source.created_field,
                delay_seconds=float(view.delay_seconds),
                ttl_seconds=view.ttl_seconds,
            )
        ttl = view.ttl_seconds if view.timestamp_field else None
        return Join(
            name=name, inputs=(rows, right), on=self.columns.join_keys(join), columns=pairs, ttl_seconds=ttl
        )

    def _qid(self, rows: str) -> str:
        session = self.service.session_column
        if not session:
            return rows
        ids = self._add(Scan(name="qid_map", source_ref=QID_RELATION, columns=(session, QID_COLUMN)))
        return self._add(
            Join(
                name="join_qid",
                inputs=(rows, ids),
                on=((session, session),),
                columns=((QID_COLUMN, QID_COLUMN),),
            )
        )

    # ------------------------------------------------------------------ rolling and lookups (4, 5, 7)

    def _rolling(self, rows: str, history: str) -> str:
        for name, tier, specs in self.specs.windowed():
            views = dict.fromkeys(spec.history_view for spec in specs if spec.history_view)
            histories = tuple((view, self._history_scan(view, rows)) for view in views)
            rows = self._add(
                RollingAggregate(
                    name=name,
                    inputs=(rows, history, *(relation for _, relation in histories)),
                    engine=tier,
                    specs=specs,
                    timestamp_column=self.spine.timestamp_field,
                    histories=histories,
                    rolling_engine=self.specs.engine_name,
                )
            )
        return rows

    def _history_scan(self, view_name: str, rows: str) -> str:
        """The scan of a history view, over the longest window of the specs that read it."""
        name = f"{view_name}_history"
        if any(operator.output == name for operator in self.operators):
            return name
        lookback = self.specs.history_lookback(view_name)
        return self._add(
            Scan(
                name=name,
                source_ref=view_name,
                columns=self.specs.history_columns(view_name),
                time_range=TimeRange.PAST if lookback is None else TimeRange.WINDOW,
                lookback_seconds=lookback or 0.0,
                ordered=True,
            )
        )

    def _cumulative(self, rows: str) -> str:
        """Specs without a window: all matching history, in a pipeline of its own."""
        for name, tier, specs in self.specs.cumulative():
            history = self._past_history()
            rows = self._add(
                PointInTimeJoin(
                    name=name,
                    inputs=(rows, history),
                    engine=tier,
                    timestamp_column=self.spine.timestamp_field,
                    specs=specs,
                    rolling_engine=self.specs.engine_name,
                )
            )
        return rows

    def _past_history(self) -> str:
        """All rows of the spine view before the day's end that any cumulative spec can take; made once."""
        if not self.past:
            specs = self.specs.all_cumulative()
            needs_static = self.specs.read_static(specs)
            predicate = "" if needs_static else self.specs.shared_predicate(specs)
            self.past = self._history(self.spine.name, TimeRange.PAST, predicate, static=needs_static)
        return self.past

    def _lookbacks(self, rows: str) -> str:
        for lookback in self.columns.lookbacks():
            rows = self._lookback(lookback, rows)
        return rows

    def _lookback(self, lookback: Lookback, rows: str) -> str:
        spec = self.specs.lookback_spec(lookback)
        right = self._add(
            Scan(
                name=f"{lookback.name}_items",
                inputs=(self.target,),
                source_ref=lookback.view,
                columns=(*(key for _, key in lookback.on), lookback.value_column),
                time_range=TimeRange.PAST,
                keys=(*(key for _, key in lookback.on), lookback.value_column),
                keep=Keep.OLDEST,
                ordered=True,
                restrict=tuple((key, column) for column, key in lookback.on),
            )
        )
        refused = self.specs.refusal(spec)
        return self._add(
            PointInTimeJoin(
                name=lookback.name,
                inputs=(rows, right),
                engine=Engine.SQL_ARROW_UDF if refused else Engine.SQL,
                timestamp_column=self.spine.timestamp_field,
                specs=(spec,),
                rolling_engine=self.specs.engine_name,
            )
        )

    # ------------------------------------------------------------------ computed and output columns (8)

    def _computed(self, rows: str) -> str:
        ages = self.columns.age_expressions()
        if ages:
            columns = tuple(ProjectColumn(name=name, sql=sql, dtype="BIGINT") for name, sql in ages)
            rows = self._add(Project(name="ages", inputs=(rows,), columns=columns, extend=True))
        for step in self.columns.derived():
            rows = self._extend(f"derived_{step.name}", rows, step.name, step.sql)
        for step in self.service.curation:
            rows = self._extend(f"curate_{step.name}", rows, step.column, step.sql)
        for step in self.service.content_filter:
            rows = self._add(Filter(name=f"filter_{step.name}", inputs=(rows,), predicate=step.sql))
        return rows

    def _extend(self, name: str, rows: str, column: str, sql: str) -> str:
        computed = ProjectColumn(name=column, sql=sql)
        return self._add(Project(name=name, inputs=(rows,), columns=(computed,), extend=True))

    def _output(self, rows: str) -> str:
        outputs = self.columns.output_columns()
        if self.service.session_column:
            if any(column.name == QID_COLUMN for column in outputs):
                raise CompileError(
                    f"{QID_COLUMN!r} is appended by Daedalus and cannot be a contract column",
                    where=f"service {self.service.name} ({self.service.file})",
                    hint="Remove it from columns, or rename it",
                )
            outputs = (*outputs, ProjectColumn(name=QID_COLUMN, sql=quote_ident(QID_COLUMN), dtype="BIGINT"))
        return self._add(Project(name="output", inputs=(rows,), columns=outputs))

    def _enrich(self, rows: str) -> str:
        for enrichment in self.columns.enrichments():
            column = replace(enrichment, name=f"enrich_{enrichment.column}", inputs=(rows,))
            rows = self._add(column)
        return rows
