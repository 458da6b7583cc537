"""`daeda materialize` and `materialize-day` as a person calls them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from daedalus.cli.main import main
from daedalus.platform import PlatformRegistry
from daedalus.platform.materialization import list_materializations
from pipelines.tiny import tiny

if TYPE_CHECKING:
    from pathlib import Path

WHEN = "2026-05-02T08:30"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    tiny(folder)
    return folder


@pytest.fixture
def daeda(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Run a command in the project; its exit code and what it printed."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("DAEDALUS_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setenv("DAEDALUS_OUTPUT_ROOT", "out")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(words))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_rows_are_written_recorded_and_listed(daeda: Any, root: Path) -> None:
    code, out, _ = daeda("materialize", "s", "--as-of", WHEN, "--format", "json")
    report = json.loads(out)
    assert code == 0
    assert (report["as_of"], report["row_count"], report["format"]) == (f"{WHEN}:00Z", 4, "parquet")
    assert report["schema"][0] == ["user_id", "int64"]
    assert pq.ParquetFile(f"{report['path']}/part-0-0.parquet").metadata.num_rows == 4
    listed = list_materializations(PlatformRegistry.open(root), "s")
    assert [(one["as_of"], one["path"]) for one in listed] == [(report["as_of"], report["path"])]
    recorded = json.loads(daeda("runs", "show", report["run_id"], "--format", "json")[1])
    assert (recorded["kind"], recorded["status"], recorded["row_count"]) == ("materialize", "succeeded", 4)
    assert recorded["days"][0]["content_hash"] == report["content_hash"]


def test_a_format_can_be_written_and_another_printed(daeda: Any, root: Path) -> None:
    words = ("materialize", "s", "--as-of", WHEN, "--output", "x.duckdb")
    code, out, _ = daeda(*words, "--format", "duckdb", "--format", "json")
    assert code == 0
    assert (json.loads(out)["table"], json.loads(out)["path"]) == ("s.features", str(root / "x.duckdb"))
    assert "x.duckdb" in daeda(*words, "--format", "duckdb")[1]


def test_only_these_entities(daeda: Any, root: Path) -> None:
    pq.write_table(pa.table({"user_id": [1], "artwork_id": [12]}), root / "keys.parquet")
    code, out, _ = daeda(
        "materialize", "s", "--as-of", WHEN, "--entities", "keys.parquet", "--format", "json"
    )
    assert (code, json.loads(out)["row_count"]) == (0, 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("materialize", "s", "--as-of", "soon"), "'soon' is no time"),
        (("materialize", "s", "--format", "csv"), "'csv' is not one of"),
        (("materialize", "s", "--format", "duckdb", "--format", "parquet"), "choose one of"),
        (("materialize", "t"), "unknown service 't'"),
        (("materialize", "s", "--entities", "absent.parquet"), "absent.parquet: there is no such file"),
        (("materialize-day", "s", "--date", "yesterday"), "expected YYYY-MM-DD"),
    ],
)
def test_wrong_usage_says_what_is_wrong(daeda: Any, words: tuple[str, ...], said: str) -> None:
    code, _, err = daeda(*words)
    assert code == 2
    assert said in err


def test_a_day_is_the_one_that_train_makes(daeda: Any) -> None:
    code, out, _ = daeda("materialize-day", "s", "--date", "2026-05-02", "--format", "json")
    day = json.loads(out)["days"][0]
    assert (code, day["state"], day["rows"]) == (0, "written", 3)
    again = json.loads(daeda("pipeline", "train", "s", "--target-date", "2026-05-02", "--format", "json")[1])
    assert again["days"][0]["state"] == "up to date"
    assert again["days"][0]["content_hash"] == day["content_hash"]
    assert daeda("materialize-day", "s", "--date", "2026-05-03")[0] == 1


def test_the_record_names_the_snapshot_of_a_lake(daeda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAEDALUS_SINK__FORMAT", "ducklake")
    daeda("materialize-day", "s", "--date", "2026-05-02", "--output-root", "lake")
    recorded = json.loads(daeda("runs", "show", "latest", "--output-root", "lake", "--format", "json")[1])
    copied = next(day for day in recorded["days"] if day["stage"] == "sink")
    assert isinstance(copied["snapshot"], int)
    assert recorded["row_count"] == copied["rows"] == 3
    explained = daeda("pipeline", "explain", "s")[1]
    assert "each day's Parquet, then ducklake" in explained
