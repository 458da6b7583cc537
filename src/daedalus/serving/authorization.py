"""Admission: a statement is parsed, judged node by node, and written anew from what was judged.

Admitted is one SELECT from one approved relation: columns, constants, allow-listed functions, WHERE, GROUP BY,
HAVING, ORDER BY, LIMIT. No join, subquery, CTE, set operation, window, lambda, sample or table function: the cost of
a statement is a scan. What runs is not the client's text, but DuckDB's rendering of the tree that was judged.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from daedalus.errors import did_you_mean
from daedalus.serving import allowed
from daedalus.serving.weight import BATCH, Scales
from daedalus.sql.identifiers import quote_literal
from daedalus.sql.parsing import NotParsedError, cursor, statement_tree

if TYPE_CHECKING:
    from collections.abc import Mapping

Node = dict[str, Any]

DATABASE = "served"
_DEEPEST = 64
_MOST_NODES = 50_000
_MOST_ITEMS = 2_000
_MOST_TERMS = 100
_LONGEST_PATTERN = 200
_CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\uffff]"
)


class RefusedError(Exception):
    """The statement is not admitted.

    Attributes:
        what: the rule that it breaks.
        hint: what to do instead.
        parsed: whether it is one SELECT at all.
    """

    def __init__(self, what: str, hint: str = "", *, parsed: bool = True) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.parsed = parsed

    def __str__(self) -> str:
        return f"{self.what}. {self.hint}" if self.hint else self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved:
    """A relation that may be read: its name in the served database, its columns as they are spelled, and their widths.

    `widths` are bytes of a batch of rows, by lower-case column; those left out are numbers.
    """

    name: str
    service: str
    columns: tuple[str, ...]
    widths: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A statement that may run.

    Attributes:
        sql: what runs; at most `rows` + 1 rows, so that one too many shows.
        relation: the approved relation that it reads.
    """

    sql: str
    relation: Approved


def admit(
    text: str, relations: Mapping[str, Approved], *, rows: int, longest: int, heaviest: int | None = None
) -> Admitted:
    """Judge a statement for somebody who may read these relations (by lower-case name).

    Args:
        text: the statement.
        relations: what may be read.
        rows: of the result, at most.
        longest: bytes of the text, at most.
        heaviest: bytes that it may make of a batch of rows; None does not weigh it.

    Raises:
        RefusedError: anything in it is not on the lists.
    """
    try:
        size = len(text.encode())
    except UnicodeError:
        raise RefusedError("the statement is no text", parsed=False) from None
    if size > longest:
        raise RefusedError(f"the statement is longer than {longest} bytes", parsed=False)
    if found := _CONTROL.search(text):
        raise RefusedError(f"the statement holds the character U+{ord(found[0]):04X}", parsed=False)
    try:
        statements = statement_tree(text)
    except NotParsedError as error:
        raise RefusedError(f"only one SELECT is admitted: {error}", parsed=False) from None
    if len(statements) != 1:
        raise RefusedError("only one SELECT is admitted", parsed=False)
    try:
        relation = _Judge(relations).statement(statements[0])
        if heaviest is not None:
            scales = Scales(relation.widths, [one.lower() for one in relation.columns])
            weight = scales.statement(statements[0]["node"])
            _require(
                weight <= heaviest + scales.row,
                f"it would make {weight >> 20} MiB of each {BATCH} rows",
                "Ask for fewer columns, and join fewer texts or lists",
            )
        _bound_rows(statements[0]["node"], rows)
        return Admitted(sql=_render(statements), relation=relation)
    except (RecursionError, KeyError, TypeError, AttributeError):
        raise RefusedError("the statement is of a kind that is not admitted") from None


