"""A small project with embeddings, trained through the platform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from daedalus.platform import PlatformRegistry
from daedalus.storage.embedding_store import build_store
from pipelines.tiny import SERVICE, tiny
from support.embeddings import store_def, vector_table, write_source

if TYPE_CHECKING:
    from pathlib import Path

    from daedalus.metadata.store import MetadataStore
    from daedalus.pipelines.executor import ExecutionResult
    from support.project import Project

WITH_EMBEDDING = SERVICE | {
    "grain": ["user_id", "artwork_id", "ts"],
    "content_filter": [{"name": "no_late", "sql": "hour(ts) < 20"}],
    "columns": [
        *SERVICE["columns"],
        {"ref": "embedding:image", "dtype": "HALF_FLOAT[]", "shape": {"dimension": 4}},
    ],
}
AGGREGATIONS = {
    "embedding_stores": [{"name": "items", "path": "data/store/items.lance", "embedding_dim": 4}],
    "enrichment_specs": [
        {
            "name": "image",
            "source_id_column": "artwork_id",
            "store_name": "items",
            "udf_name": "lookup_embedding_udf",
        }
    ],
}


@dataclass(frozen=True, slots=True)
class Trained:
    """A project and what can be done with it."""

    project: Project

    @property
    def root(self) -> Path:
        return self.project.root

    @property
    def registry(self) -> PlatformRegistry:
        """Opened anew: definitions are read once per registry."""
        return PlatformRegistry.open(self.root)

    @property
    def store(self) -> MetadataStore:
        from daedalus.platform.records import metadata_store

        return metadata_store(self.registry)

    def train(self, **options: Any) -> ExecutionResult:
        return self.registry.train("s", **options)


def fill_store(root: Path, seed: int = 0) -> None:
    """Build the embedding store, or build it anew from other vectors."""
    folder = root / "data" / "store"
    values = np.random.default_rng(seed).standard_normal((3, 4)).astype("float16")
    write_source(folder / "source" / "vectors.parquet", vector_table([10, 11, 12], values), mtime=seed)
    build_store(store_def(folder))


@pytest.fixture(autouse=True)
def nobodys_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAEDALUS_CONFIG", str(tmp_path / "none.toml"))


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """The project without embeddings; nothing has run."""
    made = tiny(tmp_path / "project")
    monkeypatch.chdir(made.root)
    return Trained(made)


@pytest.fixture
def enriched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """The project with embeddings; nothing has run."""
    made = tiny(
        tmp_path / "project",
        service=WITH_EMBEDDING,
        aggregations=AGGREGATIONS,
        runtime={"enrich_runtime": "in_process"},
    )
    fill_store(made.root)
    monkeypatch.chdir(made.root)
    return Trained(made)
