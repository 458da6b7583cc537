"""What a person should know about a pipeline, and no error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daedalus.pipelines.operators import Keep, Scan

if TYPE_CHECKING:
    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.pipelines.settings import TrainingRunConfig


def pipeline_notices(
    pipeline: OperatorPipeline, catalog: FeatureCatalog, config: TrainingRunConfig
) -> list[str]:
    """One line per `latest` join, which can see the future, and one for a coverage filter that has no store."""
    scans = [operator for operator in pipeline if isinstance(operator, Scan)]
    newest = dict.fromkeys(scan.source_ref for scan in scans if scan.keep is Keep.NEWEST)
    notices = [
        f"view {name} is joined as `latest`, which can see the future; `join: asof` cannot"
        for name in newest
        if catalog.view(name).timestamp_field
    ]
    filtered = any(scan.source_ref.startswith(("store:", "ids:")) for scan in scans)
    if config.embedding_coverage_filter.enabled and not filtered:
        notices.append("embedding_coverage_filter is off: no embedding store is configured")
    return notices
