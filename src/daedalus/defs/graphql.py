"""A client of Dagster's GraphQL, for `runs_via: dagster`: asks a running Dagster to materialize a day.

Needs nothing of Dagster's, so that it works where the extra is not installed.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from daedalus.errors import DefinitionError, ExecutionError, did_you_mean
from daedalus.secrets import mask

if TYPE_CHECKING:
    import datetime as dt

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
