"""Embedding stores: vectors by id in a Lance dataset.

definition = EmbeddingStoreDef(name="items", path="data/items.lance", embedding_dim=256, ...)
build_store(definition)                 # from its source_parquet
store = open_store(definition)          # one version, whatever happens to the store meanwhile
rows = store.find(ids)                  # where their vectors are; `read_rows` reads them
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from daedalus.errors import DefinitionError, ExecutionError, did_you_mean
from daedalus.storage.arrow_kinds import is_text
from daedalus.storage.embedding_build import build_store, journal_folder
from daedalus.storage.embedding_index import IdIndex, build_index, normal_id_type
from daedalus.storage.embedding_lance import build_record, is_indexed, open_dataset
from daedalus.storage.embedding_model import EmbeddingStoreDef, StoreInfo, StoreReport
from daedalus.storage.embedding_vectors import element_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "EmbeddingStore",
    "EmbeddingStoreDef",
    "StoreInfo",
    "StoreReport",
    "build_store",
    "open_store",
    "show_store",
]

_TAKE_ROWS = 5_000


class EmbeddingStore:
    """One version of a store, open for reading.

    Attributes:
        definition: what the store was opened as.
        version: the Lance version; a rebuild makes a new one and leaves this one readable.
        snapshot: names the content, also after the store was deleted and built anew.
    """

    def __init__(self, definition: EmbeddingStoreDef, dataset: Any) -> None:
        self.definition = definition
        self.version = int(dataset.version)
        self.snapshot = _snapshot(dataset)
        self._dataset = dataset
        self._index: IdIndex | None = None

    @property
    def count(self) -> int:
        """Vectors in the store."""
        return int(self._dataset.count_rows())

    @property
    def dimension(self) -> int:
        """Elements of every vector."""
        return self.definition.embedding_dim

    @property
    def dtype(self) -> np.dtype[Any]:
        """The vectors' numpy type."""
        return np.dtype(self.definition.embedding_dtype)

    @property
    def id_type(self) -> pa.DataType:
        """The type of the ids: int64 or string, in stores built here."""
        return self._dataset.schema.field(self.definition.id_column).type

    def ids(self) -> pa.RecordBatchReader:
        """The ids alone, one column, in row order; no vector is read."""
        return self._dataset.scanner(columns=[self.definition.id_column], scan_in_order=True).to_reader()

    def check_ids(self, kind: pa.DataType, where: str) -> None:
        """Refuse ids of a type that the store's ids are not.

        Raises:
            DefinitionError: text against integers, or a type that is neither.
        """
        if is_text(normal_id_type(kind, where)) != is_text(self.id_type):
            raise DefinitionError(
                f"ids here are {kind}, those of {self.definition.where} are {self.id_type}",
                where=where,
                hint="Name a column with the store's ids",
            )

    def find(self, ids: pa.Array) -> NDArray[np.int64]:
        """The store's row of each id, -1 where the id is NULL or the store lacks it.

        The ids are read into memory the first time; about 16 bytes each.
        """
        if self._index is None:
            try:
                self._index = build_index(self.ids(), self.id_type, self.definition.where)
            except (OSError, pa.ArrowException) as problem:
                raise self._unreadable("ids", problem) from problem
        if isinstance(ids, pa.DictionaryArray):
            ids = ids.dictionary_decode()
        return self._index.find(ids)

    def read_rows(self, rows: NDArray[np.int64], slots: NDArray[np.int64], vectors: NDArray[Any]) -> None:
        """Read the vectors of the store's `rows` (ascending, each once) into `vectors[slots]`."""
        for start in range(0, len(rows), _TAKE_ROWS):
            wanted = rows[start : start + _TAKE_ROWS]
            into = slots[start : start + _TAKE_ROWS]
            try:
                taken = self._dataset.take(pa.array(wanted), columns=[self.definition.embedding_column])
            except (OSError, pa.ArrowException) as problem:
                raise self._unreadable("vectors", problem) from problem
            column = taken.column(0)
            at = 0
            for chunk in column.chunks:
                vectors[into[at : at + len(chunk)]] = self._elements(chunk)
                at += len(chunk)

    def read_all(self, vectors: NDArray[Any]) -> None:
        """Read every vector, in row order, into `vectors`."""
        at = 0
        try:
            reader = self._dataset.scanner(
                columns=[self.definition.embedding_column],
                batch_size=_TAKE_ROWS,
                batch_readahead=4,
                fragment_readahead=1,
                scan_in_order=True,
            ).to_reader()
            for batch in reader:
                vectors[at : at + len(batch)] = self._elements(batch.column(0))
                at += len(batch)
        except (OSError, pa.ArrowException) as problem:
            raise self._unreadable("vectors", problem) from problem

    def _unreadable(self, what: str, problem: Exception) -> ExecutionError:
        return ExecutionError(
            f"cannot read {what}: {problem}",
            where=self.definition.where,
            hint=f"Restore {self.definition.path}, or remove it and run `daeda store build {self.definition.name}`",
        )

    def _elements(self, vectors: pa.Array) -> NDArray[Any]:
        if vectors.null_count:
            raise ExecutionError("the store holds a NULL vector", where=self.definition.where)
        return element_values(vectors, self.dtype, self.dimension)