class _Judge:
    """Walks one statement; anything that is not known raises."""

    def __init__(self, relations: Mapping[str, Approved]) -> None:
        self._relations = relations
        self._columns: frozenset[str] = frozenset()
        self._spelled: tuple[str, ...] = ()
        self._aliases: frozenset[str] = frozenset()
        self._prefixes: frozenset[str] = frozenset()
        self._nodes = 0

    def statement(self, statement: Node) -> Approved:
        _only(statement, {"node", "named_param_map"})
        _require(not statement["named_param_map"], "parameters are not admitted")
        return self._select(statement["node"])

    def _select(self, node: Node) -> Approved:
        _require(
            node["type"] == "SELECT_NODE",
            "set operations and recursion are not admitted",
            "Ask once for each relation",
        )
        _only(node, allowed.SELECT_KEYS)
        _require(node["cte_map"] == {"map": []}, "WITH is not admitted", "Read the relation itself")
        _require(node["sample"] is None, "samples are not admitted")
        _require(node["qualify"] is None, "QUALIFY is not admitted")
        _require(node["aggregate_handling"] == "STANDARD_HANDLING", "GROUP BY ALL is not admitted")
        relation = self._relation(node["from_table"])
        _require(len(node["select_list"]) <= _MOST_ITEMS, f"more than {_MOST_ITEMS} columns are not admitted")
        for one in node["select_list"]:
            self._expression(one)
        self._optional(node["where_clause"])
        self._aliases = frozenset(one["alias"].lower() for one in node["select_list"] if one["alias"])
        for one in node["group_expressions"]:
            self._expression(one)
        _require(len(node["group_sets"]) <= 1, "grouping sets are not admitted")
        _require(
            len(node["group_expressions"]) <= _MOST_TERMS, f"more than {_MOST_TERMS} groups are not admitted"
        )
        self._optional(node["having"])
        for one in node["modifiers"]:
            self._modifier(one)
        return relation

    def _relation(self, table: Node) -> Approved:
        if table["type"] == "TABLE_FUNCTION":
            raise RefusedError("table functions are not admitted", "Read an approved relation")
        _require(
            table["type"] == "BASE_TABLE", "a statement reads one approved relation", "No join, no subquery"
        )
        _only(table, allowed.TABLE_KEYS)
        _require(
            table["sample"] is None and table["at_clause"] is None, "samples and versions are not admitted"
        )
        _require(
            not table["column_name_alias"], "columns are not renamed in FROM", "Use AS in the SELECT list"
        )
        qualified = table["catalog_name"] in {"", DATABASE} and table["schema_name"] in {"", "main"}
        relation = self._relations.get(table["table_name"].lower()) if qualified else None
        if relation is None:
            name = ".".join(
                part for part in (table["catalog_name"], table["schema_name"], table["table_name"]) if part
            )
            known = [one.name for one in self._relations.values()]
            raise RefusedError(f"there is no relation {name[:200]}", did_you_mean(name[:200], known))
        self._spelled = relation.columns
        self._columns = frozenset(one.lower() for one in relation.columns)
        self._prefixes = frozenset({(table["alias"] or table["table_name"]).lower()})
        # What runs names the relation in full: nothing on a search path can stand in for it.
        table["alias"] = table["alias"] or table["table_name"]
        table["catalog_name"], table["schema_name"], table["table_name"] = DATABASE, "main", relation.name
        return relation

    def _modifier(self, modifier: Node) -> None:
        kind = modifier["type"]
        if kind == "ORDER_MODIFIER":
            _only(modifier, {"type", "orders"})
            _require(
                len(modifier["orders"]) <= _MOST_TERMS, f"more than {_MOST_TERMS} orders are not admitted"
            )
            for one in modifier["orders"]:
                _only(one, {"type", "null_order", "expression"})
                self._expression(one["expression"])
        elif kind == "LIMIT_MODIFIER":
            _only(modifier, {"type", "limit", "offset"})
            for one in (modifier["limit"], modifier["offset"]):
                _require(one is None or _whole(one) is not None, "LIMIT and OFFSET are whole numbers")
        elif kind == "DISTINCT_MODIFIER":
            _only(modifier, {"type", "distinct_on_targets"})
            _require(not modifier["distinct_on_targets"], "DISTINCT ON is not admitted")
        else:
            raise RefusedError(f"{_plain(kind)} is not admitted")

    def _optional(self, node: Node | None) -> None:
        if node is not None:
            self._expression(node)

    def _expression(self, node: Node, depth: int = 0) -> None:
        """Judge one expression and what is below it."""
        self._nodes += 1
        _require(self._nodes <= _MOST_NODES, "the statement is too large")
        _require(depth <= _DEEPEST, f"expressions are nested more than {_DEEPEST} deep")
        kind = node["class"]
        if kind not in allowed.KEYS:
            raise RefusedError(f"{_plain(kind)} is not admitted")
        _only(node, allowed.KEYS[kind])
        below: list[Node] = []
        if kind == "COLUMN_REF":
            self._column([str(one) for one in node["column_names"]])
        elif kind == "CONSTANT":
            _require(
                node["value"]["type"]["id"] in allowed.CONSTANTS, "a constant of this type is not admitted"
            )
        elif kind == "STAR":
            self._star(node)
        elif kind == "FUNCTION":
            below = _called(node)
        elif kind == "CAST":
            _check_type(node["cast_type"])
            below = [node["child"]]
        elif kind == "CASE":
            for check in node["case_checks"]:
                _only(check, {"when_expr", "then_expr"})
                below += [check["when_expr"], check["then_expr"]]
            below.append(node["else_expr"])
        elif kind == "BETWEEN":
            below = [node["input"], node["lower"], node["upper"]]
        elif kind == "COMPARISON":
            _require(node["type"] in allowed.COMPARISONS, f"{_plain(node['type'])} is not admitted")
            below = [node["left"], node["right"]]
        else:
            known = allowed.CONJUNCTIONS if kind == "CONJUNCTION" else allowed.OPERATORS
            _require(node["type"] in known, f"{_plain(node['type'])} is not admitted")
            below = node["children"]
        for child in below:
            self._expression(child, depth + 1)

    def _column(self, names: list[str]) -> None:
        """A bare word that is no column may be a call (`current_user`), so every name must be known."""
        _require(len(names) <= _DEEPEST, f"names of more than {_DEEPEST} parts are not admitted")
        first = names[0].lower()
        if first in self._columns or (len(names) == 1 and first in self._aliases):
            return
        if len(names) > 1 and first in self._prefixes and names[1].lower() in self._columns:
            return
        name = names[1] if len(names) > 1 and first in self._prefixes else names[0]
        raise RefusedError(
            f"there is no column {'.'.join(names)[:200]}", did_you_mean(name[:200], self._spelled)
        )

    def _star(self, node: Node) -> None:
        plain = not (
            node["columns"]
            or node["expr"]
            or node["replace_list"]
            or node["qualified_exclude_list"]
            or node["rename_list"]
        )
        _require(plain, "a star may only exclude columns", "Name the columns")
        _require(
            not node["relation_name"] or node["relation_name"].lower() in self._prefixes,
            "there is no such relation",
        )
        for name in node["exclude_list"]:
            self._column([str(name)])


