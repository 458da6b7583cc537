"""Enrichment against writing its own finished output.

    python benchmarks/enrich.py --size 1M --dimensions 256 1152 [--ray]

A day of rows with one looked-up and one average-pooled column (up to 32 of 200k ids, the k-th most popular of
them with weight 1/(k + 10), one in eleven unknown) beside four more id lists. The floor takes the finished day
from disk, batch by batch, and counts only what goes into the Parquet writer with the stage's own options
(`write again`), and with pyarrow's defaults and zstd (`write plainly`). Enrichment is counted from the call to the
committed day: reading, lookups, pooling, hashing, writing, flushing.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from _harness import Bench, Clock, Job, Method, scratch
from daedalus.metadata.days import DayManifest, DayStore
from daedalus.pipelines.dynamic_feature import run_enrich_stage
from daedalus.pipelines.enrich.plan import BATCH_ROWS
from daedalus.pipelines.enrich.shards import writer_options
from daedalus.pipelines.operators import RayUdfTransform
from daedalus.storage.embedding_store import EmbeddingStoreDef, build_store

if TYPE_CHECKING:
    from collections.abc import Callable

DAY = dt.date(2026, 3, 1)
FILLED = ("image_embedding", "like_avg")
LISTS = ("like_7d", "like_3d", "view_7d", "view_3d", "author_7d")


def store_of(folder: Path, dimension: int) -> EmbeddingStoreDef:
    return EmbeddingStoreDef(
        name="items",
        path=str(folder / f"items_{dimension}.lance"),
        embedding_dim=dimension,
        source_parquet=str(folder / f"source_{dimension}"),
    )


def make_store(folder: Path, dimension: int, ids: int) -> float:
    source = folder / f"source_{dimension}"
    source.mkdir()
    rng = np.random.default_rng(0)
    for part, start in enumerate(range(0, ids, 50_000)):
        count = min(50_000, ids - start)
        values = rng.standard_normal((count, dimension), dtype=np.float32).astype(np.float16)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), dimension)
        table = pa.table({"id": pa.array(np.arange(start, start + count)), "embedding": vectors})
        pq.write_table(table, source / f"part-{part}.parquet", use_dictionary=False)
    started = time.perf_counter()
    build_store(store_of(folder, dimension))
    return time.perf_counter() - started


def make_skeleton(root: Path, rows: int, ids: int) -> None:
    """A day of `rows` rows, 65 536 to a row group, as the skeleton stage writes it."""
    rng = np.random.default_rng(1)
    weights = np.cumsum(1 / (np.arange(ids * 11 // 10) + 10.0))
    shuffled = rng.permutation(len(weights))

    def popular(count: int) -> np.ndarray:
        return shuffled[np.searchsorted(weights, rng.random(count) * weights[-1])]

    days = DayStore(root)
    with days.locked(DAY):
        folder = days.begin(DAY)
        writer = None
        for start in range(0, rows, 65_536):
            count = min(65_536, rows - start)
            columns = {
                "user_id": pa.array(rng.integers(0, 25_000, count)),
                "artwork_id": pa.array(popular(count)),
                "event_timestamp": pa.array(np.arange(start, start + count) * 80_000, pa.timestamp("us")),
                "image_embedding": pa.nulls(count, pa.list_(pa.float16())),
                "like_avg": pa.nulls(count, pa.list_(pa.float16())),
            }
            for name in LISTS:
                offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 33, count))]).astype(np.int32)
                items = pa.array(popular(offsets[-1]))
                columns[name] = pa.ListArray.from_arrays(pa.array(offsets), items)
            table = pa.table(columns)
            writer = writer or pq.ParquetWriter(folder / "part-0-0.parquet", table.schema, compression="zstd")
            writer.write_table(table, row_group_size=65_536)
        writer.close()
        size = (folder / "part-0-0.parquet").stat().st_size
        manifest = DayManifest(
            day=DAY.isoformat(),
            schema=tuple((field.name, str(field.type)) for field in table.schema),
            row_count=rows,
            ts_min="",
            ts_max="",
            content_hash="benchmark",
            fingerprint={},
            files=(("part-0-0.parquet", size),),
        )
        days.commit(DAY, folder, manifest)


def enrich(runtime: str) -> Callable[[Job], Callable[[], Any]]:
    def prepare(job: Job) -> Callable[[], Any]:
        store = store_of(job.folder.parent, job["dimension"])
        operators = [
            RayUdfTransform(
                name=f"enrich_{column}",
                inputs=("assembled",),
                udf_name=udf,
                source_id_column=source,
                store_name="items",
                column=column,
                dtype="HALF_FLOAT[]",
                dimension=job["dimension"],
            )
            for column, udf, source in (
                (FILLED[0], "lookup_embedding_udf", "artwork_id"),
                (FILLED[1], "avg_pool_embeddings_udf", "like_7d"),
            )
        ]

        def run() -> Any:
            shutil.rmtree(job.folder / "enriched", ignore_errors=True)
            output = DayStore(job.folder / "enriched")
            run_enrich_stage(
                skeleton=DayStore(job.folder / "skeleton"),
                output=output,
                days=[DAY],
                operators=operators,
                stores={"items": store},
                runtime=runtime,
                notify=lambda line: print(line, file=sys.stderr),
            )
            return {"mb": round(sum(size for _, size in output.manifest(DAY).files) / 1e6)}

        return run

    return prepare


def write_again(*, plain: bool) -> Callable[[Job], Callable[[], Any]]:
    """Seconds in the Parquet writer for the finished day; reading it is not counted, flushing is."""

    def prepare(job: Job) -> Callable[[], Any]:
        days = DayStore(job.folder / "enriched")
        target = job.folder / "again.parquet"

        def run() -> Any:
            wall = cpu = 0.0
            for name, _ in days.manifest(DAY).files:
                file = pq.ParquetFile(days.path(DAY) / name, pre_buffer=False)
                schema = file.schema_arrow
                options = {"compression": "zstd"} if plain else writer_options(schema, FILLED)
                writer = pq.ParquetWriter(target, schema, **options)
                for batch in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
                    table = pa.Table.from_batches([batch], schema)
                    clock = Clock()
                    writer.write_table(table, row_group_size=BATCH_ROWS)
                    took = clock.stop()
                    wall, cpu = wall + took[0], cpu + took[1]
                clock = Clock()
                writer.close()
                descriptor = os.open(target, os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)
                took = clock.stop()
                wall, cpu = wall + took[0], cpu + took[1]
                target.unlink()
            return {"wall": wall, "cpu": cpu}

        return run

    return prepare


METHODS = (
    Method(name="in process", prepare=enrich("in_process")),
    Method(name="write again", prepare=write_again(plain=False), floor=True),
    Method(name="write plainly", prepare=write_again(plain=True)),
)
ON_RAY = Method(name="ray, with its session", prepare=enrich("ray"), warm_up=False)


def main() -> None:
    bench = Bench(__file__, (*METHODS, ON_RAY), __doc__ or "")
    bench.parser.add_argument("--dimensions", type=int, nargs="+", default=[256])
    bench.parser.add_argument("--ids", type=int, default=200_000)
    bench.parser.add_argument("--ray", action="store_true", help="also through a Ray session of its own")
    options = bench.start()
    if options is None:
        return
    with scratch() as name:
        root = Path(name)
        make_skeleton(root / "data" / "skeleton", options.size, options.ids)
        make_skeleton(root / "sample" / "skeleton", 1_000, options.ids)
        for dimension in options.dimensions:
            built = make_store(root, dimension, options.ids)
            print(f"store of {options.ids} x float16[{dimension}] built in {built:.1f} s")
            methods = [*bench.methods] if options.ray else [one for one in bench.methods if one != ON_RAY]
            parameters = {"dimension": dimension, "ids": options.ids, "rows": options.size}
            title = f"{options.size:,} rows, two embedding columns of {dimension}"
            bench.measure(title, root / "data", root / "sample", parameters, methods=methods, in_turns=True)
    bench.finish()


if __name__ == "__main__":
    main()
