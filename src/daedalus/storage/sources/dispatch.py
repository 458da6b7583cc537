"""Which backend reads a view: the fields of its `source` decide."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from daedalus.errors import DefinitionError
from daedalus.secrets import ENV_REFERENCE, expand_env, mask
from daedalus.storage.sources.places import below, scheme_of
from daedalus.storage.view_source import UNIT_US, source_name_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daedalus.catalog.model import DataSourceDef, FeatureViewDef
    from daedalus.storage.sources.base import Source


class Backend(StrEnum):
    """Where rows can live."""

    PARQUET = "parquet"
    POSTGRES = "postgres"
    DUCKLAKE = "ducklake"
    SNOWFLAKE = "snowflake"


_SCHEMES = {
    "ducklake": Backend.DUCKLAKE,
    "postgres": Backend.POSTGRES,
    "postgresql": Backend.POSTGRES,
    "snowflake": Backend.SNOWFLAKE,
}


def backend_of(source: DataSourceDef, *, where: str) -> Backend:
    """The backend of a source; `path` wins.

    Raises:
        DefinitionError: nothing says where the rows are, or the scheme is unknown.
    """
    if source.path:
        return Backend.PARQUET
    # A place that is one whole ${ENV} reference shows its scheme only when it is resolved.
    place = source.database_path
    if ENV_REFERENCE.match(place):
        place = expand_env(place, where=f"{where}.database_path")
    scheme = place.partition(":")[0].lower()
    if scheme in _SCHEMES:
        return _SCHEMES[scheme]
    unknown = f"no backend reads {mask(source.database_path)!r}"
    raise DefinitionError(
        unknown if place else "the source names no place",
        where=where,
        hint="Set source.path to Parquet data (file, folder, glob, s3:// or r2:// URL), or source.database_path "
        "to ducklake:..., postgresql://... or snowflake://<account>, with table_name or query",
    )


def open_source(
    view: FeatureViewDef,
    *,
    source_root: str,
    pin: Mapping[str, Any] | None = None,
    shared: dict[str, Any] | None = None,
) -> Source:
    """The rows of a view, at whichever backend.

    Args:
        view: the definition.
        source_root: absolute folder or URL that prefixes relative paths.
        pin: the `record()` of an earlier run whose state is to be read again, where the backend can.
        shared: what the sources of one run share; empty at its beginning.
    """
    where = f"view {view.name} ({view.file}), source"
    match backend_of(view.source, where=where):
        case Backend.PARQUET:
            return _parquet(view, source_root, where)
        case Backend.POSTGRES:
            from daedalus.storage.sources.postgres import PostgresSource

            return PostgresSource(view, where=where, shared=shared)
        case Backend.DUCKLAKE:
            from daedalus.storage.sources.ducklake import DuckLakeSource

            return DuckLakeSource(view, where=where, source_root=source_root, pin=pin)
        case Backend.SNOWFLAKE:
            # An extra: its module imports the connector when it connects, never before.
            from daedalus.storage.sources.snowflake import SnowflakeSource

            return SnowflakeSource(view, where=where, pin=pin)


def _parquet(view: FeatureViewDef, source_root: str, where: str) -> Source:
    from daedalus.storage.sources.object_store import SETTINGS, is_object_store
    from daedalus.storage.sources.parquet import ParquetSource

    path = below(source_root, expand_env(view.source.path, where=f"{where}.path"))
    if (scheme := scheme_of(path)) and not is_object_store(path):
        raise DefinitionError(
            f"no Parquet is read from {scheme}",
            where=f"{where}.path",
            hint="Write a path of this machine, s3://... or r2://...; a store that speaks S3 takes s3:// with endpoint",
        )
    settings = dict(view.source.credentials)
    if view.source.database_path:
        # The database's own settings wait there for the day when path is removed.
        settings = {key: value for key, value in settings.items() if key in SETTINGS}
    source = ParquetSource(
        path,
        where=where,
        time_column=source_name_of(view, view.timestamp_field) if view.timestamp_field else "",
        unit_us=UNIT_US[view.source.timestamp_unit],
        settings=settings,
    )
    source.require_columns(source_name_of(view, field.name) for field in view.fields if not field.optional)
    source.refuse_rounding(source_name_of(view, field.name) for field in view.fields)
    return source
