"""Small embedding stores on disk, and the values enrichment must give."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from daedalus.storage.embedding_store import EmbeddingStoreDef, build_store

if TYPE_CHECKING:
    from pathlib import Path


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
