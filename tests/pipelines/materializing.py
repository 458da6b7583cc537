"""Materializations in tests: of a project's service, its rows back as Arrow, and one that is killed."""

from __future__ import annotations

import dataclasses
import datetime as dt
import multiprocessing
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from daedalus.pipelines.instants.materialize_run import (
    MaterializationResult,
    MaterializeRequest,
    run_materialization,
)
from daedalus.pipelines.operators import RayUdfTransform, Sink

if TYPE_CHECKING:
    from daedalus.pipelines.operators import OperatorPipeline
    from support.project import Project


def without_embeddings(pipeline: OperatorPipeline) -> OperatorPipeline:
    """The pipeline up to its skeleton."""
    kept = [one for one in pipeline if not isinstance(one, RayUdfTransform | Sink)]
    sink = dataclasses.replace(pipeline.operators[-1], inputs=(kept[-1].output,))
    return dataclasses.replace(pipeline, operators=(*kept, sink))


def materialize(project: Project, service: str, instant: str, **options: Any) -> MaterializationResult:
    """Materialize; `pipeline` and `overrides` stand in for the compiled one and its settings."""
    overrides = options.pop("overrides", {})
    config = project.config(**overrides)
    pipeline = options.pop("pipeline", None) or project.pipeline(service, **overrides)
    return run_materialization(
        MaterializeRequest(
            pipeline=pipeline,
            run_config=config,
            catalog=project.catalog(config),
            as_of=dt.datetime.fromisoformat(instant),
            **options,
        )
    )


def rows_of(result: MaterializationResult) -> pa.Table:
    """The rows of a Parquet materialization, in order."""
    parts = sorted(Path(result.path).glob("part-*.parquet"))
    return pa.concat_tables(pq.ParquetFile(part).read() for part in parts)


def materialize_and_die(project: Project, service: str, instant: str, moment: str) -> int:
    """Materialize in a process of its own that is killed (SIGKILL) at a message of its progress."""
    child = multiprocessing.get_context("spawn").Process(
        target=_until, args=(project, service, instant, moment)
    )
    child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def _until(project: Project, service: str, instant: str, moment: str) -> None:
    def tell(progress: Any) -> None:
        if progress.message == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    materialize(project, service, instant, progress=tell)
