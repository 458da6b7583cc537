"""A view's rows under canonical names and declared types, as SQL over its source.

Every value is checked on the way: a type that does not hold the source's value without loss, or a NULL where
the view says there is none, stops the query with the first offending value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daedalus.catalog.dtypes import INTEGERS, to_duckdb
from daedalus.errors import SourceError, did_you_mean
from daedalus.sql.choices import case_sql
from daedalus.sql.identifiers import quote_ident, quote_literal
from daedalus.storage.checked_casts import checked_cast, spelled
from daedalus.storage.sources.base import shape_sql, sound_sql, ticks_of
from daedalus.storage.view_source import ERROR_MARK, UNIT_US, source_name_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import duckdb

    from daedalus.catalog.model import FeatureViewDef, FieldDef
    from daedalus.storage.sources.base import Source, TickRange

_NESTED = ("STRUCT", "MAP", "UNION")
_INSTANTS = ("TIMESTAMP", "TIMESTAMPTZ")
#: Microseconds in what a dtype counts, where that is not one.
_TICK_US = {"TIMESTAMP_NS": 0.001, "TIMESTAMP_MS": 1_000, "TIMESTAMP_S": 1_000_000}
#: Microseconds between two values of dtypes that are coarser.
_COARSE_US = {"TIMESTAMP_MS": 1_000, "TIMESTAMP_S": 1_000_000, "DATE": 86_400_000_000}
#: Characters of a value that an error shows.
_SHOWN = 200
FLOATS = frozenset({"FLOAT", "DOUBLE"})


def apart_from_source(value: str) -> str:
    """The same float, which no source can filter by or foretell.

    DuckDB takes the statistics of a Parquet file for the truth, and they know no NaN; a filter that it hands to an
    Arrow table follows IEEE. To both, `NaN > 1` is false; here NaN is larger than every number.
    """
    return f"-(-({value}))"


@dataclass(frozen=True, slots=True)
class ViewColumn:
    """A declared field and what the source has for it.

    Attributes:
        dtype: the DuckDB type it is read as.
        source_type: the source's own type; empty when the source lacks the (optional) column.
    """

    name: str
    dtype: str
    source_name: str
    source_type: str

    @property
    def absent(self) -> bool:
        """Whether the source lacks it."""
        return not self.source_type


class ViewReader:
    """Renders SELECTs over one view.

    Args:
        view: the definition.
        source: its rows.
        connection: asked once for the source's schema.
        ticks_per_second: the unit of `__t`.
        dry: the statements are bound or shown, but not run: no source need fetch anything.

    Raises:
        SourceError: the source lacks a field that is not optional.
    """

    def __init__(
        self,
        view: FeatureViewDef,
        source: Source,
        connection: duckdb.DuckDBPyConnection,
        ticks_per_second: int,
        *,
        dry: bool = False,
    ) -> None:
        self.view = view
        self._dry = dry
        self._source = source
        self._ticks = ticks_per_second
        self._connection = connection
        self.columns = {column.name: column for column in _match(view, source.schema(connection))}

    def relation_sql(self) -> str:
        """The source itself, with its own columns."""
        return self._source.relation_sql(None)

    def order_by(self) -> list[str]:
        """The view's total order: its canonical columns, most significant first."""
        source = self.view.source
        leading = [source.timestamp_field, source.created_field, source.sequence_field, *self.view.join_keys]
        others = sorted(field.name for field in self.view.fields if _is_scalar(field.dtype))
        names = dict.fromkeys(name for name in [*leading, *others] if name)
        return [name for name in names if not self.columns[name].absent]

    def order_sql(self, *, descending: bool = False) -> str:
        """ORDER BY terms of the total order, NULLs first (or its exact reverse)."""
        direction = "DESC NULLS LAST" if descending else "ASC NULLS FIRST"
        return ", ".join(f"{self._order_key(name)} {direction}" for name in self.order_by()) or "1"

    def _order_key(self, name: str) -> str:
        """The column; a float as a term: DuckDB gives the values of a column that it sorts by as 0.0 for -0.0."""
        return f"({quote_ident(name)} + 0.0)" if self.columns[name].dtype in FLOATS else quote_ident(name)

    def select_sql(self, columns: Iterable[str], time_range: TickRange | None = None) -> str:
        """A SELECT of the named columns, and of `__t` (NULL without a time) for a view with time.

        Rows outside `time_range` are left out, and so are rows without a time when there is a range.
        """
        wanted = list(dict.fromkeys(columns))
        items = [self._checked(self.columns[name]) for name in wanted]
        if self.view.timestamp_field:
            items.append(f"{self._tick_sql()} AS __t")
        source_columns = self._source_columns(wanted)
        if self._dry:
            relation = shape_sql(self._source, time_range, source_columns)
        else:
            relation = self._source.relation_sql(time_range, source_columns)
        where = self._range_sql(time_range)
        return f"SELECT {', '.join(items) or '1 AS __one'} FROM {relation} AS raw{where}"

    def _source_columns(self, wanted: Iterable[str]) -> list[str]:
        """The source's own names of what is read, the time among them."""
        names = dict.fromkeys([*wanted, *([self.view.timestamp_field] if self.view.timestamp_field else [])])
        return [self.columns[name].source_name for name in names if not self.columns[name].absent]

    def _checked(self, column: ViewColumn) -> str:
        name = quote_ident(column.name)
        if column.absent:
            return f"CAST(NULL AS {column.dtype}) AS {name}"
        return f"{self._value_sql(column)} AS {name}"

    def _value_sql(self, column: ViewColumn) -> str:
        raw = f"raw.{quote_ident(column.source_name)}"
        if column.source_type in FLOATS:
            raw = apart_from_source(raw)
        value = raw if column.source_type == column.dtype else self._cast_sql(column, raw)
        if sound := sound_sql(self._source, raw, column.source_type):
            message = (
                f"{ERROR_MARK}{self._place(column)}{_read_from(column)}: a time that no dtype holds, infinity or one "
                "too far away. Convert it in source.query, such as NULLIF(column, 'infinity'). The first such value: "
            )
            shown = f"error({quote_literal(message)} || CAST({raw} AS VARCHAR))"
            value = f"CASE WHEN {raw} IS NULL OR {sound} THEN {value} ELSE {shown} END"
        if not self.view.field(column.name).nullable:
            message = f"{ERROR_MARK}{self._place(column)} holds NULL, but is declared nullable: false"
            complain = f"error({quote_literal(message)})"
            value = case_sql(column.dtype, (f"{raw} IS NULL", complain), otherwise=value)
        return value

    def _cast_sql(self, column: ViewColumn, raw: str) -> str:
        if self._counts_ticks(column):
            return self._instant_of_ticks(column, raw)
        self._require_castable(column)
        cast = checked_cast(raw, column.source_type, column.dtype)
        message = (
            f"{ERROR_MARK}{self._place(column)}{_read_from(column)}: a value of type {column.source_type} does not fit "
            f"the declared {self.view.field(column.name).dtype} without loss. {_mend(column)}. The first such value: "
        )
        shown = f"left(CAST({raw} AS VARCHAR), {_SHOWN})"
        complain = f"error({quote_literal(message)} || {shown})"
        return case_sql(column.dtype, (f"{raw} IS NULL", "NULL"), (cast.fits, cast.value), otherwise=complain)

    def _require_castable(self, column: ViewColumn) -> None:
        """Refuse a pair of types that DuckDB has no cast between, whatever the values."""
        import duckdb

        cast = checked_cast("raw.x", column.source_type, column.dtype)
        try:
            # On a cursor of its own: the connection may be in the middle of a result.
            with self._connection.cursor() as cursor:
                one = f"(SELECT CAST(NULL AS {column.source_type}) AS x) AS raw"
                cursor.execute(f"DESCRIBE SELECT {cast.value}, {cast.fits} FROM {one}")
        except duckdb.Error:
            raise SourceError(
                f"the source's type {column.source_type} cannot become the declared "
                f"{self.view.field(column.name).dtype}",
                where=f"{self._place(column)}{_read_from(column)}",
                hint="Declare the type that the source has, or convert it in source.query",
            ) from None

    def _counts_ticks(self, column: ViewColumn) -> bool:
        """Whether the source counts ticks in `timestamp_unit` where the view declares a timestamp."""
        is_time = column.name in (self.view.source.timestamp_field, self.view.source.created_field)
        return is_time and column.source_type in INTEGERS and column.dtype.startswith("TIMESTAMP")

    def _is_ordered_like_its_instant(self, column: ViewColumn) -> bool:
        """Whether the raw column can be compared in place of its value, so that the source can filter by it."""
        same = column.source_type == column.dtype or {column.source_type, column.dtype} <= set(_INSTANTS)
        return same or self._counts_ticks(column)

    def _instant_of_ticks(self, column: ViewColumn, raw: str) -> str:
        unit = UNIT_US[self.view.source.timestamp_unit]
        fine = "TIMESTAMP_NS" if unit < 1 else "TIMESTAMP"
        ticks = f"CAST({raw} AS BIGINT)"
        instant = f"make_timestamp_ns({ticks})" if unit < 1 else f"make_timestamp({ticks} * {round(unit)})"
        value = f"CAST({instant} AS {column.dtype})"
        if unit >= _TICK_US.get(column.dtype, 1):
            return value
        message = (
            f"{ERROR_MARK}{self._place(column)}{_read_from(column)}: an instant in {self.view.source.timestamp_unit} "
            f"does not fit {column.dtype} without loss. Declare a finer dtype, such as {fine}. The first such value: "
        )
        complain = f"error({quote_literal(message)} || CAST({raw} AS VARCHAR))"
        kept = f"CAST({value} AS {fine}) = {instant}"
        return case_sql(column.dtype, (f"{raw} IS NULL", "NULL"), (kept, value), otherwise=complain)

    def _place(self, column: ViewColumn) -> str:
        return f"view {self.view.name} ({self.view.file}), column {column.name}"

    def _tick_sql(self) -> str:
        column = self.columns[self.view.timestamp_field]
        value = self._value_sql(column)
        if column.dtype in INTEGERS:
            unit = UNIT_US[self.view.source.timestamp_unit]
            return f"(CAST({value} AS BIGINT) * {round(unit * self._ticks / 1_000_000)})"
        if self._ticks == 1_000_000_000:
            return f"epoch_ns(CAST({value} AS TIMESTAMP_NS))"
        return f"epoch_us(CAST({value} AS TIMESTAMP))"

    def _range_sql(self, time_range: TickRange | None) -> str:
        """The range on the raw column where its type allows it, so that file statistics apply."""
        if time_range is None or not self.view.timestamp_field:
            return ""
        column = self.columns[self.view.timestamp_field]
        raw_ok = self._is_ordered_like_its_instant(column)
        value = f"raw.{quote_ident(column.source_name)}" if raw_ok else self._value_sql(column)
        dtype = column.source_type if raw_ok else column.dtype
        bounds = []
        if time_range.low_us is not None:
            bounds.append(f"{value} >= {self._instant(time_range.low_us, dtype)}")
        if time_range.high_us is not None:
            bounds.append(f"{value} < {self._instant(time_range.high_us, dtype)}")
        if not bounds:
            bounds.append(f"{value} IS NOT NULL")
        return " WHERE " + " AND ".join(bounds)

    def _instant(self, us: int, dtype: str) -> str:
        """The first value of the column's type that is not before the instant; casts would round to the nearest."""
        if dtype in INTEGERS:
            unit = UNIT_US[self.view.source.timestamp_unit]
            return str(ticks_of(us, unit, up=True))
        coarse = _COARSE_US.get(dtype, 1)
        return f"CAST(make_timestamp({ticks_of(us, coarse, up=True) * coarse}) AS {dtype})"


