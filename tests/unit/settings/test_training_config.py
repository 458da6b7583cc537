"""The layered configuration: every documented key, its default, its precedence and its mistakes."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from datetime import date
from typing import TYPE_CHECKING

import pytest

from daedalus.catalog.model import FeatureColumnRef, Unset
from daedalus.errors import DefinitionError
from daedalus.pipelines.settings import EmbeddingCoverageFilter, TrainingRunConfig, load_training_config

if TYPE_CHECKING:
    from pathlib import Path

BASE = "config/base.yaml"
RUNTIME = "config/training/runtime.yaml"
AGGREGATIONS = "config/training/aggregations.yaml"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write one configuration file of a project in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("DAEDALUS_")]:
        monkeypatch.delenv(name)

    def _write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return _write


def problems(**kwargs) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        load_training_config(**kwargs)
    return [str(problem) for problem in caught.value.problems or (caught.value,)]


def test_no_files_give_the_documented_defaults(write, tmp_path):
    config = load_training_config()

    assert (config.feed_start, config.feed_end) == ("202602", "202605")
    assert config.entity_spine_chunk_rows == 500_000
    assert config.day_workers is None
    assert config.compute.engine == "kernel"
    assert config.output_root == str(tmp_path / "data/training_output")
    assert config.source_root == str(tmp_path / "data/mewtant")
    assert config.embedding_coverage_filter.enabled
    assert config.embedding_coverage_filter.events == ("reco_artwork_view", "reco_artwork_view2")
    assert (config.enrich_runtime, config.tracking) == ("ray", "none")
    constants = dict(config.constants)
    assert (constants["max_like_artworks_len"], constants["max_followed_users_len"]) == (32, 32)
    assert constants["artwork_embed_dim"] == 1152
    assert config.notices == ("config/training/runtime.yaml does not exist: the documented defaults apply",)


def test_defaults_of_the_object_are_those_of_the_loader(write, tmp_path):
    loaded = load_training_config()
    made = TrainingRunConfig(
        project_root=tmp_path,
        output_root=loaded.output_root,
        constants=loaded.constants,
        notices=loaded.notices,
    )
    assert made == loaded


def test_the_documented_files_load(write):
    write(
        BASE,
        "max_like_artworks_len: 16\nfeature_s3_root_dir: s3://bucket/infra\nuser_features: [user:a]\n",
    )
    write(
        RUNTIME,
        """
data_root: data/events
feed_start: 202603
feed_end: "202604"
day_workers: 2
entity_spine_chunk_rows: 7
compute:
  engine: polars
  duckdb_config: {threads: "4", memory_limit: 2GiB, preserve_insertion_order: false, temp_directory: spill}
feature_refs: [user_profile:followed_user_ids]
output_columns:
  - {name: user_id, default: 0}
  - event
  - {name: tags, default: null}
  - {name: image_embedding, default_sql: "CAST(NULL AS FLOAT[])"}
embedding_coverage_filter: {events: [seen], event_column: kind, id_column: item_id, store: embeddings}
enrich_runtime: in_process
ray_num_cpus: 3
ray_address: ray://head:10001
tracking: mlflow
""",
    )
    write(
        AGGREGATIONS,
        """
aggregation_specs:
  - name: like_ids
    group_by: [user_id]
    value_column: artwork_id
    operation: list
    timestamp_column: event_timestamp
    include_current: false
    window_days: 7
    max_items: ${base.max_like_artworks_len}
    condition: "hist.event = 'like_click'"
    exclude_self: true
enrichment_specs:
  - {name: emb, source_id_column: artwork_id, store_name: embeddings, udf_name: lookup_embedding_udf}
embedding_stores:
  - {name: embeddings, type: lance, path: store/a, id_column: id, embedding_column: vector,
     embedding_dtype: float32, build_batch_size: 10, source_parquet: data/vectors}
