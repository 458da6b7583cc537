"""OpenLineage: what is sent by the official client's file transport, and that no failure of it fails a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daedalus.cli.init import write_template
from daedalus.cli.sample_data import write_sample
from daedalus.platform import PlatformRegistry, RunOptions
from daedalus.platform.materialization import materialize
from daedalus.platform.openlineage import job_events, lineage_events
from daedalus.platform.reproduction import reproduce_run
from daedalus.trust.openlineage import dataset_of

DAY = "2026-01-05"


@pytest.fixture
def shop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAEDALUS_CONFIG", str(tmp_path / "none.toml"))
    for name in ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG", "OPENLINEAGE_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    write_template(Path("shop"))
    monkeypatch.chdir("shop")
    return PlatformRegistry.open()


def to_file(monkeypatch, path: Path) -> None:
    for key, value in (("TYPE", "file"), ("LOG_FILE_PATH", str(path)), ("APPEND", "true")):
        monkeypatch.setenv(f"OPENLINEAGE__TRANSPORT__{key}", value)


def train(registry, **overrides):
    import datetime as dt

    options = RunOptions(overrides={"openlineage": True, **overrides})
    return registry.train("product_ranking", target_dates=[dt.date.fromisoformat(DAY)], options=options)


@pytest.mark.slow
def test_a_run_says_when_it_starts_and_what_it_made(shop, tmp_path, monkeypatch):
    to_file(monkeypatch, tmp_path / "events.jsonl")
    write_sample(Path("data"))
    result = train(shop)
    start, complete = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == complete["run"]["runId"]
    assert start["job"]["namespace"] == "daedalus"
    assert start["job"]["name"] == "product_ranking"
    assert {Path(one["name"]).name for one in start["inputs"]} == {
        "visits",
        "customer_profile",
        "product_info",
    }
    (output,) = complete["outputs"]
    assert output["name"] == str(result.output_path)
    assert [field["name"] for field in output["facets"]["schema"]["fields"]][:2] == [
        "customer_id",
        "product_id",
    ]
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == result.days[0].rows > 0
    quality = output["facets"]["dataQualityMetrics"]
    assert quality["rowCount"] == result.days[0].rows
    assert set(quality["columnMetrics"]) == {field["name"] for field in output["facets"]["schema"]["fields"]}
    assert not any("OpenLineage" in notice for notice in result.notices)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["parquet", "duckdb"])
def test_a_materialization_is_told_of_and_its_reproduction_is_not(shop, tmp_path, monkeypatch, form):
    to_file(monkeypatch, tmp_path / "events.jsonl")
    write_sample(Path("data"))
    options = RunOptions(overrides={"openlineage": True})
    result = materialize(shop, "product_ranking", as_of=f"{DAY}T12:00", format=form, options=options)
    assert reproduce_run(shop, "latest").same
    start, complete = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert start["job"] == complete["job"]
    assert start["job"]["name"] == "product_ranking.materialize"
    (output,) = complete["outputs"]
    place = Path(result.path)
    assert output["name"] == (f"{place}.{result.table}" if form == "duckdb" else str(place.parent))
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == result.row_count


def test_column_lineage_as_facets(shop):
    (event,) = job_events(shop)
    facet = event["outputs"][0]["facets"]["columnLineage"]

    def found(column):
        return {
            (Path(one["name"]).name, one["field"], kind["type"], kind["subtype"])
            for one in facet["fields"][column]["inputFields"]
            for kind in one["transformations"]
        }

    assert ("product_info", "price", "DIRECT", "IDENTITY") in found("price")
    assert ("visits", "product_id", "INDIRECT", "JOIN") in found("price")
    assert ("product_info", "price", "DIRECT", "TRANSFORMATION") in found("is_expensive")
    assert ("visits", "product_id", "DIRECT", "AGGREGATION") in found("purchased_products_7d")
    assert ("visits", "event", "INDIRECT", "FILTER") in found("purchased_products_7d")
    assert ("visits", "customer_id", "INDIRECT", "GROUP_BY") in found("views_1d")
    assert {one["field"] for one in facet["dataset"]} == {"event_timestamp"}


def test_a_failing_run_says_so(shop, tmp_path, monkeypatch):
    to_file(monkeypatch, tmp_path / "events.jsonl")
    config = shop.config(RunOptions(overrides={"openlineage": True, "openlineage_namespace": "team"}))
    with pytest.raises(RuntimeError), lineage_events(shop, "product_ranking", config, "r1"):
        raise RuntimeError("no space, password=hunter2hunter2")
    fail = json.loads((tmp_path / "events.jsonl").read_text().splitlines()[1])
    assert fail["eventType"] == "FAIL"
    with pytest.raises(KeyboardInterrupt), lineage_events(shop, "product_ranking", config, "r2"):
        raise KeyboardInterrupt
    assert json.loads((tmp_path / "events.jsonl").read_text().splitlines()[3])["eventType"] == "ABORT"
    assert "no space" in fail["run"]["facets"]["errorMessage"]["message"]
    assert "hunter2" not in json.dumps(fail)
    assert fail["job"]["namespace"] == "team"


@pytest.mark.parametrize("case", ["a transport that fails", "nothing configured"])
def test_what_fails_is_a_notice(shop, tmp_path, monkeypatch, case, capsys):
    if case == "a transport that fails":
        to_file(monkeypatch, tmp_path / "no such folder" / "events.jsonl")
    config = shop.config(RunOptions(overrides={"openlineage": True}))
    with lineage_events(shop, "product_ranking", config, "r1"):
        pass
    with lineage_events(shop, "product_ranking", config, "r1") as teller:
        teller.events.complete([], ("file", "x"))
    (notice,) = teller.notices
    assert notice.startswith("OpenLineage events were not sent")
    assert ("events.jsonl" in notice) == (case == "a transport that fails")
    assert capsys.readouterr() == ("", "")


def test_off_by_default(shop, tmp_path, monkeypatch):
    to_file(monkeypatch, tmp_path / "events.jsonl")
    with lineage_events(shop, "product_ranking", shop.config(), "r1") as teller:
        assert teller.events is None
    assert not (tmp_path / "events.jsonl").exists()


def test_names_of_datasets():
    assert dataset_of("s3://user:secret@lake/events", "/data") == ("s3://lake", "events")
    assert dataset_of("postgres://db:5432/shop", "/data") == ("postgres://db:5432", "shop")
    assert dataset_of("events/x.parquet", "s3://lake/root") == ("s3://lake", "root/events/x.parquet")
    assert dataset_of("/srv/events", "/data") == ("file", "/srv/events")
