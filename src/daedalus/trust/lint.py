"""Lint for recommender leakage: what point-in-time correctness cannot see, counted in a day's rows.

    found = lint_day(pipeline, columns, config, day, folder)
    found["findings"][0]      # {"check": ..., "subject": ..., "rows": ..., "of": ..., "examples": [...], "hint": ...}

Reads copies of what the day is made from; runs nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from daedalus.catalog.model import JoinMode
from daedalus.pipelines.days.visibility import created_ticks
from daedalus.pipelines.duckdb_session import duckdb_session
from daedalus.sql.fragments import parse_fragment
from daedalus.sql.identifiers import quote_ident, quote_literal
from daedalus.trust.copies import INSTANT, ROW_ID, copy_sources, first_instant
from daedalus.trust.day_facts import rows_of
from daedalus.trust.values import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import date
    from pathlib import Path

    import duckdb

    from daedalus.catalog.aggregation import AggregationSpec
    from daedalus.pipelines.compiling.columns import ContractColumns
    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.pipelines.settings import TrainingRunConfig
    from daedalus.trust.copies import DayCopies

_SHOWN = 3
_LONGEST_SECONDS = 1e12
#: A key that is NULL in so many rows, or one value that has so many of them, is worth a look.
NULL_SHARE = 0.2
TOP_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something to look at.

    Attributes:
        subject: the feature, view or column.
        rows: rows of the day that show it.
        of: rows of the day.
        examples: some of them.
    """

    subject: str
    what: str
    rows: int
    of: int
    examples: tuple[dict[str, Any], ...] = ()
    hint: str = ""


def lint_day(
    pipeline: OperatorPipeline,
    columns: ContractColumns,
    config: TrainingRunConfig,
    day: date,
    folder: Path,
) -> dict[str, Any]:
    """What stands out in a day of a service, as plain data.

    Args:
        pipeline: what runs; says what to read.
        columns: the service's definitions, which are judged.
        config: the run's configuration.
        day: the day.
        folder: an empty folder for copies.

    Raises:
        ExecutionError: the day has no events.
    """
    copies = copy_sources(pipeline, columns, config, day, folder)
    with duckdb_session(config.duckdb_settings()) as connection:
        first = first_instant(columns, config, copies.ticks)
        linter = _Linter(connection, columns, copies, first)
        if not linter.total:
            raise copies.no_events()
        findings = [
            {"check": name, **asdict(finding), "examples": list(finding.examples)}
            for name, check in _CHECKS.items()
            for finding in check(linter)
        ]
    return {
        "service": pipeline.service,
        "day": day.isoformat(),
        "rows": linter.total,
        "checks": list(_CHECKS),
        "findings": findings,
        "not_checked": linter.skipped,
    }


