"""Which functions an expression may call: a value of the same row alone decides what they return."""

from __future__ import annotations

from daedalus.errors import did_you_mean
from daedalus.sql.parsing import function_kinds

#: Called consistent by DuckDB, but they read the clock, the session, the catalog or how data is laid out.
_DENIED_SCALARS = frozenset(
    {
        "alias",
        "combine",
        "current_localtime",
        "current_localtimestamp",
        "current_setting",
        "finalize",
        "getvariable",
        "json_deserialize_sql",
        "json_serialize_plan",
        "json_serialize_sql",
        "unpivot_list",
        "vector_type",
        "version",
    }
)

#: Macros are text that calls other functions; only those read and found pure are allowed.
_PURE_MACROS = frozenset(
    {
        "array_append",
        "array_pop_back",
        "array_pop_front",
        "array_prepend",
        "array_push_back",
        "array_push_front",
        "array_reverse",
        "array_to_string",
        "array_to_string_comma_default",
        "date_add",
        "days_in_month",
        "fdiv",
        "fmod",
        "json",
        "list_any_value",
        "list_append",
        "list_approx_count_distinct",
        "list_avg",
        "list_bit_and",
        "list_bit_or",
        "list_bit_xor",
        "list_bool_and",
        "list_bool_or",
        "list_count",
        "list_entropy",
        "list_first",
        "list_histogram",
        "list_kurtosis",
        "list_kurtosis_pop",
        "list_last",
        "list_mad",
        "list_max",
        "list_median",
        "list_min",
        "list_mode",
        "list_prepend",
        "list_product",
        "list_reverse",
        "list_sem",
        "list_skewness",
        "list_stddev_pop",
        "list_stddev_samp",
        "list_string_agg",
        "list_sum",
        "list_var_pop",
        "list_var_samp",
        "map_contains_entry",
        "map_contains_value",
        "md5_number_lower",
        "md5_number_upper",
        "nullif",
        "round_even",
        "roundbankers",
        "split_part",
    }
)

#: Functions that run an aggregate named by their second argument over one list.
LIST_AGGREGATES = frozenset({"aggregate", "array_aggr", "array_aggregate", "list_aggr", "list_aggregate"})

#: The aggregate that samples.
_RANDOM_AGGREGATES = frozenset({"reservoir_quantile"})

#: Functions whose second argument may be a lambda, also one written with an arrow.
LAMBDA_FUNCTIONS = frozenset(
    {
        "apply",
        "array_apply",
        "array_filter",
        "array_reduce",
        "array_transform",
        "filter",
        "list_apply",
        "list_filter",
        "list_reduce",
        "list_transform",
        "reduce",
    }
)

#: Bare words that DuckDB turns into calls when no column has the name.
CLOCK_WORDS = frozenset(
    {
        "current_catalog",
        "current_date",
        "current_role",
        "current_schema",
        "current_time",
        "current_timestamp",
        "current_user",
        "localtime",
        "localtimestamp",
        "session_user",
        "user",
    }
)


def refusal(name: str, arguments: int) -> tuple[str, str] | None:
    """Why the function cannot be called with so many arguments, as (rule, mend); None when it can."""
    name = name.lower()
    kinds = function_kinds().get(name, frozenset())
    if name == "age" and arguments < 2:
        return "age() with one argument reads the clock", "Give both times."
    if name in _PURE_MACROS or (kinds == {"CONSISTENT"} | (kinds & {"table"}) and _is_open(name)):
        return None
    if "aggregate" in kinds or name == "count_star":
        return (
            f"{name}() is an aggregate",
            "An expression sees one row; aggregate over time with a rolling spec.",
        )
    if kinds & {"VOLATILE", "CONSISTENT_WITHIN_QUERY"}:
        return (
            f"{name}() is volatile: it gives another value at another time or place",
            "Use columns and constants only.",
        )
    if kinds & {"table", "table_macro"} or name == "unnest":
        return f"{name}() is a table function", "An expression makes one value of one row."
    if kinds or name == "getenv":
        return (
            f"{name}() is refused: it reads the clock, settings, the catalog or how rows are stored",
            "Use columns and constants only.",
        )
    if not (name[0].isalpha() or name[0] == "_"):
        return f"there is no operator {name}", "Put blanks between operators."
    allowed = [
        known for known, found in function_kinds().items() if known[0].isalpha() and "CONSISTENT" in found
    ]
    close = did_you_mean(name, [*allowed, *_PURE_MACROS])
    return f"there is no function {name}()", close if close.startswith("Did") else ""


def list_aggregate_refusal(aggregate: str | None) -> tuple[str, str] | None:
    """Why a list cannot be aggregated by this name (None: not a constant); None when it can."""
    if aggregate is None:
        return "the aggregate's name must be a constant", "Write list_aggregate(x, 'sum')."
    if aggregate.lower() in _RANDOM_AGGREGATES:
        return f"{aggregate} is volatile: it samples", "Use quantile_disc or quantile_cont."
    return None


def _is_open(name: str) -> bool:
    return name not in _DENIED_SCALARS and not name.startswith(("__internal", "pg_", "duckdb_"))
