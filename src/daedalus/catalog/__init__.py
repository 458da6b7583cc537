"""What the features are: entities, views, services, dtypes; no I/O but YAML and the lock file."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from daedalus.catalog.model import (
    DataSourceDef,
    Entity,
    FeatureColumnRef,
    FeatureServiceDef,
    FeatureViewDef,
)

if TYPE_CHECKING:
    from daedalus.catalog.aggregation import AggregationSpec
    from daedalus.catalog.registry import ENTITIES, FeatureCatalog

__all__ = [
    "ENTITIES",
    "AggregationSpec",
    "DataSourceDef",
    "Entity",
    "FeatureCatalog",
    "FeatureColumnRef",
    "FeatureServiceDef",
    "FeatureViewDef",
]

_LAZY = {
    "ENTITIES": "daedalus.catalog.registry",
    "AggregationSpec": "daedalus.catalog.aggregation",
    "FeatureCatalog": "daedalus.catalog.registry",
}


def __getattr__(name: str) -> Any:
    # Only those who ask for a catalog pay for what reads dtypes and entities.
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
