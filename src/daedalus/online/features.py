"""A service's columns for some entities as of now, from the store alone.

Each column comes from where it is freshest:

- a column of an `online` view, unless a curation rewrites it: from the view's newest row, its ttl as of now;
- a rolling feature, where the service says `online: {rolling: events}`: computed from the stored events;
- a spine column that the request itself has (the candidate, the context): from the request;
- everything else: from the service's last materialization.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from daedalus.catalog.dtypes import from_arrow, to_arrow, to_duckdb
from daedalus.errors import DefinitionError, ExecutionError, did_you_mean
from daedalus.online.arrays import one_array
from daedalus.online.instants import instant_of, instant_us
from daedalus.online.json_values import typed
from daedalus.online.model import ReadRequest, table_of_view
from daedalus.pipelines.operator_sql import default_sql
from daedalus.pipelines.operators import ProjectColumn
from daedalus.sql.identifiers import quote_ident
from daedalus.storage.duckdb_extensions import bare_connection
from daedalus.storage.exact_cast import cast_exactly

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping

    from daedalus.catalog.model import FeatureServiceDef, FeatureViewDef, ViewJoin
    from daedalus.catalog.registry import FeatureCatalog
    from daedalus.online.model import OnlineStore, OnlineTable, TableValues
    from daedalus.online.rolling import RollingPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineFeatures:
    """A service's columns, one row per entity asked for, in their order.

    Attributes:
        values: the contract's columns, `qid` left out, in the types of the materialization.
        origins: per column `service`, `view NAME`, `events` or `request`.
        tables: what each table had, by `service NAME` or a view's alias: status, event time, staleness.
    """

    service: str
    version: str
    as_of_us: int
    values: pa.Table
    origins: Mapping[str, str]
    tables: Mapping[str, TableValues]


class OnlineService:
    """Reads one service; make it once and keep it.

    Args:
        store: where from.
        service: the definition.
        catalog: its views.
        table: of its materialized rows.
        rolling: how its rolling features are computed; None takes those of the materialization.
    """

    def __init__(
        self,
        store: OnlineStore,
        service: FeatureServiceDef,
        catalog: FeatureCatalog,
        table: OnlineTable,
        rolling: RollingPlan | None = None,
    ) -> None:
        self._store = store
        self._service = service
        self._table = table
        self._rolling = rolling
        self._spine = catalog.view(service.spine)
        # Worked out once: a read of one entity is short beside it.
        self._spine_types = {one.name: to_arrow(one.dtype) for one in self._spine.fields}
        self._schema = {name: to_arrow(dtype) for name, dtype in (*table.layout.keys, *table.layout.fields)}
        contract = {column.name: column for column in service.columns}
        names = [name for name in contract if name in self._schema] or list(self._schema)
        self._contract = tuple((name, contract.get(name)) for name in names)
        self._defaults = _defaults_of(service, self._schema)
        self._needed = dict.fromkeys(table.keys, "the service's rows are found by it")
        if rolling is not None:
            self._needed = rolling.request_columns() | self._needed
        rewritten = {step.column for step in service.curation}
        self._joins: dict[str, tuple[ViewJoin, OnlineTable]] = {}
        self._live: dict[str, tuple[str, str]] = {}
        for column in service.columns:
            join = next((one for one in service.views if column.ref and one.alias == column.ref.view), None)
            if column.ref is None or join is None:
                continue
            # As expressions may call it; a name that means another column costs freshness, and no value.
            called = {column.name, column.ref.column, f"{join.alias}__{column.ref.column}"}
            if called & rewritten:
                continue
            view = catalog.view(join.view)
            if view.online and column.ref.column not in view.join_keys and self._asked_directly(join, view):
                self._joins[join.alias] = (join, table_of_view(view))
                self._live[column.name] = (join.alias, column.ref.column)

    def _asked_directly(self, join: ViewJoin, view: FeatureViewDef) -> bool:
        """Whether a request's own columns are the view's keys."""
        return all(self._spine.has_field(self._spine_name(join, key)) for key in view.join_keys)

    @staticmethod
    def _spine_name(join: ViewJoin, key: str) -> str:
        return next((spine for spine, own in join.on if own == key), key)

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that every request has."""
        return self._table.keys

    def request_table(self, rows: list[dict[str, Any]]) -> pa.Table:
        """Rows of a request as a table; texts are read as the spine's types.

        Raises:
            DefinitionError: a value does not fit its column.
        """
        columns = {}
        for name in dict.fromkeys(name for row in rows for name in row):
            values = [row.get(name) for row in rows]
            columns[name] = typed(values, self._type(name), name)
        return pa.table(columns)

    def _type(self, name: str) -> pa.DataType:
        if name not in self._spine_types:
            raise DefinitionError(
                f"the spine {self._spine.name} has no column {name!r}",
                where=f"service {self._service.name}, request",
                hint=did_you_mean(name, list(self._spine_types)),
            )
        return self._spine_types[name]

    def get(self, rows: pa.Table, *, as_of: dt.datetime | None = None) -> OnlineFeatures:
        """The columns for these entities, in one round trip; in two where rolling specs read static columns.

        Args:
            rows: the keys, and any other spine column that the request knows; rolling features take the candidate
                of `exclude_self` from here.
            as_of: the instant; None is now.

        Raises:
            DefinitionError: the request lacks a column.
            ExecutionError: the store does not answer, or a value does not fit the contract.
        """
        now = instant_us(as_of)
        rows = self._checked(rows)
        requests = [ReadRequest(table=self._table, keys=_columns(rows, self._table.keys))]
        aliases = []
        for alias, (join, table) in self._joins.items():
            names = [self._spine_name(join, key) for key in table.keys]
            if all(name in rows.column_names for name in names):
                aliases.append(alias)
                requests.append(ReadRequest(table=table, keys=_columns(rows, names)))
        events = self._rolling.requests(rows, now) if self._rolling else []
        instant = as_of or instant_of(now)
        answer = self._store.read(requests, events=events, as_of=instant)
        own, *views = answer.tables
        rolling: dict[str, pa.Array] = {}
        if self._rolling:
            completed = self._rolling.completed(self._store, rows, answer.events, instant)
            rolling = self._rolling.columns(*completed, now)
        return self._assembled(rows, own, dict(zip(aliases, views, strict=True)), rolling, now)

    def _checked(self, rows: pa.Table) -> pa.Table:
        for name, why in self._needed.items():
            if name not in rows.column_names:
                raise DefinitionError(
                    f"the request lacks {name!r}: {why}", where=f"service {self._service.name}, request"
                )
        columns = {name: _cast(rows.column(name), self._type(name), name) for name in rows.column_names}
        return pa.table(columns)

    def _assembled(
        self,
        rows: pa.Table,
        own: TableValues,
        views: Mapping[str, TableValues],
        rolling: Mapping[str, pa.Array],
        now: int,
    ) -> OnlineFeatures:
        values = {alias: one.values for alias, one in views.items()}
        asked = set(rows.column_names)
        origins: dict[str, str] = {}
        columns: dict[str, pa.Array] = {}
        for name, column in self._contract:
            ref = column.ref if column is not None else None
            alias, field = self._live.get(name, ("", ""))
            if ref is not None and ref.view == "rolling" and ref.column in rolling:
                value, origins[name] = rolling[ref.column], "events"
            elif alias in values:
                value, origins[name] = values[alias].column(field), f"view {self._joins[alias][0].view}"
            elif ref is not None and ref.view == self._spine.name and ref.column in asked:
                value, origins[name] = rows.column(ref.column), "request"
            elif name in self._table.keys:
                value, origins[name] = rows.column(name), "request"
            else:
                value, origins[name] = own.values.column(name), "service"
            columns[name] = _filled(_cast(value, self._schema[name], name), self._defaults.get(name))
        return OnlineFeatures(
            service=self._service.name,
            version=self._service.version,
            as_of_us=now,
            values=pa.table(columns),
            origins=origins,
            tables={self._table.subject: own, **views},
        )


