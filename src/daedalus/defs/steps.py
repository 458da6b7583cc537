"""The steps of a training asset: each calls the platform's one entry for its stage."""

from __future__ import annotations

import datetime as dt
import functools
from typing import TYPE_CHECKING, Any

from daedalus.defs.metadata import day_metadata
from daedalus.errors import CompileError, DaedalusError, DefinitionError, MissingExtraError
from daedalus.platform.project import final_stage
from daedalus.platform.runs import DAGSTER_RUN
from daedalus.secrets import mask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import dagster as dg

    from daedalus.defs.project import DagsterProject
    from daedalus.pipelines.executor import ExecutionResult, RunProgress

#: Waiting mends none of these.
_FINAL = (DefinitionError, CompileError, MissingExtraError)
_RETRIES = 2
_RETRY_SECONDS = 30.0


def training_graph(
    project: DagsterProject, service: str, name: str, views: tuple[str, ...]
) -> dg.GraphDefinition:
    """`compile -> skeleton -> enrich` of one service; the views are what it waits for."""
    import dagster as dg

    compiling = _step(f"{name}_compile", _compile, project, service, inputs=views, retries=0)
    skeleton = _step(f"{name}_skeleton", _skeleton, project, service, inputs=("compiled",))
    enrich = _step(f"{name}_enrich", _enrich, project, service, inputs=("skeleton",))
    return dg.GraphDefinition(
        name=name,
        description=f"One day of {service}.",
        node_defs=[compiling, skeleton, enrich],
        dependencies={
            skeleton.name: {"compiled": dg.DependencyDefinition(compiling.name)},
            enrich.name: {"skeleton": dg.DependencyDefinition(skeleton.name)},
        },
        input_mappings=[
            dg.InputMapping(
                graph_input_name=view, mapped_node_name=compiling.name, mapped_node_input_name=view
            )
            for view in views
        ],
        output_mappings=[
            dg.OutputMapping(
                graph_output_name="result", mapped_node_name=enrich.name, mapped_node_output_name="result"
            )
        ],
    )


def _step(
    name: str,
    work: Callable[[DagsterProject, str, Any], dict[str, Any]],
    project: DagsterProject,
    service: str,
    *,
    inputs: tuple[str, ...],
    retries: int = _RETRIES,
) -> dg.OpDefinition:
    """An op without values: what it makes stands on disk, and days are whole there or absent."""
    import dagster as dg

    # Dagster takes annotations of a parameter called `context` for types, also where they are text.
    def compute(step: Any, _inputs: Any) -> Iterator[dg.Output[None]]:
        left = retries - step.retry_number
        delay = retry_delay(step.retry_number + 1) if left > 0 else None
        yield dg.Output(None, metadata=told(functools.partial(work, project, service, step), delay))

    return dg.OpDefinition(
        compute,
        name=name,
        description=work.__doc__,
        ins={one: dg.In(dg.Nothing) for one in inputs},
        outs={"result": dg.Out(dg.Nothing)},
    )


def retry_delay(attempt: int) -> float:
    """Seconds to wait before a step is tried for the n-th time again: about 30, then 90."""
    import dagster as dg

    policy = dg.RetryPolicy(
        max_retries=_RETRIES,
        delay=_RETRY_SECONDS,
        backoff=dg.Backoff.EXPONENTIAL,
        jitter=dg.Jitter.PLUS_MINUS,
    )
    return policy.calculate_delay(attempt)


def told(work: Callable[[], Any], delay: float | None = None) -> Any:
    """What `work` returns; an error of ours becomes Dagster's failure, retried where waiting may mend it.

    Retries are asked for here, error by error: a policy of the step would begin again what somebody cancelled.

    Args:
        work: the step.
        delay: seconds to wait before it is tried again; None when it is not.
    """
    import dagster as dg

    try:
        return work()
    except DaedalusError as error:
        plain = error.to_dict()
        known = {
            key: mask(str(plain[key]))
            for key in ("error", "where", "hint", "day", "operator")
            if plain.get(key)
        }
        failure = dg.Failure(mask(str(error)), metadata=known, allow_retries=False)
        if delay is None or isinstance(error, _FINAL):
            raise failure from None
        raise dg.RetryRequested(max_retries=_RETRIES, seconds_to_wait=delay) from failure


def _compile(project: DagsterProject, service: str, context: Any) -> dict[str, Any]:
    """Compile the service, so that what is wrong with the definitions shows before anything is read."""
    compiled = project.registry.compile(service, options=project.options, write=False)
    for notice in compiled.notices:
        context.log.warning(notice)
    edited = {} if compiled.edited is None else {"hand-edited pipeline": str(compiled.edited)}
    return {"operators": len(compiled.pipeline.operators), "version": compiled.pipeline.version} | edited


def _skeleton(project: DagsterProject, service: str, context: Any) -> dict[str, Any]:
    """Read, join and aggregate the day, and write its rows."""
    return _ran(_train(project, service, context, "skeleton"))


def _enrich(project: DagsterProject, service: str, context: Any) -> dict[str, Any]:
    """Fill the embedding columns, where the service has some; then look at what stands there."""
    config = project.registry.config(project.options)
    ran: dict[str, Any] = {}
    if final_stage(project.registry.pipeline(service, config)) == "enriched":
        ran = _ran(_train(project, service, context, "enrich"))
    return ran | day_metadata(project, service, _day(context))


def _train(project: DagsterProject, service: str, context: Any, stages: Any) -> ExecutionResult:
    said: set[tuple[str, str]] = set()

    def tell(step: RunProgress) -> None:
        if (step.stage, step.message) not in said:
            said.add((step.stage, step.message))
            context.log.info(f"{step.stage} {step.day}: {step.message}")

    result = project.registry.train(
        service,
        target_dates=[_day(context)],
        stages=stages,
        options=project.options,
        progress=tell,
        facts={DAGSTER_RUN: context.run_id},
    )
    for notice in result.notices:
        context.log.warning(notice)
    return result


def _ran(result: ExecutionResult) -> dict[str, Any]:
    [day] = [one for one in result.days if one.stage in {"skeleton", "enrich"}]
    return {"run": result.run_id, "state": day.state, "reason": day.reason}


def _day(context: Any) -> dt.date:
    return dt.date.fromisoformat(context.partition_key)
