"""Whether two expressions are the same to DuckDB's parser, however they are spaced, cased or quoted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daedalus.sql import parsing

if TYPE_CHECKING:
    from collections.abc import Mapping

_SPELLING = frozenset({"query_location", "alias"})


def same_expression(
    left: str,
    right: str,
    *,
    left_names: Mapping[str, str] | None = None,
    right_names: Mapping[str, str] | None = None,
) -> bool:
    """Whether both texts parse to one tree; a text that does not parse is only the same as itself.

    Args:
        left: an expression.
        right: another.
        left_names: what the columns of `left` stand for; a column that is not named stands for itself.
        right_names: the same for `right`.

    >>> same_expression("coalesce(x,0)>1", "COALESCE( x, 0 ) > 1"), same_expression("x > 1", "x > 2")
    (True, False)
    >>> same_expression("age > 1", "users__age > 1", left_names={"age": "u:age"}, right_names={"users__age": "u:age"})
    True
    """
    if left == right and not left_names and not right_names:
        return True
    try:
        return bool(_tree(left, left_names or {}) == _tree(right, right_names or {}))
    except parsing.NotParsedError:
        return left == right


def _tree(text: str, names: Mapping[str, str]) -> Any:
    folded = {name.lower(): meaning for name, meaning in names.items()}
    return [_plain(statement["node"], folded) for statement in parsing.statement_tree(f"SELECT {text}")]


def _plain(node: Any, names: Mapping[str, str]) -> Any:
    if isinstance(node, list):
        return [_plain(item, names) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {key: _plain(value, names) for key, value in node.items() if key not in _SPELLING}
    if node.get("class") == "COLUMN_REF":
        written = [str(part).lower() for part in node["column_names"]]
        plain["column_names"] = [names.get(part, part) for part in written]
    if "function_name" in plain:
        plain["function_name"] = str(plain["function_name"]).lower()
    return plain
