"""Whether a day of a service keeps to the law: recomputed by brute force, and run again with other futures.

    verdict = prove_day(pipeline, columns, config, day, folder, rows=200)
    verdict["verdict"]        # "proved" or "refuted"

The pipeline that runs is judged, hand-edited or not, by what the definitions say. Nothing is written outside
`folder`, and no source is changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daedalus.metadata.days import DayStore
from daedalus.pipelines.duckdb_session import duckdb_session
from daedalus.pipelines.operators import QID_COLUMN
from daedalus.sql.identifiers import quote_ident, quote_literal
from daedalus.trust.brute_force import BruteForce
from daedalus.trust.copies import INSTANT, ROW_ID, copy_sources
from daedalus.trust.day_facts import DayFacts, rows_of
from daedalus.trust.futures import Futures, readers_of
from daedalus.trust.probe import probe_pipeline, run_probe
from daedalus.trust.values import NEAR, instant_text, plain, same

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date
    from pathlib import Path

    import duckdb

    from daedalus.catalog.model import FeatureViewDef
    from daedalus.pipelines.compiling.columns import ContractColumns
    from daedalus.pipelines.operators import OperatorPipeline
    from daedalus.pipelines.settings import TrainingRunConfig
    from daedalus.trust.copies import DayCopies

_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A day that is being proved.

    Attributes:
        clean: the rows that the pipeline makes of the copies, as a FROM item.
        compared: output columns that the definitions say everything about.
    """

    pipeline: OperatorPipeline
    columns: ContractColumns
    config: TrainingRunConfig
    copies: DayCopies
    connection: duckdb.DuckDBPyConnection
    folder: Path
    clean: str
    compared: tuple[str, ...]