class _Linter:
    """What the checks share: the day's rows and the history, as FROM items."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        columns: ContractColumns,
        copies: DayCopies,
        first: int | None,
    ) -> None:
        self.connection = connection
        self.first = first
        self.columns = columns
        self.copies = copies
        self.spine = columns.spine
        self.history = self.file(copies.spine)
        start, end = copies.day_range
        self.start = start
        self.day = f"(SELECT * FROM {self.history} WHERE {INSTANT} >= {start} AND {INSTANT} < {end}) AS r"
        self.total = self.number(f"SELECT count(*) FROM {self.day}")
        self.present = set(copies.views[copies.spine].columns)
        self.skipped: list[str] = []

    def file(self, view: str) -> str:
        """A view's copy as a FROM item."""
        return f"read_parquet({quote_literal(str(self.copies.views[view].file))})"

    def number(self, sql: str) -> int:
        """A statement's one number; 0 for NULL."""
        found = self.connection.execute(sql).fetchone()
        return int(found[0] or 0) if found else 0

    def smallest(self, sql: str) -> int | None:
        """A statement's one number, or None."""
        found = self.connection.execute(sql).fetchone()
        return None if found is None else found[0]

    def finding(self, rows: str, **said: str) -> Iterator[Finding]:
        """A finding of the rows that a FROM item gives, unless there are none.

        Args:
            rows: gives `ROW_ID` of rows of the day.
            said: what a `Finding` says.
        """
        count = self.number(f"SELECT count(*) FROM {rows}")
        if count:
            chosen = f"SELECT {ROW_ID} FROM {rows} ORDER BY {ROW_ID} LIMIT {_SHOWN}"
            shown = self.shown(f"SELECT * FROM {self.day} WHERE {ROW_ID} IN ({chosen}) ORDER BY {ROW_ID}")
            yield Finding(rows=count, of=self.total, examples=shown, **said)

    def shown(self, sql: str) -> tuple[dict[str, Any], ...]:
        """Rows of the day as examples: what names them."""
        names = dict.fromkeys(
            [self.spine.timestamp_field, *self.columns.service.grain, *self.spine.join_keys]
        )
        items = ", ".join(quote_ident(name) for name in names if name in self.present)
        table = self.connection.sql(f"SELECT {items} FROM ({sql})").to_arrow_table()
        return tuple({key: plain(value) for key, value in row.items()} for row in rows_of(table))

    def specs(self) -> Iterator[AggregationSpec]:
        """The rolling specs over the spine's own history that can be judged here."""
        for spec in self.columns.rolling_specs():
            if spec.history_view is not None:
                continue
            read = {*spec.group_by, *self._condition_columns(spec)}
            if read <= self.present:
                yield spec
            elif f"{spec.name}: reads static columns" not in self.skipped:
                self.skipped.append(f"{spec.name}: reads static columns")

    def _condition_columns(self, spec: AggregationSpec) -> tuple[str, ...]:
        return self.columns.condition_columns(spec, self.columns.history_types(None))

    def passes(self, spec: AggregationSpec, alias: str) -> str:
        """A spec's condition over a relation."""
        if spec.condition is None:
            return "true"
        types = self.columns.history_types(None)
        fragment = parse_fragment(spec.condition, columns=types, where=spec.name, qualifier="hist")
        return f"coalesce({fragment.render(alias)}, false)"

    def meets(self, spec: AggregationSpec, also: Iterable[str], *, rows: str = "true") -> str:
        """Rows of the day with an eligible history row that has the same group keys and `also`, as a FROM item."""
        keys = list(dict.fromkeys([*spec.group_by, *also]))
        ticks = self.copies.ticks
        delay = _ticks(spec.delay_seconds, ticks)
        names = ", ".join(quote_ident(name) for name in keys)
        equal = " AND ".join(f"d.{quote_ident(name)} = h.{quote_ident(name)}" for name in keys)
        past = f"SELECT DISTINCT {names}, {INSTANT} AS at FROM {self.history} AS hist WHERE {self.passes(spec, 'hist')}"
        ours = f"SELECT {ROW_ID}, {names}, {INSTANT} - {delay} AS until FROM {self.day} WHERE {rows}"
        window = ""
        if spec.window_days is not None:
            window = f" WHERE h.at >= d.until - {_ticks(spec.window_days * 86_400, ticks)}"
        return (
            f"(SELECT d.{ROW_ID} FROM ({ours}) d ASOF JOIN ({past}) h ON {equal} AND d.until > h.at{window})"
        )


def _ticks(seconds: float, per_second: int) -> int:
    """A span in ticks; one longer than any time's distance from another is as good as that."""
    return round(min(seconds, _LONGEST_SECONDS) * per_second)


# ------------------------------------------------------------------ the checks


def _candidate_in_its_own_history(linter: _Linter) -> Iterator[Finding]:
    keys = set(linter.spine.join_keys)
    for spec in linter.specs():
        value = spec.value_column
        if value is None or value not in keys or value in spec.group_by or spec.exclude_self:
            continue
        yield from linter.finding(
            linter.meets(spec, [value]),
            subject=spec.name,
            what=f"the row's own {value} is among what {spec.name} collects",
            hint="Set exclude_self: true, unless having met it before is meant to be a feature",
        )


