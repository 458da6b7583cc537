"""Dagster definitions of a project: in process, and behind Dagster's own GraphQL."""

from __future__ import annotations

import datetime as dt
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import chdir
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.errors import DagsterExecutionInterruptedError

from daedalus.cli.main import main
from daedalus.defs import build_definitions
from daedalus.defs.project import DagsterProject
from daedalus.defs.steps import told
from daedalus.errors import (
    CompileError,
    DefinitionError,
    ExecutionError,
    MissingExtraError,
    ParameterError,
    SourceError,
)
from daedalus.platform import PlatformRegistry
from daedalus.platform.dagster_client import ask, launch_partition
from daedalus.platform.day_footers import check_day, day_footers
from daedalus.platform.live import LiveProject
from daedalus.platform.operations import OPERATIONS
from daedalus.platform.run_queue import close_queues, launcher_for, start_queue
from support.pixai import PIXAI

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("dagster")]

SERVICE = "product_ranking"
KEY = dg.AssetKey(["training", SERVICE])
VIEWS = {dg.AssetKey(["views", name]) for name in ("customer_profile", "product_info", "visits")}
DAY = dt.date(2026, 1, 6)
FOLDER = f"data/training_output/{SERVICE}/skeleton/dt={DAY}"


@pytest.fixture(scope="module", autouse=True)
def nobodys_machine(tmp_path_factory):
    """Neither the operator's file nor Dagster's home decides, and nobody is told of anything."""
    patch = pytest.MonkeyPatch()
    patch.setenv("DAEDALUS_CONFIG", str(tmp_path_factory.mktemp("config") / "config.toml"))
    patch.setenv("DAGSTER_DISABLE_TELEMETRY", "yes")
    patch.delenv("DAGSTER_HOME", raising=False)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dagster") / "project"
    assert main(["init", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def made(project):
    """The definitions, and what materializing a day in this process did."""
    with chdir(project), dg.DagsterInstance.ephemeral() as instance:
        defs = build_definitions(project)
        job = defs.resolve_job_def(f"train_{SERVICE}")
        yield defs, job.execute_in_process(partition_key=DAY.isoformat(), instance=instance)


def test_the_definitions_show_views_behind_a_partitioned_asset(project, made):
    defs, _ = made
    dg.Definitions.validate_loadable(defs)
    graph = defs.resolve_asset_graph()
    asset = graph.get(KEY)
    assert asset.parent_keys == VIEWS
    assert not any(graph.get(view).is_executable for view in VIEWS)
    days = asset.partitions_def.get_partition_keys()
    assert (days[0], days[-1], len(days)) == ("2026-01-01", "2026-01-31", 31)
    steps = [node.name for node in defs.resolve_job_def(f"train_{SERVICE}").graph.iterate_op_defs()]
    assert [f"{SERVICE}_{step}" for step in ("compile", "enrich", "skeleton")] == sorted(steps)[-3:]


def test_embedding_stores_are_no_views():
    graph = build_definitions(PIXAI).resolve_asset_graph()
    parents = graph.get(dg.AssetKey(["training", "dssm_ranking"])).parent_keys
    assert {key.path[0] for key in parents} == {"views", "stores"}
    assert {key.path[1] for key in parents if key.path[0] == "stores"} == {"artwork_embeddings"}
    views = set(PlatformRegistry.open(PIXAI).catalog.views)
    assert {key.path[1] for key in graph.get_all_asset_keys() if key.path[0] == "views"} == views


def test_the_schedule_makes_the_day_before(made):
    defs, _ = made
    schedule = defs.resolve_schedule_def(f"daily_{SERVICE}")
    assert schedule.cron_schedule == "0 2 * * *"
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    context = dg.build_schedule_context(
        scheduled_execution_time=dt.datetime(2026, 1, 7, 2, tzinfo=dt.UTC),
        repository_def=defs.get_repository_def(),
    )
    [request] = schedule.evaluate_tick(context).run_requests
    assert request.partition_key == "2026-01-06"
    later = dg.build_schedule_context(scheduled_execution_time=dt.datetime(2026, 2, 2, 2, tzinfo=dt.UTC))
    assert "2026-02-01 is outside" in schedule.evaluate_tick(later).skip_message


def test_a_materialization_is_what_train_makes(project, made, tmp_path, monkeypatch):
    _, result = made
    assert result.success
    [event] = result.get_asset_materialization_events()
    assert (event.asset_key, event.partition) == (KEY, DAY.isoformat())
    monkeypatch.chdir(project)
    apart = ["pipeline", "train", SERVICE, "--target-date", DAY.isoformat(), "--output-root", str(tmp_path)]
    assert main(apart) == 0
    theirs = {path.name: path.read_bytes() for path in (project / FOLDER).glob("*.parquet")}
    ours = {path.name: path.read_bytes() for path in (tmp_path / SERVICE / "skeleton").rglob("*.parquet")}
    assert ours == theirs != {}


def test_metadata_comes_from_the_footers(project, made):
    [event] = made[1].get_asset_materialization_events()
    shown = event.materialization.metadata
    assert shown["dagster/partition_row_count"].value == 300
    assert shown["bytes"].value == sum(path.stat().st_size for path in (project / FOLDER).glob("*.parquet"))
    schema = {column.name: column.type for column in shown["dagster/column_schema"].schema.columns}
    assert schema["purchased_products_7d"] == "BIGINT[]"
    lineage = shown["dagster/column_lineage"].lineage.deps_by_column
    assert set(lineage) == set(schema)
    assert [(one.asset_key.path[-1], one.column_name) for one in lineage["price"]] == [
        ("product_info", "price")
    ]
    assert {check.check_name: check.passed for check in made[1].get_asset_check_evaluations()} == {
        "row_count": True,
        "null_rates": True,
        "schema": True,
    }


def test_checks_find_what_differs_from_the_contract(project, made, monkeypatch):
    monkeypatch.chdir(project)
    file = project / "feature_services" / f"{SERVICE}.yaml"
    before = file.read_text()
    service = yaml.safe_load(before)
    names = [one if isinstance(one, str) else one.get("ref", "") for one in service["columns"]]
    service["columns"][names.index("customer_profile:newsletter")] = {
        "ref": "customer_profile:newsletter",
        "default": False,
        "nullable": False,
    }
    service["columns"].append({"name": "again", "ref": "visits:event"})
    manifest = project / FOLDER / "_manifest.json"
    written = manifest.read_text()
    try:
        file.write_text(yaml.safe_dump(service))
        manifest.write_text(written.replace('"row_count": 300', '"row_count": 301'))
        checks = {one.name: one for one in check_day(PlatformRegistry.open(), SERVICE, DAY)}
    finally:
        file.write_text(before)
        manifest.write_text(written)
    assert not any(one.passed for one in checks.values())
    assert all(one.blocking for one in checks.values())
    assert "newsletter" in checks["null_rates"].summary
    assert checks["schema"].found["missing"] == ["again"]
    assert "newsletter" not in checks["schema"].found
    assert "301" in checks["row_count"].summary


def test_a_day_that_is_not_there_is_said_so(project, monkeypatch):
    monkeypatch.chdir(project)
    with pytest.raises(ExecutionError, match="not there") as caught:
        day_footers(PlatformRegistry.open(), SERVICE, dt.date(2026, 1, 31))
    assert caught.value.day == "2026-01-31"


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (DefinitionError("wrong", where="a.yaml", hint="mend"), False),
        (CompileError("wrong"), False),
        (ExecutionError("failed", day="2026-01-01"), True),
        (SourceError("gone", where="postgres://u:secret@host/db"), True),
    ],
)
def test_errors_become_failures_that_are_retried_where_that_may_help(error, retried):
    def work():
        raise error

    with pytest.raises(dg.RetryRequested if retried else dg.Failure) as caught:
        told(work, delay=30.0)
    failure = caught.value.__cause__ if retried else caught.value
    assert not failure.allow_retries
    assert failure.metadata["error"].value == type(error).__name__
    assert "secret" not in f"{failure.description} {failure.metadata}"
    with pytest.raises(dg.Failure):
        told(work)