def _defaults_of(service: FeatureServiceDef, schema: Mapping[str, pa.DataType]) -> dict[str, pa.Array]:
    """By column that may not be NULL the one value that stands for it, as the skeleton makes it."""
    wanted = {
        column.name: ProjectColumn(name=column.name, default=column.default)
        for column in service.columns
        if not column.nullable and column.name in schema
    }
    texts = {
        name: sql
        for name, column in wanted.items()
        if (sql := default_sql(column, to_duckdb(from_arrow(schema[name]))))
    }
    if not texts:
        return {}
    items = ", ".join(f"{sql} AS {quote_ident(name)}" for name, sql in texts.items())
    with bare_connection() as connection:
        made = connection.execute(f"SELECT {items}").to_arrow_table()
    return {name: one_array(_cast(made.column(name), schema[name], name)) for name in texts}


def _filled(value: pa.Array | pa.ChunkedArray, default: pa.Array | None) -> pa.Array | pa.ChunkedArray:
    """The column with its default in place of NULL, where it has one."""
    if default is None or not value.null_count:
        return value
    column = one_array(value)
    places = np.where(np.asarray(column.is_valid()), np.arange(len(column)), len(column))
    return pa.concat_arrays([column, default]).take(pa.array(places))


def _columns(rows: pa.Table, names: Iterable[str]) -> list[pa.Array]:
    return [one_array(rows.column(name)) for name in names]


def _cast(column: Any, kind: pa.DataType, name: str) -> Any:
    try:
        return cast_exactly(column, kind)
    except pa.ArrowException as error:
        raise ExecutionError(f"{name!r} does not fit {kind}: {error}") from None
