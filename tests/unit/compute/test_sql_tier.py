"""The SQL tier: the documented example, types, refusals, errors, and histories that punish bad plans."""

from __future__ import annotations

import time

import duckdb
import pyarrow as pa
import pytest

from daedalus.catalog.aggregation import AggregationSpec, Operation
from daedalus.compute.sql_tier import Relation, rolling_parts, rolling_plan, rolling_select, sql_refusal
from daedalus.errors import DefinitionError
from support.oracle import assert_agrees, rolling_oracle
from support.rolling_sql import computed, rolling_sql

HOUR = 3600
DAY = 24 * HOUR


def make(operation: str = "list", **options: object) -> AggregationSpec:
    given = {"name": "x", "group_by": ("user",), "value_column": "item", "timestamp_column": "ts"}
    return AggregationSpec(**{"operation": operation, "timestamp_unit": "s", **given, **options})  # type: ignore[arg-type]


def rows(**columns: list[object]) -> pa.Table:
    return pa.table(columns)


EXAMPLE = rows(
    user=[1] * 7,
    ts=[0, HOUR, HOUR, 2 * HOUR, 3 * HOUR, 24 * HOUR, 25 * HOUR + 1800],
    event=["like", "like", "view", "like", "view", "view", "view"],
    item=[7, 8, 7, 9, 9, 5, 5],
)


@pytest.mark.parametrize("how", ["select", "staged", "parts"])
def test_the_documented_example(how: str) -> None:
    spec = make(window_days=1, condition="hist.event = 'like'", max_items=2, exclude_self=True)
    found = rolling_sql(EXAMPLE, [spec], how=how)
    assert found["x"].to_pylist() == [[], [7], [], [7, 8], [7, 8], [8, 9], [9]]


def test_without_specs_the_rows_alone() -> None:
    spine = Relation(name="(SELECT 5::BIGINT AS __row, 1::BIGINT AS __t)", types=())
    assert duckdb.sql(rolling_select([], spine=spine, histories={}, ticks_per_second=1)).fetchall() == [(5,)]


@pytest.mark.parametrize("size", [0, 1])
def test_none_eligible(size: int) -> None:
    spine = EXAMPLE.slice(0, size)
    specs = [
        make(str(operation), name=str(operation), exclude_self=exclude, max_items=4)
        for operation in Operation
        for exclude in (False, True)
        if operation != Operation.FLATTEN_DISTINCT
    ]
    specs = [
        AggregationSpec(**{**spec.to_mapping(), "name": f"{spec.name} {number}"})
        for number, spec in enumerate(specs)
    ]
    found = computed(spine, specs)
    assert found.num_rows == size
    empty = {"list": [], "count": 0, "count_distinct": 0}
    for spec in specs:
        assert found[spec.name].to_pylist() == [empty.get(spec.operation)] * size


def test_types_are_exact() -> None:
    expected = {
        ("list", "item"): "INTEGER[]",
        ("list", "name"): "VARCHAR[]",
        ("count", "item"): "BIGINT",
        ("count_distinct", "name"): "BIGINT",
        ("first", "price"): "FLOAT",
        ("max", "price"): "FLOAT",
        ("min", "day"): "DATE",
        ("last", "name"): "VARCHAR",
        ("sum", "item"): "BIGINT",
        ("sum", "price"): "DOUBLE",
        ("mean", "item"): "DOUBLE",
        ("seconds_since_last", "name"): "DOUBLE",
    }
    specs = [
        make(operation, name=f"{operation} {column} {limit}", value_column=column, max_items=limit)
        for operation, column in expected
        for limit in (None, 3)
    ]
    types = {"user": "BIGINT", "item": "INTEGER", "name": "VARCHAR", "price": "FLOAT", "day": "DATE"}
    with duckdb.connect() as session:
        columns = ", ".join(f"{name} {dtype}" for name, dtype in types.items())
        session.execute(f"CREATE TABLE h (__row BIGINT, __t BIGINT, {columns})")
        relation = Relation(name="h", types=types)
        sql = rolling_select(specs, spine=relation, histories={None: relation}, ticks_per_second=1)
        found = {row[0]: row[1] for row in session.execute(f"DESCRIBE {sql}").fetchall()}
    assert found.pop("__row") == "BIGINT"
    assert list(found) == [spec.name for spec in specs]
    assert found == {
        f"{operation} {column} {limit}": dtype
        for (operation, column), dtype in expected.items()
        for limit in (None, 3)
    }


