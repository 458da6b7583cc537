"""From validated settings to the frozen `TrainingRunConfig`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from daedalus.catalog.aggregation import AggregationSpec
from daedalus.catalog.model import FeatureColumnRef, ServiceColumn, Unset
from daedalus.pipelines.settings.run_config import (
    ComputeConfig,
    EmbeddingCoverageFilter,
    EmbeddingStoreConfig,
    EnrichmentSpec,
    OnlineStoreConfig,
    SinkConfig,
    TrainingRunConfig,
    is_url,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daedalus.pipelines.settings.model import OutputColumnSection, TrainingSettings


def to_run_config(
    settings: TrainingSettings,
    *,
    project_root: Path,
    constants: Mapping[str, Any],
    config_files: tuple[str, ...],
    notices: tuple[str, ...],
) -> TrainingRunConfig:
    """The domain object; the settings have passed every check."""
    coverage = settings.embedding_coverage_filter
    return TrainingRunConfig(
        project_root=project_root,
        data_root=settings.data_root,
        feature_s3_root_dir=settings.feature_s3_root_dir,
        feed_start=settings.feed_start,
        feed_end=settings.feed_end,
        entity_spine_chunk_rows=settings.entity_spine_chunk_rows,
        day_workers=settings.day_workers,
        compute=ComputeConfig(
            engine=settings.compute.engine, duckdb_config=tuple(settings.compute.duckdb_config.items())
        ),
        output_root=_absolute(settings.output_root),
        sink=SinkConfig(**settings.sink.model_dump()),
        online_store=OnlineStoreConfig(**settings.online_store.model_dump()),
        dense_qid=settings.dense_qid,
        feature_refs=tuple(FeatureColumnRef.parse(text) for text in settings.feature_refs),
        output_columns=tuple(_column(section) for section in settings.output_columns),
        embedding_coverage_filter=EmbeddingCoverageFilter(
            **(coverage.model_dump() | {"events": tuple(coverage.events)})
        ),
        aggregation_specs=tuple(AggregationSpec.from_mapping(spec) for spec in settings.aggregation_specs),
        enrichment_specs=tuple(EnrichmentSpec(**spec.model_dump()) for spec in settings.enrichment_specs),
        embedding_stores=tuple(
            EmbeddingStoreConfig(
                **(store.model_dump() | {"embedding_dim": store.embedding_dim or settings.artwork_embed_dim})
            )
            for store in settings.embedding_stores
        ),
        enrich_runtime=settings.enrich_runtime,
        ray_num_cpus=settings.ray_num_cpus,
        ray_address=settings.ray_address,
        tracking=settings.tracking,
        runs_via=settings.runs_via,
        openlineage=settings.openlineage,
        openlineage_namespace=settings.openlineage_namespace,
        constants=tuple(constants.items()),
        config_files=config_files,
        notices=notices,
    )


def _column(section: OutputColumnSection) -> ServiceColumn:
    default = section.default if "default" in section.model_fields_set else Unset.UNSET
    return ServiceColumn(name=section.name, default=default, default_sql=section.default_sql)


def _absolute(output_root: str) -> str:
    # Resolved now: day workers in other processes may have another working directory.
    elsewhere = is_url(output_root) or output_root.startswith("${")
    return output_root if elsewhere else str(Path(output_root).absolute())