def _label_in_window(linter: _Linter) -> Iterator[Finding]:
    for spec in linter.specs():
        if spec.include_current and not spec.delay_seconds:
            itself = f"(SELECT {ROW_ID} FROM {linter.day} WHERE {linter.passes(spec, 'r')})"
            yield from linter.finding(
                itself,
                subject=spec.name,
                what="the row's own event counts: include_current is true",
                hint="Set include_current: false where the event is what the model predicts",
            )
        if spec.condition is None or spec.exclude_self:
            continue
        keys = [key for key in linter.spine.join_keys if key in linter.present]
        yield from linter.finding(
            linter.meets(spec, keys, rows=linter.passes(spec, "r")),
            subject=spec.name,
            what=f"the same event of the same {' and '.join(keys)} is in the row's window",
            hint="Redelivered events? Drop repeats at the source, or set exclude_self: true",
        )


def _not_yet_published(linter: _Linter) -> Iterator[Finding]:
    for age in linter.columns.service.age_columns:
        if age.created.view == linter.spine.name:
            continue
        join = linter.columns.join(age.created.view)
        yield from _born_later(
            linter, join.view, age.created.column, linter.columns.join_keys(join), age.name
        )
    for lookback in linter.columns.lookbacks():
        view = linter.columns.catalog.view(lookback.view)
        keys = tuple((key, key) for key in view.join_keys)
        yield from _born_later(linter, view.name, view.timestamp_field, keys, lookback.name)


def _born_later(
    linter: _Linter, view_name: str, field: str, keys: Sequence[tuple[str, str]], subject: str
) -> Iterator[Finding]:
    copy = linter.copies.views.get(view_name)
    if copy is None or field not in copy.columns or any(left not in linter.present for left, _ in keys):
        return
    view = copy.view
    created = created_ticks(
        quote_ident(field), view.field(field).dtype, view.source.timestamp_unit, linter.copies.ticks
    )
    theirs = ", ".join(quote_ident(right) for _, right in keys)
    equal = " AND ".join(f"r.{quote_ident(left)} = v.{quote_ident(right)}" for left, right in keys)
    first = f"(SELECT {theirs}, min({created}) AS born FROM {linter.file(view_name)} GROUP BY {theirs}) v"
    yield from linter.finding(
        f"(SELECT r.{ROW_ID} FROM {linter.day} JOIN {first} ON {equal} WHERE v.born > r.{INSTANT})",
        subject=subject,
        what=f"{view_name}.{field} says that the row's {' and '.join(left for left, _ in keys)} came later",
        hint="Clocks that differ, or a creation time that is rewritten at the source",
    )


def _same_session_echo(linter: _Linter) -> Iterator[Finding]:
    session = linter.columns.service.session_column
    if not session or session not in linter.present:
        return
    for spec in linter.specs():
        if session in spec.group_by:
            continue
        yield from linter.finding(
            linter.meets(spec, [session]),
            subject=spec.name,
            what="the window holds events of the row's own session",
            hint="Served features may not be that fresh: delay_seconds says how late data arrives",
        )


def _duplicate_rows(linter: _Linter) -> Iterator[Finding]:
    grain = list(linter.columns.service.grain) or [*linter.spine.join_keys, linter.spine.timestamp_field]
    names = ", ".join(quote_ident(name) for name in dict.fromkeys(grain) if name in linter.present)
    if not names:
        return
    yield from linter.finding(
        f"(SELECT {ROW_ID} FROM {linter.day} QUALIFY count(*) OVER (PARTITION BY {names}) > 1)",
        subject=linter.spine.name,
        what=f"several rows have the same {names}",
        hint="The grain says what one row is: drop repeats at the source, or widen the grain",
    )


def _keys(linter: _Linter) -> dict[str, None]:
    """Columns of the spine that rows are grouped or joined by."""
    names = [name for spec in linter.columns.rolling_specs() for name in spec.group_by]
    aliases = {ref.view for ref in (*linter.columns.needed, *linter.columns.service.static_columns)}
    for join in linter.columns.service.views:
        if join.alias in aliases:
            names += [left for left, _ in linter.columns.join_keys(join)]
    return dict.fromkeys(name for name in names if name in linter.present)


