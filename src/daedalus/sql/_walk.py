"""Judge DuckDB's tree of one expression: what it may hold, which columns it reads and where they stand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from daedalus.errors import did_you_mean
from daedalus.sql import _functions
from daedalus.sql.identifiers import quote_literal
from daedalus.sql.parsing import Node, type_names

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOWHERE = 2**64 - 1

_OPERATORS = frozenset(
    {
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
        "OPERATOR_TRY",
        "STRUCT_EXTRACT",
    }
)
_PLAIN = frozenset({"CONSTANT", "COMPARISON", "CONJUNCTION", "BETWEEN", "CASE", "COLLATE"})
_REFUSED = {
    "SUBQUERY": ("a subquery is not allowed", "Join the view in the service and read its column."),
    "WINDOW": ("a window function is not allowed", "Aggregate over time with a rolling spec."),
    "STAR": ("a star is not allowed", "Name the column."),
    "PARAMETER": ("a parameter is not allowed", "Write the value itself."),
    "POSITIONAL_REFERENCE": ("a column position is not allowed", "Name the column."),
    "DEFAULT": ("DEFAULT is not allowed", "Write the value itself."),
}


class RefusedError(Exception):
    """The expression holds something that it may not hold."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Reference:
    """One column reference: the byte where it stands, its column and struct fields, the names as written."""

    location: int
    column: str
    fields: tuple[str, ...]
    written: tuple[str, ...]


@dataclass(slots=True)
class Walker:
    """Walks a tree once and keeps the column references it met.

    Attributes:
        quoted: the names that stand in double quotes, where an unknown one may be meant as a text.
    """

    columns: tuple[str, ...]
    qualifier: str | None
    quoted: frozenset[str] = frozenset()
    references: list[Reference] = field(default_factory=list)

    def visit(self, node: Node, scope: frozenset[str] = frozenset()) -> None:
        """Judge one node and what is below it; `scope` holds the lambda parameters in force."""
        kind = node["class"]
        if kind in _REFUSED:
            raise RefusedError(*_REFUSED[kind])
        if kind == "COLUMN_REF":
            self._column(node, scope)
        elif kind == "FUNCTION":
            self._function(node, scope)
        elif kind == "LAMBDA":
            # Outside the list functions an arrow takes a value out of JSON.
            self._children(node, scope)
        elif kind == "CAST":
            _check_type(node["cast_type"])
            self._children(node, scope)
        elif kind in _PLAIN or (kind == "OPERATOR" and node["type"] in _OPERATORS):
            self._children(node, scope)
        else:
            raise RefusedError(f"{node['type'].lower().replace('_', ' ')} is not allowed")

    def _children(self, node: Node, scope: frozenset[str]) -> None:
        for child in children(node):
            self.visit(child, scope)

    def _function(self, node: Node, scope: frozenset[str]) -> None:
        name = node["function_name"].lower()
        # The parser itself writes `main` for syntax such as EXTRACT, AT TIME ZONE and {'a': 1}.
        if node["catalog"] or node["schema"] not in {"", "main"}:
            raise RefusedError("a function name must stand alone", f"Write {name}(x), not x.{name}().")
        if refused := _functions.refusal(name, len(node["children"])):
            raise RefusedError(*refused)
        if node["distinct"] or node["filter"] or node["order_bys"]["orders"] or node["export_state"]:
            raise RefusedError(f"{name}() is called like an aggregate", "An expression sees one row.")
        if name in _functions.LIST_AGGREGATES:
            self._list_aggregate(node)
        for index, child in enumerate(node["children"]):
            if index > 0 and child["class"] == "LAMBDA" and name in _functions.LAMBDA_FUNCTIONS:
                self.visit(child["expr"], scope | _parameters(child["lhs"]))
            else:
                self.visit(child, scope)

    @staticmethod
    def _list_aggregate(node: Node) -> None:
        name = node["children"][1].get("value") if len(node["children"]) > 1 else None
        constant = str(name["value"]) if name and not name["is_null"] else None
        if refused := _functions.list_aggregate_refusal(constant):
            raise RefusedError(*refused)

    def _column(self, node: Node, scope: frozenset[str]) -> None:
        names = tuple(node["column_names"])
        if names[0].lower() in scope:
            return
        rest = names if self.qualifier is None else self._unqualified(names)
        column = self._known(rest[0], names)
        if node["query_location"] == _NOWHERE:
            raise RefusedError(f"{'.'.join(names)} cannot be used here")
        self.references.append(Reference(node["query_location"], column, rest[1:], names))

    def _unqualified(self, names: tuple[str, ...]) -> tuple[str, ...]:
        if names[0].lower() == str(self.qualifier).lower() and len(names) > 1:
            return names[1:]
        if len(names) == 1 and names[0].lower() in _functions.CLOCK_WORDS:
            raise RefusedError(
                f"{names[0]} is volatile or reads the session", "Use columns and constants only."
            )
        name = names[1] if len(names) > 1 and names[0] not in self.columns else names[0]
        mend = self._as_text(name) or f"Write {self.qualifier}.{name}."
        raise RefusedError(f"unqualified name {'.'.join(names)}", mend)

    def _known(self, name: str, names: tuple[str, ...]) -> str:
        if name in self.columns:
            return name
        # DuckDB's names are case-insensitive, Arrow's are not: the declared spelling is what is rendered.
        close = [column for column in self.columns if column.lower() == name.lower()]
        if len(close) == 1:
            return close[0]
        if self.qualifier is None and name.lower() in _functions.CLOCK_WORDS:
            raise RefusedError(f"{name} is volatile or reads the session", "Use columns and constants only.")
        if self.qualifier is None and len(names) > 1 and names[1] in self.columns:
            raise RefusedError(
                f"columns are written without a table name here, got {'.'.join(names)}",
                f"Write {'.'.join(names[1:])}.",
            )
        shown = name if self.qualifier is None else f"{self.qualifier}.{name}"
        raise RefusedError(f"unknown column {shown}", self._as_text(name) or did_you_mean(name, self.columns))

    def _as_text(self, name: str) -> str:
        """What to write if the name is none, but a text in the wrong quotes; empty when it surely is a name."""
        if name not in self.quoted or name in self.columns:
            return ""
        text = quote_literal(name)
        return f"Double quotes are for names; a text is written {text}."