def test_the_spine_may_be_part_of_its_history() -> None:
    spec = make(condition="hist.event = 'like'", exclude_self=True, max_items=2)
    relation = {"types": {"user": "BIGINT", "event": "VARCHAR", "item": "BIGINT"}}
    with duckdb.connect() as session:
        session.register("given", EXAMPLE)
        session.execute("CREATE TABLE h AS SELECT row_number() OVER () - 1 AS __row, ts AS __t, * FROM given")
        session.execute("CREATE VIEW target AS FROM h WHERE __row >= 4")
        sql = rolling_select(
            [spec],
            spine=Relation(name="target", **relation),
            histories={None: Relation(name="h", **relation)},
            ticks_per_second=1,
        )
        found = session.execute(f"FROM ({sql}) ORDER BY __row").fetchall()
    assert found == [(4, [7, 8]), (5, [8, 9]), (6, [8, 9])]


def test_names_that_need_quotes() -> None:
    spine = rows(**{'the "user"': [1, 1], "select": [0, 1], "it's": ["a", "b"], "k0": [1, 2], "r": [3, 4]})
    specs = [
        make(name='"; --', group_by=('the "user"',), timestamp_column="select", value_column="it's"),
        make(
            name="f",
            group_by=('the "user"',),
            timestamp_column="select",
            value_column="k0",
            exclude_self=True,
            max_items=1,
        ),
        make("last", name="q0", group_by=('the "user"',), timestamp_column="select", value_column="r"),
    ]
    assert_agrees(rolling_sql(spine, specs, time="select"), spine, specs)


def test_keys_with_other_names_in_the_history() -> None:
    arrivals = rows(port=["a", "a", None], city=["x", "y", "x"], ts=[1, 2, 3], item=[1, 2, 3])
    spine = rows(origin=["a", "b", None], town=["x", "x", "x"], ts=[9, 9, 9], item=[1, 1, 1])
    common = {
        "history_view": "arrivals",
        "group_by": ("origin", "town"),
        "history_group_by": ("port", "city"),
    }
    specs = [make(name="all", **common), make(name="others", exclude_self=True, max_items=3, **common)]
    history = {"arrivals": arrivals}
    assert_agrees(rolling_sql(spine, specs, history=history), spine, specs, history=history)


def test_times_at_the_end_of_64_bits() -> None:
    spine = rows(user=[1] * 4, ts=[-(2**63), -(2**63) + 1, 0, 2**63 - 1], item=[1, 2, 3, 4])
    specs = [
        make("count", name=f"in {days}", window_days=days) for days in (1 / DAY, 1, 1e9, 2**62 / DAY, 1e300)
    ]
    assert_agrees(rolling_sql(spine, specs), spine, specs)


@pytest.mark.parametrize("dtype", [pa.float32(), pa.float64()])
def test_there_is_one_nan_and_one_zero(dtype: pa.DataType) -> None:
    nan = float("nan")
    prices = pa.array([nan, 0.0, -0.0, nan, 1.0, -0.0, nan, 0.0, None], dtype)
    spine = pa.table({"user": [1] * 9, "ts": list(range(9)), "price": prices})
    specs = [
        make(
            str(operation),
            name=f"{operation} {limit} {exclude}",
            value_column="price",
            max_items=limit,
            exclude_self=exclude,
        )
        for operation in Operation
        for limit in (None, 4, 1000)
        for exclude in (False, True)
        if operation != Operation.FLATTEN_DISTINCT
    ]
    specs = [spec for spec in specs if sql_refusal(spec) is None]
    assert_agrees(rolling_sql(spine, specs), spine, specs)


def test_sums_are_not_differences_of_sums() -> None:
    values = [1e16, 1.0, 1.0, 1e16, -1e16, 0.1, 0.2]
    spine = rows(user=[1] * 7, ts=list(range(7)), price=values)
    specs = [
        make(
            operation, name=f"{operation} {limit}", value_column="price", window_days=2 / DAY, max_items=limit
        )
        for operation in ("sum", "mean")
        for limit in (None, 2, 1000)
    ]
    assert_agrees(rolling_sql(spine, specs), spine, specs)


@pytest.mark.parametrize("limit", [None, 2, 1000])
def test_a_sum_outside_int64_names_its_spec(limit: int | None) -> None:
    spine = rows(user=[1, 1, 1], ts=[0, 1, 2], item=[2**63 - 1, 2**63 - 1, 0])
    with pytest.raises(duckdb.Error, match="aggregation spec total: the sum 18446744073709551614 is outside"):
        computed(spine, [make("sum", name="total", max_items=limit)])
    assert computed(spine.slice(0, 2), [make("sum", max_items=limit)])["x"].to_pylist() == [None, 2**63 - 1]


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({"operation": "flatten_distinct"}, None),
        ({"operation": "list", "exclude_self": True}, None),
        ({"operation": "sum", "exclude_self": True}, "DOUBLE"),
        ({"operation": "sum", "exclude_self": True}, None),
        ({"operation": "min", "exclude_self": True, "max_items": 1000}, "BIGINT"),
    ],
)
def test_refusals_say_why(options: dict[str, object], dtype: str | None) -> None:
    spec = make(**options)  # type: ignore[arg-type]
    assert sql_refusal(spec, dtype)
    relation = Relation(name="h", types={"user": "BIGINT", "item": dtype or "DOUBLE"})
    with pytest.raises(DefinitionError, match="aggregation spec x: "):
        rolling_plan([spec], spine=relation, histories={None: relation}, ticks_per_second=1)


