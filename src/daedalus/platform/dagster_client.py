"""A client of Dagster's GraphQL, for `runs_via: dagster`: has a running Dagster materialize days, and follows its runs.

Needs nothing of Dagster's, so that it works where the extra is not installed.
"""

from __future__ import annotations

import datetime as dt
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from daedalus.errors import DefinitionError, ExecutionError, did_you_mean
from daedalus.metadata.store import RunStatus
from daedalus.secrets import mask

_TIMEOUT_SECONDS = 20.0
_LARGEST_ANSWER = 16 << 20
_WHERE_FROM = {"key": "daedalus/started_by", "value": "daedalus"}

_FIND = """
query FindAsset($key: AssetKeyInput!) {
  assetOrError(assetKey: $key) {
    __typename
    ... on Asset { definition { jobNames repository { name location { name } } partitionKeys } }
  }
  assetNodes { assetKey { path } isMaterializable }
}
"""
_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on UnauthorizedError { message }
    ... on PipelineNotFoundError { message }
    ... on InvalidSubsetError { message }
    ... on ConflictingExecutionParamsError { message }
  }
}
"""
_LOOK = """
query Look($id: ID!) {
  runOrError(runId: $id) {
    __typename
    ... on Run { runId status creationTime startTime endTime tags { key value } assetSelection { path } }
  }
}
"""
_EVENTS = """
query Events($id: ID!, $after: String) {
  runOrError(runId: $id) {
    ... on Run {
      eventConnection(afterCursor: $after) {
        cursor
        hasMore
        events {
          __typename
          ... on MessageEvent { timestamp level message stepKey eventType }
          ... on ExecutionStepFailureEvent { error { message } }
          ... on RunFailureEvent { error { message } }
          ... on EngineEvent { error { message } }
        }
      }
    }
  }
}
"""
_STOP = """
mutation Stop($id: String!) {
  terminateRun(runId: $id) {
    __typename
    ... on TerminateRunFailure { message }
    ... on UnauthorizedError { message }
    ... on PythonError { message }
  }
}
"""
_STATUS = {
    **dict.fromkeys(("QUEUED", "NOT_STARTED", "STARTING", "MANAGED"), RunStatus.QUEUED),
    **dict.fromkeys(("STARTED", "CANCELING"), RunStatus.RUNNING),
    "SUCCESS": RunStatus.SUCCEEDED,
    "FAILURE": RunStatus.FAILED,
    "CANCELED": RunStatus.CANCELLED,
}
_LEVELS = {"CRITICAL": "error", "ERROR": "error", "WARNING": "warning"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DagsterRun:
    """A run as Dagster knows it.

    Attributes:
        service: whose training set it makes; empty where it makes another asset.
        day: the partition; empty without one.
        started_at: ISO, UTC; of its request while it waits. `ended_at` is empty while there is no end.
    """

    run_id: str
    service: str
    day: str
    status: RunStatus
    started_at: str
    ended_at: str


def look_at(url: str, run_id: str) -> DagsterRun | None:
    """A run of Dagster's; None when it has none of this id.

    Raises:
        ExecutionError: Dagster does not answer.
    """
    run = ask(url, _LOOK, {"id": run_id})["runOrError"]
    if run["__typename"] != "Run":
        return None
    assets = [one["path"] for one in run["assetSelection"] or [] if one["path"][:1] == ["training"]]
    day = next((tag["value"] for tag in run["tags"] if tag["key"] == "dagster/partition"), "")
    return DagsterRun(
        run_id=run["runId"],
        service=assets[0][-1] if len(assets) == 1 else "",
        day=day,
        status=_STATUS[run["status"]],
        started_at=_time(run["startTime"] or run["creationTime"]),
        ended_at=_time(run["endTime"]),
    )


def events_of(url: str, run_id: str) -> list[dict[str, Any]]:
    """What Dagster logged of a run, oldest first, as lines of our logs; `error` says why a step failed.

    Raises:
        ExecutionError: Dagster does not answer.
    """
    lines: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        answer = ask(url, _EVENTS, {"id": run_id, "after": after})["runOrError"]
        events = answer.get("eventConnection") or {"events": [], "hasMore": False, "cursor": None}
        lines += [_line(event) for event in events["events"]]
        if not events["hasMore"]:
            return lines
        after = events["cursor"]


def stop_run(url: str, run_id: str) -> None:
    """Have Dagster end a run.

    Raises:
        ExecutionError: Dagster does not answer, or refuses.
    """
    stopped = ask(url, _STOP, {"id": run_id})["terminateRun"]
    if stopped["__typename"] != "TerminateRunSuccess":
        told = stopped.get("message") or stopped["__typename"]
        raise ExecutionError(f"Dagster does not end it: {mask(told)}", where=f"run {run_id}")


def _line(event: dict[str, Any]) -> dict[str, Any]:
    said = {"step": event.get("stepKey"), "message": event.get("message")}
    error = (event.get("error") or {}).get("message", "").strip()
    return {
        "at": _time(int(event["timestamp"]) / 1000 if event.get("timestamp") else None),
        "level": _LEVELS.get(event.get("level", ""), "info"),
        "event": (event.get("eventType") or "message").lower(),
        **{key: mask(value) for key, value in said.items() if value},
        **({"error": mask(error)} if error else {}),
    }


def _time(seconds: float | None) -> str:
    if not seconds:
        return ""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="milliseconds")


def launch_partition(url: str, service: str, day: dt.date) -> str:
    """Start the run of one day of a service's training set; returns Dagster's run id at once.

    Args:
        url: the GraphQL endpoint, such as `http://localhost:3000/graphql`.
        service: its asset is `training/SERVICE`.
        day: the partition.

    Raises:
        DefinitionError: Dagster has no such asset, or the asset no such day.
        ExecutionError: Dagster does not answer, or refuses.
    """
    key = {"path": ["training", service]}
    found = ask(url, _FIND, {"key": key})
    definition = (found["assetOrError"] or {}).get("definition")
    if not definition:
        known = [
            node["assetKey"]["path"][-1]
            for node in found["assetNodes"]
            if node["assetKey"]["path"][:1] == ["training"]
        ]
        raise DefinitionError(
            f"Dagster has no asset training/{service}", where=mask(url), hint=did_you_mean(service, known)
        )
    if day.isoformat() not in definition["partitionKeys"]:
        raise DefinitionError(
            f"Dagster's asset training/{service} has no partition {day.isoformat()}",
            where=mask(url),
            hint="It has the days of feed_start..feed_end; reload its code location when those have changed",
        )
    repository = definition["repository"]
    params = {
        "selector": {
            "repositoryLocationName": repository["location"]["name"],
            "repositoryName": repository["name"],
            "jobName": _implicit_job(definition["jobNames"]),
            "assetSelection": [key],
        },
        "runConfigData": {},
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": day.isoformat()}, _WHERE_FROM]},
        "mode": "default",
    }
    launched = ask(url, _LAUNCH, {"params": params})["launchPipelineExecution"]
    if launched["__typename"] != "LaunchRunSuccess":
        told = launched.get("message") or "; ".join(one["message"] for one in launched.get("errors", []))
        raise ExecutionError(
            f"Dagster refuses the run: {mask(told or launched['__typename'])}",
            where=mask(url),
            day=day.isoformat(),
        )
    return str(launched["run"]["runId"])


def _implicit_job(names: list[str]) -> str:
    """The job that can materialize any asset; a named one may select others."""
    return next((name for name in names if name.startswith("__ASSET_JOB")), names[0])


def ask(url: str, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    """The data that a query gives.

    Raises:
        DefinitionError: the address is none of HTTP.
        ExecutionError: nobody answers there, or not as Dagster does.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise DefinitionError(
            f"{mask(url)!r} is no HTTP address",
            hint="daeda config set dagster_graphql_url http://HOST:3000/graphql",
        )
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
        url,
        data=json.dumps({"query": query, "variables": variables}).encode(),
        headers={"Content-Type": "application/json", "Accept": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310
            answer = json.loads(response.read(_LARGEST_ANSWER))
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ExecutionError(
            f"Dagster does not answer: {mask(str(reason))}",
            where=mask(url),
            hint="Start it (dagster dev -m daedalus.definitions), or set runs_via: queue",
        ) from None
    if not isinstance(answer, dict) or answer.get("errors") or not isinstance(answer.get("data"), dict):
        errors = answer.get("errors") if isinstance(answer, dict) else None
        told = "; ".join(str(one.get("message")) for one in errors or [] if isinstance(one, dict))
        raise ExecutionError(f"no answer as Dagster gives it: {mask(told) or 'no GraphQL'}", where=mask(url))
    return answer["data"]  # type: ignore[no-any-return]
