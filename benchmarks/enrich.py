"""Enrichment against writing its own finished output: seconds, ratios and peak memory.

    python benchmarks/enrich.py --rows 100000 1000000 --dimensions 256 1152 [--ray]

A day of rows with one looked-up and one average-pooled column (up to 32 of 200k ids, the k-th most popular of
them with weight 1/(k + 10), one in eleven unknown) beside four more id lists. The floor takes the finished day
from disk, batch by batch, and counts only what goes into the Parquet writer with the stage's own options
(`write`), and with pyarrow's defaults and zstd (`plain`). Enrichment is counted from the call to the committed
day: reading, lookups, pooling, hashing, writing, flushing. Every measurement is a process of its own, with an
unmeasured run over a thousand rows first (imports, compiled code); `peak` is its largest resident size, `cpu`
the seconds of all its threads.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from daedalus.metadata.days import DayManifest, DayStore
from daedalus.pipelines.dynamic_feature import run_enrich_stage
from daedalus.pipelines.enrich_plan import BATCH_ROWS
from daedalus.pipelines.enrich_shards import writer_options
from daedalus.pipelines.operators import RayUdfTransform
from daedalus.storage.embedding_store import EmbeddingStoreDef, build_store

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


def enrich(folder: Path, rows: int, dimension: int, runtime: str) -> dict[str, Any]:
    operators = [
        RayUdfTransform(
            name=f"enrich_{column}",
            inputs=("assembled",),
            udf_name=udf,
            source_id_column=source,
            store_name="items",
            column=column,
            dtype="HALF_FLOAT[]",
            dimension=dimension,
        )
        for column, udf, source in (
            (FILLED[0], "lookup_embedding_udf", "artwork_id"),
            (FILLED[1], "avg_pool_embeddings_udf", "like_7d"),
        )
    ]
    output = DayStore(folder / f"{runtime}_{rows}_{dimension}")
    clock = Clock()
    run_enrich_stage(
        skeleton=DayStore(folder / f"skeleton_{rows}"),
        output=output,
        days=[DAY],
        operators=operators,
        stores={"items": store_of(folder, dimension)},
        runtime=runtime,
        notify=lambda line: print(line, file=sys.stderr),
    )
    return clock.stop() | {"bytes": sum(size for _, size in output.manifest(DAY).files)}


def write_again(folder: Path, rows: int, dimension: int, plain: bool) -> dict[str, Any]:
    """Seconds in the Parquet writer for the finished day; reading it is not counted, flushing is."""
    days = DayStore(folder / f"in_process_{rows}_{dimension}")
    target = folder / "again.parquet"
    spent = {"seconds": 0.0, "cpu": 0.0}
    for name, _ in days.manifest(DAY).files:
        file = pq.ParquetFile(days.path(DAY) / name, pre_buffer=False)
        schema = file.schema_arrow
        options = {"compression": "zstd"} if plain else writer_options(schema, FILLED)
        writer = pq.ParquetWriter(target, schema, **options)
        for batch in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
            table = pa.Table.from_batches([batch], schema)
            clock = Clock()
            writer.write_table(table, row_group_size=BATCH_ROWS)
            spent = add(spent, clock.stop())
        clock = Clock()
        writer.close()
        descriptor = os.open(target, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        spent = add(spent, clock.stop())
        target.unlink()
    return spent


class Clock:
    """Wall and processor seconds since it was made."""

    def __init__(self) -> None:
        self._started = time.perf_counter(), time.process_time()

    def stop(self) -> dict[str, Any]:
        seconds, cpu = self._started
        return {"seconds": time.perf_counter() - seconds, "cpu": time.process_time() - cpu}


def add(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {name: one[name] + other[name] for name in one}


def apart(arguments: list[str]) -> dict[str, Any]:
    ran = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(ran.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[256, 1152])
    parser.add_argument("--ids", type=int, default=200_000)
    parser.add_argument("--ray", action="store_true", help="also through a Ray session of its own")
    parser.add_argument("--step", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step, folder, rows, dimension = options.step
        job = (Path(folder), int(rows), int(dimension))
        if step == "in_process":
            enrich(job[0], 1_000, job[2], step)
        result = write_again(*job, step == "plain") if step in ("write", "plain") else enrich(*job, step)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(result | {"peak_mb": round(peak)}))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for rows in {1_000, *options.rows}:
            make_skeleton(folder / f"skeleton_{rows}", rows, options.ids)
        for dimension in options.dimensions:
            built = make_store(folder, dimension, options.ids)
            print(f"store of {options.ids} x float16[{dimension}] built in {built:.1f} s")
            for rows in options.rows:
                measure(folder, rows, dimension, ray=options.ray)


def measure(folder: Path, rows: int, dimension: int, *, ray: bool) -> None:
    here = [str(folder), str(rows), str(dimension)]
    ours = apart(["--step", "in_process", *here])
    print(
        f"{rows:>8} rows x {dimension:>4}, {ours['bytes'] / 1e6:.0f} MB: {spent(ours)}, "
        f"peak {ours['peak_mb']} MB",
        flush=True,
    )
    for name, floor in (
        ("write", apart(["--step", "write", *here])),
        ("plain", apart(["--step", "plain", *here])),
    ):
        wall, cpu = (ours[kind] / floor[kind] for kind in ("seconds", "cpu"))
        print(f"{name:>24}: {spent(floor)} -> {wall:.2f}x wall, {cpu:.2f}x cpu", flush=True)
    if ray:
        there = apart(["--step", "ray", *here])
        print(f"{'ray':>24}: {there['seconds']:.1f} s with its session", flush=True)
    for leftover in [*folder.glob("in_process_*"), *folder.glob("ray_*")]:
        shutil.rmtree(leftover)


def spent(one: dict[str, Any]) -> str:
    return f"{one['seconds']:.1f} s, {one['cpu']:.1f} cpu"


if __name__ == "__main__":
    main()
