"""What a compilation reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daedalus.catalog.model import FeatureServiceDef
    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.settings import TrainingRunConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileRequest:
    """One service, resolved, with the definitions and settings that its compilation reads."""

    service: FeatureServiceDef
    catalog: FeatureCatalog
    config: TrainingRunConfig