def children(node: Node) -> Iterator[Node]:
    """The expressions directly below a node."""
    for key, value in node.items():
        if key == "case_checks":
            for check in value:
                yield from (check["when_expr"], check["then_expr"])
        elif isinstance(value, dict) and "class" in value:
            yield value
        elif isinstance(value, list):
            yield from (item for item in value if isinstance(item, dict) and "class" in item)


def _parameters(node: Node) -> frozenset[str]:
    if node["class"] == "COLUMN_REF" and len(node["column_names"]) == 1:
        return frozenset({node["column_names"][0].lower()})
    if node["class"] == "FUNCTION" and node["children"]:
        return frozenset().union(*(_parameters(child) for child in node["children"]))
    raise RefusedError("a lambda needs plain parameter names", "Write lambda x: x + 1.")


def _check_type(dtype: Node) -> None:
    info = dtype.get("type_info") or {}
    if dtype["id"] == "UNBOUND":
        name = str(info["name"])
        if info["catalog"] or info["schema"] or name.lower() not in type_names():
            mend = "DuckDB has no half floats: cast to FLOAT." if name.upper() == "HALF_FLOAT" else ""
            raise RefusedError(f"unknown type {name}", mend or did_you_mean(name.upper(), _shown_types()))
    if isinstance(info.get("child_type"), dict):
        _check_type(info["child_type"])
    for pair in info.get("child_types") or ():
        if isinstance(pair.get("second"), dict):
            _check_type(pair["second"])


def _shown_types() -> list[str]:
    return [name.upper() for name in type_names() if name.isidentifier()]
