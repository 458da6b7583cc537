"""What an embedding store is, and what building or looking at one reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daedalus.errors import DefinitionError, did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa

DTYPES = ("float16", "float32")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingStoreDef:
    """One store of vectors by id, as `embedding_stores` in `aggregations.yaml` declares it.

    Attributes:
        path: the Lance dataset's folder.
        embedding_dim: elements of every vector.
        embedding_dtype: `float16` or `float32`; vectors are stored and pooled ones are written as this.
        build_batch_size: vectors held in memory and committed together while building.
        source_parquet: folder, file or glob it is built from; None for a store that is made elsewhere.
    """

    name: str
    path: str
    embedding_dim: int
    type: str = "lance"
    id_column: str = "id"
    embedding_column: str = "embedding"
    embedding_dtype: str = "float16"
    build_batch_size: int = 50_000
    source_parquet: str | None = None

    def __post_init__(self) -> None:
        where = self.where
        if self.type != "lance":
            raise DefinitionError(
                f"unknown store type {self.type!r}", where=where, hint=did_you_mean(self.type, ["lance"])
            )
        if self.embedding_dtype not in DTYPES:
            raise DefinitionError(
                f"unknown embedding_dtype {self.embedding_dtype!r}",
                where=where,
                hint=did_you_mean(self.embedding_dtype, DTYPES),
            )
        for key, value in (
            ("embedding_dim", self.embedding_dim),
            ("build_batch_size", self.build_batch_size),
        ):
            if value < 1:
                raise DefinitionError(f"{key} must be at least 1, it is {value}", where=where)
        if self.id_column == self.embedding_column:
            raise DefinitionError("id_column and embedding_column are the same column", where=where)

    @property
    def where(self) -> str:
        """How errors name the store."""
        return f"embedding store {self.name}"

    @property
    def vector_type(self) -> pa.DataType:
        """The Arrow type of the store's vectors."""
        import pyarrow as pa

        return pa.list_(self.element_type, self.embedding_dim)

    @property
    def element_type(self) -> pa.DataType:
        """The Arrow type of one element."""
        import pyarrow as pa

        return pa.float16() if self.embedding_dtype == "float16" else pa.float32()

    @property
    def vector_bytes(self) -> int:
        """Bytes of one vector."""
        return self.embedding_dim * (2 if self.embedding_dtype == "float16" else 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """What one `daeda store build` did.

    Attributes:
        version: the Lance version that readers now see.
        rows: vectors in the store, one per id.
        source_rows: rows of the source files.
        duplicates: rows left out because a newer row has their id.
        null_ids: rows left out for want of an id.
        null_vectors: ids left out because their newest row has no vector.
        resumed_rows: source rows that an interrupted build had already brought in.
        unchanged: the store was already made from exactly these files, and nothing was written.
    """

    name: str
    path: str
    version: int
    rows: int
    source_files: int
    source_rows: int
    duplicates: int
    null_ids: int
    null_vectors: int
    resumed_rows: int = 0
    unchanged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreInfo:
    """What `daeda store show` tells.

    Attributes:
        snapshot: names this content of the store, also after it was deleted and built anew.
        built_from: hash of the source files and definition it was built from; empty for a foreign store.
        interrupted: a build was begun and not finished.
    """

    name: str
    path: str
    version: int
    snapshot: str
    count: int
    dimension: int
    dtype: str
    id_type: str
    indexed: bool
    size_bytes: int
    built_at: str
    built_from: str
    interrupted: bool
