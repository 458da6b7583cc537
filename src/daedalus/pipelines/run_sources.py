"""What a run reads: one source per scanned view, snapshotted once, and the relations that the run itself has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daedalus.errors import DefinitionError
from daedalus.pipelines.operators import Scan
from daedalus.secrets import expand_env
from daedalus.storage.sources.parquet import ParquetSource
from daedalus.storage.view_reader import UNIT_US, needs_nanoseconds, source_name_of

if TYPE_CHECKING:
    from daedalus.catalog.model import FeatureViewDef
    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.pipelines.settings import TrainingRunConfig
    from daedalus.storage.sources.base import Source

_URL = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://")
RUN_PREFIXES = ("store:", "run:", "ids:")


def is_run_relation(source_ref: str) -> bool:
    """Whether a scan reads something of the run itself rather than a view."""
    return source_ref.startswith(RUN_PREFIXES)


def scanned_views(pipeline: OperatorPipeline) -> list[str]:
    """The views that the pipeline scans, each once, in order."""
    scans = (operator for operator in pipeline if isinstance(operator, Scan))
    return list(dict.fromkeys(scan.source_ref for scan in scans if not is_run_relation(scan.source_ref)))


def ticks_per_second(pipeline: OperatorPipeline, catalog: FeatureCatalog) -> int:
    """The unit of `__t`: microseconds, or nanoseconds where one view's time is that fine."""
    fine = any(needs_nanoseconds(catalog.view(name)) for name in scanned_views(pipeline))
    return 1_000_000_000 if fine else 1_000_000


class RunSources:
    """The sources of one run, by view."""

    def __init__(self, catalog: FeatureCatalog, config: TrainingRunConfig) -> None:
        self._catalog = catalog
        self._config = config
        self._sources: dict[str, Source] = {}

    def source(self, view_name: str) -> Source:
        """The view's source; snapshotted when first asked for."""
        if view_name not in self._sources:
            self._sources[view_name] = self._open(self._catalog.view(view_name))
        return self._sources[view_name]

    def ids_source(self, path: str) -> Source:
        """A Parquet relation that a setting names; snapshotted when first asked for."""
        key = f"ids:{path}"
        if key not in self._sources:
            where = "embedding_coverage_filter.id_relation"
            self._sources[key] = ParquetSource(self._config.project_path(path), where=where)
        return self._sources[key]

    def _open(self, view: FeatureViewDef) -> Source:
        where = f"view {view.name} ({view.file}), source"
        if not view.source.path:
            raise DefinitionError(
                "this backend is not available yet", where=where, hint="Set source.path to Parquet data"
            )
        time_column = source_name_of(view, view.timestamp_field) if view.timestamp_field else ""
        source = ParquetSource(
            self._path(view.source.path, where),
            where=where,
            time_column=time_column,
            unit_us=UNIT_US[view.source.timestamp_unit],
        )
        source.require_columns(
            source_name_of(view, field.name) for field in view.fields if not field.optional
        )
        return source

    def _path(self, path: str, where: str) -> str:
        if _URL.match(path):
            raise DefinitionError(
                f"object-store paths are not available yet: {path}", where=where, hint="Set a local path"
            )
        path = expand_env(path, where=where)
        return path if Path(path).is_absolute() else str(Path(self._config.source_root) / path)

    def identity(self, view_name: str, time_range: Any) -> list[Any]:
        """Plain data that changes when the view's rows of the range may have changed."""
        snapshot = self.source(view_name).snapshot()
        view = self._catalog.view(view_name)
        optional = (field.name for field in view.fields if field.optional)
        absent = sorted(
            name for name in optional if source_name_of(view, name).lower() not in snapshot.columns
        )
        # A column that begins in a later file changes earlier days, too: from its default to NULL.
        return [*snapshot.identity(time_range), *([["its columns", absent]] if absent else [])]

    def run_identity(self, source_ref: str) -> list[Any]:
        """The same for a relation of the run: a store's version, or the files of an id relation."""
        kind, _, name = source_ref.partition(":")
        if kind == "ids":
            return self.ids_source(name).snapshot().identity()
        if kind == "store":
            from daedalus.pipelines.embedding_ids import store_definition
            from daedalus.storage.embedding_store import open_store

            store = open_store(store_definition(self._config, name))
            return [name, store.version, store.count]
        return []

    def verify_unchanged(self) -> None:
        """Raise SourceError when a file that was read has been replaced since."""
        for source in self._sources.values():
            source.verify_unchanged()