def _null_storm(linter: _Linter) -> Iterator[Finding]:
    for name in _keys(linter):
        rows = f"(SELECT {ROW_ID} FROM {linter.day} WHERE {quote_ident(name)} IS NULL)"
        if linter.number(f"SELECT count(*) FROM {rows}") >= NULL_SHARE * max(linter.total, 1):
            yield from linter.finding(
                rows,
                subject=name,
                what="rows without it find nothing: lists are empty, lookups NULL",
                hint="Is it missing at the source, or mapped to another column?",
            )


def _one_key_has_most(linter: _Linter) -> Iterator[Finding]:
    for name in _keys(linter):
        column = quote_ident(name)
        most = (
            f"(SELECT {column} AS key, count(*) AS n FROM {linter.day} WHERE {column} IS NOT NULL "
            "GROUP BY 1 ORDER BY n DESC, 1 LIMIT 1)"
        )
        found = linter.connection.execute(f"SELECT key, n FROM {most}").fetchone()
        if found is None or linter.total < 2 or found[1] < max(TOP_SHARE * linter.total, 2):
            continue
        rows = f"(SELECT {ROW_ID} FROM {linter.day} WHERE {column} = (SELECT key FROM {most}))"
        yield from linter.finding(
            rows,
            subject=name,
            what=f"{name} {found[0]!r} alone",
            hint="A bot, a test account or a default value? It is what the model will learn",
        )


def _window_longer_than_history(linter: _Linter) -> Iterator[Finding]:
    for spec in linter.columns.rolling_specs():
        view = spec.history_view or linter.spine.name
        if spec.window_days is None or view not in linter.copies.views:
            continue
        ticks = linter.copies.ticks
        first = linter.first
        if spec.history_view is not None:
            first = linter.smallest(f"SELECT min({INSTANT}) FROM {linter.file(view)}")
        if first is None:
            continue
        reach = _ticks(spec.window_days * 86_400 + spec.delay_seconds, ticks)
        yield from linter.finding(
            f"(SELECT {ROW_ID} FROM {linter.day} WHERE {INSTANT} - {reach} < {first})",
            subject=spec.name,
            what=f"{spec.window_days:g} days back, {view} has nothing yet",
            hint="Train later days, or load earlier ones: these rows know less than served ones will",
        )


def _latest_sees_the_future(linter: _Linter) -> Iterator[Finding]:
    aliases = {ref.view for ref in (*linter.columns.needed, *linter.columns.service.static_columns)}
    for join in linter.columns.service.views:
        copy = linter.copies.views.get(join.view)
        keys = linter.columns.join_keys(join)
        timed = copy is not None and bool(copy.view.timestamp_field)
        if join.join is not JoinMode.LATEST or join.alias not in aliases or not timed:
            continue
        if any(left not in linter.present for left, _ in keys):
            continue
        theirs = ", ".join(quote_ident(right) for _, right in keys)
        equal = " AND ".join(f"r.{quote_ident(left)} = v.{quote_ident(right)}" for left, right in keys)
        newest = f"(SELECT {theirs}, max({INSTANT}) AS at FROM {linter.file(join.view)} GROUP BY {theirs}) v"
        yield from linter.finding(
            f"(SELECT r.{ROW_ID} FROM {linter.day} JOIN {newest} ON {equal} WHERE v.at >= r.{INSTANT})",
            subject=join.alias,
            what="the version that the row gets is not older than the row",
            hint="join: asof looks up what was known before the row",
        )


#: What is looked for, by the name under which docs/trust.md has it.
_CHECKS: dict[str, Callable[[_Linter], Iterator[Finding]]] = {
    "candidate in its own history": _candidate_in_its_own_history,
    "label event inside a feature window": _label_in_window,
    "latest join sees the future": _latest_sees_the_future,
    "not yet published": _not_yet_published,
    "same-session echo": _same_session_echo,
    "duplicate spine rows": _duplicate_rows,
    "NULL storm in a key": _null_storm,
    "one key has most of the rows": _one_key_has_most,
    "window longer than the source's history": _window_longer_than_history,
}