def _called(node: Node) -> list[Node]:
    """The arguments of a call of an allow-listed function."""
    name = str(node["function_name"]).lower()
    # The parser itself writes `main` for syntax such as EXTRACT and [1, 2].
    bare = node["catalog"] == "" and node["schema"] in {"", "main"}
    if not bare or name not in allowed.FUNCTIONS | allowed.AGGREGATES:
        shown = ".".join(part for part in (node["catalog"], node["schema"], name) if part)
        raise RefusedError(f"the function {shown[:200]} is not admitted")
    plain = not (node["filter"] or node["order_bys"]["orders"] or node["export_state"])
    _require(plain, "FILTER and ORDER BY in a call are not admitted")
    _require(not node["distinct"] or name == "count", "DISTINCT in a call is admitted for count alone")
    children: list[Node] = node["children"]
    if name in allowed.PATTERNS:
        _check_pattern(*children, plain=name in allowed.PLAIN_PATTERNS)
    if name == "contains":
        found = _text_below(children[1])
        _require(
            found <= _LONGEST_PATTERN, f"what contains looks for is longer than {_LONGEST_PATTERN} characters"
        )
    return children


def _check_pattern(text: Node, pattern: Node, *, plain: bool) -> None:
    """LIKE and its kin: DuckDB goes back at each `%`, for years if need be, and no time limit reaches into a row.

    Only a constant pattern of LIKE without `_` is found from left to right.
    """
    held = pattern["value"]["value"] if pattern["class"] == "CONSTANT" else None
    _require(isinstance(held, str), "a pattern is a constant text", "Use contains, starts_with or =")
    short = len(str(held)) <= _LONGEST_PATTERN
    _require(short, f"a pattern has at most {_LONGEST_PATTERN} characters", "Use starts_with or =")
    if plain and "_" not in str(held):
        return
    _require(
        str(held).rstrip("%").count("%") <= 1 and text["class"] == "COLUMN_REF",
        "ILIKE, and LIKE with _, take a column and one % before the last",
        "Use lower and LIKE without _, or contains",
    )


