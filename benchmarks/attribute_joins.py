"""Attribute lookups as of each row's time, against Feast and what one would write by hand.

    python benchmarks/attribute_joins.py --size 1M --versions few 60

A day of rows, 25 per user and 10 per item, against 6 views (3 of users, 3 of items) with 19 features. `few`: 2 to
6 versions per entity over 60 days, the day itself among them; `60`: a version a day per user at a random time,
items as in `few`. Everybody reads the same Parquet files and ends with one Arrow table (Polars: a frame) in any
order; the pipeline's rows are in order. No version has the time of a row, so `<` and `<=` agree.

- `daedalus joins`: the operators of a service with 6 `join: asof`, to Arrow.
- `daedalus day`: the same with hashing, writing and committing the day.
- `feast`: `get_historical_features(...).to_arrow()` on its DuckDB offline store, registry and entity frame ready.
- `duckdb asof`: six `ASOF LEFT JOIN` in one query. `duckdb lead`: `lead()` makes intervals, six joins with a range.
- `polars join_asof`: six of them on frames sorted by time; sorting is counted.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import textwrap
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _harness import Bench, Job, Method, scratch

if TYPE_CHECKING:
    from collections.abc import Callable

DAY = dt.date(2026, 3, 1)
DAY_US = 86_400_000_000
DAYS = 60
TYPES = {"i": "BIGINT", "f": "DOUBLE", "s": "TEXT", "b": "BOOLEAN"}
#: View: entity, and the types of its features.
VIEWS = {
    "user_profile": ("user", "isfb"),
    "user_counts": ("user", "iif"),
    "user_flags": ("user", "bbs"),
    "item_properties": ("artwork", "isf"),
    "item_counts": ("artwork", "iif"),
    "item_quality": ("artwork", "ffb"),
}
KEYS = {"user": "user_id", "artwork": "artwork_id"}


def features(view: str) -> dict[str, str]:
    return {f"{view}_{n}": kind for n, kind in enumerate(VIEWS[view][1])}


ALL_FEATURES = [name for view in VIEWS for name in features(view)]

# ---------------------------------------------------------------------- data


def make_data(folder: Path, rows: int, versions: str, days: int = 1) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(11)
    entities = {"user": max(2, rows // 25), "artwork": max(2, rows // 10)}
    end = ((DAY - dt.date(1970, 1, 1)).days + 1) * DAY_US
    # Rows at odd microseconds, versions at even ones.
    at = np.sort(rng.integers((end - days * DAY_US) // 2, end // 2, rows)) * 2 + 1
    spine = {"row_id": np.arange(rows)}
    spine |= {KEYS[name]: rng.integers(0, count, rows) for name, count in entities.items()}
    write(pq, pa, folder / "data" / "events", {**spine, "event_timestamp": pa.array(at, pa.timestamp("us"))})
    for number, (view, (entity, _)) in enumerate(VIEWS.items()):
        count = entities[entity]
        start = end - DAYS * DAY_US
        if versions == "60" and entity == "user":
            key = np.repeat(np.arange(count), DAYS)
            moment = start + np.tile(np.arange(DAYS), count) * DAY_US + rng.integers(0, DAY_US, len(key))
        else:
            key = np.repeat(np.arange(count), rng.integers(2, 7, count))
            moment = rng.integers(start, end, len(key))
        moment = moment // 2 * 2
        # As a table that was appended to day by day; each version of an entity at a time of its own.
        order = np.lexsort((key, moment))
        key, moment = key[order], moment[order]
        _, first = np.unique(key * (DAYS * DAY_US) + (moment - start), return_index=True)
        first.sort()
        key, moment = key[first], moment[first]
        columns: dict[str, Any] = {KEYS[entity]: key, "event_timestamp": pa.array(moment, pa.timestamp("us"))}
        for name, kind in features(view).items():
            columns[name] = values(pa, np.random.default_rng(number), kind, len(key))
        write(pq, pa, folder / "data" / view, columns)


def values(pa: Any, rng: Any, kind: str, count: int) -> Any:
    missing = rng.random(count) < 0.05
    match kind:
        case "i":
            return pa.array(rng.integers(0, 1_000_000, count), mask=missing)
        case "f":
            return pa.array(rng.random(count), mask=missing)
        case "b":
            return pa.array(rng.random(count) < 0.3, mask=missing)
    words = pa.array([f"category-{n:03}" for n in range(300)])
    return words.take(pa.array(rng.integers(0, 300, count), mask=missing))


def write(pq: Any, pa: Any, folder: Path, columns: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "part-0.parquet", compression="zstd")


# ---------------------------------------------------------------------- ours


def write_project(root: Path) -> None:
    """The project over the same files."""
    views = {"events": ("[user, artwork]", {"row_id": "i"})}
    views |= {view: (entity, features(view)) for view, (entity, _) in VIEWS.items()}
    for folder in ("feature_views", "feature_services", "config/training"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for view, (entity, fields) in views.items():
        lines = "\n".join(f"  - {{name: {name}, dtype: {TYPES[kind]}}}" for name, kind in fields.items())
        text = f"name: {view}\nentity: {entity}\nsource: {{path: {view}, timestamp_field: event_timestamp}}\nfields:\n"
        (root / "feature_views" / f"{view}.yaml").write_text(text + lines + "\n")
    joins = "\n".join(f"  - {{view: {view}, join: asof}}" for view in VIEWS)
    columns = "\n".join(f"  - {view}:{name}" for view in VIEWS for name in features(view))
    service = textwrap.dedent("""\
        name: attributes
        version: "2026-03-01"
        spine: events
        views:
        {joins}
        columns:
          - events:row_id
          - events:user_id
          - events:artwork_id
          - events:event_timestamp
        {columns}
        """).format(joins=joins, columns=columns)
    (root / "feature_services" / "attributes.yaml").write_text(service)
    (root / "config" / "training" / "runtime.yaml").write_text(
        "data_root: data\nfeed_start: '202601'\nfeed_end: '202603'\nembedding_coverage_filter: {enabled: false}\n"
    )


def request_of(job: Job) -> Any:
    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.compiler import build_compile_request, compile_service_to_pipeline
    from daedalus.pipelines.executor import ExecutionRequest
    from daedalus.pipelines.settings import load_training_config

    write_project(job.folder)
    config = load_training_config(job.folder, overrides={"output_root": str(job.folder / "out")})
    catalog = FeatureCatalog.from_yaml_dir(
        job.folder / "feature_views", services_dir=job.folder / "feature_services"
    )
    pipeline = compile_service_to_pipeline(build_compile_request("attributes", catalog, config))
    days = tuple(DAY - dt.timedelta(days=back) for back in reversed(range(job["days"])))
    return ExecutionRequest(
        pipeline=pipeline, run_config=config, catalog=catalog, target_dates=days, stages="skeleton"
    )


def our_joins(job: Job) -> Callable[[], Any]:
    import pyarrow as pa

    from daedalus.pipelines.days.lookups import prepared_stream
    from daedalus.pipelines.days.output_schema import without_positions
    from daedalus.pipelines.days.resources import day_session
    from daedalus.pipelines.run_sources import RunSources
    from daedalus.pipelines.skeleton_run import day_context

    request = request_of(job)
    config = request.run_config

    def run() -> Any:
        tables = []
        sources = RunSources(request.catalog, config)
        for day in request.target_dates:
            context = day_context(request.pipeline, request.catalog, config, sources, day)
            with day_session(context) as (connection, resources):
                stream = prepared_stream(context, connection, resources)
                tables += [without_positions(table) for table in stream.tables()]
        return pa.concat_tables(tables)

    return run


def our_day(job: Job) -> Callable[[], Any]:
    from daedalus.pipelines.executor import run_pipeline

    request = request_of(job)

    def run() -> Any:
        import pyarrow.parquet as pq

        shutil.rmtree(job.folder / "out", ignore_errors=True)
        result = run_pipeline(request)
        return OnlyWhenAsked(
            lambda: pq.read_table(
                [str(path) for path in sorted(result.output_path.glob("dt=*/*.parquet"))], partitioning=None
            )
        )

    return run


class OnlyWhenAsked:
    """An answer that is on disk, read back to be compared only."""

    def __init__(self, read: Callable[[], Any]) -> None:
        self.to_arrow = read


# ---------------------------------------------------------------------- others


def parquet(job: Job, view: str) -> str:
    return f"read_parquet('{job.folder}/data/{view}/*.parquet')"


def duckdb_method(job: Job, joins: str) -> Callable[[], Any]:
    import duckdb

    wanted = ", ".join(f"{view}.{name}" for view in VIEWS for name in features(view))
    query = f"SELECT s.*, {wanted} FROM {parquet(job, 'events')} AS s {joins}"

    def run() -> Any:
        with duckdb.connect() as session:
            return session.execute(query).to_arrow_table()

    return run


def duckdb_asof(job: Job) -> Callable[[], Any]:
    return duckdb_method(
        job,
        " ".join(
            f"ASOF LEFT JOIN {parquet(job, view)} AS {view} ON s.{KEYS[entity]} = {view}.{KEYS[entity]} "
            f"AND s.event_timestamp > {view}.event_timestamp"
            for view, (entity, _) in VIEWS.items()
        ),
    )


def duckdb_lead(job: Job) -> Callable[[], Any]:
    return duckdb_method(
        job,
        " ".join(
            f"LEFT JOIN (SELECT *, coalesce(lead(event_timestamp) OVER (PARTITION BY {KEYS[entity]} ORDER BY "
            f"event_timestamp), 'infinity'::TIMESTAMP) AS until FROM {parquet(job, view)}) AS {view} "
            f"ON s.{KEYS[entity]} = {view}.{KEYS[entity]} AND s.event_timestamp > {view}.event_timestamp "
            f"AND s.event_timestamp <= {view}.until"
            for view, (entity, _) in VIEWS.items()
        ),
    )


def polars_asof(job: Job) -> Callable[[], Any]:
    import polars as pl

    def run() -> Any:
        rows = pl.read_parquet(job.folder / "data" / "events" / "*.parquet").sort("event_timestamp")
        for view, (entity, _) in VIEWS.items():
            versions = pl.read_parquet(job.folder / "data" / view / "*.parquet").sort("event_timestamp")
            rows = rows.join_asof(
                versions,
                on="event_timestamp",
                by=KEYS[entity],
                strategy="backward",
                allow_exact_matches=False,
                check_sortedness=False,
            )
        return rows

    return run


def feast_duckdb(job: Job) -> Callable[[], Any]:
    os.environ["FEAST_USAGE"] = "False"
    import pyarrow.parquet as pq
    from feast import Entity as FeastEntity
    from feast import FeatureStore, FeatureView, Field, FileSource, types
    from feast.repo_config import RepoConfig

    registry = job.folder / "feast-registry.db"
    registry.unlink(missing_ok=True)
    store = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=str(registry),
            offline_store={"type": "duckdb"},
            online_store=None,
            entity_key_serialization_version=3,
        )
    )
    kinds = {"i": types.Int64, "f": types.Float64, "s": types.String, "b": types.Bool}
    entities = {name: feast_entity(FeastEntity, name) for name in KEYS}
    views = [
        FeatureView(
            name=view,
            entities=[entities[entity]],
            ttl=dt.timedelta(0),
            schema=[Field(name=name, dtype=kinds[kind]) for name, kind in features(view).items()],
            source=FileSource(
                name=f"{view}_source",
                path=str(job.folder / "data" / view / "part-0.parquet"),
                timestamp_field="event_timestamp",
            ),
            online=False,
        )
        for view, (entity, _) in VIEWS.items()
    ]
    store.apply([*entities.values(), *views])
    wanted = [f"{view}:{name}" for view in VIEWS for name in features(view)]
    rows = pq.read_table(job.folder / "data" / "events").to_pandas()

    def run() -> Any:
        return store.get_historical_features(entity_df=rows, features=wanted).to_arrow()

    return run


@cache
def feast_entity(kind: Any, name: str) -> Any:
    from feast import ValueType

    return kind(name=name, join_keys=[KEYS[name]], value_type=ValueType.INT64)


METHODS = (
    Method(name="daedalus joins", prepare=our_joins),
    Method(name="daedalus day", prepare=our_day),
    Method(name="polars join_asof", prepare=polars_asof),
    Method(name="duckdb lead", prepare=duckdb_lead),
    Method(name="duckdb asof", prepare=duckdb_asof),
    Method(name="feast", prepare=feast_duckdb, peer="feast"),
)


def main() -> None:
    bench = Bench(__file__, METHODS, __doc__ or "")
    bench.parser.add_argument("--versions", nargs="+", default=["few", "60"], choices=["few", "60"])
    bench.parser.add_argument("--days", type=int, default=1, help="days that the rows are spread over")
    options = bench.start()
    if options is None:
        return
    for versions in options.versions:
        with scratch() as name:
            folder, sample = Path(name) / "data", Path(name) / "sample"
            make_data(folder, options.size, versions, options.days)
            make_data(sample, min(options.size, 5_000), versions, options.days)
            parameters = {"versions": versions, "days": options.days, "rows": options.size}
            bench.compare(sample, parameters, order_by=["row_id"])
            bench.measure(
                f"{options.size:,} rows, 6 views, 19 features, versions per entity: {versions}",
                folder,
                sample,
                parameters,
            )
    bench.finish()


if __name__ == "__main__":
    main()
