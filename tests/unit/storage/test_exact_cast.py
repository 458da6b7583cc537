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


IDS = [f"0a1b2c3d-0000-0000-0000-{n:012x}" for n in range(5)]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pa.array([*IDS, None]), pa.uuid()),
        (pa.array([None, None], pa.string()), pa.uuid()),
        (pa.array([], pa.string()), pa.uuid()),
        (pa.array(IDS, pa.large_string()), pa.uuid()),
        (pa.array([IDS[:2], None, [], [None, IDS[3]]]), pa.list_(pa.uuid())),
    ],
)
def test_texts_of_uuids_become_uuids(values, kind):
    for column in (values, values.slice(1), pa.chunked_array([values, values.slice(2)])):
        cast = cast_exactly(column, kind)
        assert cast.type == kind
        cast.validate(full=True)
        assert _texts(cast.to_pylist()) == column.to_pylist()


def _texts(value):
    if isinstance(value, list):
        return [_texts(item) for item in value]
    return None if value is None else str(value)


def test_another_text_is_no_uuid():
    for text in ("", "x", IDS[0][:-1], IDS[0] + "0", IDS[0].replace("a", "g")):
        with pytest.raises(pa.ArrowInvalid):
            cast_exactly(pa.array([IDS[0], text]), pa.uuid())
