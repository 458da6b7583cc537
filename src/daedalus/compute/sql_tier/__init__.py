"""Rolling aggregation as SQL text for DuckDB, for the specs that SQL can answer exactly and fast.

`sql_refusal` says which specs those are; `rolling_select` composes the rest into one statement over relations
that hold `__row` (position in total order) and `__t` (instant in ticks). The method: number each key's rows,
find the ends of every window as positions (ASOF joins of integers), then fetch by position. Nothing is
quadratic in a key's rows, and no list is ever stored per history row.
"""

from daedalus.compute.sql_tier.items import sql_refusal
from daedalus.compute.sql_tier.relations import Part, Relation, RollingPlan, Stage
from daedalus.compute.sql_tier.statements import rolling_parts, rolling_plan, rolling_select

__all__ = [
    "Part",
    "Relation",
    "RollingPlan",
    "Stage",
    "rolling_parts",
    "rolling_plan",
    "rolling_select",
    "sql_refusal",
]
