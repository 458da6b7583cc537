"""`daeda init`, `view`, `service` and `pipeline compile`, on the project that `init` writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from daedalus.errors import DefinitionError
from daedalus.pipelines.notices import pipeline_notices
from daedalus.platform import PlatformRegistry, RunOptions


@pytest.fixture
def project(daeda, tmp_path, monkeypatch):
    """A fresh project as working directory."""
    assert daeda("init", "shop", "--no-data").code == 0
    monkeypatch.chdir(tmp_path / "shop")
    return daeda


def test_init_writes_definitions_and_events_once(daeda):
    ran = daeda("init", "shop", "--format", "json")
    assert ran.code == 0
    assert (ran.json["events"], ran.json["service"]) == (3000, "product_ranking")
    assert ".gitignore" in ran.json["files"]
    assert all((Path("shop") / name).is_file() for name in ran.json["files"])
    events = pq.read_table("shop/data/visits", columns=["customer_id", "event_timestamp", "event"])
    assert events.num_rows == 3000
    assert set(events["event"].to_pylist()) == {"view", "cart", "purchase"}
    before = {path: path.read_bytes() for path in Path("shop").rglob("*.yaml")}
    again = daeda("init", "shop")
    assert again.code == 2
    assert "a project already" in again.err
    assert {path: path.read_bytes() for path in Path("shop").rglob("*.yaml")} == before


def test_sample_events_are_the_same_every_time(daeda):
    for name in ("a", "b"):
        daeda("init", name)
    files = sorted(path.relative_to("a") for path in Path("a/data").rglob("*.parquet"))
    assert len(files) == 12
    assert all(pq.read_table(Path("a") / file).equals(pq.read_table(Path("b") / file)) for file in files)


def test_views_are_listed_and_shown(project):
    views = project("view", "list", "--format", "json").json["views"]
    assert [view["name"] for view in views] == ["customer_profile", "product_info", "visits"]
    assert views[2]["keys"] == ["customer_id", "product_id"]
    table = project("view", "list").out
    assert "customer_profile" in table
    view = project("view", "show", "visits", "--format", "json").json
    assert view["source"]["timestamp_field"] == "event_timestamp"
    assert view["join_keys"] == ["customer_id", "product_id"]
    assert view["file"] == "feature_views/visits.yaml"
    assert {"name": "event", "dtype": "VARCHAR"}.items() <= view["fields"][-1].items()
    assert "visit_seq" in project("view", "show", "visits").out


def test_services_are_listed_and_shown(project):
    (service,) = project("service", "list", "--format", "json").json["services"]
    assert (service["name"], service["spine"], service["columns"]) == ("product_ranking", "visits", 12)
    shown = project("service", "show", "product_ranking", "--format", "json").json
    assert [column["name"] for column in shown["columns"]][:2] == ["customer_id", "product_id"]
    assert shown["columns"][4]["default"] == "unknown"
    assert "default" not in shown["columns"][0]
    table = project("service", "show", "product_ranking").out
    assert re.search(r"views_1d +rolling:views_1d +BIGINT", table)
    assert re.search(r"category +product_info:category +VARCHAR", table)
    assert "asof" in table


@pytest.mark.parametrize(
    "arguments",
    [("view", "show", "visit"), ("service", "show", "product_rankin"), ("pipeline", "compile", "nothing")],
)
def test_unknown_names_are_refused_with_near_matches(project, arguments):
    ran = project(*arguments)
    assert ran.code == 2
    assert "Did you mean" in ran.err or "Known" in ran.err


def test_mistakes_in_definitions_and_settings_are_exit_code_2(project):
    path = Path("feature_views/visits.yaml")
    path.write_text(path.read_text().replace("timestamp_field", "timestamp_feld"))
    ran = project("view", "list")
    assert ran.code == 2
    assert "feature_views/visits.yaml:" in ran.err
    assert "Did you mean 'timestamp_field'" in ran.err


def test_constants_reach_specs_and_definitions(project):
    assert "max_items: 16" in project("pipeline", "compile", "product_ranking", "--no-write").out
    Path("config/base.yaml").write_text("constants: {max_products: 5}\n")
    assert "max_items: 5" in project("pipeline", "compile", "product_ranking", "--no-write").out
    path = Path("feature_views/visits.yaml")
    path.write_text(path.read_text().replace("path: visits ", "path: ${base.max_products}_visits "))
    shown = project("view", "show", "visits", "--format", "json").json
    assert shown["source"]["path"] == "5_visits"


def test_compile_writes_and_prints_the_same_pipeline(project):
    ran = project("pipeline", "compile", "product_ranking")
    assert ran.code == 0
    written = Path("config/pipelines/product_ranking.generated.yaml").read_text()
    assert yaml.safe_load(written) == yaml.safe_load(ran.out)
    assert "config/pipelines/product_ranking.generated.yaml" in ran.err
    as_json = project("pipeline", "compile", "product_ranking", "--format", "json").json
    assert as_json["pipeline"] == yaml.safe_load(written)
    assert as_json["edited"] is None


def test_compile_elsewhere_or_nowhere(project):
    assert project("pipeline", "compile", "product_ranking", "--no-write").code == 0
    assert not Path("config/pipelines").exists()
    assert project("pipeline", "compile", "product_ranking", "--output-dir", "out/deep").code == 0
    assert Path("out/deep/product_ranking.generated.yaml").is_file()
    assert not Path("config/pipelines").exists()
    Path("a_file").write_text("")
    refused = project("pipeline", "compile", "product_ranking", "--output-dir", "a_file")
    assert (refused.code, "cannot be written" in refused.err) == (2, True)


def test_compile_says_that_a_hand_edited_file_wins(project):
    project("pipeline", "compile", "product_ranking")
    generated = Path("config/pipelines/product_ranking.generated.yaml")
    generated.with_name("product_ranking.yaml").write_text(generated.read_text())
    assert "takes precedence" in project("pipeline", "compile", "product_ranking").err
    config = PlatformRegistry.open().config()
    edited = PlatformRegistry.open().pipeline("product_ranking", config)
    assert edited.file.endswith("product_ranking.yaml")
    said = "config/pipelines/product_ranking.yaml is what runs: changes of service product_ranking"
    (notice,) = pipeline_notices(edited, PlatformRegistry.open().catalog, config)
    assert notice.startswith(said)
    assert said in project("doctor").out


def test_the_default_service_and_the_definitions_folders_are_the_operators(project):
    Path("feature_services").rename("services")
    project("config", "set", "feature_services_dir", "services")
    refused = project("pipeline", "compile", "--no-write")
    assert refused.code == 2
    assert "no service is named" in refused.err
    assert "Name one: product_ranking; or keep one: daeda config set default_service" in refused.err
    project("config", "set", "default_service", "product_ranking")
    assert project("pipeline", "compile", "--no-write").code == 0


def test_other_configuration_files_by_flag(project):
    Path("other.yaml").write_text("compute: {engine: polars}\nembedding_coverage_filter: {enabled: false}\n")
    ran = project(
        "pipeline", "compile", "product_ranking", "--no-write", "--runtime-config-path", "other.yaml"
    )
    assert "rolling_engine: polars" in ran.out
    missing = project("pipeline", "compile", "product_ranking", "--runtime-config-path", "none.yaml")
    assert (missing.code, "none.yaml" in missing.err) == (2, True)


def test_the_operators_output_root_yields_to_the_projects(project, tmp_path):
    project("config", "set", "output_root", "operators")
    registry = PlatformRegistry.open()
    assert registry.config().output_root == str(tmp_path / "shop/data/training_output")
    runtime = Path("config/training/runtime.yaml")
    runtime.write_text(runtime.read_text().replace("output_root:", "# output_root:"))
    assert registry.config().output_root == str(tmp_path / "shop/operators")
    given = registry.config(RunOptions(overrides={"output_root": "flag"}))
    assert given.output_root == str(tmp_path / "shop/flag")


def test_a_platform_opens_only_a_project(tmp_path):
    with pytest.raises(DefinitionError, match="no feature views here"):
        PlatformRegistry.open(tmp_path)


def test_credentials_never_leave_in_clear(project):
    Path("feature_views/remote.yaml").write_text(
        "name: remote\nentity: customer\nsource:\n  database_path: postgresql://me:${PG_PASSWORD}@host/db\n"
        "  table_name: t\n  timestamp_field: at\nfields:\n  - {name: x, dtype: BIGINT}\n"
    )
    shown = project("view", "show", "remote", "--format", "json")
    assert shown.code == 0, shown.err
    assert "${PG_PASSWORD}" in json.dumps(shown.json)
