"""Expressions that users write in YAML: checked once, then rendered with every column quoted.

DuckDB's own parser reads them, because it is DuckDB that runs them: the tree that is judged is the tree that
executes. Only the column references are rewritten, in place; every other character stays as the user wrote it
(runs of white space aside), and the rendered text is parsed again to prove that its tree is the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from daedalus.errors import DefinitionError
from daedalus.sql import _scan, parsing
from daedalus.sql._walk import Reference, RefusedError, Walker, children
from daedalus.sql.identifiers import qualified

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from daedalus.sql.parsing import Node

MAX_LENGTH = 20_000

_SELECT = "SELECT "
_NAME = r'(?:"(?:""|[^"])*"|[^\W\d][\w$]*)'
_NAMES = re.compile(rf"{_NAME}(?:\s*\.\s*{_NAME})*")
_PART = re.compile(_NAME)


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in the text where a column is read, with the struct fields taken from it."""

    column: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fragment:
    """One scalar expression over known columns, proved safe; made by `parse_fragment` alone.

    Attributes:
        text: the expression as written, white space squeezed.
        columns: the columns it reads, in order of first appearance.
        parts: the text in pieces, column references as slots.
        atomic: whether the text needs no parentheses inside another expression.
    """

    text: str
    columns: tuple[str, ...]
    parts: tuple[str | Slot, ...]
    atomic: bool = False

    def render(self, qualifier: str | None = None, rename: Mapping[str, str] | None = None) -> str:
        r"""The expression as DuckDB SQL, safe inside any other: columns quoted, in parentheses unless atomic.

        >>> parse_fragment("event = 'like'", columns=["event"], where="").render("hist", {"event": "kind"})
        '("hist"."kind" = \'like\')'
        """
        rename = rename or {}
        prefix = () if qualifier is None else (qualifier,)
        text = "".join(
            part
            if isinstance(part, str)
            else qualified(*prefix, rename.get(part.column, part.column), *part.fields)
            for part in self.parts
        )
        return text if self.atomic else f"({text})"


def parse_fragment(
    text: str, *, columns: Iterable[str], where: str, qualifier: str | None = None
) -> Fragment:
    """The one scalar expression in `text`, or a DefinitionError that says what is wrong with it.

    Args:
        text: an expression in DuckDB's SQL; its value may depend on the columns of one row and nothing else.
        columns: the columns it may read.
        where: file and path, for the message.
        qualifier: when given, every column must be written `qualifier.name`; else columns are bare names.
    """
    if not isinstance(text, str):
        raise DefinitionError(f"an expression must be text, got {text!r}", where=where)
    return _parsed(text, tuple(dict.fromkeys(columns)), where, qualifier)


@lru_cache(maxsize=4096)
def _parsed(text: str, columns: tuple[str, ...], where: str, qualifier: str | None) -> Fragment:
    try:
        squeezed = _checked_text(text)
        node = _expression(squeezed)
        quoted = (_unquoted(token.text) for token in _scan.scan(squeezed) if token.kind == "quoted")
        walker = Walker(columns, qualifier, frozenset(quoted))
        walker.visit(node)
        fragment = _cut(squeezed, node, walker.references)
        _prove(fragment, node, walker.references)
    except RefusedError as exc:
        raise DefinitionError(f"{exc.what} in {_shown(text)}", where=where, hint=exc.hint) from None
    except parsing.NotParsedError as exc:
        raise DefinitionError(
            f"{_shown(text)} is not an SQL expression", where=where, hint=f"DuckDB says: {exc}."
        ) from None
    except RecursionError:
        raise DefinitionError(f"{_shown(text)} is nested too deep", where=where) from None
    return fragment


def _checked_text(text: str) -> str:
    if not text.strip():
        raise RefusedError("an expression is missing", "Write one SQL expression.")
    if len(text) > MAX_LENGTH:
        raise RefusedError(f"more than {MAX_LENGTH} characters", "Split the expression into derived columns.")
    if any((ord(char) < 32 and char not in "\t\n\r") or 0xD800 <= ord(char) <= 0xDFFF for char in text):
        raise RefusedError("a control character")
    for token in _scan.scan(text):
        if token.kind == "comment":
            raise RefusedError("a comment is not allowed", "Put it in the description or a YAML comment.")
        if token.kind == "semicolon":
            raise RefusedError("a semicolon is not allowed", "Write one expression, not statements.")
    return _scan.squeeze(text)


def _expression(text: str) -> Node:
    """The tree of the text, which must be one expression and nothing more."""
    statements = parsing.statement_tree(_SELECT + text)
    node = statements[0]["node"] if len(statements) == 1 else {}
    bare = (
        node.get("type") == "SELECT_NODE"
        and len(node["select_list"]) == 1
        and node["from_table"]["type"] == "EMPTY"
        and not node["modifiers"]
        and not node["cte_map"]["map"]
        and not node["group_expressions"]
        and not node["group_sets"]
        and all(node[key] is None for key in ("where_clause", "having", "sample", "qualify"))
        and node["aggregate_handling"] == "STANDARD_HANDLING"
        and not node["select_list"][0]["alias"]
    )
    if not bare:
        raise RefusedError(
            "more than one expression", "Write one value; no alias, no FROM, no second column."
        )
    expression: Node = node["select_list"][0]
    return expression


