"""`daeda doctor` finds what would stand in a run's way, and says how to mend it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from daedalus.cli.main import main
from daedalus.metadata.days import DayStore
from daedalus.platform import health
from daedalus.platform.health import State, diagnose
from daedalus.storage import duckdb_extensions

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in ("feature_views", "feature_services", "config"):
        shutil.copytree(EXAMPLES / "pixai" / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(area, state=None):
    return [one for one in diagnose().findings if one.area == area and state in (None, one.state)]


def set_runtime(project, **settings):
    path = project / "config/training/runtime.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | settings))


def test_outside_a_project_it_looks_at_the_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["healthy"]
    assert {one["subject"] for one in shown["findings"] if one["area"] == "extension"} == set(
        duckdb_extensions.EXTENSIONS
    )
    (note,) = [one for one in shown["findings"] if one["area"] == "project"]
    assert "daeda init" in note["mend"]


def test_sources_that_are_not_there_are_in_the_way(project, capsys):
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "view feed_events" in text
    assert "Set source.path" in text
    assert len(found("source", State.PROBLEM)) == len(list((project / "feature_views").glob("*.yaml")))


def test_an_absent_extension_names_the_install_line(project, monkeypatch):
    monkeypatch.setitem(duckdb_extensions.EXTENSIONS, "httpfs", ("not_there", "s3:// paths"))
    duckdb_extensions._file.cache_clear()
    (problem,) = found("extension", State.PROBLEM)
    duckdb_extensions._file.cache_clear()
    assert problem.mend.startswith('pip install "duckdb-extension-not-there==')


def test_an_absent_extra_is_a_note_with_its_install_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(health.EXTRAS, "api", (("no_such_module.inside",), "daeda serve-api"))
    (note,) = found("extra", State.NOTE)
    assert note.mend == 'pip install "daedalus[api]"'


def test_another_duckdb_than_the_pinned_one_is_in_the_way(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    versions = health.importlib.metadata.version
    monkeypatch.setattr(
        health.importlib.metadata, "version", lambda name: "0.1" if name == "duckdb" else versions(name)
    )
    (problem,) = found("environment", State.PROBLEM)
    assert problem.mend.startswith('pip install "duckdb==')


def test_more_memory_than_the_machine_has(project):
    set_runtime(project, day_workers=4, compute={"duckdb_config": {"memory_limit": "900GB"}})
    (problem,) = found("memory", State.PROBLEM)
    assert "day_workers" in problem.mend


def test_broken_definitions_are_named(project):
    view = project / "feature_views" / "feed_events.yaml"
    view.write_text(view.read_text().replace("entity:", "entitty:"))
    (problem,) = found("project", State.PROBLEM)
    assert "entitty" in problem.detail


def test_a_held_day_names_its_holder_and_a_killed_run_its_leftover(project):
    output = project / "out"
    set_runtime(project, output_root=str(output))
    import datetime as dt

    store = DayStore(output / "dssm_ranking" / "skeleton")
    with store.locked(dt.date(2026, 5, 1)):
        store.begin(dt.date(2026, 5, 1))
        (held, leftover) = found("lock")
        assert f"process {os.getpid()}" in held.detail
        assert "dt=2026-05-01" in leftover.detail
    (leftover,) = found("lock")
    assert leftover.state is State.NOTE


def test_a_folder_nobody_may_write_to(project, monkeypatch):
    monkeypatch.setattr(health, "_is_writable", lambda folder: False)
    assert any("cannot be written" in one.detail for one in found("disk", State.PROBLEM))
