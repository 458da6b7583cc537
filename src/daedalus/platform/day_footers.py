"""What a finished day holds, read from its Parquet footers alone, and whether that is what its service promises."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from daedalus.errors import ExecutionError
from daedalus.platform.project import final_stage

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping
    from pathlib import Path

    from daedalus.catalog.logical_schema import Schema
    from daedalus.platform.project import RunOptions
    from daedalus.platform.registry import PlatformRegistry

QID = "qid"


@dataclass(frozen=True, slots=True, kw_only=True)
class DayFooters:
    """A day as its files' footers say.

    Attributes:
        folder: the day's folder, of the last stage that the service has.
        rows: of all files.
        size_bytes: of all files.
        dtypes: column to dtype, in file order.
        nulls: column to NULL values, for columns that are no lists or structs: footers do not tell for those.
        promised_rows: what the day was committed with.
    """

    day: str
    folder: Path
    files: int
    rows: int
    size_bytes: int
    dtypes: Mapping[str, str]
    nulls: Mapping[str, int]
    promised_rows: int

    @property
    def null_rates(self) -> dict[str, float]:
        """Column to the share of its rows that are NULL."""
        return {name: count / self.rows if self.rows else 0.0 for name, count in self.nulls.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class DayCheck:
    """One thing that a day was looked at for.

    Attributes:
        name: `row_count`, `null_rates` or `schema`.
        blocking: whether what failed makes the day unusable, rather than worth a look.
        found: what was looked at, as plain data.
    """

    name: str
    passed: bool
    summary: str
    blocking: bool = True
    found: dict[str, Any] = field(default_factory=dict)


#: The checks and what they look for.
CHECKS: Mapping[str, str] = {
    "row_count": "The day has rows, and as many as it was written with.",
    "null_rates": "No NULL where the service allows none, and no column that is NULL throughout.",
    "schema": "Columns, their order and their dtypes are the service's contract.",
}


def day_footers(
    registry: PlatformRegistry, service: str, day: dt.date, *, options: RunOptions | None = None
) -> DayFooters:
    """Read the footers of a day.

    Raises:
        DefinitionError: no such service.
        ExecutionError: the day is not there, or not whole.
    """
    import pyarrow.parquet as pq

    from daedalus.catalog.dtypes import from_arrow
    from daedalus.metadata.days import DayStore

    config = registry.config(options)
    store = DayStore(config.output_path / service / final_stage(registry.pipeline(service, config)))
    manifest = store.manifest(day)
    if manifest is None:
        raise ExecutionError(
            "the day is not there, or not whole",
            where=str(store.path(day)),
            hint=f"daeda materialize-day {service} makes it",
            day=day.isoformat(),
        )
    paths = [store.path(day) / name for name, _ in manifest.files if name.startswith("part-")]
    footers = [pq.ParquetFile(path) for path in paths]
    nulls: dict[str, int] = {}
    for footer in footers:
        for name, count in _nulls(footer.metadata).items():
            nulls[name] = nulls.get(name, 0) + count
    return DayFooters(
        day=day.isoformat(),
        folder=store.path(day),
        files=len(paths),
        rows=sum(footer.metadata.num_rows for footer in footers),
        size_bytes=sum(path.stat().st_size for path in paths),
        dtypes={one.name: from_arrow(one.type) for one in footers[0].schema_arrow} if footers else {},
        nulls=nulls,
        promised_rows=manifest.row_count,
    )


def _nulls(metadata: Any) -> dict[str, int]:
    """Flat column to NULL values; a column whose statistics are missing somewhere is left out."""
    found: dict[str, int] = {}
    unknown: set[str] = set()
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            name, schema = column.path_in_schema, metadata.schema.column(index)
            if schema.max_repetition_level or schema.max_definition_level > 1:
                continue
            statistics = column.statistics
            if statistics is None or not statistics.has_null_count:
                unknown.add(name)
                continue
            found[name] = found.get(name, 0) + statistics.null_count
    return {name: count for name, count in found.items() if name not in unknown}


def check_day(
    registry: PlatformRegistry, service: str, day: dt.date, *, options: RunOptions | None = None
) -> tuple[DayCheck, ...]:
    """Look at a day in each way of `CHECKS`; reads footers alone.

    Raises:
        DefinitionError: no such service.
        ExecutionError: the day is not there, or not whole.
    """
    footers = day_footers(registry, service, day, options=options)
    facade = registry.facade(registry.config(options))
    schema = facade.schema(service)
    sessions = bool(facade.service(service).session_column)
    return (_row_count(footers), _null_rates(footers, schema), _schema(footers, schema, sessions))


def _row_count(footers: DayFooters) -> DayCheck:
    if footers.rows != footers.promised_rows:
        summary = f"{footers.rows} rows, but {footers.promised_rows} were written"
        passed, blocking = False, True
    else:
        passed, blocking = footers.rows > 0, False
        summary = f"{footers.rows} rows" if passed else "no rows"
    return DayCheck(
        name="row_count", passed=passed, summary=summary, blocking=blocking, found={"rows": footers.rows}
    )


def _null_rates(footers: DayFooters, schema: Schema) -> DayCheck:
    never = {column["name"] for column in schema["columns"] if column.get("nullable", True) is False}
    wrong = sorted(name for name, count in footers.nulls.items() if count and name in never)
    empty = sorted(name for name, count in footers.nulls.items() if count == footers.rows > 0)
    if wrong:
        summary = f"NULL in {', '.join(wrong)}, which may hold none"
    elif empty:
        summary = f"NULL throughout: {', '.join(empty)}"
    else:
        summary = f"{len(footers.nulls)} columns looked at"
    rates = {name: round(rate, 6) for name, rate in footers.null_rates.items() if rate}
    return DayCheck(
        name="null_rates", passed=not wrong and not empty, summary=summary, blocking=bool(wrong), found=rates
    )


def _schema(footers: DayFooters, schema: Schema, sessions: bool) -> DayCheck:
    promised = {column["name"]: str(column.get("dtype", "")) for column in schema["columns"]}
    names = [*promised, *([QID] if sessions and QID not in promised else [])]
    wrong: dict[str, Any] = {}
    if names != list(footers.dtypes):
        wrong["missing"] = [name for name in names if name not in footers.dtypes]
        wrong["not promised"] = [name for name in footers.dtypes if name not in names]
        wrong["order"] = list(footers.dtypes)
    for name, dtype in promised.items():
        actual = footers.dtypes.get(name)
        if actual is not None and dtype and not _same_dtype(actual, dtype):
            wrong[name] = f"{actual}, promised {dtype}"
    return DayCheck(
        name="schema",
        passed=not wrong,
        summary=f"differs from the contract: {', '.join(wrong)}"
        if wrong
        else f"{len(names)} columns as promised",
        found=wrong,
    )


def _same_dtype(actual: str, promised: str) -> bool:
    """Whether values of both are the same; a list's dimension may be part of its dtype, or stand beside it.

    >>> _same_dtype("FLOAT[4]", "FLOAT[]"), _same_dtype("FLOAT[]", "DOUBLE[]"), _same_dtype("VARCHAR", "TEXT")
    (True, False, True)
    """
    from daedalus.catalog.dtypes import canonical_dtype, element_dtype, is_list

    one, other = canonical_dtype(actual), canonical_dtype(promised)
    if is_list(one) and is_list(other):
        return _same_dtype(element_dtype(one), element_dtype(other))
    return one == other
