"""Runs feature tests: the pipeline over the rows that a test gives, compared with what it expects."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from daedalus.catalog.aggregation import TICKS_PER_SECOND
from daedalus.catalog.dtypes import to_arrow, to_duckdb
from daedalus.catalog.registry import FeatureCatalog
from daedalus.errors import DefinitionError, ExecutionError, did_you_mean
from daedalus.pipelines.duckdb_session import duckdb_session
from daedalus.pipelines.pipeline_checks import check_pipeline
from daedalus.pipelines.run_sources import scanned_views
from daedalus.trust.copies import copied_view
from daedalus.trust.probe import probe_pipeline, run_probe
from daedalus.trust.values import plain, same

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from daedalus.catalog.model import FeatureViewDef
    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.pipelines.settings import TrainingRunConfig
    from daedalus.trust.feature_tests import Expectation, FeatureTest


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A value that is not what a test expects.

    Attributes:
        column: the output column; `(rows)` where it is about which rows there are.
        place: file and path of the expectation.
        where: what picks the row.
    """

    column: str
    expected: Any
    found: Any
    where: Mapping[str, Any]
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTestResult:
    """What came of one test; it passed when there are no differences."""

    name: str
    service: str
    file: str
    checked: int
    differences: tuple[Difference, ...]

    @property
    def passed(self) -> bool:
        """Whether everything is as expected."""
        return not self.differences

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for programs."""
        return {
            "name": self.name,
            "service": self.service,
            "file": self.file,
            "passed": self.passed,
            "checked": self.checked,
            "differences": [
                {
                    "column": one.column,
                    "expected": plain(one.expected),
                    "found": plain(one.found),
                    "where": plain(dict(one.where)),
                    "place": one.place,
                }
                for one in self.differences
            ],
        }


def run_feature_test(
    test: FeatureTest,
    pipeline: OperatorPipeline,
    catalog: FeatureCatalog,
    config: TrainingRunConfig,
    folder: Path,
) -> FeatureTestResult:
    """Make the test's day below `folder`, an empty one, and compare.

    Raises:
        DefinitionError: the test names a view, field or column that is not there, or a value of the wrong type.
    """
    check_pipeline(pipeline)
    for view in test.rows:
        if view not in catalog.views:
            raise DefinitionError(
                f"unknown view {view!r}", where=test.place, hint=did_you_mean(view, catalog.views)
            )
    folder.mkdir(parents=True, exist_ok=True)
    views = []
    for index, name in enumerate(dict.fromkeys([*scanned_views(pipeline), *test.rows])):
        rows = test.rows.get(name, ())
        file = folder / f"{index}.parquet"
        views.append(_write(catalog.views[name], rows, file, test.place))
    given = {view.name for view in views}
    others = [view for name, view in catalog.views.items() if name not in given]
    copied = FeatureCatalog(
        entities=catalog.entities, views=[*views, *others], services=catalog.services.values()
    )
    try:
        relation = run_probe(
            probe_pipeline(pipeline, numbered=False), copied, config, test.day, folder / "out"
        )
    except ExecutionError as error:
        error.where = ", ".join(part for part in (test.place, error.where) if part)
        raise
    with duckdb_session(config.duckdb_settings()) as connection:
        rows = connection.sql(f"SELECT * FROM {relation}").to_arrow_table().to_pylist()
        names = connection.sql(f"SELECT * FROM {relation} LIMIT 0").columns
    found = [one for expectation in test.expect for one in _compared(expectation, rows, names)]
    if test.row_count is not None and len(rows) != test.row_count:
        found.append(
            Difference(column="(rows)", expected=test.row_count, found=len(rows), where={}, place=test.place)
        )
    checked = sum(max(len(one.values), 1) for one in test.expect) + (test.row_count is not None)
    return FeatureTestResult(
        name=test.name, service=test.service, file=test.file, checked=checked, differences=tuple(found)
    )


# ------------------------------------------------------------------ rows in


def _write(view: FeatureViewDef, rows: Sequence[Mapping[str, Any]], file: Path, place: str) -> FeatureViewDef:
    """The view over a file of these rows; fields that no row gives may be NULL, and a sequence counts the rows."""
    known = [field.name for field in view.fields]
    for row in rows:
        for name in row:
            if name not in known:
                raise DefinitionError(
                    f"view {view.name} has no field {name!r}", where=place, hint=did_you_mean(name, known)
                )
    given = {name for row in rows for name in row}
    sequence = view.source.sequence_field
    if sequence and sequence not in given:
        rows = [{**row, sequence: index + 1} for index, row in enumerate(rows)]
    columns: dict[str, pa.Array] = {}
    for field in view.fields:
        if field.optional and field.name not in given:
            continue
        values = [_value(view, field.name, row.get(field.name), place) for row in rows]
        try:
            columns[field.name] = pa.array(values, to_arrow(to_duckdb(field.dtype)))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise DefinitionError(
                f"view {view.name}, field {field.name}: {str(error).splitlines()[0]}",
                where=place,
                hint=f"Its dtype is {field.dtype}",
            ) from None
    pq.write_table(pa.table(columns), file)
    fields = tuple(field if field.name in given else replace(field, nullable=True) for field in view.fields)
    return replace(copied_view(view, file), fields=fields)


def _value(view: FeatureViewDef, name: str, value: Any, place: str) -> Any:
    """A value as its field has it: times may be written as text, whatever they are stored as."""
    dtype = view.field(name).dtype
    is_time = name in (view.timestamp_field, view.source.created_field)
    if not isinstance(value, str) or not (dtype.startswith(("TIMESTAMP", "DATE")) or is_time):
        return value
    try:
        at = dt.datetime.fromisoformat(value)
        aware = at.replace(tzinfo=dt.UTC) if at.tzinfo is None else at.astimezone(dt.UTC)
    except (ValueError, OverflowError):  # OverflowError: an offset leads out of the years 1 to 9999
        raise DefinitionError(
            f"view {view.name}, field {name}: {value!r} is not a time",
            where=place,
            hint="Write YYYY-MM-DD HH:MM:SS",
        ) from None
    if dtype == "DATE":
        return aware.date()
    if dtype.startswith("TIMESTAMP"):
        zoned = "TZ" in dtype or "ZONE" in dtype
        return aware if zoned else aware.replace(tzinfo=None)
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    ticks = TICKS_PER_SECOND[view.source.timestamp_unit]
    return (aware - epoch) // dt.timedelta(microseconds=1) * ticks // 1_000_000


# ------------------------------------------------------------------ values out


def _compared(
    expectation: Expectation, rows: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> list[Difference]:
    for name in (*expectation.where, *expectation.values):
        if name not in names:
            raise DefinitionError(
                f"the output has no column {name!r}",
                where=expectation.place,
                hint=did_you_mean(name, names),
            )
    picked = [row for row in rows if all(_is(row[name], value) for name, value in expectation.where.items())]
    if expectation.absent or not picked:
        if expectation.absent and not picked:
            return []
        wanted = "no such row" if expectation.absent else "such a row"
        return [
            Difference(
                column="(rows)",
                expected=wanted,
                found=f"{len(picked)} of {len(rows)}",
                where=expectation.where,
                place=expectation.place,
            )
        ]
    return [
        Difference(
            column=name, expected=value, found=row[name], where=expectation.where, place=expectation.place
        )
        for row in picked
        for name, value in expectation.values.items()
        if not _is(row[name], value)
    ]


def _is(found: Any, expected: Any) -> bool:
    """Whether a value is what a test says; times are written as text."""
    if isinstance(found, list) and isinstance(expected, list):
        return len(found) == len(expected) and all(map(_is, found, expected))
    if isinstance(expected, str) and isinstance(found, dt.datetime | dt.date):
        try:
            at = dt.datetime.fromisoformat(expected)
        except ValueError:
            return False
        if not isinstance(found, dt.datetime):
            return at.date() == found
        return at.replace(tzinfo=at.tzinfo or dt.UTC) == found.replace(tzinfo=found.tzinfo or dt.UTC)
    if isinstance(found, bool) is not isinstance(expected, bool):
        return False
    return same(found, expected) if type(found) is type(expected) else bool(found == expected)
