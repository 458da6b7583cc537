"""A DuckLake in place: read-only, at one snapshot for the whole run, or at the one that the view names.

The catalog is a SQLite file, a DuckDB file or a Postgres database; the rows are Parquet, local or in an object store.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daedalus.errors import DefinitionError, SourceError
from daedalus.secrets import ENV_REFERENCE, expand_env, mask_written
from daedalus.sql.identifiers import quote_ident, quote_literal
from daedalus.storage.duckdb_extensions import bare_connection, load_extensions
from daedalus.storage.sources.faults import plain_faults
from daedalus.storage.sources.object_store import SETTINGS as STORE_SETTINGS
from daedalus.storage.sources.object_store import ObjectStoreFiles, is_object_store
from daedalus.storage.sources.places import below
from daedalus.storage.sources.postgres_place import SETTINGS as POSTGRES_SETTINGS
from daedalus.storage.sources.postgres_place import PostgresPlace, place_of
from daedalus.storage.sources.relations import chosen, range_conditions, relation_label, split_table_name
from daedalus.storage.view_source import UNIT_US, source_name_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import duckdb

    from daedalus.catalog.model import FeatureViewDef
    from daedalus.storage.sources.base import TickRange

#: How long a lock on the catalog's tables is waited for.
LOCK_SECONDS = 30.0
_CATALOG = re.compile(r"^(sqlite|duckdb|postgres):(?!//)", re.IGNORECASE)
_POSTGRES_URL = re.compile(r"^postgres(ql)?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class DuckLakeSnapshot:
    """What a run reads of one table or query.

    Attributes:
        place: the catalog, as it is written.
        version: the lake's snapshot id.
        committed_at: when that snapshot was committed.
        relation: `schema.table`, or the query's hash.
        types: (column, DuckDB type) in order.
        data_path: where the lake's files are.
    """

    place: str
    version: int
    committed_at: str
    relation: str
    types: tuple[tuple[str, str], ...]
    data_path: str

    @property
    def columns(self) -> frozenset[str]:
        """The names of the columns, in lower case."""
        return frozenset(name.lower() for name, _ in self.types)

    def identity(self, time_range: TickRange | None = None) -> list[Any]:
        """The place: a day that was read is read again only when it is asked for."""
        del time_range
        return [["ducklake", self.place, self.relation]]

    def exact(self, time_range: TickRange | None = None) -> list[Any]:
        """The snapshot: any commit to the lake makes another."""
        return [*self.identity(time_range), [self.version, self.committed_at]]

    def record(self) -> dict[str, Any]:
        """The place and the snapshot; a later run can read at it again."""
        return {
            "backend": "ducklake",
            "place": self.place,
            "relation": self.relation,
            "snapshot": self.version,
            "committed_at": self.committed_at,
        }


@dataclass(frozen=True, slots=True)
class _Catalog:
    """Where a lake's catalog is: `kind` is sqlite, duckdb or postgres."""

    kind: str
    path: str = ""
    database: PostgresPlace | None = None


