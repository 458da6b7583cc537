"""What an admitted statement may be made of; whatever is not here is refused."""

from __future__ import annotations

#: Functions and operators whose result is bounded by their arguments, that read nothing but them.
FUNCTIONS = frozenset(
    [
        "+",
        "-",
        "*",
        "/",
        "//",
        "%",
        "||",
        "~~",
        "!~~",
        "~~*",
        "!~~*",
        "abs",
        "ceil",
        "ceiling",
        "floor",
        "round",
        "sign",
        "sqrt",
        "ln",
        "log2",
        "log10",
        "exp",
        "greatest",
        "least",
        "isnan",
        "isinf",
        "isfinite",
        "nullif",
        "lower",
        "upper",
        "trim",
        "length",
        "strlen",
        "contains",
        "starts_with",
        "prefix",
        "suffix",
        "list_value",
        "row",
        "list_contains",
        "list_extract",
        "list_element",
        "list_slice",
        "list_position",
        "array_extract",
        "array_length",
        "len",
        "struct_extract",
        "array_slice",
        "array_contains",
        "list_has",
        "list_has_any",
        "list_has_all",
        "date_part",
        "epoch",
        "epoch_ms",
        "epoch_us",
        "year",
        "month",
        "day",
        "hour",
        "minute",
        "second",
        "dayofweek",
        "date_trunc",
        "date_diff",
        "datediff",
    ]
)

#: Of them, what matches a pattern; and what finds a constant one without `_` in one pass.
PATTERNS = frozenset({"~~", "!~~", "~~*", "!~~*"})
PLAIN_PATTERNS = frozenset({"~~", "!~~"})

#: Of them, what gives texts or lists, and so copies what it is given; and the operators that do.
MAKERS = frozenset({
    "||", "greatest", "least", "nullif", "lower", "upper", "trim", "min", "max", "row", "struct_extract",
    "list_value", "list_extract", "list_element", "list_slice", "array_extract", "array_slice",
})  # fmt: skip
MAKING_OPERATORS = frozenset(
    [
        "ARRAY_CONSTRUCTOR",
        "ARRAY_EXTRACT",
        "ARRAY_SLICE",
        "OPERATOR_COALESCE",
        "OPERATOR_NULLIF",
        "STRUCT_EXTRACT",
    ]
)

#: Aggregates with a state of fixed size.
AGGREGATES = frozenset(
    [
        "count",
        "count_star",
        "sum",
        "min",
        "max",
        "avg",
        "mean",
        "bool_and",
        "bool_or",
        "stddev_samp",
        "var_samp",
    ]
)

#: Types that a value may be cast to.
TYPES = frozenset(
    [
        "boolean",
        "bool",
        "tinyint",
        "smallint",
        "integer",
        "int",
        "bigint",
        "hugeint",
        "utinyint",
        "usmallint",
        "uinteger",
        "ubigint",
        "float",
        "real",
        "double",
        "decimal",
        "numeric",
        "varchar",
        "text",
        "string",
        "date",
        "time",
        "timestamp",
        "blob",
        "uuid",
    ]
)

#: Types of constants in the text of a statement.
CONSTANTS = frozenset(
    [
        "BOOLEAN",
        "TINYINT",
        "SMALLINT",
        "INTEGER",
        "BIGINT",
        "HUGEINT",
        "DECIMAL",
        "FLOAT",
        "DOUBLE",
        "VARCHAR",
        "DATE",
        "TIMESTAMP",
        "NULL",
    ]
)

OPERATORS = frozenset(
    [
        "ARRAY_CONSTRUCTOR",
        "ARRAY_EXTRACT",
        "ARRAY_SLICE",
        "COMPARE_IN",
        "COMPARE_NOT_IN",
        "OPERATOR_COALESCE",
        "OPERATOR_IS_NOT_NULL",
        "OPERATOR_IS_NULL",
        "OPERATOR_NOT",
        "OPERATOR_NULLIF",
        "STRUCT_EXTRACT",
    ]
)
COMPARISONS = frozenset(
    [
        "COMPARE_EQUAL",
        "COMPARE_NOTEQUAL",
        "COMPARE_LESSTHAN",
        "COMPARE_GREATERTHAN",
        "COMPARE_LESSTHANOREQUALTO",
        "COMPARE_GREATERTHANOREQUALTO",
        "COMPARE_DISTINCT_FROM",
        "COMPARE_NOT_DISTINCT_FROM",
    ]
)
CONJUNCTIONS = frozenset({"CONJUNCTION_AND", "CONJUNCTION_OR"})

_EVERY = frozenset({"class", "type", "alias", "query_location"})
#: The keys that a node of each kind may have: one that a later DuckDB adds is refused until it is understood.
KEYS = {
    kind: _EVERY | frozenset(keys.split())
    for kind, keys in {
        "COLUMN_REF": "column_names",
        "CONSTANT": "value",
        "COMPARISON": "left right",
        "CONJUNCTION": "children",
        "BETWEEN": "input lower upper",
        "CASE": "case_checks else_expr",
        "CAST": "child cast_type try_cast",
        "OPERATOR": "children",
        "FUNCTION": (
            "function_name schema children filter order_bys distinct is_operator export_state catalog"
        ),
        "STAR": ("relation_name exclude_list replace_list columns expr qualified_exclude_list rename_list"),
    }.items()
}
SELECT_KEYS = frozenset(
    [
        "type",
        "modifiers",
        "cte_map",
        "select_list",
        "from_table",
        "where_clause",
        "group_expressions",
        "group_sets",
        "aggregate_handling",
        "having",
        "sample",
        "qualify",
    ]
)
TABLE_KEYS = frozenset(
    [
        "type",
        "alias",
        "sample",
        "query_location",
        "schema_name",
        "table_name",
        "column_name_alias",
        "catalog_name",
        "at_clause",
    ]
)
