"""`daeda pipeline train` and `explain` end to end, on the project that `init` writes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.slow

SERVICE = "product_ranking"
OUTPUT = Path("data/training_output") / SERVICE / "skeleton"


@pytest.fixture
def project(daeda, tmp_path, monkeypatch):
    """A fresh project with its sample events as working directory."""
    assert daeda("init", "shop").code == 0
    monkeypatch.chdir(tmp_path / "shop")
    return daeda


def days() -> list[str]:
    return sorted(folder.name.removeprefix("dt=") for folder in OUTPUT.glob("dt=*"))


def test_a_new_project_trains_and_is_up_to_date_the_second_time(project, tmp_path):
    ran = project("pipeline", "train", SERVICE)
    assert ran.code == 0, ran.err
    assert "2026-01-10" in ran.out
    assert "\x1b" not in ran.out + ran.err
    assert days() == [f"2026-01-{day:02}" for day in range(1, 11)]
    rows = pq.read_table(OUTPUT / "dt=2026-01-05")
    assert rows.num_rows == 300
    columns = [
        column["name"] for column in project("service", "show", SERVICE, "--format", "json").json["columns"]
    ]
    assert [name for name in rows.schema.names if name != "dt"] == columns
    assert max(map(len, rows["purchased_products_7d"].to_pylist())) <= 16
    assert None not in rows["country"].to_pylist()

    again = project("pipeline", "train", SERVICE, "--format", "json").json
    assert again["output_path"] == str(tmp_path / "shop" / OUTPUT)
    assert {day["state"] for day in again["days"]} == {"up to date"}
    assert sum(day["rows"] for day in again["days"]) == 3000


def test_only_the_days_that_were_asked_for_and_elsewhere(project, tmp_path):
    ran = project(
        "pipeline", "train", SERVICE, "--skeleton-only", "--output-root", "out", "--day-workers", "1",
        "--target-date", "2026-01-03", "--target-date", "2026-01-05", "--format", "json", "--profile",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    measured = {(one["operator"], one["step"]): one["rows"] for one in ran.json["profile"]["operators"]}
    assert measured["sink", "write"] == 600
    assert [day["day"] for day in ran.json["days"]] == ["2026-01-03", "2026-01-05"]
    assert ran.json["output_path"] == str(tmp_path / "shop/out" / SERVICE / "skeleton")
    assert not Path("data/training_output").exists()


def test_enrich_only_without_embeddings_is_refused(project):
    ran = project("pipeline", "train", SERVICE, "--enrich-only")
    assert ran.code == 2
    assert "nothing to enrich" in ran.err


def test_a_failing_day_names_itself_and_exits_1(project):
    Path("data/visits/dt=2026-01-03/part-0.parquet").write_bytes(b"no parquet")
    ran = project("pipeline", "train", SERVICE, "--target-date", "2026-01-03", "--format", "json")
    assert ran.code == 1
    assert "part-0.parquet" in json.dumps(ran.json["error"])
    assert "Traceback" not in ran.err


def test_the_progress_bar_is_for_terminals(project):
    """Run with a terminal as standard error, and nothing of it on standard output."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "daedalus", "pipeline", "train", SERVICE, "--format", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave) as process:
        os.close(slave)
        drawn = b""
        while True:
            try:
                part = os.read(master, 65_536)
            except OSError:
                break
            if not part:
                break
            drawn += part
        out = process.stdout.read()
    os.close(master)
    assert process.returncode == 0
    assert b"skeleton" in drawn
    assert len(json.loads(out)["days"]) == 10


def test_the_demo_seeds_trains_and_shows(daeda, monkeypatch):
    ran = daeda("demo", "world", "--events", "2k", "--days", "8", "--format", "json")
    assert ran.code == 0, ran.err
    assert [report["service"] for report in ran.json["services"]] == ["dssm_ranking", "xgb_reranker"]
    assert {day["day"] for report in ran.json["services"] for day in report["days"]} == {"2026-05-01"}
    assert {day["stage"] for day in ran.json["services"][0]["days"]} == {"skeleton", "enrich"}
    shown = daeda("demo", "world", "--events", "2k", "--days", "8", "--service", "dssm_ranking")
    assert shown.code == 0, shown.err
    for expected in (
        "up to date",
        "like_artwork_ids_7d",
        "55 columns",
        "daeda pipeline explain dssm_ranking",
        "files in world/data/",
    ):
        assert expected in shown.out
    monkeypatch.chdir("world")
    assert daeda("store", "list", "--format", "json").json["stores"][0]["name"] == "artwork_embeddings"
    info = daeda("store", "show", "artwork_embeddings", "--format", "json").json
    assert (info["dimension"], info["count"] > 0) == (1152, True)
    assert daeda("store", "build", "artwork_embeddings", "--format", "json").json["unchanged"] is True


def test_the_demo_reports_a_seed_that_cannot_be(daeda):
    ran = daeda("demo", "world", "--events", "many")
    assert ran.code == 1
    assert "many" in ran.err


def test_explain_shows_the_operators_and_with_a_day_their_sql(project):
    ran = project("pipeline", "explain", SERVICE)
    assert ran.code == 0, ran.err
    for expected in ("rolling_aggregate", "pit_join", "customer_profile", "purchased_products_7d"):
        assert expected in ran.out
    plain = project("pipeline", "explain", SERVICE, "--format", "json").json
    with_day = project("pipeline", "explain", SERVICE, "--target-date", "2026-01-05", "--format", "json").json
    assert [operator["name"] for operator in plain["operators"]] == [o["name"] for o in with_day["operators"]]
    assert not any(operator["sql"] for operator in plain["operators"])
    assert any("SELECT" in operator["sql"].upper() for operator in with_day["operators"])
    assert with_day["day"] == "2026-01-05"
    assert not Path("data/training_output").exists()
