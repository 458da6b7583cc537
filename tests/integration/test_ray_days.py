"""Days as tasks of a Ray cluster of two nodes: the same bytes, lost workers and nodes, errors, Ctrl-C, secrets."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from daedalus.errors import ExecutionError
from daedalus.pipelines.days import on_ray as ray_days
from daedalus.pipelines.enrich.runtime import RayEnvelope, ray_session
from daedalus.pipelines.executor import run_pipeline
from daedalus.pipelines.pipeline_files import pipeline_from_yaml, pipeline_to_yaml
from pipelines.tiny import DAYS, SERVICE, tiny
from support.embeddings import make_store, vectors_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ray.cluster_utils import Cluster

    from daedalus.pipelines.operators import OperatorPipeline
    from support.project import Project, Run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray_days")]

SECRET = "hunter2-not-for-logs"
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where tests and workers meet; the workers learn of it by a variable that the project's configuration names."""
    folder = tmp_path_factory.mktemp(SECRET)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TEST_PLACE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes of one CPU, and this process connected by address, as a run with `ray_address` is."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        # Made before any secret is in the environment, as a cluster's nodes are.
        found = Cluster(initialize_head=True, head_node_args=NODE)
        try:
            found.add_node(**{key: value for key, value in NODE.items() if key != "include_dashboard"})
            with ray_session(RayEnvelope(address=found.address)):
                yield found
        finally:
            found.shutdown()


@pytest.fixture(scope="module")
def project(cluster: Cluster, place: Path) -> Project:
    (place / "data").mkdir()
    made = tiny(
        place / "project",
        runtime={"compute": {"duckdb_config": {"threads": 1, "temp_directory": "${RAY_TEST_PLACE}/spill"}}},
    )
    assert cluster.address
    return made


@pytest.fixture(scope="module")
def local(project: Project) -> dict[str, dict[str, bytes]]:
    """The days as a run in this process writes them."""
    return everything(project.run("s", output_root=str(project.root / "local")))


def everything(run: Run) -> dict[str, dict[str, bytes]]:
    return {day: run.files(day) for day in DAYS}


def with_udf(project: Project, function: str) -> OperatorPipeline:
    """The service's pipeline with an Arrow function before its last projection, whose column it drops again."""
    body: dict[str, Any] = yaml.safe_load(pipeline_to_yaml(project.pipeline("s")))
    at = next(i for i, one in enumerate(body["operators"]) if one["name"] == "output")
    before = body["operators"][at]["inputs"]
    body["operators"][at]["inputs"] = ["mine"]
    udf = {
        "op_kind": "arrow_udf_transform",
        "name": "mine",
        "inputs": before,
        "function": f"support.ray_udfs:{function}",
    }
    body["operators"].insert(at, {**udf, "arguments": ["user_id"], "column": "made", "dtype": "BIGINT"})
    return pipeline_from_yaml(yaml.safe_dump(body), "s.yaml")


def on_ray(project: Project, cluster: Cluster, output: Path, **options: Any) -> Run:
    """A run with two days under way, however many nodes are left."""
    return project.run("s", output_root=str(output), ray_address=cluster.address, day_workers=2, **options)


def leftovers(output: Path) -> set[str]:
    """Names in the stage's folder that are no finished days."""
    return {path.name for path in (output / "s" / "skeleton").iterdir()} - {f"dt={day}" for day in DAYS}


def test_a_cluster_writes_the_same_bytes(
    project: Project, cluster: Cluster, local: dict[str, Any], tmp_path: Path
) -> None:
    seen: list[tuple[str, str, int]] = []
    run = on_ray(
        project, cluster, tmp_path, progress=lambda one: seen.append((one.day, one.message, one.done))
    )
    assert everything(run) == local
    assert set(run.states.values()) == {"written"}
    days = [one for one in seen if one[1] != "making history"]
    assert sorted(day for day, message, _ in days if message == "starting") == list(DAYS)
    assert [done for _, message, done in days if message == "written"] == [1, 2, 3]
    assert any(message == "making history" for _, message, _ in seen)  # the days' shared window, once
    again = on_ray(project, cluster, tmp_path)
    assert set(again.states.values()) == {"up to date"}


def test_profiles_come_back(project: Project, cluster: Cluster, tmp_path: Path) -> None:
    request = project.request("s", output_root=str(tmp_path), ray_address=cluster.address)
    profile = run_pipeline(dataclasses.replace(request, profile=True)).profile
    assert profile is not None
    written = {one.day: one.rows for one in profile.measures if (one.operator, one.step) == ("sink", "write")}
    assert written == {"2026-05-01": 2, "2026-05-02": 3, "2026-05-12": 2}


