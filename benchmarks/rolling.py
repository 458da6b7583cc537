"""Rolling aggregation against the obvious plans: our three engines, window SQL, Polars `rolling`, Spark.

    python benchmarks/rolling.py --size 1M --data zipf uniform half

A week of events, 40 per user: `zipf` (power law of exponent 0.83), `uniform`, or `half` (one user has half of all
rows). `lists`: 9 lists of the newest 32 likes of 1, 3 and 7 days; `view lists`: 3 of views, seven times as many;
`scalars`: all scalar operations over the three windows, 30 specs; every operation is a task of its own, too.
The obvious plans do not leave out the row's own value, where ours do (three of the nine lists): they do less.
Answers are compared on 5,000 rows first, with nothing left out. Ratios are against our kernel engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from _harness import Bench, Job, Method, scratch

if TYPE_CHECKING:
    from collections.abc import Callable

DAY_MS = 86_400_000
DAYS = (1, 3, 7)
LIKE, VIEW = "like_click", "view"
COLUMNS = ("artwork_id", "author_id", "model_id")
NEWEST = 32
#: Operation, and what it aggregates.
SCALARS = (
    ("count", "artwork_id"),
    ("count_distinct", "artwork_id"),
    ("min", "artwork_id"),
    ("max", "artwork_id"),
    ("sum", "artwork_id"),
    ("sum", "score"),
    ("mean", "score"),
    ("first", "artwork_id"),
    ("last", "artwork_id"),
    ("seconds_since_last", "artwork_id"),
)


def spec(operation: str, column: str, days: int, event: str = LIKE, **more: Any) -> dict[str, Any]:
    return {
        "name": f"{operation}_{column}_{event}_{days}d",
        "group_by": ["user_id"],
        "operation": operation,
        "value_column": column,
        "window_days": days,
        "condition": f"hist.event = '{event}'",
        **more,
    }


def newest(column: str, days: int, event: str = LIKE) -> dict[str, Any]:
    own = {"exclude_self": True} if event == LIKE and column == "artwork_id" else {}
    return spec("list", column, days, event, max_items=NEWEST, **own)


TASKS: dict[str, list[dict[str, Any]]] = {
    "lists": [newest(column, days) for column in COLUMNS for days in DAYS],
    "view lists": [newest("artwork_id", days, VIEW) for days in DAYS],
    "scalars": [spec(operation, column, days) for operation, column in SCALARS for days in DAYS],
    "flatten_distinct": [spec("flatten_distinct", "tags", days) for days in DAYS],
    **{f"{name} of {column}": [spec(name, column, days) for days in DAYS] for name, column in SCALARS},
}
QUICK = ("lists", "view lists", "scalars", "flatten_distinct")


def make_data(folder: Path, rows: int, shape: str) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(7)
    users = max(2, rows // 40)
    if shape == "zipf":
        weight = 1 / np.arange(1, users + 1) ** 0.83
        user = rng.choice(users, rows, p=weight / weight.sum())
    else:
        user = rng.integers(0, users, rows)
        if shape == "half":
            user[rng.random(rows) < 0.5] = 0
    # No two rows of one instant: the obvious plans leave their order open.
    gaps = rng.integers(1, max(2, 2 * 7 * DAY_MS // rows), rows)
    artwork = (rng.zipf(1.3, rows) % (rows // 5 + 1)).astype(np.int64)
    events = pa.array([VIEW, "click", LIKE]).take(pa.array(rng.choice(3, rows, p=[0.7, 0.2, 0.1])))
    tags = np.concatenate([[0], np.cumsum(rng.integers(0, 4, rows))]).astype(np.int32)
    table = pa.table(
        {
            "row_id": np.arange(rows),
            "user_id": user.astype(np.int64),
            "event_timestamp": np.cumsum(gaps),
            "event": events,
            "artwork_id": artwork,
            "author_id": artwork % 20_000,
            "model_id": artwork % 500,
            "score": rng.random(rows),
            "tags": pa.ListArray.from_arrays(pa.array(tags), pa.array(rng.integers(0, 1000, tags[-1]))),
        }
    )
    folder.mkdir(parents=True)
    pq.write_table(table, folder / "spine.parquet")


def specs_of(job: Job) -> list[dict[str, Any]]:
    specs = TASKS[job["task"]]
    if job.parameters.get("comparing"):
        specs = [{**one, "exclude_self": False} for one in specs]
    return specs


def columns_of(specs: list[dict[str, Any]]) -> list[str]:
    read = {"row_id", "user_id", "event_timestamp", "event", *(one["value_column"] for one in specs)}
    order = ["row_id", "user_id", "event_timestamp", "event", *COLUMNS, "score", "tags"]
    return [name for name in order if name in read]


# ---------------------------------------------------------------------- methods


def ours(engine: str) -> Callable[[Job], Callable[[], Any]]:
    def prepare(job: Job) -> Callable[[], Any]:
        import pyarrow.parquet as pq

        from daedalus.compute import get_aggregate_pit_table

        specs = specs_of(job)
        spine = pq.read_table(job.folder / "spine.parquet", columns=columns_of(specs))
        call = get_aggregate_pit_table(engine)
        return lambda: in_any_order(call(spine, specs), specs, job)

    return prepare


def in_any_order(table: Any, specs: list[dict[str, Any]], job: Job) -> Any:
    """Distinct values come in an order only from us: sorted when answers are compared."""
    import pyarrow as pa

    names = [one["name"] for one in specs if one["operation"] == "flatten_distinct"]
    if not job.parameters.get("comparing"):
        return table
    for name in names:
        place = table.schema.get_field_index(name)
        values = [sorted(one or []) for one in table[name].to_pylist()]
        table = table.set_column(place, name, pa.array(values, pa.list_(pa.int64())))
    return table.select(["row_id", *(one["name"] for one in specs)])


def obvious_sql(job: Job) -> Callable[[], Any]:
    import duckdb
    import pyarrow.parquet as pq

    specs = specs_of(job)
    spine = pq.read_table(job.folder / "spine.parquet", columns=columns_of(specs))
    columns, windows = [], {}
    for one in specs:
        window = f"w{one['window_days']}"
        windows[window] = (
            f"{window} AS (PARTITION BY user_id ORDER BY event_timestamp "
            f"RANGE BETWEEN {one['window_days'] * DAY_MS} PRECEDING AND 1 PRECEDING)"
        )
        over = f"FILTER (WHERE {one['condition']}) OVER {window}"
        columns.append(f"{_duckdb_value(one, over)} AS {one['name']}")
    query = f"SELECT hist.*, {', '.join(columns)} FROM spine AS hist WINDOW {', '.join(windows.values())}"

    def run() -> Any:
        with duckdb.connect() as session:
            session.register("spine", spine)
            return in_any_order(session.execute(query).to_arrow_table(), specs, job)

    return run


def _duckdb_value(one: dict[str, Any], over: str) -> str:
    value = one["value_column"]
    match one["operation"]:
        case "list":
            return f"list_slice(list({value}) {over}, -{NEWEST}, -1)"
        case "flatten_distinct":
            return f"list_distinct(flatten(list({value}) {over}))"
        case "count_distinct":
            return f"count(DISTINCT {value}) {over}"
        case "mean":
            return f"avg({value}) {over}"
        case "first":
            return f"arg_min({value}, event_timestamp) {over}"
        case "last":
            return f"arg_max({value}, event_timestamp) {over}"
        case "seconds_since_last":
            return f"(event_timestamp - max(event_timestamp) {over}) / 1000"
        case operation:
            return f"{operation}({value}) {over}"


def polars_rolling(job: Job) -> Callable[[], Any]:
    import polars as pl
    import pyarrow.parquet as pq

    specs = specs_of(job)
    spine = pq.read_table(job.folder / "spine.parquet", columns=columns_of(specs))

    def run() -> Any:
        frame = pl.from_arrow(spine).with_columns(at=pl.col("event_timestamp").cast(pl.Datetime("ms")))
        frame = frame.sort("user_id", "at")
        for days in sorted({one["window_days"] for one in specs}):
            found = [_polars_value(pl, one) for one in specs if one["window_days"] == days]
            rolled = frame.rolling("at", period=f"{days}d", closed="left", group_by="user_id").agg(found)
            frame = frame.hstack(rolled.select(one["name"] for one in specs if one["window_days"] == days))
        since = [one["name"] for one in specs if one["operation"] == "seconds_since_last"]
        frame = frame.with_columns(
            ((pl.col("event_timestamp") - pl.col(name)) / 1000).alias(name) for name in since
        )
        return in_any_order(frame.to_arrow(), specs, job) if job.parameters.get("comparing") else frame

    return run


def _polars_value(pl: Any, one: dict[str, Any]) -> Any:
    liked = pl.col("event") == one["condition"].split("'")[1]
    kept = pl.col(one["value_column"]).filter(liked)
    match one["operation"]:
        case "list":
            value = kept.tail(NEWEST)
        case "flatten_distinct":
            value = kept.explode().drop_nulls().unique()
        case "count_distinct":
            value = kept.n_unique()
        case "seconds_since_last":
            value = pl.col("event_timestamp").filter(liked).max()
        case "sum":
            value = pl.when(kept.count() > 0).then(kept.sum())
        case operation:
            value = getattr(kept, operation)()
    return value.alias(one["name"])


def spark(job: Job) -> Callable[[], Any]:
    import os

    from pyspark.sql import SparkSession

    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    session = (
        SparkSession.builder.master("local[*]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "6g")
        .config("spark.sql.shuffle.partitions", os.cpu_count() or 2)
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    specs = specs_of(job)
    session.read.parquet(str(job.folder / "spine.parquet")).select(
        *columns_of(specs)
    ).createOrReplaceTempView("spine")
    columns = []
    for one in specs:
        over = (
            f"OVER (PARTITION BY user_id ORDER BY event_timestamp "
            f"RANGE BETWEEN {one['window_days'] * DAY_MS} PRECEDING AND 1 PRECEDING)"
        )
        columns.append(f"{_spark_value(one, over)} AS {one['name']}")
    frame = session.sql(f"SELECT *, {', '.join(columns)} FROM spine AS hist")

    def run() -> Any:
        if not job.parameters.get("comparing"):
            return frame.write.format("noop").mode("overwrite").save()
        import pyarrow.parquet as pq

        frame.write.mode("overwrite").parquet(str(job.folder / "spark"))
        return in_any_order(pq.read_table(job.folder / "spark"), specs, job)

    return run


def _spark_value(one: dict[str, Any], over: str) -> str:
    kept = f"CASE WHEN {one['condition']} THEN {one['value_column']} END"
    match one["operation"]:
        case "list":
            items = f"collect_list({kept}) {over}"
            return f"slice({items}, greatest(size({items}) - {NEWEST - 1}, 1), {NEWEST})"
        case "flatten_distinct":
            return f"array_distinct(flatten(collect_list({kept}) {over}))"
        case "count_distinct":
            return f"size(collect_set({kept}) {over})"
        case "mean":
            return f"avg({kept}) {over}"
        case "first" | "last" as operation:
            return f"{operation}({kept}, true) {over}"
        case "seconds_since_last":
            seen = f"max(CASE WHEN {one['condition']} THEN event_timestamp END) {over}"
            return f"(event_timestamp - {seen}) / 1000"
        case operation:
            return f"{operation}({kept}) {over}"


METHODS = (
    Method(name="kernel", prepare=ours("kernel"), floor=True),
    Method(name="duckdb", prepare=ours("duckdb")),
    Method(name="polars", prepare=ours("polars")),
    Method(name="window sql", prepare=obvious_sql),
    Method(name="rolling of Polars", prepare=polars_rolling),
    Method(name="spark", prepare=spark, peer="pyspark"),
)


def main() -> None:
    bench = Bench(__file__, METHODS, __doc__ or "")
    shapes = ["zipf", "uniform", "half"]
    bench.parser.add_argument("--data", nargs="+", default=shapes[:1], choices=shapes)
    bench.parser.add_argument("--tasks", nargs="+", default=list(QUICK), choices=[*TASKS, "all"])
    options = bench.start()
    if options is None:
        return
    tasks = list(TASKS) if "all" in options.tasks else options.tasks
    for shape in options.data:
        with scratch() as name:
            folder, sample = Path(name) / "data", Path(name) / "sample"
            make_data(folder, options.size, shape)
            make_data(sample, min(options.size, 5_000), shape)
            for task in tasks:
                parameters = {"task": task, "data": shape, "rows": options.size}
                bench.compare(sample, parameters | {"comparing": True}, order_by=["row_id"], tolerance=1e-9)
                bench.measure(
                    f"{options.size:,} rows, {shape}: {task} ({len(TASKS[task])} specs)",
                    folder,
                    sample,
                    parameters,
                )
    bench.finish()


if __name__ == "__main__":
    main()