def test_no_refusal_where_sql_is_exact() -> None:
    assert sql_refusal(make("sum", exclude_self=True), "BIGINT") is None
    assert sql_refusal(make("count", exclude_self=True)) is None
    assert sql_refusal(make("mean", exclude_self=True, max_items=256)) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value_column": "itme"}, "unknown column 'itme' of the history. Did you mean 'item'"),
        ({"group_by": ("usr",)}, "unknown column 'usr' of the spine. Did you mean 'user'"),
        ({"history_view": "elsewhere"}, "unknown history view 'elsewhere'"),
        ({"operation": "sum", "value_column": "name"}, "sum of VARCHAR is not defined"),
        ({"window_days": 1e-9}, "less than a tick"),
        ({"condition": "hist.nothing = 1"}, "nothing"),
    ],
)
def test_wrong_specs(options: dict[str, object], message: str) -> None:
    relation = Relation(name="h", types={"user": "BIGINT", "item": "BIGINT", "name": "VARCHAR"})
    with pytest.raises(DefinitionError, match="aggregation spec x: ") as caught:
        rolling_select([make(**options)], spine=relation, histories={None: relation}, ticks_per_second=1)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_parts_cover_all_specs_once() -> None:
    relation = Relation(name="h", types={"user": "BIGINT", "item": "BIGINT", "team": "BIGINT"})
    specs = [
        make(name="a", window_days=1),
        make(name="b", window_days=3),
        make(name="c", condition="hist.item > 1"),
        make(name="d", group_by=("team",)),
    ]
    parts = rolling_parts(specs, spine=relation, histories={None: relation}, ticks_per_second=1)
    assert [part.columns for part in parts] == [("a", "b"), ("c",), ("d",)]


def crowd(size: int) -> pa.Table:
    """One user; one value in nine of ten rows, with long runs of it."""
    items = [1 if (row // 500) % 10 else row % 7 for row in range(size)]
    return rows(user=[1] * size, ts=[row // 3 for row in range(size)], item=items)


@pytest.mark.slow
def test_one_user_with_one_repeated_value_is_not_quadratic() -> None:
    spine = crowd(40_000)
    specs = [
        make(name="list", max_items=32, exclude_self=True),
        make(name="list 5", max_items=5, exclude_self=True, window_days=0.01),
        make(name="plain", max_items=32),
        make("count", name="count", exclude_self=True),
        make("sum", name="sum", exclude_self=True, window_days=0.1),
        make("first", name="first", exclude_self=True),
        make("last", name="last", exclude_self=True),
        make("min", name="min", window_days=0.1),
        make("count_distinct", name="distinct", exclude_self=True, window_days=0.1),
    ]
    start = time.process_time()
    computed(spine.slice(0, 10_000), specs)
    quarter = time.process_time() - start
    found = computed(spine, specs)
    # 16 times when a plan is quadratic.
    assert time.process_time() - start - quarter < 8 * quarter
    # The oracle is quadratic: compare the rows whose past is short, and a few of the last by hand.
    head = spine.slice(0, 700)
    want = rolling_oracle(head, specs)
    for spec in specs:
        assert found[spec.name].slice(0, 700).to_pylist() == want[spec.name].to_pylist(), spec.name
    items, times = spine["item"].to_pylist(), spine["ts"].to_pylist()
    for row in (39_999, 38_400, 24_001):
        past = [items[at] for at in range(row) if times[at] < times[row] and items[at] != items[row]]
        assert found["list"][row].as_py() == past[-32:]
        assert found["count"][row].as_py() == len(past)
        assert (found["first"][row].as_py(), found["last"][row].as_py()) == (past[0], past[-1])


def test_threads_do_not_matter() -> None:
    spine = crowd(5_000)
    specs = [
        make(name="list", max_items=32, exclude_self=True, window_days=0.01),
        make(name="all", window_days=0.001),
        make("mean", name="mean", window_days=0.01),
        make("max", name="max"),
    ]
    assert computed(spine, specs, threads=1).equals(computed(spine, specs, threads=4))
