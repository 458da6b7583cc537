"""A recorded run is made again: the same, or what differs is named by its cause."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from daedalus.cli.main import main
from daedalus.errors import DefinitionError, SourceError
from daedalus.platform import PlatformRegistry
from daedalus.platform.causes import CauseKind
from daedalus.platform.materialization import materialize
from daedalus.platform.plans import plan_run
from daedalus.platform.records import get_run
from daedalus.platform.reproduction import Reproduction, reproduce_run
from pipelines.tiny import DAYS, ROWS, USERS, events, users
from records.conftest import WITH_EMBEDDING, fill_store

if TYPE_CHECKING:
    from pathlib import Path

    from records.conftest import Trained

FIRST, SECOND, LATE = DAYS


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@x"]
    done = subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def committed(enriched: Trained) -> Trained:
    """The project with embeddings, committed and trained."""
    git("init", "-q", ".")
    (enriched.root / ".gitignore").write_text("/data/\n")
    git("add", ".")
    git("commit", "-qm", "project")
    enriched.train()
    return enriched


def causes(found: Reproduction) -> dict[CauseKind, list[str]]:
    named: dict[CauseKind, list[str]] = {}
    for cause in found.causes:
        named.setdefault(cause.kind, []).append(cause.what)
    return named


def again(trained: Trained, **options: Any) -> Reproduction:
    return reproduce_run(trained.registry, "latest", **options)


@pytest.mark.slow
def test_a_fresh_clone_makes_the_same_days(committed: Trained, tmp_path: Path, monkeypatch) -> None:
    clone = tmp_path / "somewhere" / "else"
    git("clone", "-q", str(committed.root), str(clone))
    for name in ("events", "users", "store"):
        shutil.copytree(committed.root / "data" / name, clone / "data" / name)
    store, run_root = committed.store, committed.root / "data/training_output"
    monkeypatch.chdir(clone)
    found = reproduce_run(PlatformRegistry.open(), "latest", output_root=run_root)
    assert found.same
    assert found.verified
    assert found.causes == ()
    assert {(day.stage, day.day) for day in found.days} == {
        (s, d) for s in ("skeleton", "enrich") for d in DAYS
    }
    assert not (clone / "data/training_output").exists()
    # The verdict stands with the run.
    notes = store.notes(store.find("latest").run_id, "reproduce")
    assert notes[-1].payload["same"] is True


def test_definitions(committed: Trained) -> None:
    specs = [dict(spec) for spec in WITH_EMBEDDING["aggregation_specs"]]
    specs[1]["window_days"] = 1
    committed.project.define("feature_services", WITH_EMBEDDING | {"aggregation_specs": specs})
    found = again(committed)
    assert not found.same
    assert causes(found)[CauseKind.DEFINITIONS] == [
        "the compiled pipeline is another one",
        "feature_services/s.yaml has changed",
    ]
    assert causes(found)[CauseKind.CODE] == [
        "there are uncommitted changes here, there were none when the run was made"
    ]
    assert found.difference is not None
    named = {column.column for day in found.difference.days for column in day.columns}
    assert named == {"seen"}
    assert {day.day for day in found.days if not day.same} == {SECOND}
    # A view that means something else, and prose that means nothing.
    committed.project.define("feature_services", WITH_EMBEDDING)
    committed.project.define("feature_views", USERS | {"delay_seconds": 86_400 * 40})
    found = again(committed, verify_only=True)
    assert "view users means something else" in causes(found)[CauseKind.DEFINITIONS]
    assert (found.ran, found.same, found.verified) == (False, False, False)
    committed.project.define("feature_views", USERS | {"description": "people"})
    found = again(committed)
    assert found.same
    assert causes(found)[CauseKind.DEFINITIONS] == ["feature_views/users.yaml has changed"]


def test_configuration(committed: Trained) -> None:
    path = committed.root / "config/training/runtime.yaml"
    path.write_text(path.read_text() + "entity_spine_chunk_rows: 7\n")
    found = again(committed)
    assert found.same
    assert causes(found)[CauseKind.CONFIGURATION] == ["config/training/runtime.yaml has changed"]


def test_code_and_engines(committed: Trained) -> None:
    (committed.root / "udfs.py").write_text("x = 1\n")
    git("add", ".")
    git("commit", "-qm", "more")
    run = committed.store.find("latest")
    # As if another DuckDB had made it.
    versions = run.facts["versions"] | {"duckdb": "1.0.0", "daedalus": "0.1.0"}
    committed.store.append(run.run_id, "facts", {"versions": versions})
    found = again(committed, verify_only=True)
    was, now = run.facts["git"]["sha"][:12], git("rev-parse", "HEAD")[:12]
    assert causes(found)[CauseKind.CODE] == [
        f"the run was made at commit {was}, this is {now}",
        "daedalus was 0.1.0, is 0.10.0",
    ]
    assert [what.split(",")[0] for what in causes(found)[CauseKind.ENGINES]] == ["duckdb was 1.0.0"]
    assert found.verified  # none of these changes what the days are made from


def test_functions_of_the_project(plain: Trained, monkeypatch) -> None:
    """Their code is no definition, and may stand in no repository; what it makes is another day."""
    module = plain.root / "my_functions.py"
    module.write_text("def more(seen):\n    return seen\n")
    pipeline = plain.registry.compile("s", write=False).pipeline.to_yaml_dict()
    place = [one["name"] for one in pipeline["operators"]].index("rolling") + 1
    for one in pipeline["operators"]:
        if "rolling" in one.get("inputs", []):
            one["inputs"] = ["more" if name == "rolling" else name for name in one["inputs"]]
    more = {"name": "more", "op_kind": "arrow_udf_transform", "inputs": ["rolling"], "arguments": ["seen"]}
    more |= {"function": "my_functions:more", "column": "seen", "dtype": "BIGINT"}
    pipeline["operators"].insert(place, more)
    (plain.root / "config/pipelines").mkdir(parents=True)
    (plain.root / "config/pipelines/s.yaml").write_text(yaml.safe_dump(pipeline))
    monkeypatch.syspath_prepend(str(plain.root))
    plain.train()
    assert again(plain).same
    module.write_text("import pyarrow.compute as pc\n\ndef more(seen):\n    return pc.add(seen, 1)\n")
    sys.modules.pop("my_functions")
    found = again(plain)
    assert not found.same
    assert causes(found)[CauseKind.CODE] == [
        "the code of my_functions:more is another one",
        "my_functions.py has changed",
    ]
    days = plan_run(plain.registry, "s").writes
    assert {day.reason for day in days} == {"the code of my_functions:more changed"}
    assert {day.columns for day in days} == {("seen",)}
    assert {day.state for day in plain.train().days if day.stage == "skeleton"} == {"written"}


def test_a_new_file_that_is_in_no_commit_is_told_by_its_content(committed: Trained) -> None:
    (committed.root / "notes.txt").write_text("one")
    committed.train(target_dates=[dt.date.fromisoformat(SECOND)])
    assert CauseKind.CODE not in causes(again(committed, verify_only=True))
    (committed.root / "notes.txt").write_text("two")
    assert causes(again(committed, verify_only=True))[CauseKind.CODE] == [
        "the run was made with uncommitted changes, which are not the ones here"
    ]


def test_sources(committed: Trained) -> None:
    rows = [*ROWS[SECOND][:2], (5, "2026-05-02 09:00", 1, 12, "like", None)]
    committed.project.write("events/2026-05-02.parquet", events(rows))
    found = again(committed)
    assert not found.same
    assert causes(found)[CauseKind.SOURCES] == [
        "what events reads has changed: changed: events/2026-05-02.parquet"
    ]
    assert found.difference is not None
    skeleton = (
        found.difference.days[0] if found.difference.days[0].stage == "skeleton" else found.difference.days[1]
    )
    examples = {column.column: column.examples for column in skeleton.columns}
    assert {"artwork_id", "event"} <= set(examples) or skeleton.only_second == 1
    (committed.root / "data/users/a.parquet").unlink()
    found = again(committed)
    assert not found.ran
    assert "users" in found.error
    assert any("cannot be read" in what and "users" in what for what in causes(found)[CauseKind.SOURCES])


def test_stores(committed: Trained) -> None:
    fill_store(committed.root, seed=1)
    found = again(committed)
    assert {(day.stage, day.result) for day in found.days} == {("skeleton", "same"), ("enrich", "differs")}
    assert [what.split(" snapshot ")[0] for what in causes(found)[CauseKind.STORE]] == ["items was"]
    assert found.difference is not None
    assert {column.column for day in found.difference.days for column in day.columns} == {"image"}
    shutil.rmtree(committed.root / "data/store/items.lance")
    found = again(committed)
    assert not found.ran
    assert any("cannot be read" in what for what in causes(found)[CauseKind.STORE])


def test_a_materialization(committed: Trained) -> None:
    materialize(committed.registry, "s", as_of="2026-05-13", format="duckdb")
    found = again(committed)
    assert (found.same, found.causes) == (True, ())
    assert [(day.stage, day.day) for day in found.days] == [("materialize", "2026-05-13T00:00:00Z")]
    record = get_run(committed.registry, "latest")
    assert record.stores
    assert record.null_rates["tier"] == 0.25
    # Sources, store, definitions: each is named.
    committed.project.write("users/a.parquet", users((2, "2026-05-02 08:30", "new")))
    fill_store(committed.root, seed=1)
    committed.project.define("feature_views", USERS | {"delay_seconds": 60})
    found = again(committed)
    assert not found.same
    assert causes(found)[CauseKind.SOURCES] == [
        "what users__as_of reads has changed: changed: users/a.parquet"
    ]
    assert [what.split(" snapshot ")[0] for what in causes(found)[CauseKind.STORE]] == ["items was"]
    assert "view users means something else" in causes(found)[CauseKind.DEFINITIONS]
    assert not again(committed, verify_only=True).verified


def test_materializations_of_chosen_entities(plain: Trained) -> None:
    first, second = ({"user_id": [1, user], "artwork_id": [10, 11]} for user in (2, 3))
    pq.write_table(pa.table(first), plain.root / "keys.parquet")
    made = materialize(plain.registry, "s", as_of="2026-05-13", entities="keys.parquet")
    assert made.row_count == 2
    assert again(plain).same
    pq.write_table(pa.table(second), plain.root / "keys.parquet")
    found = again(plain)
    assert causes(found)[CauseKind.SOURCES] == ["keys.parquet holds other entities"]
    assert found.difference is not None
    assert found.difference.days[0].columns[0].examples == (({"row": 1}, 2, 3),)
    (plain.root / "keys.parquet").unlink()
    with pytest.raises(DefinitionError, match=r"keys\.parquet"):
        again(plain)
    materialize(plain.registry, "s", as_of="2026-05-13", entities=pa.table(first))
    with pytest.raises(DefinitionError, match="2 entities were given by a program"):
        again(plain)


def test_what_cannot_be_reproduced_says_why(plain: Trained) -> None:
    with pytest.raises(DefinitionError, match="unknown run"):
        again(plain)
    broken = plain.root / "data/events/2026-05-01.parquet"
    broken.write_bytes(b"")
    with pytest.raises(SourceError):
        plain.train()
    with pytest.raises(DefinitionError, match=r"recorded no finished day.*train run that failed"):
        again(plain)


@pytest.mark.slow
def test_the_commands(plain: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> tuple[int, str]:
        code = main([*words])
        return code, capsys.readouterr().out

    plain.train()
    run_id = get_run(plain.registry, "latest").run_id
    code, out = run("runs", "list")
    assert (code, run_id in out) == (0, True)
    assert json.loads(run("runs", "list", "--service", "other", "--format", "json")[1]) == []
    assert run("runs", "list", "--service", "other") == (0, "no such run is recorded\n")
    code, out = run("runs", "show", run_id[:-2])
    assert code == 0
    assert "config/training/runtime.yaml" in out
    assert "2026-05-12" in out
    shown = json.loads(run("runs", "show", "latest", "--format", "json")[1])
    assert shown["days"][0]["columns"]["tier"]["rows"] == 2
    assert run("runs", "show", "nobody")[0] == 2
    code, out = run("runs", "logs", run_id, "--tail", "1")
    assert (code, out.count("\n"), "status=succeeded" in out) == (0, 1, True)
    code, out = run("plan", "s")
    assert (code, "every day is up to date" in out) == (0, True)
    assert json.loads(run("plan", "s", "--target-date", FIRST, "--format", "json")[1])["days_to_write"] == 0
    code, out = run("reproduce", run_id, "--keep", "again")
    assert (code, "3 days with equal content" in out) == (0, True)
    assert run("diff-runs", run_id, "latest", "--second-root", "again")[0] == 0
    plain.project.define("feature_views", USERS | {"delay_seconds": 86_400 * 40})
    code, out = run("reproduce", run_id)
    assert code == 1
    assert "view users means something else" in out
    assert json.loads(run("reproduce", run_id, "--verify-only", "--format", "json")[1])["verified"] is False
