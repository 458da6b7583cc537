"""The configuration files as pydantic settings: every key, its type, its bounds and its default.

Only the loading of settings uses these; everything after it sees the frozen `TrainingRunConfig`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

BASE_FILE = "config/base.yaml"
RUNTIME_FILE = "config/training/runtime.yaml"
AGGREGATIONS_FILE = "config/training/aggregations.yaml"
ENV_PREFIX = "DAEDALUS_"


def _no_bool(value: Any) -> Any:
    # pydantic reads `true` as 1; in a file it is always a mistake.
    if isinstance(value, bool):
        raise ValueError("expected a number, found a boolean")
    return value


def _text_of_number(value: Any) -> Any:
    # `feed_start: 202602` without quotes is an integer in YAML.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _duckdb_text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _by_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _as_format(value: Any) -> Any:
    return {"format": value} if isinstance(value, str) else value


def _as_url(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


def _switch(value: Any) -> Any:
    if isinstance(value, str) and value.strip().lower() in {"enabled", "disabled"}:
        value = value.strip().lower() == "enabled"
    elif isinstance(value, str):
        raise ValueError("expected a mapping, enabled or disabled")
    return {"enabled": value} if isinstance(value, bool) else value


Count = Annotated[int, BeforeValidator(_no_bool), Field(ge=1)]
Name = Annotated[str, Field(min_length=1)]
Month = Annotated[str, BeforeValidator(_text_of_number), Field(pattern=r"^[1-9][0-9]{3}(0[1-9]|1[0-2])$")]
DuckdbValue = Annotated[str, BeforeValidator(_duckdb_text)]
Constant = int | float | str | bool | list[int] | list[float] | list[str]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ComputeSection(_Section):
    """`compute`: which engine aggregates, and the settings of every DuckDB connection."""

    engine: Name = "kernel"
    duckdb_config: dict[Name, DuckdbValue] = {}


class CoverageSection(_Section):
    """`embedding_coverage_filter`: spine rows without an embedding are dropped for these events."""

    enabled: bool = True
    events: list[Name] = ["reco_artwork_view", "reco_artwork_view2"]
    event_column: Name = "event"
    id_column: Name = "artwork_id"
    store: Name | None = None
    id_relation: Name | None = None


class SinkSection(_Section):
    """`sink`: where finished days end up besides their Parquet folders."""

    format: Literal["parquet", "duckdb", "ducklake"] = "parquet"
    path: str = ""
    data_path: str = ""


class OnlineStoreSection(_Section):
    """`online_store`: where the newest values are kept for serving."""

    url: str = ""
    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "daedalus"
    timeout_seconds: Annotated[float, BeforeValidator(_no_bool), Field(gt=0, le=600)] = 5.0
    retries: Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=20)] = 3


class OutputColumnSection(_Section):
    """One entry of `output_columns`."""

    name: Name
    default: Any = None
    default_sql: Name | None = None


class EnrichmentSection(_Section):
    """One entry of `enrichment_specs`."""

    name: Name
    source_id_column: Name
    store_name: Name
    udf_name: Name


class StoreSection(_Section):
    """One entry of `embedding_stores`; `embedding_dim` defaults to `artwork_embed_dim`."""

    name: Name
    type: Literal["lance"] = "lance"
    path: Name
    id_column: Name = "id"
    embedding_column: Name = "embedding"
    embedding_dim: Count | None = None
    embedding_dtype: Literal["float16", "float32"] = "float16"
    build_batch_size: Count = 50_000
    source_parquet: Name | None = None


class ProjectConstants(BaseSettings):
    """What `${base.name}` may name: lengths, dimensions, column lists, the feature root, own constants."""

    model_config = SettingsConfigDict(
        extra="ignore", env_prefix=ENV_PREFIX, env_nested_delimiter="__", validate_default=False
    )

    max_like_artworks_len: Count = 32
    artwork_embed_dim: Count = 1152
    max_followed_users_len: Count = 32
    feature_s3_root_dir: str = ""
    click_event_features: list[Name] = []
    artwork_features: list[Name] = []
    user_features: list[Name] = []
    constants: dict[Name, Constant] = {}


class TrainingSettings(ProjectConstants):
    """Every key of the three files."""

    model_config = SettingsConfigDict(extra="forbid")

    data_root: Name | None = None
    feed_start: Month = "202602"
    feed_end: Month = "202605"
    entity_spine_chunk_rows: Count = 500_000
    day_workers: Count | None = None
    compute: ComputeSection = ComputeSection()
    output_root: Name = "data/training_output"
    sink: Annotated[SinkSection, BeforeValidator(_as_format)] = SinkSection()
    online_store: Annotated[OnlineStoreSection, BeforeValidator(_as_url)] = OnlineStoreSection()
    dense_qid: bool = False
    feature_refs: list[Name] = []
    output_columns: list[Annotated[OutputColumnSection, BeforeValidator(_by_name)]] = []
    embedding_coverage_filter: Annotated[CoverageSection, BeforeValidator(_switch)] = CoverageSection()
    enrich_runtime: Literal["ray", "in_process"] = "ray"
    ray_num_cpus: Count | None = None
    ray_address: Name | None = None
    tracking: Literal["none", "mlflow"] = "none"
    runs_via: Literal["queue", "dagster"] = "queue"
    openlineage: bool = False
    openlineage_namespace: Name = "daedalus"

    aggregation_specs: list[dict[str, Any]] = []
    enrichment_specs: list[EnrichmentSection] = []
    embedding_stores: list[StoreSection] = []

    aggregation_keys: ClassVar[frozenset[str]] = frozenset(
        {"aggregation_specs", "enrichment_specs", "embedding_stores"}
    )
