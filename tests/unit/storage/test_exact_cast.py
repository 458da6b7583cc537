"""Casts between Arrow types keep every value, or refuse."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest

from daedalus.storage.exact_cast import cast_exactly

NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pa.array([NAN, 0.5, None]), pa.float32()),
        (pa.array([NAN, 0.1, None], pa.float32()), pa.float64()),
        (pa.array([[NAN, 0.5], None, []], pa.list_(pa.float64())), pa.list_(pa.float16())),
        (pa.array([1, None, -1]), pa.int8()),
        (pa.array([], pa.float64()), pa.float16()),
        (pa.array(["7", None]), pa.int64()),
    ],
)
def test_values_that_fit_are_kept(values, kind):
    for column in (values, pa.chunked_array([values, values.slice(1)])):
        cast = cast_exactly(column, kind)
        assert cast.type == kind
        assert str(cast.cast(values.type).to_pylist()) == str(column.to_pylist())


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pa.array([0.5, 0.1]), pa.float32()),
        (pa.array([[1.0], [math.pi]]), pa.list_(pa.float32())),
        (pa.array([70000.0]), pa.float16()),
        (pa.array([1.5]), pa.int64()),
        (pa.array([2**53 + 1]), pa.float64()),
        (pa.array([300]), pa.int8()),
        (pa.array(["07"]), pa.int64()),
        (pa.array(["x"]), pa.int64()),
        (pa.array([1]), pa.list_(pa.int64())),
    ],
)
def test_values_that_do_not_are_refused(values, kind):
    with pytest.raises(pa.ArrowException):
        cast_exactly(pa.chunked_array([values.slice(0, 0), values]), kind)
