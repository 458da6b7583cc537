"""Rolling aggregation, correct at every point in time: what a feature's value over the past *is*.

`aggregate_pit_table(spine, specs)` on the default engine, `get_aggregate_pit_table(engine)` on a chosen one.
All engines give the same table, bit for bit.
"""

from __future__ import annotations

from daedalus.catalog.aggregation import AggregationSpec, Operation
from daedalus.compute.aggregate import (
    AggregatePitTable,
    Engine,
    aggregate_pit_table,
    aggregate_relations,
    get_aggregate_pit_table,
)
from daedalus.compute.checks import check_specs, output_field

__all__ = [
    "AggregatePitTable",
    "AggregationSpec",
    "Engine",
    "Operation",
    "aggregate_pit_table",
    "aggregate_relations",
    "check_specs",
    "get_aggregate_pit_table",
    "output_field",
]
