"""What a pipeline must satisfy before anything runs, compiled or edited by hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from daedalus.compute.sql_tier import sql_refusal
from daedalus.errors import CompileError, did_you_mean
from daedalus.metadata.days import DayStore
from daedalus.pipelines.operators import (
    ROW,
    ArrowUdfTransform,
    Engine,
    Filter,
    Join,
    PointInTimeJoin,
    Project,
    QidKind,
    RayUdfTransform,
    RollingAggregate,
    Scan,
    Sink,
    SinkFormat,
)
from daedalus.pipelines.run_relations import AS_OF_RELATION, QID_RELATION, is_run_relation
from daedalus.pipelines.schema import checked_fragment, filter_fragments, output_names, relation_columns
from daedalus.pipelines.settings.sink_places import place_problems

if TYPE_CHECKING:
    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.operators import AnyOperator, OperatorPipeline

ROLLING_ENGINES = ("duckdb", "polars", "kernel")
_SPANS = ("lookback_seconds", "delay_seconds", "ttl_seconds")


def check_pipeline(pipeline: OperatorPipeline) -> None:
    """Refuse a DAG that cannot run or would run wrongly.

    Raises:
        CompileError: names the operator and the mend.
    """
    where = pipeline.file or f"pipeline {pipeline.service}"
    _check_graph(pipeline, where)
    for operator in pipeline:
        _check_engine(operator, where)
        _check_arity(operator, where)
        _check_spans(operator, where)
        _check_on(operator, where)
    _check_sink(pipeline, where)
    _check_filters_after_curation(pipeline, where)


def check_scans(pipeline: OperatorPipeline, catalog: FeatureCatalog) -> None:
    """Refuse a DAG that scans what the definitions lack.

    Raises:
        CompileError: no such view, or no such field of it; names the operator, with near matches.
    """
    where = pipeline.file or f"pipeline {pipeline.service}"
    for scan in pipeline:
        if not isinstance(scan, Scan):
            continue
        place = _place(where, scan)
        if is_run_relation(scan.source_ref):
            _check_run_relation(scan, place)
            continue
        if scan.source_ref not in catalog.views:
            raise CompileError(
                f"unknown view {scan.source_ref!r}",
                where=place,
                hint=did_you_mean(scan.source_ref, catalog.views),
            )
        fields = [field.name for field in catalog.view(scan.source_ref).fields]
        for name in (*scan.columns, *scan.keys, *(name for name, _ in scan.restrict)):
            if name not in fields:
                raise CompileError(
                    f"view {scan.source_ref} has no field {name!r}",
                    where=place,
                    hint=did_you_mean(name, fields),
                )
        if scan.predicate:
            checked_fragment(scan.predicate, fields, f"{place}, predicate")


def _check_run_relation(scan: Scan, place: str) -> None:
    if scan.source_ref.startswith("run:") and scan.source_ref not in (QID_RELATION, AS_OF_RELATION):
        raise CompileError(
            f"unknown relation {scan.source_ref!r} of the run",
            where=place,
            hint=did_you_mean(scan.source_ref, [QID_RELATION]),
        )
    expected = {QID_RELATION: 2, AS_OF_RELATION: len(scan.columns)}.get(scan.source_ref, 1)
    if len(scan.columns) != expected:
        what = "a session's and a number's" if expected == 2 else "that of the ids"
        raise CompileError(f"it has {len(scan.columns)} columns", where=place, hint=f"Name {what}")


def _place(where: str, operator: AnyOperator) -> str:
    return f"{where}, operator {operator.name}"


def _check_graph(pipeline: OperatorPipeline, where: str) -> None:
    """Unique names and outputs; every input made by an earlier operator."""
    names: set[str] = set()
    made: set[str] = set()
    everything = {operator.output for operator in pipeline}
    for operator in pipeline:
        if not operator.name.strip() or not operator.output.strip():
            raise CompileError(
                f"a {operator.op_kind} has no name", where=where, hint="Give it one that no other has"
            )
        if operator.name in names:
            raise CompileError(
                f"operator name {operator.name!r} is used twice", where=where, hint="Rename one"
            )
        if operator.output in made:
            raise CompileError(
                f"relation {operator.output!r} is made twice",
                where=_place(where, operator),
                hint="Rename one",
            )
        for relation in operator.inputs:
            if relation in made:
                continue
            if relation == operator.output or relation in everything:
                later = pipeline.producer(relation)
                raise CompileError(
                    f"input {relation!r} is made by {later.name!r}, which does not come before it",
                    where=_place(where, operator),
                    hint="Move it before this operator; when each needs the other it is a cycle: break it",
                )
            raise CompileError(
                f"unknown input {relation!r}",
                where=_place(where, operator),
                hint=did_you_mean(relation, made),
            )
        names.add(operator.name)
        made.add(operator.output)


def _check_engine(operator: AnyOperator, where: str) -> None:
    capable = operator.can_run_on()
    if operator.engine not in capable:
        can = ", ".join(sorted(engine.value for engine in capable))
        raise CompileError(
            f"a {operator.op_kind} cannot run on engine {operator.engine.value!r}",
            where=_place(where, operator),
            hint=f"It runs on: {can}",
        )
    if isinstance(operator, RollingAggregate | PointInTimeJoin) and operator.specs:
        _check_rolling(operator, where)


def _check_rolling(operator: RollingAggregate | PointInTimeJoin, where: str) -> None:
    if operator.rolling_engine not in ROLLING_ENGINES:
        raise CompileError(
            f"unknown rolling_engine {operator.rolling_engine!r}",
            where=_place(where, operator),
            hint=did_you_mean(operator.rolling_engine, ROLLING_ENGINES),
        )
    if operator.engine is not Engine.SQL:
        return
    if operator.rolling_engine != "duckdb":
        raise CompileError(
            f"rolling_engine {operator.rolling_engine!r} does not run as SQL",
            where=_place(where, operator),
            hint="Tag the operator sql_arrow_udf, or set rolling_engine: duckdb",
        )
    for spec in operator.specs:
        reason = sql_refusal(spec)
        if reason:
            raise CompileError(
                f"spec {spec.name!r} cannot run on engine 'sql': {reason}",
                where=_place(where, operator),
                hint="Tag the operator sql_arrow_udf, or move the spec to one that is",
            )


def _check_arity(operator: AnyOperator, where: str) -> None:
    """How many inputs each kind reads."""
    match operator:
        case Scan():
            fits = len(operator.inputs) == (1 if operator.restrict else 0)
            expected = "one input with restrict, else none"
        case Join() | PointInTimeJoin():
            fits, expected = len(operator.inputs) == 2, "two inputs, left and right"
        case RollingAggregate():
            fits = len(operator.inputs) == 2 + len(operator.histories)
            expected = "the rows, their history, and the relations of histories"
        case Filter() | Project() | ArrowUdfTransform() | RayUdfTransform() | Sink():
            fits, expected = len(operator.inputs) == 1, "one input"
    if not fits:
        raise CompileError(
            f"it has {len(operator.inputs)} inputs",
            where=_place(where, operator),
            hint=f"It reads {expected}",
        )


def _check_on(operator: AnyOperator, where: str) -> None:
    """A lookup says by which columns."""
    is_lookup = isinstance(operator, Join) or (isinstance(operator, PointInTimeJoin) and not operator.specs)
    if isinstance(operator, Join | PointInTimeJoin) and is_lookup and not operator.on:
        raise CompileError(
            "it joins on nothing",
            where=_place(where, operator),
            hint="Write on: {left column: right column}",
        )


def _check_spans(operator: AnyOperator, where: str) -> None:
    """No span of time is negative, or no number."""
    for key in _SPANS:
        seconds = getattr(operator, key, None)
        if seconds is not None and not 0 <= seconds < math.inf:
            raise CompileError(
                f"{key} is {seconds:g}", where=_place(where, operator), hint="Write 0 or a number of seconds"
            )


def _check_sink(pipeline: OperatorPipeline, where: str) -> None:
    sinks = pipeline.by_kind("sink")
    if len(sinks) != 1 or pipeline.operators[-1] is not sinks[0]:
        raise CompileError(
            f"a pipeline ends with one sink, this one has {len(sinks)}", where=where, hint="Put it last"
        )
    if ROW not in relation_columns(pipeline)[sinks[0].inputs[0]]:
        raise CompileError(
            "its rows have no total order",
            where=_place(where, sinks[0]),
            hint="Set ordered: true in the scan that they begin with",
        )
    _check_sessions(pipeline, sinks[0], where)
    _check_place(pipeline, sinks[0], where)
    seen_enrich = ""
    for operator in pipeline:
        if isinstance(operator, RayUdfTransform):
            seen_enrich = operator.name
        elif seen_enrich and not isinstance(operator, Sink):
            raise CompileError(
                f"it comes after the enrichment operator {seen_enrich!r}",
                where=_place(where, operator),
                hint="Enrichment reads finished rows: only the sink may follow it",
            )


def _check_place(pipeline: OperatorPipeline, sink: AnyOperator, where: str) -> None:
    """The sink's place fits its format, and a table can hold the output's columns."""
    if not isinstance(sink, Sink):
        return
    for key, what, mend in place_problems(sink.format, sink.path, sink.data_path):
        raise CompileError(what, where=f"{_place(where, sink)}, {key}", hint=mend)
    if sink.qid is not QidKind.MAP and not sink.session_column:
        raise CompileError("qid needs a session_column", where=_place(where, sink), hint="Remove qid")
    if sink.format is SinkFormat.PARQUET:
        if sink.partition != DayStore.partition:
            raise CompileError(
                f"partition is {sink.partition!r}, which names the day's column of a table",
                where=_place(where, sink),
                hint=f"Folders are named {DayStore.partition}=YYYY-MM-DD: remove it, or set format",
            )
        return
    taken = {sink.partition.lower(): "the partition's column"}
    for name in output_names(relation_columns(pipeline), sink.inputs[0]):
        if name.lower() in taken:
            raise CompileError(
                f"column {name!r} cannot be told from {taken[name.lower()]} in a {sink.format} sink",
                where=_place(where, sink),
                hint="Rename the column in the contract, or write Parquet",
            )
        taken[name.lower()] = f"column {name!r}"


def _check_sessions(pipeline: OperatorPipeline, sink: AnyOperator, where: str) -> None:
    """The relation whose sessions are numbered exists and has them."""
    if not isinstance(sink, Sink) or not sink.session_column:
        return
    columns = relation_columns(pipeline)
    if sink.sessions_from not in columns:
        raise CompileError(
            f"unknown relation {sink.sessions_from!r} in sessions_from",
            where=_place(where, sink),
            hint=did_you_mean(sink.sessions_from, columns),
        )
    names = columns[sink.sessions_from]
    if ROW not in names:
        raise CompileError(
            f"sessions_from {sink.sessions_from!r} has no total order",
            where=_place(where, sink),
            hint="Set ordered: true in the scan it begins with",
        )
    if sink.session_column not in names:
        raise CompileError(
            f"its input has no column {sink.session_column!r}",
            where=_place(where, sink),
            hint=did_you_mean(sink.session_column, names),
        )


def _check_filters_after_curation(pipeline: OperatorPipeline, where: str) -> None:
    """Refuse a filter that reads a column which an operator downstream of it rewrites.

    Rows would be dropped by values that curation was about to correct.
    """
    columns = relation_columns(pipeline)
    for filtering in pipeline:
        if not isinstance(filtering, Filter):
            continue
        predicate, counts = filter_fragments(
            filtering, columns[filtering.inputs[0]], _place(where, filtering)
        )
        fragments = [*counts.values(), *([predicate] if predicate else [])]
        read = {name for fragment in fragments for name in fragment.columns} | set(filtering.group_by)
        for curating in _downstream(pipeline, filtering):
            rewritten = read & _rewritten(curating)
            if rewritten:
                name = sorted(rewritten)[0]
                raise CompileError(
                    f"it filters on {name!r} before {curating.name!r} rewrites it",
                    where=_place(where, filtering),
                    hint=f"Put {curating.name!r} before this filter: curation precedes the content filter. "
                    "What sessions or coverage are judged by stays as it is: curate a derived column instead",
                )


def _rewritten(operator: AnyOperator) -> set[str]:
    """The columns that an operator makes, or makes anew."""
    match operator:
        case Project(extend=True):
            return {column.name for column in operator.columns}
        case ArrowUdfTransform():
            return {operator.column}
    return set()


def _downstream(pipeline: OperatorPipeline, start: AnyOperator) -> list[AnyOperator]:
    reached = {start.output}
    found = []
    for operator in pipeline:
        if reached & set(operator.inputs):
            reached.add(operator.output)
            found.append(operator)
    return found
