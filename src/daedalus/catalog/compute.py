"""The documented import path of `daedalus.compute`, resolved when used: a catalog alone loads no engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daedalus.compute import (
        AggregationSpec,
        Engine,
        Operation,
        aggregate_pit_table,
        get_aggregate_pit_table,
    )

__all__ = ["AggregationSpec", "Engine", "Operation", "aggregate_pit_table", "get_aggregate_pit_table"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    # By name: the catalog lies below compute and must not depend on it.
    return getattr(importlib.import_module("daedalus.compute"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