def prove_day(
    pipeline: OperatorPipeline,
    columns: ContractColumns,
    config: TrainingRunConfig,
    day: date,
    folder: Path,
    *,
    rows: int = 200,
) -> dict[str, Any]:
    """The verdict on one day, as plain data.

    Args:
        pipeline: what runs: compiled, or edited by hand.
        columns: what the service's definitions say.
        config: the run's configuration.
        day: the target day.
        folder: an empty folder for copies; as large as what the day reads.
        rows: how many rows are recomputed by brute force.
    """
    copies = copy_sources(pipeline, columns, config, day, folder / "sources")
    clean = run_probe(probe_pipeline(pipeline), copies.catalog_of(), config, day, folder / "clean")
    with duckdb_session(config.duckdb_settings()) as connection:
        made = [row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {clean}").fetchall()]
        proof = Proof(
            pipeline=pipeline,
            columns=columns,
            config=config,
            copies=copies,
            connection=connection,
            folder=folder,
            clean=clean,
            compared=tuple(name for name in made if name not in (ROW_ID, QID_COLUMN)),
        )
        checks = [_brute_force(proof, rows), _poisoned(proof), _delivered(proof)]
        sees = _may_see_future(proof)
        total = _count(connection, clean)
    refuted = [check["check"] for check in checks if check["state"] == "refuted"]
    return {
        "service": pipeline.service,
        "version": pipeline.version,
        "day": day.isoformat(),
        "pipeline": "edited by hand" if pipeline.file else "compiled",
        "verdict": "refuted" if refuted else "proved",
        "rows": total,
        "checks": checks,
        "may_see_future": sees,
        "not_covered": _not_covered(proof),
    }


# ------------------------------------------------------------------ brute force


def _brute_force(proof: Proof, wanted: int) -> dict[str, Any]:
    """Recompute sampled rows and compare each value."""
    chosen = proof.connection.execute(
        f"SELECT {ROW_ID} FROM {proof.clean} ORDER BY hash({ROW_ID}), {ROW_ID} LIMIT {wanted}"
    ).fetchall()
    ids = ", ".join(str(row[0]) for row in chosen) or "-1"
    actual = rows_of(
        proof.connection.sql(
            f"SELECT * FROM {proof.clean} WHERE {ROW_ID} IN ({ids}) ORDER BY {ROW_ID}"
        ).to_arrow_table()
    )
    facts = DayFacts(proof.connection, proof.copies, proof.columns, proof.config)
    spine = facts.spine_rows(f"v.{ROW_ID} IN ({ids})")
    expected = BruteForce(facts, spine, evidence=False).outputs() if spine else {}
    mismatches = []
    for name, values in expected.items():
        if name not in proof.compared:
            mismatches.append(
                {"column": name, "rows": len(values), "examples": [], "why": "the output lacks it"}
            )
            continue
        wrong = [
            (row, value) for row, value in zip(actual, values, strict=True) if not same(row[name], value)
        ]
        if wrong:
            shown = [
                {"row": row[ROW_ID], "is": plain(row[name]), "should_be": plain(value)}
                for row, value in wrong[:_SHOWN]
            ]
            mismatches.append({"column": name, "rows": len(wrong), "examples": shown, "why": "another value"})
    return {
        "check": "brute force",
        "state": "refuted" if mismatches else "holds",
        "rows": len(spine),
        "columns": len(expected),
        "values": len(spine) * len(expected),
        "mismatches": mismatches,
    }


# ------------------------------------------------------------------ poisoned futures


def _poisoned(proof: Proof) -> dict[str, Any]:
    """Run again with another future, and look for values of the past that changed."""
    futures = Futures(proof.columns, proof.pipeline, proof.copies, proof.connection)
    cut, protected = futures.cut()
    pipeline, catalog = futures.law(proof.folder / "law", cut, protected)
    rows = run_probe(
        probe_pipeline(pipeline), catalog, proof.config, proof.copies.day, proof.folder / "law_out"
    )
    at_cut_too = futures.blind_at_the_instant(proof.compared)
    changed = compare(proof, rows, before=cut, protected=protected, blind=at_cut_too)
    gone = _gone(proof, rows, cut)
    by_nature = futures.judges_whole_day()
    leaks = [one for one in changed["columns"] if one["rows"]]
    if gone and not by_nature:
        leaks.append({"column": "(which rows there are)", "rows": gone, "examples": []})
    return {
        "check": "poisoned future",
        "state": "refuted" if leaks else "holds",
        "cut": instant_text(cut * (1_000_000_000 // proof.copies.ticks)),
        "rows": changed["rows"],
        "columns": len(proof.compared),
        "values": changed["rows"] * len(proof.compared),
        "changed_after": _count(proof.connection, rows) - changed["rows"],
        "rows_gone_by_nature": gone if by_nature else 0,
        "leaks": leaks,
    }


def compare(
    proof: Proof, other: str, *, before: int, protected: Sequence[int], blind: Sequence[str]
) -> dict[str, Any]:
    """Values that differ in rows of both runs, before an instant.

    Args:
        proof: the day.
        other: the other run's rows.
        before: the instant.
        protected: rows at the instant that count, too ...
        blind: ... in these columns.
    """
    spine = quote_literal(str(proof.copies.views[proof.copies.spine].file))
    own = ", ".join(map(str, protected)) or "-1"
    joined = (
        f"FROM {proof.clean} a JOIN {other} b USING ({ROW_ID}) "
        f"JOIN (SELECT {ROW_ID}, {INSTANT} AS __at FROM read_parquet({spine})) s USING ({ROW_ID}) "
        f"WHERE s.__at < {before} OR {ROW_ID} IN ({own})"
    )
    have = {row[0] for row in proof.connection.execute(f"DESCRIBE SELECT * FROM {other}").fetchall()}
    types = {
        row[0]: row[1] for row in proof.connection.execute(f"DESCRIBE SELECT * FROM {proof.clean}").fetchall()
    }
    names = [name for name in proof.compared if name in have]
    tests = [_differs(name, types[name], before, at_cut=name in blind) for name in names]
    items = ", ".join(f"count(*) FILTER ({test}), min({ROW_ID}) FILTER ({test})" for test in tests)
    found = proof.connection.execute(f"SELECT count(*), {items or '0'} {joined}").fetchone()
    counts: Sequence[Any] = found or (0,)
    columns = []
    for index, name in enumerate(names):
        differing, example = counts[1 + 2 * index], counts[2 + 2 * index]
        columns.append(
            {
                "column": name,
                "rows": int(differing),
                "examples": [] if example is None else [_example(proof, other, name, int(example))],
            }
        )
    return {"rows": int(counts[0]), "columns": columns}


def _differs(name: str, dtype: str, before: int, *, at_cut: bool) -> str:
    left, right = f"a.{quote_ident(name)}", f"b.{quote_ident(name)}"
    test = f"{left} IS DISTINCT FROM {right}"
    if dtype in ("DOUBLE", "FLOAT"):
        near = f"coalesce(abs({left} - {right}) <= {NEAR} * greatest(abs({left}), 1.0), false)"
        test = f"{test} AND NOT {near}"
    return f"({test})" if at_cut else f"({test}) AND s.__at < {before}"


def _example(proof: Proof, other: str, name: str, row: int) -> dict[str, Any]:
    values = [
        rows_of(
            proof.connection.sql(
                f"SELECT {quote_ident(name)} AS v FROM {rows} WHERE {ROW_ID} = {row}"
            ).to_arrow_table()
        )[0]["v"]
        for rows in (proof.clean, other)
    ]
    return {"row": row, "is": plain(values[0]), "with_another_future": plain(values[1])}


def _gone(proof: Proof, other: str, cut: int) -> int:
    """Rows before the cut that only one of the two runs has."""
    spine = quote_literal(str(proof.copies.views[proof.copies.spine].file))
    found = proof.connection.execute(
        f"SELECT count(*) FROM (SELECT {ROW_ID} FROM {proof.clean}) a FULL JOIN (SELECT {ROW_ID} FROM {other}) b "
        f"USING ({ROW_ID}) JOIN read_parquet({spine}) s USING ({ROW_ID}) "
        f"WHERE s.{INSTANT} < {cut} AND (a.{ROW_ID} IS NULL OR b.{ROW_ID} IS NULL)"
    ).fetchone()
    return int(found[0]) if found else 0


# ------------------------------------------------------------------ what may see the future


def _may_see_future(proof: Proof) -> list[dict[str, Any]]:
    """Columns that change with what is known later, by nature of their definition, and how many rows do."""
    futures = Futures(proof.columns, proof.pipeline, proof.copies, proof.connection)
    cut, protected = futures.cut()
    found = []
    for why in ("latest", "late"):
        changed = futures.allowed(why, proof.folder / why, cut)
        if changed is None:
            continue
        pipeline, catalog, views = changed
        rows = run_probe(
            probe_pipeline(pipeline), catalog, proof.config, proof.copies.day, proof.folder / f"{why}_out"
        )
        for one in compare(proof, rows, before=cut, protected=protected, blind=proof.compared)["columns"]:
            if one["rows"]:
                behind = [view for view in views if view in readers_of(proof.columns, one["column"])]
                found.append(
                    {
                        "column": one["column"],
                        "views": behind or list(views),
                        "why": why_it_changes(why, [proof.columns.catalog.view(view) for view in behind]),
                        "rows": one["rows"],
                        "examples": one["examples"],
                    }
                )
    return found


_WHY = {
    "latest": "join: latest reads the newest version, also one from after the row",
    "late": "a correction or a late arrival with an earlier time changes it, for nothing says when it was known",
    "unasked": "a late arrival changes it, for windows do not ask created_field; delay_seconds says how late data is",
}


def why_it_changes(future: str, views: Sequence[FeatureViewDef]) -> str:
    """Why a value made of these views changes with a `latest` or `late` future, and what would mend it."""
    known = bool(views) and all(view.source.created_field for view in views)
    return _WHY["unasked" if future == "late" and known else future]


def _delivered(proof: Proof) -> dict[str, Any]:
    """Whether the day that stands in the output is the one that was proved."""
    store = DayStore(proof.config.output_path / proof.pipeline.service / "skeleton")
    manifest = store.manifest(proof.copies.day)
    report: dict[str, Any] = {"check": "delivered day", "state": "absent", "rows": 0, "differing": []}
    if manifest is None:
        return report
    folder = store.path(proof.copies.day)
    files = [str(folder / name) for name, _ in manifest.files if name.endswith(".parquet")]
    stands = f"read_parquet({quote_literal(files)}, hive_partitioning = false)"
    have = {row[0] for row in proof.connection.execute(f"DESCRIBE SELECT * FROM {stands}").fetchall()}
    names = [name for name in proof.compared if name in have]
    missing = [name for name in proof.compared if name not in have]
    ordered = f"(SELECT * FROM {proof.clean} ORDER BY {ROW_ID})"
    items = ", ".join(
        f"count(*) FILTER (a.{quote_ident(name)} IS DISTINCT FROM b.{quote_ident(name)})" for name in names
    )
    found = proof.connection.execute(
        f"SELECT {items or '0'} FROM {stands} a POSITIONAL JOIN {ordered} b"
    ).fetchone()
    differing = [name for name, count in zip(names, found or (), strict=False) if count]
    rows = _count(proof.connection, proof.clean)
    differs = bool(differing or missing) or manifest.row_count != rows
    return report | {
        "state": "differs" if differs else "holds",
        "rows": manifest.row_count,
        "differing": [*differing, *missing],
    }


def _not_covered(proof: Proof) -> list[str]:
    """What the law says nothing about, where the service has it."""
    columns, found = proof.columns, []
    if columns.service.session_filter is not None:
        found.append("the session filter looks at the whole day")
    if columns.service.session_column:
        found.append("qid is a number, not a feature")
    names = [
        column.name for column in columns.service.columns if column.ref and column.ref.view == "embedding"
    ]
    if names:
        found.append(f"embeddings are looked up by id: {', '.join(names)}")
    return found


def _count(connection: duckdb.DuckDBPyConnection, relation: str) -> int:
    found = connection.execute(f"SELECT count(*) FROM {relation}").fetchone()
    return int(found[0]) if found else 0
