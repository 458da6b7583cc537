"""What specs of one call share changes none of their values: each equals what it gives alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from daedalus.compute.aggregate import DEFAULT_ENGINE, Aggregation, Engine, aggregate_relations

ROWS = 400


def rows(seed: int, count: int, kind: pa.DataType) -> pa.Table:
    """Rows of few keys and times, some of them NULL, with lists of numbers and of texts."""
    random = np.random.default_rng(seed)

    def some(values: np.ndarray) -> pa.Array:
        return pa.array(values, mask=random.random(count) < 0.1)

    lists = [
        None if size == 7 else random.integers(0, 6, size).tolist() for size in random.integers(0, 8, count)
    ]
    return pa.table(
        {
            "user": some(random.integers(5, 25, count)).cast(kind),
            "t": some(random.integers(0, 5_000_000, count)),
            "item": some(random.integers(0, 9, count)),
            "tags": pa.array(lists, pa.list_(pa.int64())),
            "words": pa.array([one and [f"w{n}" for n in one] for one in lists], pa.list_(pa.string())),
        }
    )


def spec(name: str, **more: Any) -> dict[str, Any]:
    given = {"group_by": ["user"], "timestamp_column": "t", "timestamp_unit": "ms", "max_items": 4}
    return given | {"name": name, "window_days": 0.01, "value_column": "item", "operation": "list"} | more


SPECS = [
    spec(f"{operation}{value}_{view}_{window}{own}", value_column=value, operation=operation, window_days=window,
         history_view=view, exclude_self=own)
    for view in ("near", "small", "text")
    for window in (0.01, 0.03, None)
    for operation, value, own in (
        ("list", "item", False), ("list", "item", True), ("flatten_distinct", "tags", False),
        ("flatten_distinct", "words", False), ("count", "item", False),
    )
]  # fmt: skip


def tables() -> tuple[pa.Table, dict[str | None, pa.Table]]:
    """A spine, and histories with keys of its type and of others."""
    kinds = {"near": pa.int64(), "small": pa.int32(), "text": pa.int64()}
    histories = {name: rows(seed, 3 * ROWS, kind) for seed, (name, kind) in enumerate(kinds.items())}
    return rows(9, ROWS, pa.int64()), histories


@pytest.mark.parametrize("engine", [Engine.KERNEL, Engine.POLARS])
def test_specs_together_give_what_each_gives_alone(engine: Engine) -> None:
    spine, histories = tables()
    together = aggregate_relations(spine, SPECS, histories=histories, engine=engine)
    alone = [aggregate_relations(spine, [one], histories=histories)[0] for one in SPECS]
    assert [one["name"] for one, a, b in zip(SPECS, together, alone, strict=True) if not a.equals(b)] == []
    assert sum(len(column.drop_null()) > 0 for column in together) == len(SPECS)


def test_some_rows_have_the_values_that_all_rows_have() -> None:
    spine, histories = tables()
    places = np.array([3, 4, 5, 390, 7, 7, 0])
    with Aggregation(spine, SPECS, histories=histories, engine=DEFAULT_ENGINE) as aggregation:
        some, whole = aggregation.columns(places), aggregation.columns()
    assert all(a.equals(b.take(pa.array(places))) for a, b in zip(some, whole, strict=True))
    assert any(len(column.flatten()) for column in some[:4])


def test_reading_instants_before_the_lowest_there_is_see_nothing() -> None:
    lowest = np.iinfo(np.int64).min
    table = pa.table({"user": [1, 1, 1], "t": [lowest, lowest + 1, 0], "item": [7, 8, 9]})
    whole, delayed = aggregate_relations(
        table,
        [spec("whole", window_days=1.1e11), spec("delayed", window_days=None, delay_seconds=0.002)],
        histories={None: table},
    )
    assert whole.to_pylist() == [[], [7], [7, 8]]
    assert delayed.to_pylist() == [[], [], [7, 8]]
