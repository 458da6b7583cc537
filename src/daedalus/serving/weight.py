"""How much a statement makes of each batch of rows: DuckDB's memory limit does not count values on their way.

A text joined to itself twenty times, for two thousand rows at once, is gone before any limit sees it. So a judged
statement is weighed before it runs: the bytes of the columns it reads, as often as it copies them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from daedalus.serving import allowed
from daedalus.sql.identifiers import quote_ident

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import duckdb

Node = dict[str, Any]
#: Rows that DuckDB works on at a time.
BATCH = 2048
_FIXED = 16
_WIDTHS = {
    "BOOLEAN": 1, "TINYINT": 1, "UTINYINT": 1, "SMALLINT": 2, "USMALLINT": 2, "INTEGER": 4, "UINTEGER": 4, "FLOAT": 4,
    "DATE": 4, "BIGINT": 8, "UBIGINT": 8, "DOUBLE": 8, "TIME": 8, "TIMESTAMP": 8,
}  # fmt: skip
_LIST_OF_FIXED = re.compile(r"([A-Z_]+)(?:\(\d+,\s?\d+\))?(?:\[\d*\])")
#: What a number may be as text, over its bytes.
_AS_TEXT = 5


class Weight(NamedTuple):
    """Of an expression's values: bytes that come from columns, per batch, and from constants, per row."""

    columns: int
    constant: int

    @property
    def batch(self) -> int:
        """All of a batch; of constants alone, one value."""
        return self.columns + self.constant * BATCH if self.columns else self.constant


class Scales:
    """Weighs one judged statement.

    Args:
        widths: bytes of a batch of each column, by lower-case name; those that are not there hold numbers.
        columns: the relation's, in lower case.
    """

    def __init__(self, widths: Mapping[str, int], columns: Sequence[str]) -> None:
        self._widths = widths
        self._columns = tuple(columns)
        self._aliases: dict[str, Weight] = {}
        self._made = 0

    @property
    def row(self) -> int:
        """Bytes of a batch of whole rows."""
        return sum(self._width(name) for name in self._columns)

    def statement(self, node: Node) -> int:
        """Bytes that a batch of its rows makes, at most."""
        results = [self._of(one) for one in node["select_list"]]
        total = sum(one.columns + one.constant * BATCH for one in results)
        self._aliases = {
            one["alias"].lower(): weight
            for one, weight in zip(node["select_list"], results, strict=True)
            if one["alias"]
        }
        orders = [one for modifier in node["modifiers"] for one in modifier.get("orders", ())]
        for one in (*node["group_expressions"], *(order["expression"] for order in orders)):
            total += self._of(one).batch
        for one in (node["where_clause"], node["having"]):
            if one is not None:
                self._of(one)
        return total + self._made

    def _of(self, node: Node) -> Weight:
        kind = node["class"]
        if kind == "COLUMN_REF":
            return self._column([str(one).lower() for one in node["column_names"]])
        if kind == "CONSTANT":
            held = node["value"].get("value")
            return Weight(0, _FIXED + (len(held.encode()) if isinstance(held, str) else 0))
        if kind == "STAR":
            return Weight(self.row, 0)
        below = [self._of(one) for one in _children(node)]
        together = Weight(sum(one.columns for one in below), sum(one.constant for one in below))
        if kind == "CAST":
            text = str(
                (node["cast_type"].get("type_info") or {}).get("name") or node["cast_type"]["id"]
            ).lower()
            if text in _FIXED_TYPES:
                return self._number(together)
            together = Weight(together.columns * _AS_TEXT, together.constant * _AS_TEXT)
        elif kind in {"COMPARISON", "CONJUNCTION", "BETWEEN"} or _gives_number(node):
            return self._number(together)
        self._made += together.batch
        return together

    @staticmethod
    def _number(weight: Weight) -> Weight:
        return Weight(_FIXED * BATCH, 0) if weight.columns else Weight(0, _FIXED)

    def _column(self, names: list[str]) -> Weight:
        first = names[0]
        if first in self._columns:
            return Weight(self._width(first), 0)
        if len(names) == 1:
            return self._aliases.get(first, Weight(_FIXED * BATCH, 0))
        return Weight(self._width(names[1]), 0)

    def _width(self, name: str) -> int:
        return self._widths.get(name, _FIXED * BATCH)


_FIXED_TYPES = allowed.TYPES - {"varchar", "text", "string", "blob"}


def _gives_number(node: Node) -> bool:
    if node["class"] == "FUNCTION":
        return str(node["function_name"]).lower() not in allowed.MAKERS
    return node["class"] == "OPERATOR" and node["type"] not in allowed.MAKING_OPERATORS


def _children(node: Node) -> list[Node]:
    if node["class"] == "CAST":
        return [node["child"]]
    if node["class"] == "CASE":
        checks = [check[part] for check in node["case_checks"] for part in ("when_expr", "then_expr")]
        return [*checks, node["else_expr"]]
    if node["class"] == "COMPARISON":
        return [node["left"], node["right"]]
    if node["class"] == "BETWEEN":
        return [node["input"], node["lower"], node["upper"]]
    return list(node["children"])


def column_widths(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, int]:
    """Bytes of a batch of each column of variable size, at most, by lower-case name."""
    described = connection.execute(f"DESCRIBE {table}").fetchall()
    sizes = {str(name): size for name, dtype, *_ in described if (size := _size_sql(str(name), str(dtype)))}
    if not sizes:
        return {}
    asked = ", ".join(f"coalesce(max({size}), 0), coalesce(sum({size}), 0)" for size in sizes.values())
    found = connection.execute(f"SELECT {asked} FROM {table}").fetchone() or ()
    return {
        name.lower(): min(int(found[2 * at]) * BATCH, int(found[2 * at + 1])) + _FIXED * BATCH
        for at, name in enumerate(sizes)
    }


def _size_sql(name: str, dtype: str) -> str:
    """The bytes of a value, as SQL; empty for types whose values are of one size."""
    column = quote_ident(name)
    if dtype == "VARCHAR":
        return f"strlen({column})"
    if dtype == "BLOB":
        return f"octet_length({column})"
    if (listed := _LIST_OF_FIXED.fullmatch(dtype)) and listed[1] in _WIDTHS:
        return f"len({column}) * {_WIDTHS[listed[1]]}"
    if dtype.endswith("]") or ("(" in dtype and not dtype.startswith("DECIMAL")):
        return f"strlen({column}::VARCHAR) * {_AS_TEXT}"
    return ""
