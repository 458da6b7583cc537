"""What a person should know about a pipeline, and no error."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from daedalus.pipelines.operators import Keep, Scan
from daedalus.pipelines.pipeline_files import PIPELINES_DIR

if TYPE_CHECKING:
    from daedalus.catalog.model import FeatureViewDef
    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.pipelines.settings import TrainingRunConfig


def pipeline_notices(
    pipeline: OperatorPipeline, catalog: FeatureCatalog, config: TrainingRunConfig
) -> list[str]:
    """What masks the definitions, which joins can see the future, and a coverage filter that is off unasked."""
    scans = [operator for operator in pipeline if isinstance(operator, Scan)]
    newest = dict.fromkeys(scan.source_ref for scan in scans if scan.keep is Keep.NEWEST)
    notices = edited_notices(pipeline)
    notices += [
        f"view {name} is joined as `latest`, which can see the future; `join: asof` cannot"
        for name in newest
        if catalog.view(name).timestamp_field
    ]
    filtered = any(scan.source_ref.startswith(("store:", "ids:")) for scan in scans)
    if config.embedding_coverage_filter.enabled and not filtered:
        reason = _why_off(catalog.view(catalog.service(pipeline.service).spine), config)
        notices.append(f"embedding_coverage_filter is off: {reason}")
    return notices


def edited_notices(pipeline: OperatorPipeline) -> list[str]:
    """A line where a hand-edited file is what runs: who changes a definition would wait for it in vain."""
    if not pipeline.file:
        return []
    file = PIPELINES_DIR / Path(pipeline.file).name
    return [f"{file} is what runs: changes of service {pipeline.service} and its specs do not reach it"]


def _why_off(spine: FeatureViewDef, config: TrainingRunConfig) -> str:
    setting = config.embedding_coverage_filter
    if setting.id_relation is None and setting.store is None and len(config.embedding_stores) != 1:
        if not config.embedding_stores:
            return "no embedding store is configured"
        return "there are several embedding stores, and `store` names none of them"
    for key in ("id_column", "event_column"):
        name = getattr(setting, key)
        if not spine.has_field(name):
            return f"its {key} {name!r} is no column of {spine.name}"
    return "the pipeline has none"