def test_a_dead_workers_day_is_tried_again(
    project: Project,
    cluster: Cluster,
    place: Path,
    local: dict[str, Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = on_ray(project, cluster, tmp_path, pipeline=with_udf(project, "dies_once"))
    assert "".join(capfd.readouterr()) == ""  # Ray would tell on standard output
    assert (place / "died").exists()
    assert everything(run) == local
    assert leftovers(tmp_path) == {".locks"}
    (notice,) = [line for line in run.result.notices if "begun again" in line]
    assert notice == "2026-05-02 was begun again: its Ray worker died (its process ended)"


def test_a_day_that_always_kills_its_worker_is_given_up(
    project: Project, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_days, "ATTEMPTS", 2)
    with pytest.raises(ExecutionError, match="the Ray worker that computed it died 2 times") as caught:
        on_ray(project, cluster, tmp_path, days=DAYS[:1], pipeline=with_udf(project, "always_dies"))
    assert caught.value.day == DAYS[0]
    # A new run takes the day at once: the dead hold no lock.
    assert on_ray(project, cluster, tmp_path, days=DAYS[:1]).states == {DAYS[0]: "written"}
    assert leftovers(tmp_path) == {".locks"}


def test_a_failing_day_is_reported_as_locally(
    project: Project, cluster: Cluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pipeline = with_udf(project, "dies_once")
    udf = next(one for one in pipeline if one.name == "mine")
    failing = dataclasses.replace(udf, function="pipelines.udfs:fails")
    broken = dataclasses.replace(
        pipeline, operators=tuple(failing if one is udf else one for one in pipeline.operators)
    )
    errors = []
    for options in ({}, {"ray_address": cluster.address}):
        with pytest.raises(ExecutionError) as caught:
            project.run("s", DAYS[:1], pipeline=broken, output_root=str(tmp_path), **options)
        errors.append(caught.value.to_dict())
    assert errors[0] == errors[1]
    assert (errors[0]["day"], errors[0]["operator"]) == (DAYS[0], "mine")
    assert "by nought" in errors[0]["what"]
    assert leftovers(tmp_path) == {".locks"}
    assert "".join(capfd.readouterr()) == ""


def test_ctrl_c_stops_the_tasks(project: Project, cluster: Cluster, place: Path, tmp_path: Path) -> None:
    begun = place / "begun"
    begun.unlink(missing_ok=True)

    def interrupt(progress: Any) -> None:
        if progress.day == DAYS[1] and progress.message == "starting":
            _await(begun)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        on_ray(
            project,
            cluster,
            tmp_path,
            days=DAYS[:2],
            pipeline=with_udf(project, "waits"),
            progress=interrupt,
        )
    begun.unlink()
    run = on_ray(project, cluster, tmp_path, days=DAYS[:2])  # nobody holds the days
    assert set(run.states.values()) == {"written"}
    assert leftovers(tmp_path) == {".locks"}


def test_enrichment_on_the_cluster_writes_the_same_bytes(
    cluster: Cluster, place: Path, tmp_path: Path
) -> None:
    make_store(tmp_path, range(10, 13), vectors_of(range(3), 4))
    vector = {"ref": "embedding:vector", "dtype": "HALF_FLOAT[]", "shape": {"dimension": 4}}
    project = tiny(
        tmp_path / "project",
        service={"columns": [*SERVICE["columns"], vector]},
        aggregations={
            "enrichment_specs": [
                {
                    "name": "vector",
                    "source_id_column": "artwork_id",
                    "store_name": "items",
                    "udf_name": "lookup_embedding_udf",
                }
            ],
            "embedding_stores": [
                {"name": "items", "path": str(tmp_path / "items.lance"), "embedding_dim": 4}
            ],
        },
    )
    assert place.exists()
    files = []
    for name, options in {
        "here": {"enrich_runtime": "in_process"},
        "ray": {"ray_address": cluster.address, "day_workers": 2},
    }.items():
        request = project.request("s", output_root=str(tmp_path / name), **options)
        result = run_pipeline(dataclasses.replace(request, stages="all", profile=True))
        assert [(one.stage, one.state) for one in result.days] == [
            *[("skeleton", "written")] * 3,
            *[("enrich", "written")] * 3,
        ]
        assert result.profile is not None
        assert {one.rows for one in result.profile.by_operator() if one.operator == "enrich_vector"} == {7}
        files.append(
            {
                str(path.relative_to(tmp_path / name)): path.read_bytes()
                for path in sorted((tmp_path / name / "s").glob("*/dt=*/*.parquet"))
            }
        )
    assert files[0] == files[1]
    assert len(files[0]) == 6


def test_a_dead_nodes_day_is_tried_again(
    project: Project, cluster: Cluster, place: Path, local: dict[str, Any], tmp_path: Path
) -> None:
    (second,) = cluster.worker_nodes
    (place / "doomed").write_text(second.node_id)
    begun = place / "begun"
    begun.unlink(missing_ok=True)

    def end_the_node() -> None:
        _await(begun)
        cluster.remove_node(second, allow_graceful=False)

    end = threading.Thread(target=end_the_node)
    end.start()
    run = on_ray(project, cluster, tmp_path, pipeline=with_udf(project, "waits_on_a_doomed_node"))
    end.join()
    assert everything(run) == local
    assert leftovers(tmp_path) == {".locks"}
    (notice,) = [line for line in run.result.notices if "begun again" in line]
    assert notice.endswith("its Ray worker died (its node is gone)")


def test_secrets_reach_the_tasks_and_no_log(project: Project, cluster: Cluster, tmp_path: Path) -> None:
    assert SECRET in os.environ["RAY_TEST_PLACE"]
    run = on_ray(project, cluster, tmp_path, days=DAYS[:1], pipeline=with_udf(project, "knows_the_place"))
    assert run.states == {DAYS[0]: "written"}
    logs = [path for path in Path(cluster.head_node.get_session_dir_path()).rglob("*") if path.is_file()]
    assert logs
    found = []
    for path in logs:
        with contextlib.suppress(OSError):
            if SECRET.encode() in path.read_bytes():
                found.append(path.name)
    assert found == []


def _await(path: Path) -> None:
    """Until the file is there."""
    for _ in range(18_000):
        if path.exists():
            return
        threading.Event().wait(0.01)
    raise TimeoutError(path)
