"""Why a row says what it says: the events or the version behind each value, and what does not count and why.

    found = explain_row(pipeline, columns, config, day, where="user_id = 7", folder=folder)
    found["values"][0]        # {"column": ..., "value": ..., "used": [...], "excluded": [...]}

The values are those of the definitions, worked out by brute force; `daeda prove` compares them with what runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daedalus.catalog.model import JoinMode
from daedalus.errors import DefinitionError, ExecutionError
from daedalus.pipelines.duckdb_session import duckdb_session
from daedalus.sql.fragments import parse_fragment, require_boolean
from daedalus.trust.brute_force import BruteForce
from daedalus.trust.copies import INSTANT, ROW_ID, copy_sources
from daedalus.trust.day_facts import NUMBER, TIME, DayFacts
from daedalus.trust.values import instant_text, plain

if TYPE_CHECKING:
    import datetime as dt
    from pathlib import Path

    from daedalus.catalog.model import ServiceColumn
    from daedalus.pipelines.compiling.columns import ContractColumns
    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.pipelines.settings import TrainingRunConfig
    from daedalus.trust.brute_force import Evidence
    from daedalus.trust.day_facts import Row

_EXAMPLES = 10
_MATCHES = 1_000


def explain_row(
    pipeline: OperatorPipeline,
    columns: ContractColumns,
    config: TrainingRunConfig,
    day: dt.date,
    *,
    where: str,
    folder: Path,
) -> dict[str, Any]:
    """The first row of the day for which `where` holds, explained, as plain data.

    Args:
        pipeline: what runs; says what to read.
        columns: the service's definitions.
        config: the run's configuration.
        day: the day.
        where: a boolean SQL expression over the spine view's columns.
        folder: an empty folder for copies.

    Raises:
        DefinitionError: `where` is no such expression.
        ExecutionError: no row of the day meets it.
    """
    types = {field.name: field.dtype for field in columns.spine.fields}
    fragment = parse_fragment(where, columns=types, where="--where")
    require_boolean(fragment, {name: types[name] for name in fragment.columns}, "--where")
    copies = copy_sources(pipeline, columns, config, day, folder)
    start, end = copies.day_range
    with duckdb_session(config.duckdb_settings()) as connection:
        facts = DayFacts(connection, copies, columns, config)
        absent = [name for name in fragment.columns if name not in facts.copy(copies.spine).columns]
        if absent:
            raise DefinitionError(f"the source has no column {absent[0]!r}", where="--where")
        condition = f"{INSTANT} >= {start} AND {INSTANT} < {end} AND {fragment.render('v')}"
        found = facts.spine_rows(condition, _MATCHES)
        if not found:
            raise ExecutionError("no row of the day meets it", where=f"--where {where}", day=day.isoformat())
        row = found[0]
        covered = bool(facts.covered([row]))
        force = BruteForce(facts, [row])
        values = {name: made[0] for name, made in force.outputs().items()}
        dropped = ([] if covered else ["embedding coverage filter"]) + force.dropped()[0]
        explained = [
            _explained(column, columns, values, force)
            for column in columns.service.columns
            if column.name in values
        ]
    return {
        "service": pipeline.service,
        "day": day.isoformat(),
        "row": _shown(row),
        "time_column": columns.spine.timestamp_field or "",
        "number": row[NUMBER],
        "matches": len(found),
        "dropped_by": dropped,
        "values": explained,
        "not_explained": _not_explained(columns, values),
    }


def _not_explained(columns: ContractColumns, values: dict[str, Any]) -> dict[str, str]:
    """Output columns that no rows of a view are behind, and why not."""
    found = {
        column.name: "it is always its default" if column.ref is None else "it is looked up by id"
        for column in columns.service.columns
        if column.name not in values
    }
    return found | ({"qid": "it numbers the session"} if columns.service.session_column else {})


def _explained(
    column: ServiceColumn, columns: ContractColumns, values: dict[str, Any], force: BruteForce
) -> dict[str, Any]:
    ref = column.ref
    name = "" if ref is None else columns.names.get(ref, ref.column)
    evidence = force.assembled.get(name)
    report: dict[str, Any] = {
        "column": column.name,
        "ref": str(ref),
        "value": plain(values[column.name]),
        "rule": _rule(column, columns),
        "view": "",
        "time_column": "",
        "used": [],
        "excluded": [],
    }
    if evidence is None:
        return report
    one = evidence[0]
    return report | {
        "view": one.view,
        "time_column": columns.catalog.view(one.view).timestamp_field or "",
        "used": [_shown(row) for row in one.used],
        "excluded": _excluded(one),
    }


def _excluded(evidence: Evidence) -> list[dict[str, Any]]:
    """What does not count, by reason: how many, and the newest of them."""
    reasons: dict[str, list[Row]] = {}
    for row, reason in evidence.excluded:
        reasons.setdefault(reason, []).append(row)
    return [
        {"reason": reason, "rows": len(rows), "newest": [_shown(row) for row in rows[-_EXAMPLES:]]}
        for reason, rows in reasons.items()
    ]


def _shown(row: Row) -> dict[str, Any]:
    """A source row as people read it: its time first."""
    at = row[TIME]
    shown: dict[str, Any] = {"at": None if at is None else instant_text(at)}
    return shown | {key: plain(value) for key, value in row.items() if key not in (TIME, NUMBER, ROW_ID)}


def _rule(column: ServiceColumn, columns: ContractColumns) -> str:
    """How the value is made, in a line."""
    ref = column.ref
    if ref is None:
        return "a default"
    if ref.view == "rolling":
        spec = columns.specs[ref.column]
        window = "the whole past" if spec.window_days is None else f"{spec.window_days:g} d"
        of = f" of {spec.value_column}" if spec.value_column else ""
        condition = f" where {spec.condition}" if spec.condition else ""
        return f"{spec.operation}{of} by {', '.join(spec.group_by)} over {window}{condition}"
    if ref.view == "lookback":
        lookback = next(one for one in columns.lookbacks() if one.name == ref.column)
        return f"first appearances of {lookback.value_column} in {lookback.view}"
    if ref.view == "derived":
        return next(one.sql for one in columns.derived() if one.name == ref.column)
    if ref.view == "age":
        created = next(one.created for one in columns.service.age_columns if one.name == ref.column)
        return f"whole days since {created}"
    if ref.view == columns.spine.name:
        return "the row's own"
    join = columns.join(ref.view)
    future = "; may be from the row's future" if join.join is JoinMode.LATEST else ""
    return f"{join.join} version of {join.view}{future}"