""",
    )
    config = load_training_config()

    assert (config.feed_start, config.feed_end, config.day_workers) == ("202603", "202604", 2)
    assert config.source_root.endswith("/data/events")
    assert config.duckdb_settings() == {
        "threads": "4",
        "memory_limit": "2GiB",
        "preserve_insertion_order": "false",
        "temp_directory": config.project_path("spill"),
    }
    assert config.feature_refs == (FeatureColumnRef("user_profile", "followed_user_ids"),)
    assert [(c.name, c.default, c.default_sql) for c in config.output_columns] == [
        ("user_id", 0, None),
        ("event", Unset.UNSET, None),
        ("tags", None, None),
        ("image_embedding", Unset.UNSET, "CAST(NULL AS FLOAT[])"),
    ]
    assert config.embedding_coverage_filter == EmbeddingCoverageFilter(
        events=("seen",), event_column="kind", id_column="item_id", store="embeddings"
    )
    assert config.aggregation_specs[0].max_items == 16
    assert config.enrichment_specs[0].store_name == "embeddings"
    store = config.store("embeddings")
    assert (store.embedding_dim, store.embedding_dtype, store.build_batch_size) == (1152, "float32", 10)
    assert (config.enrich_runtime, config.ray_num_cpus, config.ray_address) == (
        "in_process",
        3,
        "ray://head:10001",
    )
    assert config.tracking == "mlflow"
    assert config.config_files == (RUNTIME, AGGREGATIONS, BASE)
    assert pickle.loads(pickle.dumps(config)) == config
    json.dumps(config.to_dict())


def test_precedence_flag_environment_runtime_base_operator(write, monkeypatch):
    def workers(**kwargs) -> int:
        return load_training_config(**kwargs).day_workers

    operator = {"day_workers": 2}
    assert workers(operator_defaults=operator) == 2
    write(BASE, "day_workers: 3\n")
    assert workers(operator_defaults=operator) == 3
    write(RUNTIME, "day_workers: 4\n")
    assert workers(operator_defaults=operator) == 4
    monkeypatch.setenv("DAEDALUS_DAY_WORKERS", "5")
    assert workers(operator_defaults=operator) == 5
    assert workers(overrides={"day_workers": 6}) == 6
    assert workers(overrides={"day_workers": None}) == 5


def test_sections_merge_across_layers_and_the_environment_reaches_into_them(write, monkeypatch):
    write(BASE, "compute: {duckdb_config: {threads: 2, memory_limit: 1GiB}}\n")
    write(RUNTIME, "compute: {engine: polars, duckdb_config: {threads: 8}}\n")
    monkeypatch.setenv("DAEDALUS_COMPUTE__DUCKDB_CONFIG__MEMORY_LIMIT", "3GiB")
    monkeypatch.setenv("DAEDALUS_FEATURE_REFS", '["user:age"]')
    config = load_training_config()
    assert config.compute.engine == "polars"
    assert config.duckdb_settings() == {"threads": "8", "memory_limit": "3GiB"}
    assert config.feature_refs == (FeatureColumnRef("user", "age"),)


def test_constants_follow_the_precedence_too(write, monkeypatch):
    write(
        AGGREGATIONS,
        "aggregation_specs:\n"
        "  - {name: n, group_by: [u], operation: count, max_items: '${base.max_like_artworks_len}'}\n",
    )
    assert load_training_config().aggregation_specs[0].max_items == 32
    monkeypatch.setenv("DAEDALUS_MAX_LIKE_ARTWORKS_LEN", "9")
    assert load_training_config().aggregation_specs[0].max_items == 9


def test_own_constants_and_spliced_lists(write):
    write(BASE, "artwork_features: [art:a, art:b]\nconstants: {root: data/deep, more: [art:c]}\n")
    write(
        RUNTIME,
        "data_root: ${base.root}/events\n"
        "feature_refs: [user:x, '${base.artwork_features}', '${base.more}', user:y]\n",
    )
    config = load_training_config()
    assert config.source_root.endswith("/data/deep/events")
    assert [str(ref) for ref in config.feature_refs] == ["user:x", "art:a", "art:b", "art:c", "user:y"]


def test_a_constant_may_not_shadow_a_documented_key(write):
    write(BASE, "constants: {artwork_embed_dim: 3}\n")
    (problem,) = problems()
    assert "artwork_embed_dim" in problem
    assert problem.startswith(BASE + ":1")


def test_every_problem_of_every_file_at_once(write):
    write(BASE, "max_like_artwork_len: 16\nartwork_embed_dim: true\n")
    write(
        RUNTIME,
        "feed_start: 202613\n"
        "day_workers: 0\n"
        "day_workers: 3\n"
        "compute: {engin: polars}\n"
        "feature_refs: ['user:x', '${base.artwork_featurs}']\n"
        "output_columns: [{nam: u}]\n"
        "embedding_coverage_filter: {event: [x]}\n"
        "enrich_runtime: rai\n"
        "enrichment_specs: []\n"
        "online_store: {namespace: two words}\n",
    )
    write(AGGREGATIONS, "day_workers: 2\n")
    found = "\n".join(problems())
    for expected in (
        f"{BASE}:1, $.max_like_artwork_len: unknown key 'max_like_artwork_len'. Did you mean 'max_like_art",
        f"{BASE}:2, $.artwork_embed_dim: expected a number, found a boolean",
        f"{RUNTIME}:1, $.feed_start: expected a month, YYYYMM, found '202613'",
        f"{RUNTIME}:2, $.day_workers: input should be greater than or equal to 1, found 0",
        f"{RUNTIME}:3: the key 'day_workers' stands twice",
        f"{RUNTIME}:4, $.compute.engin: unknown key 'engin'. Did you mean 'engine'?",
        f"{RUNTIME}:5, $.feature_refs[1]: unknown constant ${{base.artwork_featurs}}. Did you mean 'artwork",
        f"{RUNTIME}:6, $.output_columns[0]: the key 'name' is missing",
        f"{RUNTIME}:6, $.output_columns[0].nam: unknown key 'nam'. Did you mean 'name'?",
        f"{RUNTIME}:7, $.embedding_coverage_filter.event: unknown key 'event'. Did you mean 'events'?",
        f"{RUNTIME}:8, $.enrich_runtime: input should be 'ray' or 'in_process', found 'rai'",
        f"{RUNTIME}:9, $.enrichment_specs: 'enrichment_specs' belongs in {AGGREGATIONS}",
        f"{RUNTIME}:10, $.online_store.namespace: expected 1 to 64 letters, digits, '_', '.' or '-', found 'two",
        f"{AGGREGATIONS}:1, $.day_workers: 'day_workers' belongs in {RUNTIME}",
    ):
        assert expected in found
    assert len(found.splitlines()) == 14


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        (
            RUNTIME,
            "feed_start: 202605\nfeed_end: 202604\n",
            f"{RUNTIME}:2, $.feed_end: feed_end 202604 is before",
        ),
        (RUNTIME, "feature_refs: [user]\n", "$.feature_refs[0]: expected view:column, got 'user'"),
        (RUNTIME, "compute: {engine: spark}\n", "$.compute.engine: unknown engine 'spark'"),
        (RUNTIME, "output_columns: [a, a]\n", "$.output_columns[1]: the name 'a' is used twice"),
        (
            RUNTIME,
            "output_columns: [{name: a, default: 1, default_sql: '1'}]\n",
            "default or default_sql, not both",
        ),
        (RUNTIME, "embedding_coverage_filter: off\n", "expected a mapping, enabled or disabled, found 'off'"),
        (RUNTIME, "embedding_coverage_filter: {store: x}\n", "unknown embedding store 'x'"),
        (RUNTIME, "embedding_coverage_filter: {id_relation: a, store: b}\n", "store or id_relation"),
        (RUNTIME, "[]\n", f"{RUNTIME}:1, $: expected a mapping"),
        (RUNTIME, "a: [\n", f"{RUNTIME}:2: not valid YAML"),
        (
            RUNTIME,
            "compute: {duckdb_config: {s3_secret_access_key: abc}}\n",
            "a credential in the configuration",
        ),
        (
            AGGREGATIONS,
            "aggregation_specs: [{name: a, group_by: [u], operation: lst}]\n",
            "Did you mean 'list'",
        ),
        (AGGREGATIONS, "embedding_stores: [{name: a, path: b, type: faiss}]\n", "input should be 'lance'"),
        (AGGREGATIONS, "embedding_stores: [{name: a, path: b}, {name: a, path: c}]\n", "used twice"),
    ],
)
def test_mistakes_name_their_place(write, file, text, expected):
    write(file, text)
    assert any(expected in problem for problem in problems()), problems()


def test_environment_and_flag_mistakes_name_their_source(write, monkeypatch):
    monkeypatch.setenv("DAEDALUS_DAY_WORKERS", "many")
    assert problems() == ["environment DAEDALUS_DAY_WORKERS: expected a whole number, found 'many'"]
    assert problems(overrides={"ray_num_cpus": 0, "day_workers": 1}) == [
        "--ray-num-cpus: input should be greater than or equal to 1, found 0"
    ]
    monkeypatch.setenv("DAEDALUS_DAY_WORKERS", "1")
    monkeypatch.setenv("DAEDALUS_FEATURE_REFS", "user:x")
    assert "feature_refs" in problems()[0]
    assert "JSON" in problems()[0]


def test_a_misspelt_environment_name_is_a_notice(write, monkeypatch):
    write(RUNTIME, "# nothing yet\n")
    monkeypatch.setenv("DAEDALUS_OUTPUT_ROT", "x")
    monkeypatch.setenv("DAEDALUS_PG_PASSWORD", "not ours to judge")
    assert load_training_config().notices == (
        "environment DAEDALUS_OUTPUT_ROT has no effect. Did you mean DAEDALUS_OUTPUT_ROOT?",
    )


def test_other_files_by_path_and_a_missing_one(write, tmp_path):
    other = write("elsewhere/run.yaml", "day_workers: 7\n")
    write(RUNTIME, "day_workers: 2\n")
    assert load_training_config(runtime_path="elsewhere/run.yaml").day_workers == 7
    assert load_training_config(runtime_path=other).config_files == ("elsewhere/run.yaml",)
    assert "nowhere.yaml" in problems(aggregation_path="nowhere.yaml")[0]


def test_secrets_stay_references(write, monkeypatch):
    write(
        RUNTIME,
        "data_root: s3://${BUCKET}/x\ncompute: {duckdb_config: {s3_secret_access_key: '${S3_SECRET}'}}\n",
    )
    config = load_training_config()
    with pytest.raises(DefinitionError, match="BUCKET is not set"):
        _ = config.source_root
    monkeypatch.setenv("BUCKET", "b")
    monkeypatch.setenv("S3_SECRET", "hunter2")
    assert config.source_root == "s3://b/x"
    assert config.duckdb_settings() == {"s3_secret_access_key": "hunter2"}
    assert "hunter2" not in json.dumps(config.to_dict())
    assert config.to_dict()["compute"]["duckdb_config"] == {"s3_secret_access_key": "${S3_SECRET}"}
    masked = dataclasses.replace(config, ray_address="ray://me:hunter2@head:1").to_dict()
    assert masked["ray_address"] == "ray://me:***@head:1"


def test_feature_root_is_the_prefix_without_a_data_root(write):
    write(BASE, "feature_s3_root_dir: s3://bucket/infra\n")
    assert load_training_config().source_root == "s3://bucket/infra"
    write(RUNTIME, "data_root: local\n")
    assert load_training_config().source_root.endswith("/local")


@pytest.mark.parametrize(
    ("written", "enabled"),
    [("false", False), ("disabled", False), ("enabled", True), ("{enabled: false}", False)],
)
def test_the_coverage_filter_has_a_short_form(write, written, enabled):
    write(RUNTIME, f"embedding_coverage_filter: {written}\n")
    assert load_training_config().embedding_coverage_filter.enabled is enabled


def test_months_are_inclusive():
    config = TrainingRunConfig(feed_start="202602", feed_end="202603")
    days = [date(2026, 1, 31), date(2026, 2, 1), date(2026, 3, 31), date(2026, 4, 1)]
    assert [config.holds_day(day) for day in days] == [False, True, True, False]


def test_output_root_is_absolute_and_a_url_is_no_folder(write, tmp_path):
    assert load_training_config(overrides={"output_root": "out"}).output_path == tmp_path / "out"
    with pytest.raises(DefinitionError, match="local folder"):
        _ = load_training_config(overrides={"output_root": "s3://b/out"}).output_path


def test_unknown_store_has_near_matches():
    with pytest.raises(DefinitionError, match="unknown embedding store 'x'"):
        TrainingRunConfig().store("x")
