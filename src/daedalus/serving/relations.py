"""What is served: each approved service's newest materialization, copied into one DuckDB file that is then read only.

A service is there when it says `serving_allowed: true` and has been materialized; of any other there is nothing in
the file, so nothing that could be reached. `<service>__about` is one row on where the values come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daedalus.errors import ExecutionError
from daedalus.metadata.days import InstantStore
from daedalus.pipelines.instants.as_of import entity_keys
from daedalus.pipelines.instants.materialize_run import FOLDER
from daedalus.serving.authorization import Approved
from daedalus.serving.weight import column_widths
from daedalus.sql.identifiers import quote_ident, quote_literal
from daedalus.storage.duckdb_extensions import SAFE_CONFIG

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import duckdb

    from daedalus.catalog.registry import FeatureCatalog

ABOUT = "__about"
_DATA_SCHEMA = "materialized"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedService:
    """One service as it is served.

    Attributes:
        version: of the definition that made the values.
        as_of: the instant of the values, naive, UTC.
        keys: what tells its rows apart.
        columns: in order.
        files: the Parquet files of the materialization.
    """

    name: str
    version: str
    as_of: dt.datetime
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    row_count: int
    content_hash: str
    files: tuple[Path, ...]

    @property
    def about(self) -> dict[str, object]:
        """Where the values come from, as the `__about` relation says it."""
        return {
            "service": self.name,
            "version": self.version,
            "as_of": self.as_of,
            "row_count": self.row_count,
            "content_hash": self.content_hash,
            "keys": list(self.keys),
        }

    def approved(self) -> tuple[Approved, Approved]:
        """Its two relations."""
        return (
            Approved(name=self.name, service=self.name, columns=self.columns),
            Approved(name=self.name + ABOUT, service=self.name, columns=tuple(self.about)),
        )


def find_served(
    catalog: FeatureCatalog, output_root: Path, services: Sequence[str] = ()
) -> tuple[list[ServedService], list[str]]:
    """The services that can be served, by name, and a notice for each approved one that cannot.

    Args:
        catalog: the definitions.
        output_root: where materializations are.
        services: only these; each must allow serving.

    Raises:
        ExecutionError: a named service does not allow serving or is not materialized, or none is left.
    """
    found: list[ServedService] = []
    notices: list[str] = []
    for name in sorted(set(services) or set(catalog.services)):
        service = catalog.service(name)
        if not service.serving_allowed:
            if services:
                raise ExecutionError(
                    "it may not be served",
                    where=f"service {name} ({service.file})",
                    hint="serving_allowed is false: that is for its owner to change",
                )
            continue
        newest = _newest(InstantStore(output_root / name / FOLDER))
        if newest is None:
            what = (
                f"service {name} has no materialization and is left out; make one: daeda materialize {name}"
            )
            if services:
                raise ExecutionError(what, where="daeda serve")
            notices.append(what)
            continue
        instant, columns, version, rows, content, files = newest
        if version != service.version:
            notices.append(
                f"service {name}: its values are of version {version}, it is {service.version} now"
            )
        found.append(
            ServedService(
                name=name,
                version=version,
                as_of=instant,
                keys=entity_keys(service, catalog.view(service.spine)),
                columns=columns,
                row_count=rows,
                content_hash=content,
                files=files,
            )
        )
    if not found:
        allowed = [name for name, one in catalog.services.items() if one.serving_allowed]
        raise ExecutionError(
            "there is nothing to serve",
            where="daeda serve",
            hint=f"Materialize one first: daeda materialize {sorted(allowed)[0]}"
            if allowed
            else "No service says serving_allowed: true",
        )
    return found, notices


def _newest(
    store: InstantStore,
) -> tuple[dt.datetime, tuple[str, ...], str, int, str, tuple[Path, ...]] | None:
    """The newest complete materialization: instant, columns, version, rows, content hash, files."""
    import yaml

    for instant in reversed(store.instants()):
        manifest = store.manifest(instant)
        if manifest is not None:
            pipeline = yaml.safe_load(str(manifest.fingerprint.get("pipeline", ""))) or {}
            return (
                instant,
                tuple(name for name, _ in manifest.schema),
                str(pipeline.get("version", "")),
                manifest.row_count,
                manifest.content_hash,
                tuple(store.path(instant) / name for name, _ in manifest.files),
            )
    return None


def approved_relations(served: Iterable[ServedService]) -> dict[str, Approved]:
    """Every relation by lower-case name.

    Raises:
        ExecutionError: two services have relations of one name.
    """
    found: dict[str, Approved] = {}
    for one in served:
        for relation in one.approved():
            other = found.setdefault(relation.name.lower(), relation)
            if other is not relation:
                raise ExecutionError(
                    f"the services {other.service} and {relation.service} would both be {relation.name}",
                    where="daeda serve",
                    hint="Names that differ only in case cannot be served together; name services to serve",
                )
    return found


def build_database(
    path: Path, served: Iterable[ServedService], *, memory: str, threads: int
) -> dict[str, dict[str, int]]:
    """Write the DuckDB file that is served: the values, and a view over them for each approved relation.

    Returns: the widths of each service's columns.
    """
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {
        **SAFE_CONFIG,
        "memory_limit": memory,
        "threads": threads,
        "temp_directory": str(path.parent / "spill"),
    }
    try:
        with duckdb.connect(str(path), config=config) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(f"CREATE SCHEMA {_DATA_SCHEMA}")
            return {one.name: _add(connection, one) for one in served}
    except duckdb.Error as error:
        raise ExecutionError(
            f"the served values cannot be written: {str(error).splitlines()[0]}", where=str(path)
        ) from None


def _add(connection: duckdb.DuckDBPyConnection, one: ServedService) -> dict[str, int]:
    """One service's values, ordered by key so that a lookup reads few row groups; the widths of its columns."""
    execute = connection.execute
    table = f"{_DATA_SCHEMA}.{quote_ident(one.name)}"
    files = quote_literal([str(file) for file in one.files])
    keys = ", ".join(quote_ident(key) for key in one.keys if key in one.columns)
    order = f" ORDER BY {keys}" if keys else ""
    # `file_row_number` and the like stay out: the columns are named, in the contract's order.
    columns = ", ".join(quote_ident(name) for name in one.columns)
    execute(
        f"CREATE TABLE {table} AS SELECT {columns} FROM read_parquet({files}, hive_partitioning = false){order}"
    )
    if keys:
        # A lookup of a hundred keys among a million rows takes a sixth of the scan.
        first = next(key for key in one.keys if key in one.columns)
        execute(f"CREATE INDEX {quote_ident('by_key_' + one.name)} ON {table} ({quote_ident(first)})")
    execute(f"CREATE VIEW main.{quote_ident(one.name)} AS SELECT {columns} FROM {table}")
    about = ", ".join(f"{quote_literal(value)} AS {quote_ident(key)}" for key, value in one.about.items())
    execute(f"CREATE VIEW main.{quote_ident(one.name + ABOUT)} AS SELECT {about}")
    return column_widths(connection, table)