def _text_below(node: Any) -> int:
    """Characters of all texts in an expression."""
    if isinstance(node, dict):
        if node.get("class") == "CONSTANT":
            held = node["value"].get("value")
            return len(held) if isinstance(held, str) else 0
        return sum(_text_below(one) for one in node.values())
    return sum(_text_below(one) for one in node) if isinstance(node, list) else 0


def _check_type(dtype: Node, depth: int = 0) -> None:
    info = dtype.get("type_info") or {}
    _require(depth <= 4, "a type of this depth is not admitted")
    name = str(dtype["id"])
    if name == "UNBOUND":
        _require(not info["catalog"] and not info["schema"], "types of other schemas are not admitted")
        name = str(info["name"])
    if name in {"LIST", "ARRAY"}:
        _check_type(info["child_type"], depth + 1)
        return
    _require(name.lower() in allowed.TYPES, f"a cast to {name[:100]} is not admitted")


def _whole(node: Node) -> int | None:
    """The whole number that a constant is; None when it is something else."""
    if node["class"] != "CONSTANT" or node["value"]["is_null"]:
        return None
    value = node["value"]["value"]
    integral = node["value"]["type"]["id"] in {"TINYINT", "SMALLINT", "INTEGER", "BIGINT"}
    return value if integral and isinstance(value, int) and value >= 0 else None


def _bound_rows(node: Node, rows: int) -> None:
    """Set the statement's LIMIT, so that it makes at most one row too many."""
    most: Node = {
        "class": "CONSTANT",
        "type": "VALUE_CONSTANT",
        "alias": "",
        "query_location": 0,
        "value": {"type": {"id": "BIGINT", "type_info": None}, "is_null": False, "value": rows + 1},
    }
    limits = [one for one in node["modifiers"] if one["type"] == "LIMIT_MODIFIER"]
    if not limits:
        node["modifiers"].append({"type": "LIMIT_MODIFIER", "limit": most, "offset": None})
    for one in limits:
        asked = None if one["limit"] is None else _whole(one["limit"])
        if asked is None or asked > rows:
            one["limit"] = most


def _render(statements: list[Node]) -> str:
    """The SQL of the judged tree."""
    import duckdb

    tree = json.dumps({"error": False, "statements": statements})
    try:
        row = cursor().execute(f"SELECT json_deserialize_sql({quote_literal(tree)})").fetchone()
    except duckdb.Error:
        row = None
    if row is None or not row[0]:
        raise RefusedError("the statement is of a kind that is not admitted")
    return str(row[0])


def _only(node: Node, known: frozenset[str] | set[str]) -> None:
    if not node.keys() <= known:
        raise RefusedError("the statement is of a kind that is not admitted")


def _require(holds: bool, what: str, hint: str = "") -> None:
    if not holds:
        raise RefusedError(what, hint)


def _plain(kind: str) -> str:
    return str(kind).lower().replace("_", " ")[:100]
