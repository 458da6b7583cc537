"""Where two runs' results differ: days, columns, rows.

Content hashes and column digests of the records say which days and columns differ; only these are read. Rows are
compared by DuckDB over both runs' Parquet, within its memory limit.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from daedalus.errors import ExecutionError
from daedalus.metadata.days import DayStore, InstantStore
from daedalus.pipelines.duckdb_session import duckdb_session
from daedalus.pipelines.records import TrainingRunRecord
from daedalus.platform.records import STAGE_FOLDERS, metadata_store
from daedalus.sql.identifiers import quote_ident, quote_literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import duckdb

    from daedalus.metadata.days import DayManifest
    from daedalus.pipelines.records import TrainingDayRecord
    from daedalus.platform.registry import PlatformRegistry

_FOLDERS = {**STAGE_FOLDERS, "materialize": "materialized"}
_PLACE = "__place"
_TWIN = "__twin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnDiff:
    """One column that differs.

    Attributes:
        rows: how many of the rows that both runs have differ in it; None when they could not be compared.
        examples: (row's key or place, first run's value, second run's value).
        note: what else there is to say: the column is new, its type is another one, only statistics are left.
    """

    column: str
    rows: int | None = None
    examples: tuple[tuple[dict[str, Any], Any, Any], ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DayDiff:
    """One day of one stage that differs.

    Attributes:
        state: `differs`, `only first` or `only second`.
        rows: of the first and of the second run.
        only_first: rows that only the first run has, by key; None when they could not be compared.
        examples_first: keys of some of them.
        note: why rows could not be compared, or that only their order differs.
    """

    stage: str
    day: str
    state: str
    rows: tuple[int, int] = (0, 0)
    columns: tuple[ColumnDiff, ...] = ()
    only_first: int | None = None
    only_second: int | None = None
    examples_first: tuple[dict[str, Any], ...] = ()
    examples_second: tuple[dict[str, Any], ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDiff:
    """Two runs compared.

    Attributes:
        same: how many days of all stages are equal.
        days: the others, ascending.
    """

    first: str
    second: str
    same: int
    days: tuple[DayDiff, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def diff_runs(
    registry: PlatformRegistry,
    first: str,
    second: str,
    *,
    output_root: Path | str | None = None,
    second_root: Path | str | None = None,
    examples: int = 3,
) -> RunDiff:
    """Compare the results of two recorded runs.

    Args:
        registry: the project.
        first: a run.
        second: another one.
        output_root: the run root that holds both; None takes the configured one.
        second_root: the run root of the second, where that is another one.
        examples: how many rows to show.
    """
    records = []
    for run_id, root in ((first, output_root), (second, second_root or output_root)):
        store = metadata_store(registry, root)
        records.append(TrainingRunRecord.of(store.find(run_id), store))
    one, other = records
    places = [
        metadata_store(registry, root).root / record.service
        for record, root in zip(records, (output_root, second_root or output_root), strict=True)
    ]
    return compare_records(one, other, places, registry.config().duckdb_settings(), examples=examples)


def compare_records(
    first: TrainingRunRecord,
    second: TrainingRunRecord,
    places: Sequence[Path],
    duckdb_config: Mapping[str, str],
    *,
    examples: int = 3,
) -> RunDiff:
    """The difference of two records whose days lie, as far as they still do, under `places`."""
    mine = {(day.day, day.stage): day for day in first.days if day.stage in _FOLDERS}
    theirs = {(day.day, day.stage): day for day in second.days if day.stage in _FOLDERS}
    found: list[DayDiff] = []
    same = 0
    for day, stage in sorted({*mine, *theirs}):
        one, other = mine.get((day, stage)), theirs.get((day, stage))
        if one is None or other is None:
            state = "only second" if one is None else "only first"
            rows = (one.rows if one else 0, other.rows if other else 0)
            found.append(DayDiff(stage=stage, day=day, state=state, rows=rows))
        elif one.content_hash == other.content_hash:
            same += 1
        else:
            sides = [_Side(place, record) for place, record in zip(places, (one, other), strict=True)]
            found.append(_compare_day(sides, first.grain, duckdb_config, examples))
    return RunDiff(first=first.run_id, second=second.run_id, same=same, days=tuple(found))


class _Side:
    """One run's version of a day.

    Attributes:
        manifest: of the day on disk, when that still is the one that was recorded.
    """

    def __init__(self, place: Path, record: TrainingDayRecord) -> None:
        self.record = record
        folder = place / _FOLDERS[record.stage]
        days: DayStore = InstantStore(folder) if record.stage == "materialize" else DayStore(folder)
        day = _key(record)
        found = days.manifest(day)
        matches = found is not None and found.content_hash == record.content_hash
        self.manifest: DayManifest | None = found if matches else None
        self.folder = days.path(day)

    @property
    def columns(self) -> Mapping[str, Mapping[str, Any]]:
        """The columns' statistics."""
        return self.manifest.columns if self.manifest is not None else self.record.columns

    def sql(self) -> str:
        """The rows, numbered in order."""
        assert self.manifest is not None  # noqa: S101 - the caller compares what is there
        parts = [
            f"SELECT *, {index} * (1::BIGINT << 40) + file_row_number AS {_PLACE} FROM read_parquet("
            f"{quote_literal(str(self.folder / name))}, file_row_number = true, hive_partitioning = false)"
            for index, (name, _) in enumerate(self.manifest.files)
        ]
        return f"(SELECT * EXCLUDE (file_row_number) FROM ({' UNION ALL BY NAME '.join(parts)}))"


def _key(record: TrainingDayRecord) -> dt.date:
    """The day, or the naive instant of a materialization."""
    if record.stage == "materialize":
        return dt.datetime.fromisoformat(record.day).replace(tzinfo=None)
    return dt.date.fromisoformat(record.day)


def _compare_day(
    sides: Sequence[_Side], grain: tuple[str, ...], duckdb_config: Mapping[str, str], examples: int
) -> DayDiff:
    one, other = sides
    types = [dict(side.record.schema) for side in sides]
    columns = [
        ColumnDiff(column=name, note="only the first run has it") for name in types[0] if name not in types[1]
    ]
    columns += [
        ColumnDiff(column=name, note="only the second run has it")
        for name in types[1]
        if name not in types[0]
    ]
    shared = [name for name in types[0] if name in types[1]]
    columns += [
        ColumnDiff(column=name, note=f"its type was {types[0][name]}, is {types[1][name]}")
        for name in shared
        if types[0][name] != types[1][name]
    ]
    alike = [name for name in shared if types[0][name] == types[1][name]]
    suspects = [
        name for name in alike if _digest(one, name) != _digest(other, name) or not _digest(one, name)
    ]
    suspects = [name for name in suspects if name != "qid"]
    rows = (one.record.rows, other.record.rows)
    common: dict[str, Any] = {
        "stage": one.record.stage,
        "day": one.record.day,
        "state": "differs",
        "rows": rows,
    }
    missing = [side for side in sides if side.manifest is None]
    if missing:
        columns += [_by_statistics(name, one, other) for name in suspects]
        note = f"the rows are not there any more: {missing[0].folder} holds another version of the day"
        return DayDiff(**common, columns=tuple(columns), note=note)
    keys = tuple(name for name in grain if name in alike)
    # The same keys in the same order: rows are compared by their place.
    moved = rows[0] != rows[1] or any(name in suspects for name in keys) or not keys
    with duckdb_session(dict(duckdb_config)) as connection:
        compared = _Comparison(connection, sides, keys if moved and keys else (), examples)
        found = [compared.column(name, keys) for name in suspects if name not in compared.keys]
        only = compared.unmatched()
    differing = [one for one in found if one.rows]
    order = not differing and not columns and not any(count for count, _ in only)
    return DayDiff(
        **common,
        columns=(*columns, *differing),
        only_first=only[0][0],
        only_second=only[1][0],
        examples_first=only[0][1],
        examples_second=only[1][1],
        note="only the order of the rows differs" if order else "",
    )


def _digest(side: _Side, column: str) -> str:
    return str(side.columns.get(column, {}).get("hash", ""))


def _by_statistics(column: str, one: _Side, other: _Side) -> ColumnDiff:
    before, after = one.columns.get(column, {}), other.columns.get(column, {})
    changed = [
        f"{name} {before.get(name)} to {after.get(name)}"
        for name in ("rows", "nulls", "min", "max", "mean", "distinct")
        if before.get(name) != after.get(name)
    ]
    return ColumnDiff(column=column, note="; ".join(changed) or "its values differ, its statistics do not")


class _Comparison:
    """Two versions of a day side by side in DuckDB.

    Args:
        connection: bounded by the configured memory limit.
        sides: the first and the second.
        keys: match rows by these, the n-th of equal ones with the n-th; empty matches by place.
        examples: how many rows to show.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        sides: Sequence[_Side],
        keys: tuple[str, ...],
        examples: int,
    ) -> None:
        self.keys = keys
        self._connection = connection
        self._examples = examples
        named = ", ".join(quote_ident(key) for key in keys)
        for name, side in zip(("a", "b"), sides, strict=True):
            twin = f"row_number() OVER (PARTITION BY {named} ORDER BY {_PLACE})" if keys else _PLACE
            connection.execute(f"CREATE TEMP VIEW {name} AS SELECT *, {twin} AS {_TWIN} FROM {side.sql()}")
        matched = [f"a.{quote_ident(key)} IS NOT DISTINCT FROM b.{quote_ident(key)}" for key in keys]
        self._on = " AND ".join([*matched, f"a.{_TWIN} = b.{_TWIN}"])

    def column(self, name: str, shown: tuple[str, ...]) -> ColumnDiff:
        """Rows of both that differ in one column."""
        column = quote_ident(name)
        labels = ", ".join([f"a.{quote_ident(key)}" for key in shown] or [f"a.{_PLACE} AS row_number"])
        source = f"FROM a JOIN b ON {self._on} WHERE a.{column} IS DISTINCT FROM b.{column}"
        count = self._fetch(f"SELECT count(*) {source}")[0][0]
        rows = (
            self._fetch(
                f"SELECT {labels}, a.{column}, b.{column} {source} ORDER BY a.{_PLACE} LIMIT {self._examples}"
            )
            if count
            else []
        )
        named = shown or ("row",)
        examples = tuple((dict(zip(named, row, strict=False)), row[-2], row[-1]) for row in rows)
        return ColumnDiff(column=name, rows=count, examples=examples)

    def unmatched(self) -> list[tuple[int, tuple[dict[str, Any], ...]]]:
        """Rows that only one side has, per side, with the keys of some."""
        found = []
        for mine, theirs in (("a", "b"), ("b", "a")):
            labels = ", ".join(f"{mine}.{quote_ident(key)}" for key in self.keys) or f"{mine}.{_PLACE}"
            source = f"FROM {mine} ANTI JOIN {theirs} ON {self._on}"
            count = self._fetch(f"SELECT count(*) {source}")[0][0]
            sql = f"SELECT {labels} {source} ORDER BY {mine}.{_PLACE} LIMIT {self._examples}"
            rows = self._fetch(sql) if count else []
            named = self.keys or ("row",)
            found.append((count, tuple(dict(zip(named, row, strict=True)) for row in rows)))
        return found

    def _fetch(self, sql: str) -> list[tuple[Any, ...]]:
        import duckdb

        try:
            return self._connection.execute(sql).fetchall()
        except duckdb.Error as error:
            first = str(error).splitlines()[0]
            raise ExecutionError(
                f"the days cannot be compared: {first}",
                hint="Raise compute.duckdb_config.memory_limit, or give it a temp_directory to spill to",
            ) from error
