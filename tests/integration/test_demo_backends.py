"""The demo project with nothing edited but its views' `source`: each backend gives the bytes of the files."""

from __future__ import annotations

import shutil
from datetime import date
from typing import TYPE_CHECKING

import pyarrow.dataset as ds
import pytest
import yaml

from daedalus.storage.sources.dispatch import Backend, backend_of
from support.backends import DuckLake, ObjectStore, Postgres
from support.pixai import DEFINITIONS, make_project
from support.project import Project

if TYPE_CHECKING:
    from pathlib import Path

    from support.project import Run
    from support.servers import PostgresServer, S3Server

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sources")]

DAY = "2026-05-02"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The demo over its own files."""
    root = make_project(tmp_path_factory.mktemp("demo"), events=2_000, days=2, start=date(2026, 5, 1))
    return Project(root, {"embedding_coverage_filter": {"enabled": False}, "data_root": "data"})


@pytest.fixture(scope="module")
def expected(files: Project) -> Run:
    """Its run."""
    return files.run("dssm_ranking", [DAY])


@pytest.mark.parametrize("backend", [Backend.POSTGRES, Backend.DUCKLAKE])
def test_only_the_sources_are_edited(
    backend: Backend,
    files: Project,
    expected: Run,
    tmp_path: Path,
    postgres_server: PostgresServer,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for folder in DEFINITIONS:
        shutil.copytree(files.root / folder, tmp_path / folder)
    store = ObjectStore(s3_server, monkeypatch)
    place = (
        Postgres(postgres_server, monkeypatch)
        if backend is Backend.POSTGRES
        else DuckLake(tmp_path, "sqlite", store=store)
    )
    for path in sorted((tmp_path / "feature_views").glob("*.yaml")):
        view = yaml.safe_load(path.read_text())
        source = view["source"]
        rows = ds.dataset(files.root / "data" / source.pop("path"), format="parquet").to_table()
        path.write_text(yaml.safe_dump(view | {"source": source | place.put(view["name"], rows)}))
    project = Project(tmp_path, files.overrides)
    views = project.catalog(project.config()).views.values()
    assert {backend_of(view.source, where=view.name) for view in views} == {backend}
    run = project.run("dssm_ranking", [DAY])
    assert run.rows(DAY)
    assert run.hashes == expected.hashes
    assert run.files(DAY) == expected.files(DAY)
