"""Rolling aggregation against the obvious plans: seconds, ratios and peak memory.

    python benchmarks/rolling.py --rows 1000000 --data zipf uniform half

Contenders: our three engines; `agg(x) FILTER (...) OVER (... RANGE ...)` in DuckDB, with `list_slice` for
lists, as one would write it by hand; Polars `rolling().agg()`. Every measurement is a process of its own over
the same Parquet file: one unmeasured run over a thousandth of it (imports, compiled code), then the best of
`--repeat`. The obvious plans do not leave out the row's own value, so they do less work than ours.
Seconds and processor seconds are each set against our kernel engine; on a busy machine, read the second.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Callable

DAY_MS = 86_400_000
DAYS = (1, 3, 7)
LIKE = "hist.event = 'like_click'"
VIEW = "hist.event = 'view'"
LIST_COLUMNS = ("artwork_id", "author_id", "model_id")


def list_spec(column: str, days: int, condition: str, *, exclude_self: bool) -> dict[str, Any]:
    return {
        "name": f"{'like' if condition == LIKE else 'view'}_{column}_{days}d",
        "group_by": ["user_id"],
        "operation": "list",
        "value_column": column,
        "window_days": days,
        "condition": condition,
        "max_items": 32,
        "exclude_self": exclude_self,
    }


def scalar_spec(operation: str, column: str, **more: Any) -> dict[str, Any]:
    return {
        "name": f"{operation}_{column}",
        "group_by": ["user_id"],
        "operation": operation,
        "value_column": column,
        "window_days": 7,
        "condition": LIKE,
        **more,
    }


SCALARS = [
    scalar_spec("count", "artwork_id"),
    scalar_spec("count_distinct", "artwork_id"),
    scalar_spec("min", "artwork_id"),
    scalar_spec("max", "artwork_id"),
    scalar_spec("sum", "artwork_id"),
    scalar_spec("sum", "score"),
    scalar_spec("mean", "score"),
    scalar_spec("first", "artwork_id"),
    scalar_spec("last", "artwork_id"),
    scalar_spec("seconds_since_last", "artwork_id"),
]
TASKS: dict[str, list[dict[str, Any]]] = {
    "9 like lists": [
        list_spec(column, days, LIKE, exclude_self=column == "artwork_id")
        for column in LIST_COLUMNS
        for days in DAYS
    ],
    "3 view lists": [list_spec("artwork_id", days, VIEW, exclude_self=False) for days in DAYS],
    **{spec["name"]: [spec] for spec in SCALARS},
}
CONTENDERS = ("kernel", "duckdb", "polars", "obvious sql", "polars rolling")


def make_spine(rows: int, shape: str) -> pa.Table:
    rng = np.random.default_rng(7)
    users = max(2, rows // 40)
    if shape == "zipf":
        weight = 1 / np.arange(1, users + 1) ** 0.83
        user = rng.choice(users, rows, p=weight / weight.sum())
    else:
        user = rng.integers(0, users, rows)
        if shape == "half":
            user[rng.random(rows) < 0.5] = 0
    artwork = (rng.zipf(1.3, rows) % (rows // 5 + 1)).astype(np.int64)
    events = pa.array(["view", "click", "like_click"]).take(pa.array(rng.choice(3, rows, p=[0.7, 0.2, 0.1])))
    return pa.table(
        {
            "user_id": user.astype(np.int64),
            "event_timestamp": np.sort(rng.integers(0, 7 * DAY_MS, rows)),
            "event": events,
            "artwork_id": artwork,
            "author_id": artwork % 20_000,
            "model_id": artwork % 500,
            "score": rng.random(rows),
        }
    )


def ours(engine: str) -> Callable[[pa.Table, list[dict[str, Any]]], Any]:
    from daedalus.compute import get_aggregate_pit_table

    return get_aggregate_pit_table(engine)


def obvious_sql(spine: pa.Table, specs: list[dict[str, Any]]) -> pa.Table:
    import duckdb

    columns, windows = [], {}
    for spec in specs:
        window = f"w{spec['window_days']}"
        windows[window] = (
            f"{window} AS (PARTITION BY user_id ORDER BY event_timestamp "
            f"RANGE BETWEEN {spec['window_days'] * DAY_MS} PRECEDING AND 1 PRECEDING)"
        )
        over = f"FILTER (WHERE {spec['condition']}) OVER {window}"
        value = spec["value_column"]
        match spec["operation"]:
            case "list":
                text = f"list_slice(list({value}) {over}, -32, NULL)"
            case "count_distinct":
                text = f"count(DISTINCT {value}) {over}"
            case "mean":
                text = f"avg({value}) {over}"
            case "first":
                text = f"arg_min({value}, event_timestamp) {over}"
            case "last":
                text = f"arg_max({value}, event_timestamp) {over}"
            case "seconds_since_last":
                text = f"(event_timestamp - max(event_timestamp) {over}) / 1000"
            case operation:
                text = f"{operation}({value}) {over}"
        columns.append(f"{text} AS {spec['name']}")
    query = f"SELECT hist.*, {', '.join(columns)} FROM spine AS hist WINDOW {', '.join(windows.values())}"
    with duckdb.connect() as session:
        session.register("spine", spine)
        return session.execute(query).to_arrow_table()


def polars_rolling(spine: pa.Table, specs: list[dict[str, Any]]) -> Any:
    import polars as pl

    frame = pl.from_arrow(spine).with_columns(at=pl.col("event_timestamp").cast(pl.Datetime("ms")))
    frame = frame.sort("user_id", "at")
    for days in sorted({spec["window_days"] for spec in specs}):
        found = []
        for spec in specs:
            if spec["window_days"] != days:
                continue
            event = spec["condition"].split("'")[1]
            kept = pl.col(spec["value_column"]).filter(pl.col("event") == event)
            match spec["operation"]:
                case "list":
                    value = kept.tail(32)
                case "count_distinct":
                    value = kept.n_unique()
                case "seconds_since_last":
                    value = pl.col("event_timestamp").filter(pl.col("event") == event).max()
                case operation:
                    value = getattr(kept, operation)()
            found.append(value.alias(spec["name"]))
        rolled = frame.rolling("at", period=f"{days}d", closed="left", group_by="user_id").agg(found)
        frame = frame.hstack(rolled.select(spec["name"] for spec in specs if spec["window_days"] == days))
    return frame


def run_contender(name: str) -> Callable[[pa.Table, list[dict[str, Any]]], Any]:
    if name == "obvious sql":
        return obvious_sql
    return polars_rolling if name == "polars rolling" else ours(name)


def measure_here(contender: str, task: str, path: str, repeat: int) -> dict[str, float]:
    spine = pq.read_table(path)
    call = run_contender(contender)
    call(spine.slice(0, max(100, spine.num_rows // 1000)), TASKS[task])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, cpu = [], []
    for _ in range(repeat):
        began, used = time.perf_counter(), time.process_time()
        result = call(spine, TASKS[task])
        seconds.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
        del result
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": min(seconds), "cpu": min(cpu), "peak_mib": peak / 1024, "before_mib": before / 1024}


def measure(contender: str, task: str, path: Path, repeat: int, timeout: float) -> dict[str, float] | None:
    command = [sys.executable, __file__, "--child", contender, task, str(path), str(repeat)]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return None
    return json.loads(done.stdout.splitlines()[-1])


def report(shape: str, task: str, found: dict[str, dict[str, float] | None]) -> None:
    best = found["kernel"]
    for contender, numbers in found.items():
        if numbers is None:
            print(f"{shape:8} {task:30} {contender:15} over the time limit")
            continue
        ratio, cpu = ((numbers[key] / best[key] if best else float("nan")) for key in ("seconds", "cpu"))
        print(
            f"{shape:8} {task:30} {contender:15} {numbers['seconds']:8.3f} s {ratio:6.1f}x "
            f"{numbers['cpu']:8.3f} cpu s {cpu:6.1f}x "
            f"{numbers['peak_mib']:8.0f} MiB peak ({numbers['before_mib']:.0f} before)",
            flush=True,
        )


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        contender, task, path, repeat = sys.argv[2:]
        print(json.dumps(measure_here(contender, task, path, int(repeat))))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--data", nargs="+", default=["zipf"], choices=["zipf", "uniform", "half"])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one contender")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for shape in arguments.data:
            path = Path(folder) / f"{shape}.parquet"
            pq.write_table(make_spine(arguments.rows, shape), path)
            for task in arguments.tasks:
                found = {
                    contender: measure(contender, task, path, arguments.repeat, arguments.timeout)
                    for contender in arguments.contenders
                }
                report(shape, task, found)


if __name__ == "__main__":
    main()