def _match(view: FeatureViewDef, schema: dict[str, str]) -> list[ViewColumn]:
    folded: dict[str, list[str]] = {}
    for name in schema:
        folded.setdefault(name.lower(), []).append(name)
    columns = []
    for field in view.fields:
        wanted = source_name_of(view, field.name)
        found = [wanted] if wanted in schema else folded.get(wanted.lower(), [])
        if not found and not field.optional:
            raise _missing(view, field, wanted, schema)
        if len(found) > 1:
            raise SourceError(
                f"field {field.name!r} could be any of the source's columns {', '.join(found)}",
                where=f"view {view.name} ({view.file})",
                hint="Name one exactly with field_mapping",
            )
        name = found[0] if found else wanted
        kind = spelled(schema[name]) if found else ""
        columns.append(
            ViewColumn(name=field.name, dtype=to_duckdb(field.dtype), source_name=name, source_type=kind)
        )
    return columns


def _read_from(column: ViewColumn) -> str:
    """The source's own name of the column, where it differs."""
    return "" if column.source_name == column.name else f" (the source's {column.source_name})"


def _mend(column: ViewColumn) -> str:
    if column.source_type in ("VARCHAR", "JSON"):
        return "Mend the value at the source, or declare VARCHAR"
    return "Declare a wider dtype"


def _missing(view: FeatureViewDef, field: FieldDef, wanted: str, schema: dict[str, str]) -> SourceError:
    return SourceError(
        f"the source has no column {wanted!r} for field {field.name!r}",
        where=f"view {view.name} ({view.file})",
        hint=f"{did_you_mean(wanted, schema)} Map it with field_mapping, or declare the field optional: true",
    )


def _is_scalar(dtype: str) -> bool:
    return not dtype.endswith("]") and not dtype.startswith(_NESTED)
