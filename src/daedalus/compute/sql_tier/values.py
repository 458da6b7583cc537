"""Small expressions over values: one NaN, one zero, checked sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daedalus.compute.sql_tier.items import FLOATS
from daedalus.sql.identifiers import quote_literal

if TYPE_CHECKING:
    from daedalus.catalog.aggregation import AggregationSpec


def canonical(expression: str, dtype: str | None) -> str:
    """The value with one NaN and one zero, for hashing; other types as they are.

    >>> canonical("v", "BIGINT")
    'v'
    """
    if dtype not in FLOATS:
        return expression
    nan, zero = (f"CAST('{text}' AS {dtype})" for text in ("nan", "0"))
    return f"CASE WHEN isnan({expression}) THEN {nan} WHEN {expression} = 0 THEN {zero} ELSE {expression} END"


def distinct_in_list(values: str, dtype: str | None) -> str:
    """How many distinct values a list holds.

    >>> distinct_in_list("l", "BIGINT")
    'list_unique(l)'
    """
    if dtype not in FLOATS:
        return f"list_unique({values})"
    # list_unique counts every NaN and both zeros (but skips NULL); a list with a NaN has it as its maximum.
    one = "CASE WHEN isnan(item) THEN NULL WHEN item = 0 THEN abs(item) ELSE item END"
    unique = f"list_unique(list_transform({values}, lambda item: {one}))"
    return f"{unique} + CASE WHEN isnan(list_max({values})) THEN 1 ELSE 0 END"


def checked_sum(expression: str, spec: AggregationSpec) -> str:
    """A HUGEINT as BIGINT; one outside it ends the query with an error that names the spec."""
    text = quote_literal(f"{spec.where}: the sum ")
    error = f"error({text} || {expression} || ' is outside int64')"
    return (
        f"CASE WHEN {expression} IS NULL THEN NULL "
        f"ELSE coalesce(TRY_CAST({expression} AS BIGINT), CAST({error} AS BIGINT)) END"
    )
