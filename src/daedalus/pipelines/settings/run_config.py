"""The configuration of a run as one frozen object, with its parts."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass, field, fields
from datetime import date
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from daedalus.catalog.model import FeatureColumnRef
from daedalus.errors import DefinitionError, did_you_mean
from daedalus.secrets import MASK, expand_env, is_secret_name, mask

if TYPE_CHECKING:
    from daedalus.catalog.aggregation import AggregationSpec
    from daedalus.catalog.model import ServiceColumn

DEFAULT_DATA_ROOT = "data/mewtant"
_URL = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeConfig:
    """Which engine aggregates, and what every DuckDB connection is configured with.

    Attributes:
        duckdb_config: (setting, value) pairs as written; `${ENV}` is not resolved here.
    """

    engine: str = "kernel"
    duckdb_config: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingCoverageFilter:
    """Which spine rows need an embedding to be kept.

    Attributes:
        events: only rows with these event values are dropped.
        event_column: the spine column that holds the event value.
        id_column: the spine column whose value must be in the store.
        store: the embedding store that is asked; None takes the only one that is configured.
        id_relation: a Parquet path that holds the ids, in place of a store.
    """

    enabled: bool = True
    events: tuple[str, ...] = ("reco_artwork_view", "reco_artwork_view2")
    event_column: str = "event"
    id_column: str = "artwork_id"
    store: str | None = None
    id_relation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrichmentSpec:
    """One embedding column: `udf_name` applied to the ids in `source_id_column`, over `store_name`."""

    name: str
    source_id_column: str
    store_name: str
    udf_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingStoreConfig:
    """One embedding store on disk and how it is built.

    Attributes:
        path: relative to the project, or a URL.
        source_parquet: what the store is built from; None for a store that others build.
    """

    name: str
    path: str
    embedding_dim: int
    type: str = "lance"
    id_column: str = "id"
    embedding_column: str = "embedding"
    embedding_dtype: str = "float16"
    build_batch_size: int = 50_000
    source_parquet: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkConfig:
    """Where finished days end up, besides their Parquet folders.

    Attributes:
        format: `parquet`, `duckdb` or `ducklake`.
        path: the DuckDB file or the lake's catalog; empty for the default under the output root.
        data_path: where a lake keeps its Parquet files.
    """

    format: Literal["parquet", "duckdb", "ducklake"] = "parquet"
    path: str = ""
    data_path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineStoreConfig:
    """Where the online store is.

    Attributes:
        url: `redis://`, `rediss://` (TLS), `redis+cluster://`, `rediss+cluster://` or `unix://`; `valkey` reads as
            `redis`. Secrets in it are `${ENV}`, unresolved.
        namespace: begins every key, so that projects can share a server.
        timeout_seconds: the longest that one answer may take.
        retries: how often a command is sent again after a lost connection or a time-out.
    """

    url: str = ""
    namespace: str = "daedalus"
    timeout_seconds: float = 5.0
    retries: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRunConfig:
    """Everything a training run needs besides the definitions; the result of `load_training_config`.

    Attributes:
        project_root: the project's folder; relative paths of sources and stores resolve against it.
        data_root: prefix of relative source paths; None when no layer gives one.
        feature_s3_root_dir: prefix of relative source paths when there is no `data_root`.
        feed_start: first month to process, `YYYYMM`, inclusive.
        feed_end: last month to process, `YYYYMM`, inclusive.
        entity_spine_chunk_rows: accepted for compatibility; has no effect.
        day_workers: days at a time; None is 1 here, and what a Ray cluster has room for.
        output_root: absolute folder, or a URL.
        dense_qid: number the sessions of each day from 0, without gaps, instead of by the session map.
        feature_refs: which views to load, for services that declare no `columns`.
        output_columns: the output schema, for services that declare no `columns`.
        runs_via: `queue` or `dagster`: who does the runs that JSON-RPC and MCP start.
        constants: what `${base.name}` stands for.
        config_files: the files that were read, relative to the project where they lie in it.
        notices: what a person should know, and no error.
    """

    project_root: Path = Path()
    data_root: str | None = None
    feature_s3_root_dir: str = ""
    feed_start: str = "202602"
    feed_end: str = "202605"
    entity_spine_chunk_rows: int = 500_000
    day_workers: int | None = None
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    output_root: str = "data/training_output"
    sink: SinkConfig = field(default_factory=SinkConfig)
    online_store: OnlineStoreConfig = field(default_factory=OnlineStoreConfig)
    dense_qid: bool = False
    feature_refs: tuple[FeatureColumnRef, ...] = ()
    output_columns: tuple[ServiceColumn, ...] = ()
    embedding_coverage_filter: EmbeddingCoverageFilter = field(default_factory=EmbeddingCoverageFilter)
    aggregation_specs: tuple[AggregationSpec, ...] = ()
    enrichment_specs: tuple[EnrichmentSpec, ...] = ()
    embedding_stores: tuple[EmbeddingStoreConfig, ...] = ()
    enrich_runtime: Literal["ray", "in_process"] = "ray"
    ray_num_cpus: int | None = None
    ray_address: str | None = None
    tracking: Literal["none", "mlflow"] = "none"
    runs_via: Literal["queue", "dagster"] = "queue"
    openlineage: bool = False
    openlineage_namespace: str = "daedalus"
    constants: tuple[tuple[str, Any], ...] = ()
    config_files: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def source_root(self) -> str:
        """The prefix of relative source paths: `data_root`, else `feature_s3_root_dir`, else the default."""
        return self.project_path(self.data_root or self.feature_s3_root_dir or DEFAULT_DATA_ROOT)

    def project_path(self, text: str) -> str:
        """The path with `${ENV}` resolved and, when relative, under the project's folder; URLs stay URLs."""
        resolved = expand_env(text, where=f"path {text!r}")
        return resolved if is_url(resolved) else str(self.project_root / resolved)

    @property
    def output_path(self) -> Path:
        """The output root as a local folder; refused for a URL."""
        resolved = expand_env(self.output_root, where="output_root")
        if is_url(resolved):
            raise DefinitionError("output_root must be a local folder", where="output_root", hint=resolved)
        return Path(resolved).absolute()

    def duckdb_settings(self) -> dict[str, str]:
        """`compute.duckdb_config` as `duckdb.connect(config=...)` takes it, `${ENV}` resolved."""
        settings = {
            key: expand_env(value, where=f"compute.duckdb_config.{key}")
            for key, value in self.compute.duckdb_config
        }
        if "temp_directory" in settings:
            settings["temp_directory"] = self.project_path(settings["temp_directory"])
        return settings

    def store(self, name: str) -> EmbeddingStoreConfig:
        """The embedding store of that name."""
        for store in self.embedding_stores:
            if store.name == name:
                return store
        known = [store.name for store in self.embedding_stores]
        raise DefinitionError(
            f"unknown embedding store {name!r}", where="embedding_stores", hint=did_you_mean(name, known)
        )

    @property
    def feed_days(self) -> tuple[date, date]:
        """The first and the last day of `feed_start..feed_end`.

        >>> TrainingRunConfig(feed_start="202602", feed_end="202602").feed_days
        (datetime.date(2026, 2, 1), datetime.date(2026, 2, 28))
        """
        year, month = int(self.feed_end[:4]), int(self.feed_end[4:])
        last = date(year, month, calendar.monthrange(year, month)[1])
        return date(int(self.feed_start[:4]), int(self.feed_start[4:]), 1), last

    def holds_day(self, day: date) -> bool:
        """Whether the day's month lies in `feed_start..feed_end`.

        >>> TrainingRunConfig(feed_start="202602", feed_end="202605").holds_day(date(2026, 5, 31))
        True
        """
        return self.feed_start <= f"{day:%Y%m}" <= self.feed_end

    def require_day(self, day: date) -> None:
        """DefinitionError unless the day's month lies in `feed_start..feed_end`."""
        if not self.holds_day(day):
            raise DefinitionError(
                f"{day.isoformat()} is outside feed_start..feed_end ({self.feed_start}..{self.feed_end})",
                where="target date",
                hint="Widen the months in config/training/runtime.yaml",
            )

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain data; secrets are masked, `${ENV}` references stay references."""
        out: dict[str, Any] = {}
        for item in fields(self):
            out[item.name] = _plain(getattr(self, item.name))
        out["compute"] = {
            "engine": self.compute.engine,
            "duckdb_config": {key: _masked(key, value) for key, value in self.compute.duckdb_config},
        }
        out["constants"] = {key: _plain(value) for key, value in self.constants}
        return out


def is_url(text: str) -> bool:
    """Whether a place is a URL and no path.

    >>> is_url("s3://bucket/x"), is_url("data/x")
    (True, False)
    """
    return _URL.match(text) is not None


def _masked(key: str, value: str) -> str:
    return MASK if is_secret_name(key) and not value.startswith("${") else mask(value)


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return mask(str(value))
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if hasattr(value, "to_mapping"):
        return _plain(value.to_mapping())
    if isinstance(value, FeatureColumnRef | Path):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value
