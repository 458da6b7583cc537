"""A run by its id, whoever does it: one of our records, or of the Dagster that `runs_via: dagster` names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from daedalus.metadata.store import StoredRun
from daedalus.operator_config import effective_config
from daedalus.pipelines.records import TrainingRunRecord
from daedalus.platform import dagster_client, run_control
from daedalus.platform.records import stored_run
from daedalus.platform.results import RunState

if TYPE_CHECKING:
    from daedalus.metadata.store import MetadataStore
    from daedalus.platform.dagster_client import DagsterRun
    from daedalus.platform.registry import PlatformRegistry

#: The fact of a recorded run that says for which run of Dagster's a step did it.
DAGSTER_RUN = "dagster_run"
_DAGSTER_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_RUNS_LOOKED_AT = 200


def find(registry: PlatformRegistry, store: MetadataStore, run_id: str) -> StoredRun | DagsterRun:
    """The run of this id, of a unique beginning of it, or the newest one for `latest`.

    Raises:
        DefinitionError: there is no such run, or several.
        ExecutionError: it may be Dagster's, and Dagster does not answer.
    """
    if _DAGSTER_ID.fullmatch(run_id) is not None and registry.config().runs_via == "dagster":
        there = dagster_client.look_at(dagster_url(), run_id)
        if there is not None:
            return there
    return store.find(run_id)


def show(store: MetadataStore, run: StoredRun | DagsterRun) -> dict[str, Any]:
    """One run as plain data: its record and its notes; of Dagster's, what its steps recorded."""
    if isinstance(run, StoredRun):
        return stored_run(store, run)
    steps = [stored_run(store, one) for one in steps_of(store, run)]
    alone = StoredRun(
        run_id=run.run_id,
        kind="train",
        service=run.service,
        version="",
        status=run.status,
        attempt=1,
        started_at=run.started_at,
        ended_at=run.ended_at,
        facts={"request": {"target_dates": [run.day] if run.day else []}},
    )
    base = steps[-1] if steps else TrainingRunRecord.of(alone, None).to_dict()
    failed = _failure(run) if run.status.value == "failed" else ""
    return base | {
        "run_id": run.run_id,
        "status": run.status.value,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "seconds": alone.seconds,
        "days": [day for step in steps for day in step["days"]],
        "error": {"error": "ExecutionError", "what": failed, "message": failed} if failed else None,
        "notes": [note for step in steps for note in step["notes"]],
        "log": "",
        "recorded_as": [step["run_id"] for step in steps],
    }


def log_lines(
    store: MetadataStore, run: StoredRun | DagsterRun, tail: int | None = None
) -> list[dict[str, Any]]:
    """The lines of a run's log, oldest first; the last `tail` of them."""
    if isinstance(run, StoredRun):
        return store.log(run.run_id).lines(tail)
    lines = dagster_client.events_of(dagster_url(), run.run_id)
    return lines if tail is None else lines[-tail:] if tail else []


def cancel(store: MetadataStore, run: StoredRun | DagsterRun) -> RunState:
    """Stop a run that waits or runs; one that is over stays as it is.

    Raises:
        ExecutionError: it runs on another host or as another user, or Dagster does not end it.
    """
    if isinstance(run, StoredRun):
        run = run_control.cancel(store, run.run_id)
    elif not run.status.is_over:
        dagster_client.stop_run(dagster_url(), run.run_id)
        run = dagster_client.look_at(dagster_url(), run.run_id) or run
    return RunState(run_id=run.run_id, status=run.status.value)


def steps_of(store: MetadataStore, run: DagsterRun) -> list[StoredRun]:
    """The recorded runs that the steps of a run of Dagster's did, oldest first."""
    known = store.runs(service=run.service, limit=_RUNS_LOOKED_AT)
    return [one for one in reversed(known) if one.facts.get(DAGSTER_RUN) == run.run_id]


def dagster_url() -> str:
    """Where `runs_via: dagster` finds Dagster."""
    return effective_config()["dagster_graphql_url"]


def _failure(run: DagsterRun) -> str:
    lines = dagster_client.events_of(dagster_url(), run.run_id)
    said = [line for line in lines if line.get("error")]
    of_steps = [line for line in said if line["event"] == "step_failure"]
    return str((of_steps or said)[-1]["error"]) if said else "Dagster says no more than that it failed"
