"""What a run reads: one source per scanned view, snapshotted once, and the relations that the run itself has."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

from daedalus.pipelines.days.context import DAY_US, day_start_us
from daedalus.pipelines.operators import Scan
from daedalus.pipelines.run_relations import AS_OF_RELATION, is_run_relation
from daedalus.storage.sources.base import TickRange
from daedalus.storage.sources.dispatch import open_source
from daedalus.storage.sources.parquet import ParquetSource
from daedalus.storage.sources.parquet_files import is_readable
from daedalus.storage.view_source import UNIT_US, needs_nanoseconds, source_name_of, view_source_unit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from daedalus.catalog.model import FeatureViewDef
    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.errors import SourceError
    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.pipelines.settings import TrainingRunConfig
    from daedalus.storage.sources.base import Source

__all__ = [
    "AS_OF_RELATION",
    "RunSources",
    "feed_range",
    "is_run_relation",
    "own_ticks_per_second",
    "scanned_views",
    "ticks_per_second",
    "view_ticks_per_second",
    "views_behind",
]

_LOOKING_SECONDS = 20.0
#: How far from 1970 nanoseconds in 64 bits reach.
_NANOSECONDS_REACH_US = 2**63 // 1_000


def scanned_views(pipeline: OperatorPipeline) -> list[str]:
    """The views that the pipeline scans, each once, in order."""
    scans = (operator for operator in pipeline if isinstance(operator, Scan))
    return list(dict.fromkeys(scan.source_ref for scan in scans if not is_run_relation(scan.source_ref)))


def views_behind(pipeline: OperatorPipeline, operator_name: str) -> list[str]:
    """The views that an operator's rows come from; all of the pipeline's when it has no such operator."""
    for operator in pipeline:
        if operator_name in (operator.name, operator.output):
            behind = pipeline.upstream(operator.output)
            scans = [one for one in behind if isinstance(one, Scan) and not is_run_relation(one.source_ref)]
            return list(dict.fromkeys(scan.source_ref for scan in scans))
    return scanned_views(pipeline)


def ticks_per_second(pipeline: OperatorPipeline, catalog: FeatureCatalog) -> int:
    """The unit of `__t`: microseconds, or nanoseconds where one view's time is that fine."""
    return max(
        (view_ticks_per_second(catalog.view(name)) for name in scanned_views(pipeline)), default=1_000_000
    )


def view_ticks_per_second(view: FeatureViewDef) -> int:
    """The same for one view: microseconds, or nanoseconds where its time is that fine."""
    return 1_000_000_000 if needs_nanoseconds(view) else 1_000_000


def own_ticks_per_second(view: FeatureViewDef) -> int:
    """Ticks per second of a view's own time column, to which windows and instants are rounded."""
    dtype = view.field(view.timestamp_field).dtype
    named = {"TIMESTAMP_S": 1, "TIMESTAMP_MS": 1_000, "TIMESTAMP_NS": 1_000_000_000}
    if dtype in named:
        return named[dtype]
    unit = view_source_unit(view)
    return 1_000_000_000 if unit < UNIT_US["us"] else round(1_000_000 / unit)


def feed_range(config: TrainingRunConfig, view: FeatureViewDef) -> TickRange:
    """The configured months; no bound where the view's times cannot reach it."""
    first, last = config.feed_days
    low, high = day_start_us(first), day_start_us(last) + DAY_US
    if needs_nanoseconds(view):
        return TickRange(
            low_us=low if low > -_NANOSECONDS_REACH_US else None,
            high_us=high if high < _NANOSECONDS_REACH_US else None,
        )
    return TickRange(low_us=low, high_us=high)


class RunSources:
    """The sources of one run, by view; close it at the run's end.

    Args:
        catalog: the views.
        config: where relative paths begin.
        pins: by view, the `records()` of an earlier run whose state is to be read again.
    """

    def __init__(
        self,
        catalog: FeatureCatalog,
        config: TrainingRunConfig,
        pins: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._catalog = catalog
        self._config = config
        self._pins = dict(pins or {})
        self._shared: dict[str, Any] = {}
        self._token = uuid.uuid4().hex
        self._sources: dict[str, Source] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Connections stay in this process.
        return self.__dict__ | {"_shared": {}}

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
        return open_source(
            view,
            source_root=self._config.source_root,
            pin=self._pins.get(view.name),
            shared=self._shared,
        )

    def records(self) -> dict[str, dict[str, Any]]:
        """What was read, by view: plain data for the run's record, without secrets."""
        return {name: source.snapshot().record() for name, source in sorted(self._sources.items())}

    def database_snapshots(self, views: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The snapshots of those of the views that no files show: `record` for people, `exact` to compare."""
        found = {}
        for name in views:
            snapshot = self.source(name).snapshot()
            record = snapshot.record()
            if record["backend"] != "parquet":
                found[name] = {"record": record, "exact": snapshot.exact()}
        return found

    def blame(self, error: SourceError, views: Iterable[str]) -> None:
        """Say in an error of a backend, where it does not yet, which views may have met it."""
        remote = [name for name in views if not self.is_local(name)]
        if not error.where and remote:
            places = (f"view {name} ({self._catalog.view(name).file})" for name in remote)
            error.where = " or ".join(places) + ", source"

    def broken_file(self, views: Iterable[str]) -> str:
        """The first local file of the views that cannot be read through; empty when there is none, or it takes long."""
        deadline = time.monotonic() + _LOOKING_SECONDS
        for name in views:
            source = self.source(name)
            for file in (
                source.snapshot().files if isinstance(source, ParquetSource) and source.is_local else ()
            ):
                if time.monotonic() > deadline:
                    return ""
                if not is_readable(file.path):
                    return file.path
        return ""

    def is_local(self, view_name: str) -> bool:
        """Whether the view's rows are in files of this machine."""
        source = self.source(view_name)
        return isinstance(source, ParquetSource) and source.is_local

    def close(self) -> None:
        """Let go of the databases' snapshots."""
        for source in self._sources.values():
            source.close()

    def exact_identity(self, view_name: str, time_range: Any) -> list[Any]:
        """Plain data, equal only where the view's rows of the range surely are; where nobody can know, in one run."""
        exact = self.source(view_name).snapshot().exact(time_range)
        return [*(["one run", self._token] if exact is None else exact), *self._absent(view_name)]

    def identity(self, view_name: str, time_range: Any) -> list[Any]:
        """What resuming goes by: files as they are, databases by their place."""
        return [*self.source(view_name).snapshot().identity(time_range), *self._absent(view_name)]

    def _absent(self, view_name: str) -> list[Any]:
        snapshot = self.source(view_name).snapshot()
        view = self._catalog.view(view_name)
        optional = (field.name for field in view.fields if field.optional)
        absent = sorted(
            name for name in optional if source_name_of(view, name).lower() not in snapshot.columns
        )
        # A column that begins in a later file changes earlier days, too: from its default to NULL.
        return [["its columns", absent]] if absent else []

    def run_identity(self, source_ref: str) -> list[Any]:
        """The same for a relation of the run: a store's version, or the files of an id relation."""
        kind, _, name = source_ref.partition(":")
        if kind == "ids":
            return self.ids_source(name).snapshot().identity()
        if kind == "store":
            from daedalus.pipelines.days.embedding_ids import store_definition
            from daedalus.storage.embedding_store import open_store

            store = open_store(store_definition(self._config, name))
            return [name, store.version, store.count]
        return []

    def verify_unchanged(self) -> None:
        """Raise SourceError when a file that was read has been replaced since."""
        for source in self._sources.values():
            source.verify_unchanged()