def _cut(text: str, node: Node, references: list[Reference]) -> Fragment:
    """The text cut at its column references, which DuckDB places by byte."""
    raw = text.encode()
    parts: list[str | Slot] = []
    done = 0
    ordered = sorted({reference.location: reference for reference in references}.items())
    for location, reference in ordered:
        start = location - len(_SELECT)
        rest = raw[start:].decode()
        match = _NAMES.match(rest)
        written = _PART.findall(match.group()) if match else []
        names = tuple(_unquoted(name) for name in written)
        if match is None or start < done or not _same(names, reference.written):
            raise RefusedError(f"the column {reference.column} cannot be found")
        parts += [raw[done:start].decode(), Slot(reference.column, reference.fields)]
        done = start + len(match.group().encode())
    parts.append(raw[done:].decode())
    pieces = tuple(part for part in parts if part != "")
    read = tuple(dict.fromkeys(reference.column for _, reference in ordered))
    return Fragment(text, read, pieces, _is_atomic(text, node))


def _is_atomic(text: str, node: Node) -> bool:
    if node["class"] == "COLUMN_REF" or _scan.is_enclosed(text):
        return True
    return node["class"] in {"FUNCTION", "CAST", "OPERATOR"} and _scan.is_call(text)


def _prove(fragment: Fragment, node: Node, references: list[Reference]) -> None:
    """The rendered text, inside parentheses, must parse to the same tree, columns spelled as declared."""
    declared = {reference.location: reference for reference in references}
    qualifier = "daedalus row"
    again = _expression(f"({fragment.render(qualifier)})")
    if _shape(again, {}, "") != _shape(node, declared, qualifier):
        raise RefusedError(
            "the meaning changes when its names are quoted", "Quote the names with double quotes."
        )


def _shape(node: Node, declared: dict[int, Reference], qualifier: str) -> object:
    """The tree without positions; references found in `declared` as they will be rendered."""
    if node["class"] == "COLUMN_REF":
        reference = declared.get(node["query_location"])
        if reference is not None:
            return ("COLUMN_REF", node["alias"], (qualifier, reference.column, *reference.fields))
        return ("COLUMN_REF", node["alias"], tuple(node["column_names"]))
    own = tuple(
        (key, repr(value))
        for key, value in sorted(node.items())
        if key not in {"query_location", "case_checks"} and not _holds_expression(value)
    )
    return (own, tuple(_shape(child, declared, qualifier) for child in children(node)))


def _holds_expression(value: object) -> bool:
    if isinstance(value, dict):
        return "class" in value
    return isinstance(value, list) and any(isinstance(item, dict) and "class" in item for item in value)


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _same(left: tuple[str, ...], right: tuple[str, ...]) -> bool:
    return [name.lower() for name in left] == [name.lower() for name in right]


def _shown(text: str) -> str:
    flat = " ".join(str(text).split())
    return repr(flat if len(flat) <= 80 else flat[:77] + "...")


def fragment_type(fragment: Fragment, column_types: Mapping[str, str], *, where: str = "") -> str:
    """DuckDB's type of the expression over columns of these DuckDB types; an error when it does not bind.

    >>> fragment_type(parse_fragment("x + 0.5", columns=["x"], where=""), {"x": "INTEGER"})
    'DECIMAL(12,1)'
    """
    missing = [column for column in fragment.columns if column not in column_types]
    if missing:
        raise DefinitionError(f"the type of column {missing[0]} is not known", where=where)
    typed = ", ".join(
        f"CAST(NULL AS {_type_text(column_types[column], where)}) AS {qualified(column)}"
        for column in fragment.columns
    )
    table = f"(SELECT {typed})" if typed else "(SELECT 1)"
    try:
        return parsing.bound_type(fragment.render("row"), f'{table} AS "row"')
    except parsing.NotBoundError as exc:
        raise DefinitionError(
            f"{_shown(fragment.text)} does not fit its columns", where=where, hint=f"DuckDB says: {exc}."
        ) from None


def require_boolean(fragment: Fragment, column_types: Mapping[str, str], where: str) -> None:
    """DefinitionError unless the expression is a condition."""
    found = fragment_type(fragment, column_types, where=where)
    if found != "BOOLEAN":
        raise DefinitionError(
            f"{_shown(fragment.text)} is {found}, not a condition",
            where=where,
            hint="Compare it with a value.",
        )


@lru_cache(maxsize=1024)
def _type_text(dtype: str, where: str) -> str:
    """The type's text, proved to be a type and nothing else."""
    try:
        node = _expression(f"CAST(NULL AS {dtype})")
        if node["class"] != "CAST" or node["child"]["class"] != "CONSTANT":
            raise RefusedError("not a type")
        Walker((), None).visit(node)
    except (RefusedError, parsing.NotParsedError):
        raise DefinitionError(f"{dtype!r} is not a type of DuckDB", where=where) from None
    return dtype
