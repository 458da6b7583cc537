"""Which rows of the source files make a store: one per id, the newest.

Only ids are read here, so a plan costs a few bytes per source row, whatever the vectors weigh.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from daedalus.errors import DefinitionError, SourceError, did_you_mean
from daedalus.storage.arrow_kinds import is_text
from daedalus.storage.embedding_index import normal_id_type
from daedalus.storage.embedding_vectors import check_vector_type
from daedalus.storage.sources.local_files import parquet_paths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from daedalus.storage.embedding_model import EmbeddingStoreDef

_ID_BATCH = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """The rows a store is made of.

    Attributes:
        files: source files, oldest first.
        keep: per file, which of its rows are in the store (True for the newest row of each id).
    """

    files: tuple[Path, ...]
    keep: tuple[NDArray[np.bool_], ...]
    id_type: pa.DataType
    source_rows: int
    duplicates: int
    null_ids: int


def find_source_files(definition: EmbeddingStoreDef) -> tuple[Path, ...]:
    """The Parquet files under `source_parquet`: a folder (recursively), a file, or a glob; see `parquet_paths`.

    Raises:
        DefinitionError: no `source_parquet`, or no file there.
    """
    source = definition.source_parquet
    if not source:
        raise DefinitionError(
            "no source_parquet to build from", where=definition.where, hint="Add it to the store's definition"
        )
    found = tuple(map(Path, parquet_paths(source)))
    if not found:
        raise DefinitionError(
            f"no Parquet file at {source}", where=definition.where, hint="Check source_parquet"
        )
    return found


def source_fingerprint(definition: EmbeddingStoreDef, files: Sequence[Path]) -> str:
    """A hash that changes when a rebuild would give another store."""
    described = {
        key: value
        for key, value in asdict(definition).items()
        if key not in ("name", "path", "build_batch_size", "source_parquet")
    }
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns, footer_hash(path)) for path in files]
    return hashlib.sha256(json.dumps([described, stats], sort_keys=True).encode()).hexdigest()[:32]


def footer_hash(path: Path) -> str:
    """Hash of a Parquet footer, which holds every row group's place and statistics."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        length = int.from_bytes(file.read(4), "little") + 8
        file.seek(max(0, size - length))
        return hashlib.sha256(file.read()).hexdigest()


def newest_last(files: Sequence[Path]) -> tuple[Path, ...]:
    """Files by modification time, then by path: later ones win over earlier ones."""
    return tuple(sorted(files, key=lambda path: (path.stat().st_mtime_ns, str(path))))


def plan_build(definition: EmbeddingStoreDef, files: Sequence[Path]) -> BuildPlan:
    """Read every id and decide which rows stay.

    Args:
        definition: says which columns hold ids and vectors.
        files: as `newest_last` orders them.

    Semantics: of the rows with one id the last row of the last file stays. Rows without an id never do.

    Raises:
        DefinitionError: a column is missing, or its type is no id or no vector.
        SourceError: a file cannot be read, or an id does not fit 64 signed bits.
    """
    chunks: list[pa.Array] = []
    counts: list[int] = []
    id_type: pa.DataType | None = None
    for path in files:
        ids, kind = _read_ids(definition, path)
        if id_type is not None and kind != id_type:
            raise DefinitionError(
                f"column {definition.id_column} is {kind} here and {id_type} in {files[0].name}",
                where=f"{definition.where}, {path}",
                hint="Give all source files one id type",
            )
        id_type = kind
        chunks += ids
        counts.append(sum(len(chunk) for chunk in ids))
    column = pa.chunked_array(chunks, type=id_type or pa.int64())
    keep, null_ids = _last_of_each(column, text=is_text(column.type))
    bounds = np.cumsum([0, *counts])
    return BuildPlan(
        files=tuple(files),
        keep=tuple(keep[start:stop] for start, stop in itertools.pairwise(bounds)),
        id_type=column.type,
        source_rows=len(keep),
        duplicates=int(len(keep) - null_ids - keep.sum()),
        null_ids=null_ids,
    )


def _read_ids(definition: EmbeddingStoreDef, path: Path) -> tuple[list[pa.Array], pa.DataType]:
    where = f"{definition.where}, {path}"
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            schema = file.schema_arrow
            for column in (definition.id_column, definition.embedding_column):
                if column not in schema.names:
                    raise DefinitionError(
                        f"no column {column!r}", where=where, hint=did_you_mean(column, schema.names)
                    )
            check_vector_type(definition, schema.field(definition.embedding_column).type, where)
            kind = normal_id_type(schema.field(definition.id_column).type, where)
            batches = file.iter_batches(batch_size=_ID_BATCH, columns=[definition.id_column])
            return [batch.column(0).cast(kind) for batch in batches], kind
    except (OSError, pa.ArrowInvalid) as problem:
        raise SourceError(f"cannot read ids: {problem}", where=where) from problem


def _last_of_each(column: pa.ChunkedArray, *, text: bool) -> tuple[NDArray[np.bool_], int]:
    """Mark the last row of every id; also count the rows without one."""
    null = column.is_null().to_numpy()
    if text:
        codes = column.dictionary_encode().unify_dictionaries().combine_chunks()
        values: Any = _chunkless(codes).indices.fill_null(-1).to_numpy(zero_copy_only=False)
    else:
        values = column.fill_null(0).to_numpy()
    rows = np.flatnonzero(~null)
    order = np.argsort(values[rows], kind="stable")
    ranked = values[rows][order]
    last = np.ones(len(ranked), dtype=np.bool_)
    last[:-1] = ranked[1:] != ranked[:-1]
    keep = np.zeros(len(null), dtype=np.bool_)
    keep[rows[order[last]]] = True
    return keep, int(null.sum())


def _chunkless(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    return column
