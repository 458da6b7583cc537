"""A day made again over copies: the pipeline that runs, with each row's number beside its values."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from daedalus.pipelines.days.shape import main_chain, output_operator
from daedalus.pipelines.execution import ExecutionRequest
from daedalus.pipelines.executor import run_pipeline
from daedalus.pipelines.operators import (
    OperatorPipeline,
    Project,
    ProjectColumn,
    RayUdfTransform,
    Scan,
    Sink,
    SinkFormat,
)
from daedalus.sql.identifiers import quote_ident, quote_literal
from daedalus.trust.copies import ROW_ID

if TYPE_CHECKING:
    from datetime import date
    from pathlib import Path

    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.operators import AnyOperator
    from daedalus.pipelines.settings import TrainingRunConfig


def probe_pipeline(pipeline: OperatorPipeline, *, numbered: bool = True) -> OperatorPipeline:
    """The skeleton part of a pipeline, whose output has `ROW_ID`, too.

    Args:
        pipeline: what runs.
        numbered: whether there is a `ROW_ID`.
    """
    chain = {operator.name for operator in main_chain(pipeline)} if numbered else set()
    last = output_operator(pipeline)
    made: list[AnyOperator] = []
    for operator in pipeline.operators:
        if isinstance(operator, RayUdfTransform):
            continue
        made.append(_probed(operator, chain, last))
    return replace(pipeline, operators=tuple(made))


def _probed(operator: AnyOperator, chain: set[str], last: AnyOperator) -> AnyOperator:
    if isinstance(operator, Scan) and operator.name in chain:
        return replace(operator, columns=(*operator.columns, ROW_ID))
    if isinstance(operator, Project) and operator.name in chain and not operator.extend:
        number = ProjectColumn(name=ROW_ID, sql=quote_ident(ROW_ID), dtype="BIGINT")
        return replace(operator, columns=(*operator.columns, number))
    if isinstance(operator, Sink):
        return replace(operator, inputs=(last.output,), format=SinkFormat.PARQUET, path="", data_path="")
    return operator


def run_probe(
    pipeline: OperatorPipeline,
    catalog: FeatureCatalog,
    config: TrainingRunConfig,
    day: date,
    output: Path,
) -> str:
    """Make the day below `output`; returns its rows as a FROM item."""
    apart = replace(
        config, output_root=str(output), sink=type(config.sink)(), ray_address=None, day_workers=1
    )
    run_pipeline(
        ExecutionRequest(
            pipeline=pipeline, run_config=apart, catalog=catalog, target_dates=(day,), stages="skeleton"
        )
    )
    files = output / pipeline.service / "skeleton" / f"dt={day.isoformat()}" / "part-*.parquet"
    return f"read_parquet({quote_literal(str(files))}, hive_partitioning = false)"
