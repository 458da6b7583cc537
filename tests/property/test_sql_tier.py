"""The SQL tier gives the oracle's values, whatever the rows and specs."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daedalus.catalog.aggregation import AggregationSpec, Operation
from daedalus.compute.sql_tier import sql_refusal
from support.oracle import assert_agrees
from support.rolling_sql import rolling_sql

NAN = float("nan")
COLUMNS = {
    "key": (pa.int64(), [1, 1, 1, 2, None]),
    "team": (pa.string(), ["a", "a", 'b"', None]),
    "ts": (pa.int64(), [0, 1, 2, 3, 4, 5, 6, 7, None]),
    "event": (pa.string(), ["like", "view", "view", None]),
    "whole": (pa.int64(), [0, 1, 2, 2, 3, -5, None]),
    "real": (pa.float64(), [0.0, -0.0, 1.5, -2.25, NAN, float("inf"), None]),
    "single": (pa.float32(), [0.0, -0.0, 0.5, NAN, None]),
    "text": (pa.string(), ["", "z", "é", None]),
    "flag": (pa.bool_(), [True, False, None]),
    "day": (pa.date32(), [0, 1, 20_000, None]),
}
TYPES = {"whole": "BIGINT", "real": "DOUBLE", "single": "FLOAT"}
NUMBERS = {Operation.SUM, Operation.MEAN}


def table(choose: Any, size: int) -> pa.Table:
    """Rows whose cells `choose` picks."""
    return pa.table(
        {
            name: pa.array([choose(cells) for _ in range(size)], dtype)
            for name, (dtype, cells) in COLUMNS.items()
        }
    )


@st.composite
def tables(draw: st.DrawFn, max_size: int = 25) -> pa.Table:
    size = draw(st.integers(0, max_size))
    return table(lambda cells: draw(st.sampled_from(cells)), size)


def spec(choose: Any, name: str) -> AggregationSpec | None:
    """A spec that `choose` picks option by option; None when it is not for this tier."""
    operation = choose([one for one in Operation if one != Operation.FLATTEN_DISTINCT])
    column = choose(
        ["whole", "whole", "real", "single", *(() if operation in NUMBERS else ("text", "flag", "day"))]
    )
    current = choose([False, False, True])
    seconds = choose([None, 1, 2, 3, 50, *((0,) if current else ())])
    exclude = choose([False, True])
    found = AggregationSpec(
        name=name,
        group_by=choose([("key",), ("key",), ("key", "team")]),
        operation=operation,
        value_column=None
        if operation == Operation.COUNT and not exclude and choose([True, False])
        else column,
        timestamp_column="ts",
        timestamp_unit="s",
        include_current=current,
        window_days=None if seconds is None else seconds / 86_400,
        condition=choose([None, "hist.event = 'like'", "hist.event = 'view' AND hist.whole > 0"]),
        max_items=choose([None, 1, 2, 3, 7, 9, 300]),
        exclude_self=exclude,
        delay_seconds=choose([0, 0, 0, 1, 2]),
        history_view=choose([None, None, "other table"]),
    )
    return found if sql_refusal(found, TYPES.get(column)) is None else None


def specs(choose: Any, number: int) -> list[AggregationSpec]:
    found = (spec(choose, f"value {index}") for index in range(number))
    return [one for one in found if one is not None]


@settings(deadline=None)
@given(st.data())
def test_any_spec_over_any_rows(data: st.DataObject) -> None:
    spine, other = data.draw(tables()), data.draw(tables(max_size=8))
    chosen = specs(lambda options: data.draw(st.sampled_from(options)), data.draw(st.integers(1, 4)))
    how = data.draw(st.sampled_from(["select", "staged", "parts"]))
    history = {"other table": other}
    assert_agrees(rolling_sql(spine, chosen, history=history, how=how), spine, chosen, history=history)


@pytest.mark.parametrize("seed", range(3))
def test_long_histories(seed: int) -> None:
    # Histories of some hundred rows cross chunks, levels and runs of a repeated value.
    pick = random.Random(seed)
    spine = table(pick.choice, 260)
    times = [pick.randrange(200) for _ in range(260)]
    spine = spine.set_column(spine.column_names.index("ts"), "ts", pa.array(times))
    keys = [1 if pick.random() < 0.9 else 2 for _ in range(260)]
    spine = spine.set_column(0, "key", pa.array(keys))
    chosen = []
    while len(chosen) < 24:
        for one in specs(pick.choice, 1):
            options = one.to_mapping() | {
                "name": f"value {len(chosen)}",
                "window_days": pick.choice([None, 30 / 86_400, 100 / 86_400]),
                "max_items": pick.choice([None, 5, 32, 64, 100, 300]) if one.max_items else None,
            }
            options.pop("history_view", None)
            made = AggregationSpec.from_mapping(options)
            if sql_refusal(made, TYPES.get(made.value_column or "")) is None:
                chosen.append(made)
    assert_agrees(rolling_sql(spine, chosen), spine, chosen)
