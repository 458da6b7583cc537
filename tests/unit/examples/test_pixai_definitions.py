"""The demo's definitions say what the product documents list."""

from __future__ import annotations

import re

import pytest

from daedalus.catalog.model import FeatureServiceDef, JoinMode
from daedalus.catalog.registry import FeatureCatalog
from daedalus.pipelines.settings import TrainingRunConfig, load_training_config
from support.pixai import PIXAI

WINDOWS = ("1d", "3d", "7d")
OUTPUT_COLUMNS = [
    *("user_id", "artwork_id", "event_timestamp", "event", "current_like_count"),
    *("country_code", "platform_code", "retriever_id", "member_source"),
    *("blur_nsfw", "show_nsfw", "safe_search", "followed_user_ids", "user_age"),
    *("author_id", "hide_prompts", "is_sensitive", "artwork_type", "artwork_age"),
    *("model_id", "model_type", "width", "height", "lightning", "sampling_steps"),
    *("aes_score", "tack_ids", "media_safety_score", "text_safety_score"),
    *(f"like_artwork_{what}_{window}" for what in ("ids", "author_ids", "model_ids", "cnts", "tack_ids")
      for window in WINDOWS),
    *(f"{what}_artwork_ids_{window}" for what in ("view", "click") for window in WINDOWS),
    *("dislike_artwork_ids", "user_recent_published_artworks"),
    *("image_embedding", "like_artwork_avg_embeds"),
]  # fmt: skip


@pytest.fixture(scope="module")
def catalog() -> FeatureCatalog:
    return FeatureCatalog.from_yaml_dir(PIXAI / "feature_views", services_dir=PIXAI / "feature_services")


@pytest.fixture(scope="module")
def config() -> TrainingRunConfig:
    return load_training_config(PIXAI)


@pytest.fixture(scope="module")
def dssm(catalog: FeatureCatalog) -> FeatureServiceDef:
    return catalog.service("dssm_ranking")


def test_dssm_ranking_has_the_documented_columns_in_their_order(dssm: FeatureServiceDef) -> None:
    assert [column.name for column in dssm.columns] == OUTPUT_COLUMNS


def test_codes_are_zero_when_absent_or_unknown(dssm: FeatureServiceDef) -> None:
    codes = {column.name: column for column in dssm.columns if not column.nullable}
    assert {name: column.default for name, column in codes.items()} == {"country_code": 0, "platform_code": 0}


def test_embeddings_are_typed_placeholders(dssm: FeatureServiceDef) -> None:
    for column in dssm.columns[-2:]:
        assert (column.dtype, column.dimension) == ("HALF_FLOAT[]", 1152)
        assert column.default_sql == "CAST(NULL AS FLOAT[])"


def test_the_reranker_needs_neither_lookback_nor_embedding_nor_asof(catalog: FeatureCatalog) -> None:
    service = catalog.service("xgb_reranker")
    assert not service.lookbacks
    assert service.session_filter is None
    assert {view.join for view in service.views} == {JoinMode.LATEST}
    assert not [column for column in service.columns if column.ref and column.ref.view == "embedding"]


@pytest.mark.parametrize("name", ["dssm_ranking", "xgb_reranker"])
def test_every_rolling_column_has_one_spec(
    name: str, catalog: FeatureCatalog, config: TrainingRunConfig
) -> None:
    service = catalog.service(name)
    specs = [spec.name for spec in (*config.aggregation_specs, *service.aggregation_specs)]
    used = [column.ref.column for column in service.columns if column.ref and column.ref.view == "rolling"]
    assert set(used) <= set(specs)
    assert len(set(specs)) == len(specs)
    assert {spec.name for spec in service.aggregation_specs} <= set(used)


def test_like_histories_alone_leave_the_rows_own_artwork_out(config: TrainingRunConfig) -> None:
    excluding = [spec.name for spec in config.aggregation_specs if spec.exclude_self]
    assert excluding == [f"like_artwork_ids_{window}" for window in WINDOWS]


def test_windows_are_what_the_names_say(config: TrainingRunConfig) -> None:
    for spec in config.aggregation_specs:
        days = re.search(r"_(\d)d$", spec.name)
        assert spec.window_days == (int(days[1]) if days else None), spec.name


def test_every_embedding_column_is_enriched_from_a_store(
    dssm: FeatureServiceDef, config: TrainingRunConfig
) -> None:
    embeddings = [column.name for column in dssm.columns if column.ref and column.ref.view == "embedding"]
    assert [spec.name for spec in config.enrichment_specs] == embeddings
    assert {config.store(spec.store_name).embedding_dim for spec in config.enrichment_specs} == {1152}


def test_the_configuration_gives_no_reason_for_a_notice(config: TrainingRunConfig) -> None:
    assert config.notices == ()
