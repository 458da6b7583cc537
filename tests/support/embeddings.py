"""Small embedding stores on disk, and the values enrichment must give."""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from daedalus.metadata.days import DayManifest, DayStore
from daedalus.pipelines.operators import RayUdfTransform
from daedalus.storage.content_hash import ContentHash
from daedalus.storage.embedding_store import EmbeddingStoreDef, build_store

if TYPE_CHECKING:
    from pathlib import Path

    from daedalus.storage.embedding_store import EmbeddingStore


def vectors_of(ids: Any, dimension: int, dtype: str = "float16", seed: int = 0) -> np.ndarray:
    """Random vectors, one per id."""
    values = np.random.default_rng(seed).standard_normal((len(ids), dimension))
    return values.astype(dtype)


def vector_table(ids: Any, values: np.ndarray, *, id_type: pa.DataType | None = None) -> pa.Table:
    """A source table: `id` and `embedding` as plain lists."""
    offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1])
    lists = pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1)))
    return pa.table({"id": pa.array(ids, type=id_type), "embedding": lists})


def write_source(path: Path, table: pa.Table, *, mtime: int = 0) -> Path:
    """Write one source file with a modification time of `mtime` seconds past some instant."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=64)
    os.utime(path, (1_700_000_000 + mtime,) * 2)
    return path


def taken(store: EmbeddingStore, ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Positions in `ids` of those the store has, ascending, and the matrix of their vectors."""
    rows = store.find(ids)
    found = np.flatnonzero(rows >= 0)
    order = np.argsort(rows[found], kind="stable")
    values = np.empty((len(found), store.dimension), dtype=store.dtype)
    store.read_rows(rows[found][order], order, values)
    return found, values


def store_def(folder: Path, **changes: Any) -> EmbeddingStoreDef:
    """A store of 4 half floats per id under `folder`, its source in `folder/source`."""
    settings = {
        "name": "items",
        "path": str(folder / "items.lance"),
        "embedding_dim": 4,
        "source_parquet": str(folder / "source"),
    } | changes
    return EmbeddingStoreDef(**settings)


def make_store(folder: Path, ids: Any, values: np.ndarray, **changes: Any) -> EmbeddingStoreDef:
    """Build a store that holds exactly these vectors."""
    definition = store_def(
        folder, **{"embedding_dim": values.shape[1], "embedding_dtype": str(values.dtype)} | changes
    )
    write_source(folder / "source" / "vectors.parquet", vector_table(ids, values))
    build_store(definition)
    return definition


DAY = dt.date(2026, 3, 1)


def lookup(name: str, source: str, store: str = "items", **changes: Any) -> RayUdfTransform:
    """A lookup operator of the column `name`."""
    return _operator(name, source, store, {"udf_name": "lookup_embedding_udf"} | changes)


def pool(name: str, source: str, store: str = "items", **changes: Any) -> RayUdfTransform:
    """An average-pool operator of the column `name`."""
    return _operator(name, source, store, {"udf_name": "avg_pool_embeddings_udf"} | changes)


def _operator(name: str, source: str, store: str, settings: dict[str, Any]) -> RayUdfTransform:
    return RayUdfTransform(
        name=f"enrich_{name}",
        inputs=("assembled",),
        source_id_column=source,
        store_name=store,
        column=name,
        **{"dtype": "HALF_FLOAT[]"} | settings,
    )


def write_skeleton(
    root: Path, table: pa.Table, *, day: dt.date = DAY, files: int = 1, groups: int = 700
) -> DayStore:
    """Commit one skeleton day, in several files and small row groups."""
    days = DayStore(root)
    digest = ContentHash(table.schema, ("qid",))
    for batch in table.combine_chunks().to_batches():
        digest.update(batch)
    with days.locked(day):
        folder = days.begin(day)
        size = -(-len(table) // files) or 1
        for at in range(files):
            pq.write_table(
                table.slice(at * size, size), folder / f"part-{at}-0.parquet", row_group_size=groups
            )
        written = sorted((path.name, path.stat().st_size) for path in folder.iterdir())
        manifest = DayManifest(
            day=day.isoformat(),
            schema=tuple((field.name, str(field.type)) for field in table.schema),
            row_count=len(table),
            ts_min="2026-03-01T00:00:00",
            ts_max="2026-03-01T23:59:59",
            content_hash=digest.hexdigest(),
            fingerprint={},
            files=tuple(written),
        )
        days.commit(day, folder, manifest)
    return days


def skeleton_table(rows: int, *, ids: int, seed: int = 0, longest: int = 6) -> pa.Table:
    """Rows with an id, a list of ids (NULL, empty, duplicate and unknown ones too), and other columns."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, longest + 1, rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    flat = rng.integers(0, ids * 3 // 2, offsets[-1])
    items = pa.array(flat, mask=rng.random(len(flat)) < 0.05)
    lists = pa.ListArray.from_arrays(pa.array(offsets), items, mask=pa.array(rng.random(rows) < 0.05))
    single = pa.array(rng.integers(0, ids * 3 // 2, rows), mask=rng.random(rows) < 0.05)
    schema = pa.schema(
        [
            pa.field("user_id", pa.int64(), nullable=False),
            pa.field("image", pa.list_(pa.float16()), metadata={"shape": "d"}),
            pa.field("item_id", pa.int64()),
            pa.field("liked", pa.list_(pa.int64())),
            pa.field("country", pa.string()),
            pa.field("score", pa.float64()),
            pa.field("tags", pa.struct([("a", pa.list_(pa.string())), ("b", pa.bool_())])),
            pa.field("qid", pa.int64()),
        ],
        metadata={"service": "ranking"},
    )
    return pa.table(
        [
            pa.array(range(rows), pa.int64()),
            pa.nulls(rows, pa.list_(pa.float16())),
            single,
            lists,
            pa.array([None if i % 7 == 0 else f"c{i % 5}" for i in range(rows)], pa.string()),
            pa.array(rng.standard_normal(rows)),
            pa.array(
                [None if i % 11 == 0 else {"a": ["x"] * (i % 3), "b": i % 2 == 0} for i in range(rows)],
                schema.field("tags").type,
            ),
            pa.array(range(rows), pa.int64()),
        ],
        schema=schema,
    )


def read_day(days: DayStore, day: dt.date = DAY) -> pa.Table:
    """A day's rows, shard after shard."""
    manifest = days.manifest(day)
    assert manifest is not None
    return pa.concat_tables(
        [pq.read_table(days.path(day) / name, partitioning=None) for name, _ in manifest.files]
    )


def expected_mean(ids: list[int | None] | None, vectors: dict[Any, np.ndarray]) -> np.ndarray | None:
    """The law, in float64: the mean over occurrences of the vectors found; None when there are none."""
    found = [vectors[one].astype(np.float64) for one in ids or [] if one is not None and one in vectors]
    return np.mean(found, axis=0) if found else None