def open_store(definition: EmbeddingStoreDef, version: int | None = None) -> EmbeddingStore:
    """Open the newest version of a store, or the one asked for; it stays that version.

    Raises:
        ExecutionError: there is no such store, or no such version.
        DefinitionError: the store's columns, dimension or dtype are not those of the definition.
    """
    dataset = _existing(definition, version)
    _check_schema(definition, dataset.schema)
    return EmbeddingStore(definition, dataset)


def show_store(definition: EmbeddingStoreDef) -> StoreInfo:
    """What is in the store now.

    Raises:
        ExecutionError: there is no such store.
    """
    dataset = _existing(definition, None)
    _check_schema(definition, dataset.schema)
    newest = next(one for one in dataset.versions() if one["version"] == dataset.version)
    built_at = newest["timestamp"].astimezone(dt.UTC).isoformat(timespec="seconds")
    return StoreInfo(
        name=definition.name,
        path=definition.path,
        version=int(dataset.version),
        snapshot=_snapshot(dataset),
        count=int(dataset.count_rows()),
        dimension=definition.embedding_dim,
        dtype=definition.embedding_dtype,
        id_type=str(dataset.schema.field(definition.id_column).type),
        indexed=is_indexed(dataset, definition.id_column),
        size_bytes=sum(
            file.file_size_bytes or 0 for one in dataset.get_fragments() for file in one.data_files()
        ),
        built_at=built_at,
        built_from=build_record(dataset).get("fingerprint", ""),
        interrupted="://" not in definition.path and journal_folder(Path(definition.path)).exists(),
    )


def _existing(definition: EmbeddingStoreDef, version: int | None) -> Any:
    try:
        dataset = open_dataset(definition.path, version)
    except (OSError, ValueError) as problem:
        raise ExecutionError(f"cannot open the store: {problem}", where=definition.where) from problem
    if dataset is not None:
        return dataset
    wanted = f"version {version} of a store" if version is not None else "store"
    begun = "://" not in definition.path and journal_folder(Path(definition.path)).exists()
    finish = "an interrupted build is there, and goes on with" if begun else "make it with"
    raise ExecutionError(
        f"no {wanted} at {definition.path}; {finish} `daeda store build {definition.name}`",
        where=definition.where,
    )


def _check_schema(definition: EmbeddingStoreDef, schema: pa.Schema) -> None:
    for column in (definition.id_column, definition.embedding_column):
        if column not in schema.names:
            raise DefinitionError(
                f"the store has no column {column!r}",
                where=definition.where,
                hint=did_you_mean(column, schema.names),
            )
    normal_id_type(schema.field(definition.id_column).type, definition.where)
    kind = schema.field(definition.embedding_column).type
    if kind != definition.vector_type:
        raise DefinitionError(
            f"the store holds {kind}, the definition says {definition.vector_type}",
            where=definition.where,
            hint="Correct embedding_dim and embedding_dtype, or rebuild the store",
        )


def _snapshot(dataset: Any) -> str:
    """Version and origin: a store deleted and built anew counts its versions from 1 again."""
    origin = build_record(dataset).get("fingerprint", "")
    if not origin:
        stamps = {one["version"]: one["timestamp"].isoformat() for one in dataset.versions()}
        origin = stamps.get(dataset.version, "")
    return f"{dataset.version}@{origin}"
