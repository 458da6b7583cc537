"""Conditions as row masks: DuckDB evaluates each once over a whole history, whatever the engine."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from daedalus.errors import DefinitionError, ExecutionError
from daedalus.sql.fragments import parse_fragment
from daedalus.sql.identifiers import quote_ident

if TYPE_CHECKING:
    from collections.abc import Mapping

    import duckdb
    from numpy.typing import NDArray

    from daedalus.catalog.aggregation import AggregationSpec
    from daedalus.sql.fragments import Fragment

_TABLE = "daedalus_history"
_ROW = "daedalus_row"


class Session:
    """A DuckDB connection that opens when first used, with the caller's configuration and UTC."""

    def __init__(self, config: Mapping[str, object] | None) -> None:
        # DuckDB takes a registered Arrow table for one row and would plan every ASOF join as nested loops.
        self._config: dict[str, Any] = {"asof_loop_join_threshold": "0", **(config or {})}
        self._connection: duckdb.DuckDBPyConnection | None = None
        #: Held while the connection is in use: specs are computed on several threads.
        self.lock = threading.RLock()

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The open connection."""
        import duckdb

        if self._connection is None:
            try:
                self._connection = duckdb.connect(config=self._config)
            except duckdb.Error as exc:
                raise DefinitionError(
                    f"DuckDB refuses the configuration: {exc}", where="duckdb_config"
                ) from exc
            self._connection.execute("SET TimeZone = 'UTC'")
        return self._connection

    def close(self) -> None:
        """Close the connection, if one was opened."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def condition_fragment(spec: AggregationSpec, history: pa.Schema) -> Fragment | None:
    """The spec's condition over the history's columns, parsed; None when it has none.

    Raises:
        DefinitionError: it is not one safe expression over columns written `hist.name`.
    """
    if spec.condition is None:
        return None
    where = f"{spec.where}: condition"
    return parse_fragment(spec.condition, columns=history.names, where=where, qualifier="hist")


def condition_mask(
    session: Session, spec: AggregationSpec, fragment: Fragment, history: pa.Table
) -> NDArray[np.bool_]:
    """Per history row whether the condition is TRUE; NULL counts as false.

    Raises:
        DefinitionError: it does not bind to the columns, or is not boolean.
        ExecutionError: it fails on a row (a cast, say).
    """
    import duckdb

    # Neutral names: DuckDB folds case, and two columns may differ in nothing else.
    names = {name: f"c{number}" for number, name in enumerate(fragment.columns)}
    columns = {names[name]: _readable(history[name]) for name in fragment.columns}
    table = pa.table({**columns, _ROW: pa.array(np.arange(history.num_rows, dtype=np.int32))})
    predicate = fragment.render("hist", names)
    source = f"FROM {quote_ident(_TABLE)} AS hist"
    with session.lock:
        connection = session.connection
        connection.register(_TABLE, table)
        try:
            _require_boolean(connection, spec, f"DESCRIBE SELECT {predicate} {source}")
            # A value, never a filter: DuckDB hands filters to Arrow, where NaN is larger than nothing.
            query = f"SELECT {quote_ident(_ROW)}, coalesce({predicate}, false) {source}"
            rows, passes = connection.execute(query).to_arrow_table().columns
        except duckdb.Error as exc:
            raise ExecutionError(
                f"the condition fails on a row of the history: {_first_line(exc)}",
                where=f"{spec.where}: {spec.condition}",
                hint="Guard it, with TRY_CAST for one",
            ) from exc
        finally:
            connection.unregister(_TABLE)
    mask = np.zeros(history.num_rows, np.bool_)
    mask[rows.to_numpy()] = passes.to_numpy()
    return mask


def _require_boolean(connection: duckdb.DuckDBPyConnection, spec: AggregationSpec, query: str) -> None:
    import duckdb

    where = f"{spec.where}: {spec.condition}"
    try:
        described = connection.execute(query).fetchone()
    except duckdb.Error as exc:
        raise DefinitionError(
            f"the condition does not fit its columns: {_first_line(exc)}", where=where
        ) from exc
    found = described[1] if described else ""
    if found != "BOOLEAN":
        raise DefinitionError(
            f"the condition is {found}, not boolean", where=where, hint="Compare it with a value"
        )


def _readable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column in a type that DuckDB has."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
    return column.cast(pa.float32()) if pa.types.is_float16(column.type) else column


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0]
