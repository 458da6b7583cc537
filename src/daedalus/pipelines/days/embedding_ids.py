"""The ids of an embedding store as a relation, without its vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daedalus.sql.identifiers import quote_ident
from daedalus.storage.embedding_model import EmbeddingStoreDef

if TYPE_CHECKING:
    import duckdb

    from daedalus.pipelines.settings import TrainingRunConfig


def store_definition(config: TrainingRunConfig, name: str) -> EmbeddingStoreDef:
    """A configured store as the storage layer describes it."""
    store = config.store(name)
    source = config.project_path(store.source_parquet) if store.source_parquet else ""
    return EmbeddingStoreDef(
        name=store.name,
        type=store.type,
        path=config.project_path(store.path),
        id_column=store.id_column,
        embedding_column=store.embedding_column,
        embedding_dim=store.embedding_dim,
        embedding_dtype=store.embedding_dtype,
        build_batch_size=store.build_batch_size,
        source_parquet=source,
    )


def register_store_ids(
    connection: duckdb.DuckDBPyConnection, config: TrainingRunConfig, name: str, relation: str
) -> str:
    """Register the ids as an Arrow stream; returns the FROM item.

    Raises:
        DaedalusError: the store is missing; the message says how to build it.
    """
    from daedalus.storage.embedding_store import open_store

    registered = f"__ids_of_{relation}"
    connection.register(registered, open_store(store_definition(config, name)).ids())
    return quote_ident(registered)