def test_a_step_is_tried_three_times(project, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.setattr("daedalus.defs.steps.retry_delay", lambda attempt: 0.001 * attempt)
    (project / "data/visits/dt=2026-01-09/part-0.parquet").rename(project / "kept.parquet")
    (project / "data/visits/dt=2026-01-09/part-0.parquet").write_bytes(b"nothing")
    job = build_definitions(project).resolve_job_def(f"train_{SERVICE}")
    try:
        with dg.DagsterInstance.ephemeral() as instance:
            result = job.execute_in_process(
                partition_key="2026-01-09", instance=instance, raise_on_error=False
            )
    finally:
        (project / "kept.parquet").rename(project / "data/visits/dt=2026-01-09/part-0.parquet")
    kinds = [event.event_type_value for event in result.all_events if "skeleton" in (event.step_key or "")]
    assert [kind for kind in kinds if kind in {"STEP_UP_FOR_RETRY", "STEP_FAILURE"}] == [
        "STEP_UP_FOR_RETRY",
        "STEP_UP_FOR_RETRY",
        "STEP_FAILURE",
    ]


def test_what_somebody_cancels_is_not_begun_again(project, monkeypatch):
    """Dagster tells a step by an interrupt; a retry policy would take it for a failure."""
    monkeypatch.chdir(project)
    begun = []

    def interrupted(_project: object, _service: str, context: dg.OpExecutionContext, _stage: str) -> None:
        begun.append(1)
        context.instance.report_run_canceling(context.run)
        raise DagsterExecutionInterruptedError

    monkeypatch.setattr("daedalus.defs.steps._train", interrupted)
    job = build_definitions(project).resolve_job_def(f"train_{SERVICE}")
    with dg.DagsterInstance.ephemeral() as instance:
        with pytest.raises(DagsterExecutionInterruptedError):
            job.execute_in_process(partition_key="2026-01-09", instance=instance)
        [run] = instance.get_runs()
    assert (len(begun), run.status) == (1, dg.DagsterRunStatus.CANCELED)


def test_a_broken_definition_fails_the_first_step_once(tmp_path, monkeypatch):
    assert main(["init", str(tmp_path / "p"), "--no-data"]) == 0
    monkeypatch.chdir(tmp_path / "p")
    job = build_definitions(".").resolve_job_def(f"train_{SERVICE}")
    file = Path("config/training/runtime.yaml")
    file.write_text(file.read_text() + "\nnonsense: 1\n")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(partition_key="2026-01-06", instance=instance, raise_on_error=False)
    assert not result.success
    failed = [event for event in result.all_events if event.is_step_failure]
    assert [event.step_key for event in failed] == [f"{SERVICE}.{SERVICE}_compile"]
    assert "nonsense" in failed[0].step_failure_data.user_failure_data.description


def test_the_project_may_be_another_folder(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opened = DagsterProject.open(project)
    assert opened.registry.config(opened.options).output_path == project / "data" / "training_output"


def test_the_module_imports_anywhere_and_names_what_is_missing(tmp_path, monkeypatch):
    code = "import daedalus.definitions as d; print(hasattr(d, 'x'), 'defs' in dir(d)); d.defs"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["False", "True"]
    assert "no feature views here" in done.stderr.splitlines()[-1]
    monkeypatch.setitem(sys.modules, "dagster", None)
    with pytest.raises(MissingExtraError, match=r'pip install "daedalus\[dagster\]"'):
        build_definitions(tmp_path)


# ------------------------------------------------------------------ a running Dagster


@pytest.fixture(scope="module")
def url(project, made, tmp_path_factory):
    """The GraphQL address of a Dagster that has loaded the project."""
    home = tmp_path_factory.mktemp("home")
    # Runs are started by the server itself: there is no daemon that would take them from a queue.
    coordinator = {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"}
    (home / "dagster.yaml").write_text(
        yaml.safe_dump({"telemetry": {"enabled": False}, "run_coordinator": coordinator})
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dagster_webserver", "-m", "daedalus.definitions"]
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "-h", "127.0.0.1", "-p", str(port)],
            cwd=project,
            env=os.environ | {"DAGSTER_HOME": str(home)},
            stdout=log,
            stderr=log,
        )
        address = f"http://127.0.0.1:{port}/graphql"
        try:
            wait_for(lambda: assets_of(address), lambda: (home / "log").read_text())
            yield address
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(60)


def wait_for(look, why=lambda: "", seconds=180):
    """What `look` gives, once it gives something."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            found = look()
        except ExecutionError:
            found = None
        if found:
            return found
        time.sleep(0.25)
    raise AssertionError(why())


def assets_of(address):
    answer = ask(address, "{ assetNodes { assetKey { path } dependencyKeys { path } isMaterializable } }", {})
    return {tuple(one["assetKey"]["path"]): one for one in answer["assetNodes"]}


def run_of(address, run_id):
    query = """query ($id: ID!) { runOrError(runId: $id) { ... on Run {
        status tags { key value } assetMaterializations { partition assetKey { path } } } } }"""
    run = ask(address, query, {"id": run_id})["runOrError"]
    return run if run.get("status") in {"SUCCESS", "FAILURE"} else None


@pytest.fixture
def live(url, project, monkeypatch):
    """The project as a server has it that starts its runs through Dagster."""
    monkeypatch.chdir(project)
    runtime = project / "config/training/runtime.yaml"
    before = runtime.read_text()
    assert main(["config", "set", "dagster_graphql_url", url]) == 0
    try:
        runtime.write_text(before + "\nruns_via: dagster\n")
        live = LiveProject(project)
        start_queue(live.current(), launcher_for(live.current()))
        yield live
    finally:
        runtime.write_text(before)
        close_queues()


def call(live, name, **params):
    return OPERATIONS[name].call(live.current(), params)


def ended(live, run_id):
    found = call(live, "runs.get", run_id=run_id)
    return found if found["status"] not in {"queued", "running"} else None


def test_a_running_dagster_shows_the_project_and_makes_days_for_the_api(url, project, live, capsys):
    """The operation that starts runs, over GraphQL, to a whole day on disk; then the same run by its id."""
    assets = assets_of(url)
    parents = {tuple(key["path"]) for key in assets["training", SERVICE]["dependencyKeys"]}
    assert parents == {("views", "customer_profile"), ("views", "product_info"), ("views", "visits")}
    run_id = call(live, "runs.materialize_partition", service=SERVICE, partition="2026-01-07")["run_id"]
    assert call(live, "runs.get", run_id=run_id)["request"] == {"target_dates": ["2026-01-07"]}
    found = wait_for(lambda: ended(live, run_id))
    run = run_of(url, run_id)
    assert run["status"] == "SUCCESS"
    assert {"key": "daedalus/started_by", "value": "daedalus"} in run["tags"]
    [made] = run["assetMaterializations"]
    assert (made["partition"], made["assetKey"]["path"]) == ("2026-01-07", ["training", SERVICE])
    assert all(one.passed for one in check_day(PlatformRegistry.open(), SERVICE, dt.date(2026, 1, 7)))
    assert (found["run_id"], found["service"], found["status"]) == (run_id, SERVICE, "succeeded")
    assert [(day["day"], day["rows"]) for day in found["days"]] == [("2026-01-07", 300)]
    assert found["seconds"] > 0
    recorded = call(live, "runs.get", run_id=found["recorded_as"][0])
    assert recorded["days"] == found["days"]
    assert set(recorded) | {"recorded_as"} == set(found)
    lines = call(live, "runs.logs", run_id=run_id)
    assert any("skeleton 2026-01-07: written" in line.get("message", "") for line in lines)
    assert call(live, "runs.logs", run_id=run_id, tail=2) == lines[-2:]
    assert call(live, "runs.cancel", run_id=run_id) == {"run_id": run_id, "status": "succeeded"}
    capsys.readouterr()
    assert main(["runs", "show", run_id]) == 0
    assert "succeeded" in capsys.readouterr().out


def test_a_run_of_dagster_s_that_fails_says_why(project, live):
    edited = project / f"config/pipelines/{SERVICE}.yaml"
    edited.parent.mkdir(exist_ok=True)
    edited.write_text("operators: [{op_kind: nonsense}]\n")
    try:
        run_id = call(live, "runs.materialize_partition", service=SERVICE, partition="2026-01-08")["run_id"]
        found = wait_for(lambda: ended(live, run_id))
    finally:
        edited.unlink()
    assert (found["status"], found["days"], found["recorded_as"]) == ("failed", [], [])
    assert f"{SERVICE}.yaml" in found["error"]["what"]
    assert call(live, "runs.cancel", run_id=run_id)["status"] == "failed"
    with pytest.raises(ParameterError, match="unknown run"):
        call(live, "runs.get", run_id="00000000-0000-0000-0000-000000000000")


@pytest.mark.parametrize(
    ("service", "day", "told"),
    [
        ("product_rankin", DAY, "Did you mean 'product_ranking'"),
        (SERVICE, dt.date(2031, 1, 1), "no partition 2031-01-01"),
    ],
)
def test_what_dagster_does_not_have_is_the_callers_mistake(url, service, day, told):
    with pytest.raises(DefinitionError, match=told):
        launch_partition(url, service, day)


def test_a_dagster_that_does_not_answer_is_told_with_the_mend():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ExecutionError, match="does not answer") as caught:
        launch_partition(f"http://127.0.0.1:{port}/graphql", SERVICE, DAY)
    assert "dagster dev -m daedalus.definitions" in caught.value.hint
    with pytest.raises(DefinitionError, match="no HTTP address"):
        launch_partition("file:///etc/passwd", SERVICE, DAY)
