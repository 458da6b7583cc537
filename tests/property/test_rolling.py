"""Every engine against the brute-force oracle, and the laws that need none."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daedalus.compute import Engine, aggregate_relations, get_aggregate_pit_table
from support.oracle import assert_agrees, comparable
from support.rolling_strategies import TIMES, calls, single_calls

Call = tuple[pa.Table, list[dict[str, Any]], dict[str, pa.Table]]
ENGINES = pytest.mark.parametrize("engine", list(Engine))


def rows_of(table: pa.Table, names: list[str]) -> list[tuple[Any, ...]]:
    return list(zip(*(comparable(table[name]) for name in names), strict=True))


@ENGINES
@given(call=calls())
def test_the_oracle_agrees(engine: Engine, call: Call) -> None:
    spine, chosen, history = call
    actual = get_aggregate_pit_table(engine)(spine, chosen, history=history)
    assert_agrees(actual, spine, chosen, history=history)


@given(call=calls(max_specs=6))
def test_engines_agree_bit_for_bit(call: Call) -> None:
    spine, chosen, history = call
    one, *others = (get_aggregate_pit_table(engine)(spine, chosen, history=history) for engine in Engine)
    for other in others:
        assert other.schema.equals(one.schema, check_metadata=True)
        for name in one.column_names:
            assert comparable(other[name]) == comparable(one[name]), name


@given(call=single_calls(), data=st.data())
def test_the_future_changes_nothing(call: tuple[pa.Table, dict[str, Any]], data: st.DataObject) -> None:
    rows, spec = call
    spec = spec | {"include_current": False, "window_days": spec.get("window_days") or 1}
    run = get_aggregate_pit_table(Engine.KERNEL)
    now = data.draw(TIMES)
    past, future = rows.filter(pc.less(rows["at"], now)), rows.filter(pc.greater_equal(rows["at"], now))
    present = future.filter(pc.equal(future["at"], now)).slice(0, 1)
    known = pa.concat_tables([past, present])
    mixed = pa.concat_tables([known, future])
    assert_same(run(mixed, [spec]).slice(0, len(known)), run(known, [spec]), spec)


@given(call=single_calls(), data=st.data())
def test_shuffling_rows_of_different_instants_only_moves_the_answers(
    call: tuple[pa.Table, dict[str, Any]], data: st.DataObject
) -> None:
    spine, spec = call
    # One row per instant: only then does row order mean nothing.
    firsts = spine.append_column("n", pa.array(range(len(spine)))).group_by("at").aggregate([("n", "min")])
    spine = spine.take(firsts["n_min"])
    order = data.draw(st.permutations(range(len(spine))))
    run = get_aggregate_pit_table(Engine.KERNEL)
    expected = run(spine, [spec]).take(pa.array(order, pa.int64()))
    assert_same(run(spine.take(pa.array(order, pa.int64())), [spec]), expected, spec)


@given(call=single_calls())
def test_keys_do_not_see_one_another(call: tuple[pa.Table, dict[str, Any]]) -> None:
    spine, spec = call
    spec = spec | {"group_by": ["user_id"]}
    run = get_aggregate_pit_table(Engine.KERNEL)
    together = run(spine, [spec])
    for user in (1, 2, None):
        mine = pc.is_null(spine["user_id"]) if user is None else pc.equal(spine["user_id"], user)
        alone = run(spine.filter(mine), [spec])
        assert_same(alone, together.filter(mine), spec)


def assert_same(one: pa.Table, two: pa.Table, spec: dict[str, Any]) -> None:
    if spec["operation"] in {"sum", "mean"}:  # pairs differ with the positions
        left, right = one["s"].to_pylist(), two["s"].to_pylist()
        assert [value is None for value in left] == [value is None for value in right]
        left, right = ([value for value in side if value is not None] for side in (left, right))
        assert left == pytest.approx(right, rel=1e-9, abs=1e6, nan_ok=True)
    else:
        assert rows_of(one, ["s"]) == rows_of(two, ["s"])


@pytest.mark.parametrize(
    "engine", [one if one is Engine.KERNEL else pytest.param(one, marks=pytest.mark.slow) for one in Engine]
)
@given(call=calls(max_specs=3), data=st.data())
def test_a_spine_in_pieces_over_its_history(engine: Engine, call: Call, data: st.DataObject) -> None:
    spine, chosen, history = call
    piece = spine.filter(
        pa.array(data.draw(st.lists(st.booleans(), min_size=len(spine), max_size=len(spine))), pa.bool_())
    )
    whole = get_aggregate_pit_table(Engine.KERNEL)(
        piece, [{**spec, "history_view": spec.get("history_view", "self")} for spec in chosen],
        history={**history, "self": spine},
    )  # fmt: skip
    numbered = spine.append_column("n", pa.array(range(len(spine)), pa.int64()))
    order = data.draw(st.permutations(range(len(spine))))
    found = aggregate_relations(
        piece,
        chosen,
        histories={None: numbered.take(pa.array(order, pa.int64())), **history},
        row_number="n",
        engine=engine,
    )
    for spec, array in zip(chosen, found, strict=True):
        if spec["operation"] in {"sum", "mean"} or spec.get("value_column") == "label":
            continue
        assert comparable(pa.chunked_array([array])) == comparable(whole[spec["name"]])
