"""Trust in a service's days: proofs, lint, explanations, feature tests."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daedalus.errors import DefinitionError

if TYPE_CHECKING:
    from datetime import date

    from daedalus.pipelines.compile_columns import ContractColumns
    from daedalus.pipelines.settings import TrainingRunConfig
    from daedalus.platform.registry import PlatformRegistry, RunOptions

_FOLDER = "daedalus-proof-"


def prove(
    registry: PlatformRegistry,
    service: str,
    day: date,
    *,
    rows: int = 200,
    options: RunOptions | None = None,
) -> dict[str, Any]:
    """The verdict on a day of a service, recorded as a run of the kind `prove`.

    Raises:
        DefinitionError: no such service, or the day is outside the configured months.
        ExecutionError: there are no events on that day.
        SourceError: a source cannot be read.
    """
    from daedalus.platform.records import attach_note, list_runs, recorded_run
    from daedalus.trust.prove import prove_day

    if rows < 1:
        raise DefinitionError(f"rows is {rows}, but must be at least 1", where="prove")
    config = registry.config(options)
    pipeline = registry.pipeline(service, config)
    asked = {"target_dates": [day.isoformat()], "rows": rows}
    with (
        recorded_run(registry, kind="prove", service=service, config=config, request=asked) as run,
        tempfile.TemporaryDirectory(prefix=_FOLDER) as folder,
    ):
        verdict = prove_day(
            pipeline, contract(registry, service, config), config, day, Path(folder), rows=rows
        )
        verdict = {**verdict, "run_id": run.run_id}
        run.attach("prove", verdict)
        trained = _trained(list_runs(registry, service=service, kind="train", limit=50), run.store, day)
    if trained:
        attach_note(registry, trained, "prove", {k: v for k, v in verdict.items() if k != "checks"})
    return verdict


def explain_row(
    registry: PlatformRegistry,
    service: str,
    day: date,
    where: str,
    *,
    options: RunOptions | None = None,
) -> dict[str, Any]:
    """Each value of one row of a day with what it is made of; see `daedalus.trust.explain_row`."""
    from daedalus.trust import explain_row as rows

    config = registry.config(options)
    pipeline, columns = registry.pipeline(service, config), contract(registry, service, config)
    with tempfile.TemporaryDirectory(prefix=_FOLDER) as folder:
        return rows.explain_row(pipeline, columns, config, day, where=where, folder=Path(folder))


def _trained(runs: list[dict[str, Any]], store: Any, day: date) -> str:
    """The newest training run that wrote the day."""
    for line in runs:
        payload = store.days(line["run_id"]).get(("skeleton", day.isoformat()))
        if payload is not None and payload.get("state") == "written":
            return str(line["run_id"])
    return ""


def contract(registry: PlatformRegistry, service: str, config: TrainingRunConfig) -> ContractColumns:
    """What the definitions say about a service's columns."""
    from daedalus.pipelines.compile_columns import ContractColumns
    from daedalus.pipelines.compiler import build_compile_request

    catalog = registry.facade(config).catalog
    request = build_compile_request(service, catalog, config)
    return ContractColumns.of(request.service, request.catalog, request.config)