class DuckLakeSource:
    """Rows of a DuckLake's table, or of a query over its tables.

    Args:
        view: its source says which catalog, table or query, and maybe which snapshot.
        where: how messages name the source.
        source_root: absolute folder or URL that prefixes relative paths.
        pin: the record of an earlier run, whose snapshot is read again.
    """

    def __init__(
        self,
        view: FeatureViewDef,
        *,
        where: str,
        source_root: str,
        pin: Mapping[str, Any] | None = None,
    ) -> None:
        source = view.source
        self._where = where
        self._label = mask_written(source.database_path)
        self._settings = dict(source.credentials)
        self._written = source.database_path
        self._root = source_root
        self._table = (
            split_table_name(
                source.table_name,
                default_schema=self._settings.get("schema", "main"),
                where=f"{where}.table_name",
            )
            if source.table_name
            else None
        )
        self._query = source.query
        self._data_path = source.data_path
        self._version = source.snapshot_version
        self._as_of = source.snapshot_as_of
        if pin is not None:
            self._version, self._as_of = _pinned_version(pin, where), ""
        self._time_column = source_name_of(view, view.timestamp_field) if view.timestamp_field else ""
        self._unit_us = UNIT_US[source.timestamp_unit]
        self._snapshot: DuckLakeSnapshot | None = None

    def __repr__(self) -> str:
        return f"DuckLakeSource({self._where})"

    # ------------------------------------------------------------------ attach

    def _catalog(self) -> _Catalog:
        where = f"{self._where}.database_path"
        rest = self._written.partition(":")[2]
        if not self._written.lower().startswith("ducklake:"):  # one whole ${ENV} reference
            rest = expand_env(self._written, where=where).partition(":")[2]
        known = POSTGRES_SETTINGS | STORE_SETTINGS
        unknown = sorted(set(self._settings) - known)
        if unknown:
            raise DefinitionError(f"{unknown[0]} is no setting of a DuckLake source", where=self._where)
        own = {key: value for key, value in self._settings.items() if key in POSTGRES_SETTINGS}
        if _is_postgres(rest, where):
            return _Catalog("postgres", database=place_of(rest, own, self._where))
        named = _CATALOG.match(rest)
        kind = named[1].lower() if named else "duckdb"
        rest = rest[named.end() :] if named else rest
        if kind == "postgres":
            if _is_postgres(rest, where):
                return _Catalog("postgres", database=place_of(rest, own, self._where))
            raise DefinitionError(
                "a DuckLake catalog in Postgres is named by a URL",
                where=where,
                hint="Write ducklake:postgresql://${PGUSER}:${PGPASSWORD}@host/database",
            )
        path = Path(self._root) / expand_env(rest, where=where)
        return _Catalog(kind, path=str(path))

    @property
    def _alias(self) -> str:
        pinned = self._snapshot.version if self._snapshot is not None else "open"
        text = repr((self._written, sorted(self._settings.items()), self._data_path, pinned))
        return f"__ducklake_{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def _attach(self, connection: duckdb.DuckDBPyConnection, pinned: Sequence[str]) -> None:
        catalog = self._catalog()
        extension = {"sqlite": ("sqlite",), "postgres": ("postgres",)}.get(catalog.kind, ())
        load_extensions(connection, *extension, "ducklake")
        options = ["READ_ONLY", *pinned]
        if catalog.database is not None:
            secret = f"{self._alias}_{catalog.database.key}"
            rest = catalog.database.create_secret(connection, secret, lock_seconds=LOCK_SECONDS)
            target = f"postgres:{rest}"
            options.append(f"META_SECRET {quote_literal(secret)}")
        else:
            if not Path(catalog.path).exists():
                # What a variable holds may be a secret by mistake.
                shown = self._label if ENV_REFERENCE.search(self._written) else catalog.path
                raise SourceError(
                    f"there is no DuckLake catalog {shown}",
                    where=self._where,
                    hint="Set database_path to ducklake:sqlite:FILE, ducklake:FILE (DuckDB) or "
                    "ducklake:postgresql://...; relative files start at data_root",
                )
            target = catalog.path if catalog.kind == "duckdb" else f"{catalog.kind}:{catalog.path}"
        if data_path := self._data_path_given():
            options += [f"DATA_PATH {quote_literal(data_path)}", "OVERRIDE_DATA_PATH true"]
        connection.execute(
            f"ATTACH {quote_literal('ducklake:' + target)} AS {quote_ident(self._alias)} ({', '.join(options)})"
        )

    def _data_path_given(self) -> str:
        if not self._data_path:
            return ""
        path = below(self._root, expand_env(self._data_path, where=f"{self._where}.data_path"))
        return path.rstrip("/") + "/"

    def _allow_reading(self, connection: duckdb.DuckDBPyConnection, data_path: str) -> None:
        """Give the connection the keys of the object store that holds the lake's files."""
        if is_object_store(data_path):
            settings = {key: value for key, value in self._settings.items() if key in STORE_SETTINGS}
            ObjectStoreFiles(data_path, self._where, settings).setup(connection)

    # ------------------------------------------------------------------ snapshot

    def snapshot(self) -> DuckLakeSnapshot:
        """The lake's newest snapshot, or the one that the view or an earlier run's record names."""
        if self._snapshot is None:
            with bare_connection() as connection, plain_faults(self._where):
                self._snapshot = self._take_snapshot(connection)
        return self._snapshot

    def _take_snapshot(self, connection: duckdb.DuckDBPyConnection) -> DuckLakeSnapshot:
        pinned = [f"SNAPSHOT_VERSION {self._version}"] if self._version is not None else []
        if self._as_of:
            pinned = [f"SNAPSHOT_TIME {quote_literal(self._as_of)}"]
        # Only the catalog says where the files are, and DuckLake wants the reader of such a place beforehand.
        load_extensions(connection, "httpfs")
        self._attach(connection, pinned)
        alias = quote_ident(self._alias)
        (version,) = connection.execute(f"FROM {alias}.current_snapshot()").fetchall()[0]
        found = connection.execute(
            f"SELECT snapshot_time::VARCHAR FROM {alias}.snapshots() WHERE snapshot_id = ?", [version]
        ).fetchall()
        (own_path,) = connection.execute(
            "SELECT tags['data_path'] FROM duckdb_databases() WHERE database_name = ?", [self._alias]
        ).fetchall()[0]
        data_path = self._data_path_given() or str(own_path or "")
        self._allow_reading(connection, data_path)
        described = connection.execute(f"DESCRIBE SELECT * FROM {self._relation()}").fetchall()
        return DuckLakeSnapshot(
            place=self._label,
            version=int(version),
            committed_at=found[0][0] if found else "",
            relation=relation_label(self._table, self._query),
            types=tuple((row[0], row[1]) for row in described),
            data_path=data_path,
        )

    # ------------------------------------------------------------------ reading

    def setup(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Attach the lake at the run's snapshot."""
        with plain_faults(self._where):
            self._set_up(connection)

    def _set_up(self, connection: duckdb.DuckDBPyConnection) -> None:
        snapshot = self.snapshot()
        attached = connection.execute(
            "SELECT 1 FROM duckdb_databases() WHERE database_name = ?", [self._alias]
        ).fetchall()
        if not attached:
            self._allow_reading(connection, snapshot.data_path)
            # On a cursor: a source in Postgres may have begun the connection's transaction, and a secret made within
            # one is not there for the lake's catalog.
            with connection.cursor() as cursor:
                self._attach(cursor, [f"SNAPSHOT_VERSION {snapshot.version}"])

    def schema(self, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """The columns and their DuckDB types, as of the snapshot."""
        del connection
        return dict(self.snapshot().types)

    def relation_sql(self, time_range: TickRange | None = None, columns: Sequence[str] | None = None) -> str:
        """A SELECT of the columns and the range; the lake reads only files whose statistics allow them."""
        types = dict(self.snapshot().types)
        items = ", ".join(quote_ident(name) for name in chosen(types, columns)) or "1 AS __one"
        found = [name for name in types if name.lower() == self._time_column.lower()]
        bounds = range_conditions(time_range, found[0], types[found[0]], self._unit_us) if found else []
        where = f" WHERE {' AND '.join(bounds)}" if bounds else ""
        return f"(SELECT {items} FROM {self._relation()}{where})"

    def sound_sql(self, value: str, dtype: str) -> str:
        """What is true of every time but infinity, which no dtype has."""
        return f"isfinite({value})" if dtype in ("DATE", "TIMESTAMP", "TIMESTAMPTZ") else ""

    def _relation(self) -> str:
        """The table or query as a FROM item."""
        if self._table is not None:
            return f"{quote_ident(self._alias)}.{quote_ident(self._table[0])}.{quote_ident(self._table[1])}"
        schema = self._settings.get("schema", "main")
        return f"({_over_lake(self._query, self._alias, schema, self._where)}) AS q"

    def verify_unchanged(self) -> None:
        """Nothing to compare: all of the run reads at one snapshot."""

    def close(self) -> None:
        """Nothing is held."""


def _is_postgres(place: str, where: str) -> bool:
    """Whether the place, or the variable that it is, is a Postgres URL."""
    whole = ENV_REFERENCE.fullmatch(place) is not None
    return _POSTGRES_URL.match(expand_env(place, where=where) if whole else place) is not None


def _pinned_version(pin: Mapping[str, Any], where: str) -> int:
    version = pin.get("snapshot")
    if not isinstance(version, int):
        raise DefinitionError("the earlier run's record names no lake snapshot", where=where)
    return version


def _over_lake(query: str, alias: str, schema: str, where: str) -> str:
    """The query with every table it names taken from the lake; it can read nothing else.

    Raises:
        DefinitionError: it is not one SELECT, or reads files or other databases.
    """
    with bare_connection() as connection:
        (text,) = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchall()[0]
        tree = json.loads(text)
        if tree.get("error") or len(tree["statements"]) != 1:
            raise DefinitionError(
                f"the query is not one SELECT: {tree.get('error_message', 'it has several statements')}",
                where=f"{where}.query",
            )
        _qualify(tree, alias, schema, frozenset(), f"{where}.query")
        (sql,) = connection.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(tree)]).fetchall()[0]
    return str(sql)


def _qualify(node: Any, alias: str, schema: str, ctes: frozenset[str], where: str) -> None:
    if isinstance(node, list):
        for item in node:
            _qualify(item, alias, schema, ctes, where)
        return
    if not isinstance(node, dict):
        return
    named = node.get("cte_map")
    if isinstance(named, dict):
        ctes |= {str(entry["key"]).lower() for entry in named.get("map", [])}
    if node.get("type") == "BASE_TABLE":
        if node.get("catalog_name"):
            raise DefinitionError(
                f"the query names another database: {node['catalog_name']}",
                where=where,
                hint="Write table or schema.table",
            )
        if node.get("schema_name") or node["table_name"].lower() not in ctes:
            node["catalog_name"] = alias
            node["schema_name"] = node.get("schema_name") or schema
    elif node.get("type") == "TABLE_FUNCTION":
        raise DefinitionError(
            "the query calls a table function", where=where, hint="It may read the lake's tables only"
        )
    for item in node.values():
        _qualify(item, alias, schema, ctes, where)
