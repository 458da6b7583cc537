"""Runs in MLflow, through its client alone (`mlflow-skinny`).

Where to, MLflow's own variables say (`MLFLOW_TRACKING_URI`, `MLFLOW_TRACKING_TOKEN`, ...); without them it is a
SQLite file under the output root. MLflow's telemetry is off.
"""

from __future__ import annotations

import contextlib
import os
import re
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from daedalus.errors import MissingExtraError
from daedalus.secrets import mask, remember_secret
from daedalus.tracking.base import milliseconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from daedalus.tracking.base import TrackedRun

_STATUS = {"succeeded": "FINISHED", "failed": "FAILED"}
_LONGEST_NAME, _LONGEST_VALUE = 250, 5_000
#: Entities per request, as MLflow's servers allow them.
_METRICS, _PARAMS = 1_000, 100
#: Variables whose values appear nowhere.
SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


class MLflowTracker:
    """Shows each run as a run of the experiment that is called like its service.

    Args:
        folder: holds database and artifacts where no server keeps them.
    """

    def __init__(self, *, folder: Path) -> None:
        self.folder = folder

    def log_run(self, run: TrackedRun) -> Mapping[str, str]:
        """Log tags, parameters, metrics, documents and files; returns where the run is to be found.

        Raises:
            MissingExtraError: the extra `mlflow` is not installed.
        """
        # Before MLflow is imported: it decides then.
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        for name in SECRETS:
            remember_secret(os.environ.get(name, ""))
        mlflow = _client_module()
        uri = os.environ.get("MLFLOW_TRACKING_URI") or self._own_database()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or run.service
        with self._alone(uri):
            client = mlflow.tracking.MlflowClient(tracking_uri=uri)
            experiment = self._experiment(client, name, uri)
        tags = {**run.tags, **({"mlflow.source.git.commit": sha} if (sha := _sha(run)) else {})}
        started = client.create_run(
            experiment,
            start_time=milliseconds(run.started_at),
            run_name=run.tags.get("daedalus.feature_service", run.service),
            tags={key: value[:_LONGEST_VALUE] for key, value in tags.items()},
        ).info.run_id
        try:
            _log(client, mlflow.entities, started, run)
        finally:
            end = milliseconds(run.ended_at) if run.ended_at else None
            client.set_terminated(started, status=_STATUS.get(run.status, "KILLED"), end_time=end)
        return {
            "tracking_uri": mask(uri),
            "experiment": name,
            "experiment_id": experiment,
            "mlflow_run_id": started,
        }

    def _alone(self, uri: str) -> contextlib.AbstractContextManager[Any]:
        """Hold off other runs while MLflow makes a new database's tables: it does not bear two that begin at once."""
        if not _is_database(uri):
            return contextlib.nullcontext()
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / ".lock")

    def _own_database(self) -> str:
        return f"sqlite:///{(self.folder / 'mlflow.db').absolute()}"

    def _experiment(self, client: Any, name: str, uri: str) -> str:
        """The id of the experiment of this name, made when there is none."""
        known = client.get_experiment_by_name(name)
        if known is None:
            # A server knows where its artifacts go; a database would have them in the working directory.
            place = (self.folder / "artifacts").absolute().as_uri() if _is_database(uri) else None
            try:
                return str(client.create_experiment(name, artifact_location=place))
            except Exception:
                known = client.get_experiment_by_name(name)  # another run was quicker
                if known is None:
                    raise
        return str(known.experiment_id)


def _log(client: Any, entities: Any, run_id: str, run: TrackedRun) -> None:
    params = (
        entities.Param(name, value[:_LONGEST_VALUE])
        for name, value in _named((name, value) for name, value in run.params.items())
    )
    for some in _portions(params, _PARAMS):
        client.log_batch(run_id, params=some)
    metrics = (
        entities.Metric(name, metric.value, metric.timestamp_ms, metric.step)
        for name, metric in _named(
            ((metric.name, metric) for metric in run.metrics), lambda metric: metric.step
        )
    )
    for some in _portions(metrics, _METRICS):
        client.log_batch(run_id, metrics=some)
    for name, document in run.documents.items():
        client.log_dict(run_id, dict(document), name)
    for path in run.files:
        client.log_artifact(run_id, path)


def _named(items: Iterable[tuple[str, Any]], step: Any = lambda _: None) -> Iterator[tuple[str, Any]]:
    """The items under names that MLflow takes; of names that become the same the first is kept per step.

    >>> [name for name, _ in _named([("a", 1), ("null rate of a/b'c", 2), ("null rate of a_b'c", 3)])]
    ['a', 'null rate of a_b_c']
    """
    seen = set()
    for name, value in items:
        # No slashes: MLflow takes names for paths, and dots in them for a way out.
        plain = re.sub(r"[^\w\-. :]", "_", name)[:_LONGEST_NAME]
        key = (plain, step(value))
        if key not in seen:
            seen.add(key)
            yield plain, value


def _portions(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    source = iter(items)
    while some := list(islice(source, size)):
        yield some


def _client_module() -> Any:
    try:
        import_module("mlflow.tracking")
        import_module("mlflow.entities")
        return import_module("mlflow")
    except ImportError as error:
        raise MissingExtraError(
            "MLflow's client is not installed", hint='pip install "daedalus[mlflow]"'
        ) from error


def _is_database(uri: str) -> bool:
    return not re.match(r"(https?|databricks|uc)\b", uri)


def _sha(run: TrackedRun) -> str:
    return run.tags.get("daedalus.git_sha", "")
