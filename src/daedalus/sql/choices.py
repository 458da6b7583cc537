"""CASE expressions over values that DuckDB's CASE cannot hold."""

from __future__ import annotations

import re

_FIXED = re.compile(r"\[\d+\]")


def is_boxed(dtype: str) -> bool:
    """Whether CASE and coalesce cannot hold values of the type: fixed-length lists, and what holds one.

    >>> is_boxed("FLOAT[2]"), is_boxed("STRUCT(a FLOAT[2])"), is_boxed("FLOAT[]")
    (True, True, False)
    """
    return _FIXED.search(dtype) is not None


def case_sql(dtype: str, *branches: tuple[str, str], otherwise: str = "") -> str:
    """The value of the first branch whose condition is TRUE, as an expression of type `dtype`.

    DuckDB's CASE has no branches of fixed-length lists, nor of structs that hold one: these travel in a list of one.

    Args:
        dtype: a DuckDB type.
        branches: conditions and values.
        otherwise: the value where no condition is TRUE; left out, NULL.

    >>> case_sql("BIGINT", ("x > 1", "x"))
    'CASE WHEN x > 1 THEN x END'
    >>> case_sql("FLOAT[2]", ("x IS NULL", "NULL"), otherwise="x")
    '(CASE WHEN x IS NULL THEN NULL ELSE [x] END)[1]'
    """
    boxed = is_boxed(dtype)

    def one(value: str) -> str:
        plain = not boxed or value == "NULL" or value.startswith("error(")
        return value if plain else f"[{value}]"

    whens = " ".join(f"WHEN {condition} THEN {one(value)}" for condition, value in branches)
    text = f"CASE {whens} ELSE {one(otherwise)} END" if otherwise else f"CASE {whens} END"
    return f"({text})[1]" if boxed else text
