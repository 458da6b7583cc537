"""Which YAML literals are values of which dtypes."""

from __future__ import annotations

from typing import Any

import pytest

from daedalus.catalog.literals import literal_problem

FITS = [
    (0, "TINYINT"), (-128, "TINYINT"), (255, "UTINYINT"), (2**127 - 1, "HUGEINT"), (1, "DOUBLE"), (0.5, "FLOAT"),
    (65504, "HALF_FLOAT"), (float("inf"), "HALF_FLOAT"), (float("nan"), "DOUBLE"), (True, "BOOLEAN"), ("a", "TEXT"),
    ("2026-01-01", "DATE"), ("2026-01-01 10:00:00", "TIMESTAMP"), ("2026-01-01", "TIMESTAMP_NS"),
    ("2026-01-01T10:00:00+02:00", "TIMESTAMPTZ"), ("10:00", "TIME"), ("3 days", "INTERVAL"), (99.99, "DECIMAL(4,2)"),
    ("00000000-0000-0000-0000-000000000001", "UUID"), ("x", "BLOB"), ([], "BIGINT[]"), ([0, None], "BIGINT[]"),
    ([0.0, 1], "FLOAT[2]"), ([[1], []], "INT[][]"), ({"a": 1, "b": None}, "STRUCT(a INT, b TEXT)"),
    ({"k": 1}, "MAP(TEXT, INT)"), (None, "BIGINT"), (None, "STRUCT(a INT)"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "dtype"), FITS)
def test_fits(value: Any, dtype: str) -> None:
    assert literal_problem(value, dtype) == ""


MISFITS = [
    (128, "TINYINT", "128 does not fit TINYINT"),
    (-1, "UBIGINT", "-1 does not fit UBIGINT"),
    (1.0, "BIGINT", "1.0 is not a whole number"),
    (True, "BIGINT", "true is not a whole number"),
    (True, "DOUBLE", "true is not a number"),
    ("1", "DOUBLE", "'1' is not a number"),
    (65505, "HALF_FLOAT", "65505 does not fit HALF_FLOAT"),
    (1e39, "FLOAT", "1e+39 does not fit FLOAT"),
    (0, "BOOLEAN", "0 is not true or false"),
    (1, "VARCHAR", "1 is not text"),
    (20260101, "DATE", "20260101 is not text, as DATE is written"),
    ("2026-02-30", "DATE", "'2026-02-30' is not DATE"),
    ("noon", "TIME", "'noon' is not TIME"),
    ("soon", "INTERVAL", "'soon' is not INTERVAL"),
    ("x", "UUID", "'x' is not UUID"),
    (100, "DECIMAL(4,2)", "100 does not fit DECIMAL(4,2)"),
    ("1", "DECIMAL(4,2)", "'1' is not a number"),
    (0, "BIGINT[]", "0 is not a list"),
    ([1], "FLOAT[2]", "the list has 1 items, not 2"),
    (["a"], "BIGINT[]", "'a' is not a whole number"),
    ({"a": 1}, "STRUCT(a INT, b TEXT)", "the mapping needs exactly the keys a, b"),
    ({"a": "x"}, "STRUCT(a INT)", "'x' is not a whole number"),
    (1, "STRUCT(a INT)", "1 is not a mapping"),
    (1, "MAP(TEXT, INT)", "1 is not a mapping"),
    ({"k": "x"}, "MAP(TEXT, INT)", "'x' is not a whole number"),
]


@pytest.mark.parametrize(("value", "dtype", "problem"), MISFITS)
def test_does_not_fit(value: Any, dtype: str, problem: str) -> None:
    assert literal_problem(value, dtype) == problem
