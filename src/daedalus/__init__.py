"""Declarative feature definitions to point-in-time-correct training sets.

Names load on first use: importing the package imports no engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daedalus.catalog.aggregation import AggregationSpec
    from daedalus.catalog.registry import ENTITIES, FeatureCatalog
    from daedalus.compute import Engine, aggregate_pit_table, get_aggregate_pit_table
    from daedalus.errors import (
        CompileError,
        DaedalusError,
        DefinitionError,
        ExecutionError,
        MissingExtraError,
        SourceError,
    )
    from daedalus.pipelines.settings import TrainingRunConfig, load_training_config
    from daedalus.platform import PlatformRegistry
    from daedalus.platform.loading import load

__all__ = [
    "ENTITIES",
    "AggregationSpec",
    "CompileError",
    "DaedalusError",
    "DefinitionError",
    "Engine",
    "ExecutionError",
    "FeatureCatalog",
    "MissingExtraError",
    "PlatformRegistry",
    "SourceError",
    "TrainingRunConfig",
    "aggregate_pit_table",
    "get_aggregate_pit_table",
    "load",
    "load_training_config",
]

_HOMES = {
    "ENTITIES": "daedalus.catalog.registry",
    "AggregationSpec": "daedalus.catalog.aggregation",
    "CompileError": "daedalus.errors",
    "DaedalusError": "daedalus.errors",
    "DefinitionError": "daedalus.errors",
    "Engine": "daedalus.compute",
    "ExecutionError": "daedalus.errors",
    "FeatureCatalog": "daedalus.catalog.registry",
    "MissingExtraError": "daedalus.errors",
    "PlatformRegistry": "daedalus.platform",
    "SourceError": "daedalus.errors",
    "TrainingRunConfig": "daedalus.pipelines.settings",
    "aggregate_pit_table": "daedalus.compute",
    "get_aggregate_pit_table": "daedalus.compute",
    "load": "daedalus.platform.loading",
    "load_training_config": "daedalus.pipelines.settings",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("daedalus")
    if name not in _HOMES:
        raise AttributeError(f"module 'daedalus' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
