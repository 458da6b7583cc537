"""Runs in MLflow on SQLite, and trackers that fail."""

from __future__ import annotations

import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from daedalus.errors import DaedalusError, ExecutionError
from daedalus.pipelines.settings import TrainingRunConfig
from daedalus.platform import PlatformRegistry, RunOptions
from daedalus.platform.records import show_run
from daedalus.tracking import ExperimentTracker, MLflowTracker, NullTracker, TrackedRun, get_tracker, sending
from pipelines.tiny import DAYS, tiny

if TYPE_CHECKING:
    from pathlib import Path

    from daedalus.pipelines.executor import ExecutionResult

# MLflow's own stack is not free of warnings.
pytestmark = [pytest.mark.xdist_group("mlflow"), pytest.mark.filterwarnings("ignore")]
SECRET = "kN4x9QzR7w"
WITH_MLFLOW = {"tracking": "mlflow"}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory):
    """Nobody's operator file, no MLflow server, a folder that nothing is written to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAEDALUS_CONFIG", str(tmp_path_factory.mktemp("operator") / "none.toml"))
        patch.setenv("TRACKED_SECRET", SECRET)
        for name in [one for one in os.environ if one.startswith("MLFLOW_")]:
            patch.delenv(name)
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        yield patch


@pytest.fixture(scope="module")
def project(environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    secret = {"feature_s3_root_dir": "https://me:${TRACKED_SECRET}@127.0.0.1/events"}
    return tiny(tmp_path_factory.mktemp("project"), runtime=secret).root


def train(project: Path, out: str, *days: str, **overrides: Any) -> ExecutionResult:
    import datetime as dt

    options = RunOptions(overrides={"output_root": str(project / out), **WITH_MLFLOW, **overrides})
    dates = [dt.date.fromisoformat(day) for day in days]
    return PlatformRegistry.open(project).train("s", target_dates=dates, options=options)


@pytest.fixture(scope="module")
def tracked(project: Path) -> tuple[ExecutionResult, dict[str, Any]]:
    """A tracked run, and its note."""
    result = train(project, "out", *DAYS[:2])
    assert not [notice for notice in result.notices if "mlflow" in notice]
    run = show_run(PlatformRegistry.open(project), result.run_id, output_root=project / "out")
    (note,) = [note for note in run["notes"] if note["kind"] == "tracking"]
    return result, note


@pytest.fixture(scope="module")
def client(tracked, environment):
    environment.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=tracked[1]["tracking_uri"])


@pytest.mark.slow
def test_a_run_is_shown_with_its_service_commit_and_record(tracked, client):
    result, note = tracked
    run = client.get_run(note["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == run.data.tags["daedalus.feature_service"] == "s@2026-05-01"
    assert client.get_experiment(run.info.experiment_id).name == note["experiment"] == "s"
    assert run.data.tags["daedalus.run_id"] == result.run_id
    assert (run.data.tags["daedalus.first_day"], run.data.tags["daedalus.last_day"]) == DAYS[:2]
    assert "config/training/runtime.yaml" in run.data.tags["daedalus.config_files"]
    assert run.data.params["feed_start"] == "202605"
    assert run.data.params["tracking"] == "mlflow"
    assert run.data.metrics["rows"] == 5
    assert run.info.end_time >= run.info.start_time


@pytest.mark.slow
def test_every_day_has_its_metrics(tracked, client):
    run_id = tracked[1]["mlflow_run_id"]
    rows = {metric.step: metric.value for metric in client.get_metric_history(run_id, "day.rows")}
    assert rows == {20260501: 2, 20260502: 3}
    nulls = {one.step: one.value for one in client.get_metric_history(run_id, "day.null_rate.score")}
    assert set(nulls) == set(rows)
    seconds = client.get_metric_history(run_id, "day.skeleton.seconds")
    assert len(seconds) == 2
    assert all(metric.value > 0 for metric in seconds)


@pytest.mark.slow
def test_configuration_record_and_report_are_kept(tracked, client):
    run = client.get_run(tracked[1]["mlflow_run_id"])
    assert {one.path for one in client.list_artifacts(run.info.run_id)} == {
        "config.json",
        "run.json",
        "report.html",
    }
    folder = run.info.artifact_uri.removeprefix("file://")
    with open(f"{folder}/run.json", encoding="utf-8") as file:
        record = json.load(file)
    assert record["run_id"] == tracked[0].run_id
    assert record["status"] == "succeeded"
    with open(f"{folder}/report.html", encoding="utf-8") as file:
        assert "2026-05-02" in file.read()


@pytest.mark.slow
def test_no_secret_is_logged_and_nothing_is_written_elsewhere(tracked, project, client):
    written = [path for path in (project / "out" / "_mlflow").rglob("*") if path.is_file()]
    assert len(written) > 3
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
    config = next(path for path in written if path.name == "config.json").read_text()
    assert "${TRACKED_SECRET}" in config
    assert not os.listdir()
    assert not (project / "mlruns").exists()


@pytest.fixture
def in_process(monkeypatch):
    """Importing MLflow once more takes seconds."""
    monkeypatch.setattr(sending, "send", lambda tracker, run: tracker.log_run(run))


@pytest.mark.slow
def test_a_failed_run_is_shown_as_failed_and_its_error_is_the_users(tracked, project, client, in_process):
    with pytest.raises(DaedalusError) as caught:
        train(project, "out", "2026-05-01", compute={"duckdb_config": {"no_such_setting": "1"}})
    newest = client.search_runs([client.get_run(tracked[1]["mlflow_run_id"]).info.experiment_id])[0]
    assert newest.info.status == "FAILED"
    assert caught.value.what[:40] in newest.data.tags["daedalus.error"]


# ------------------------------------------------------------------ trackers that fail


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_a_notice(project, environment, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://me:{SECRET}@127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.setattr(sending.send, "__kwdefaults__", {"seconds": 0.5})
        result = train(project, "silent", DAYS[0])
    assert [day.state for day in result.days] == ["written"]
    assert result.notices[-1] == "the run was not sent to mlflow: it did not answer within 0.5 s"


@pytest.mark.slow
def test_a_server_that_is_not_there_is_a_notice_without_secrets(
    project, environment, monkeypatch, client, in_process
):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    result = train(project, "nobody", DAYS[0])
    (notice,) = [one for one in result.notices if one.startswith("the run was not sent to mlflow: ")]
    run = show_run(PlatformRegistry.open(project), result.run_id, output_root=project / "nobody")
    assert run["status"] == "succeeded"
    assert run["notes"] == []
    with open(run["log"], encoding="utf-8") as log:
        text = log.read()
    assert "was not sent" in text
    assert SECRET not in notice + text


RUN = TrackedRun(
    run_id="r",
    service="s",
    version="1",
    status="succeeded",
    started_at="2026-05-01T00:00:00+00:00",
    ended_at="2026-05-01T00:00:01+00:00",
    tags={},
    params={},
    metrics=(),
)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os; os._exit(3)", "its process ended: exit code 3"),
        ("raise SystemError('password=hunter22')", r"its process ended: SystemError: password=\*\*\*"),
        ('print(\'noise\'); print(\'\\x1edaedalus:\' + \'{"error": "e", "hint": "h"}\')', "e. h"),
    ],
)
def test_a_process_that_dies_is_told(tmp_path, monkeypatch, program, said):
    monkeypatch.setattr(sending, "_PROGRAM", program)
    with pytest.raises(ExecutionError, match=said):
        sending.send(MLflowTracker(folder=tmp_path), RUN)


@pytest.mark.slow
def test_two_first_runs_at_once_are_both_shown(environment, tmp_path):
    """MLflow alone fails here: both make the tables."""
    with ThreadPoolExecutor() as pool:
        links = list(pool.map(lambda _: sending.send(MLflowTracker(folder=tmp_path), RUN), range(2)))
    assert len({link["mlflow_run_id"] for link in links}) == 2
    assert {link["experiment_id"] for link in links} == {links[0]["experiment_id"]}


def test_off_is_the_default_and_does_nothing(project, monkeypatch):
    monkeypatch.setattr(sending, "send", None)  # would fail
    result = train(project, "off", DAYS[0], tracking="none")
    assert not (project / "off" / "_mlflow").exists()
    assert not [notice for notice in result.notices if "sent" in notice]
    tracker = get_tracker(TrainingRunConfig())
    assert isinstance(tracker, NullTracker)
    assert isinstance(tracker, ExperimentTracker)
    assert tracker.log_run(RUN) == {}


def test_runs_survive_a_round_through_json():
    assert TrackedRun.from_dict(json.loads(json.dumps(RUN.to_dict()))) == RUN
    assert isinstance(get_tracker(TrainingRunConfig(tracking="mlflow")), MLflowTracker)
