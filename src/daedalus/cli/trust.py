"""`daeda prove`, `daeda explain-row`, `daeda test`, `daeda lint`: whether a service's values can be trusted."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daedalus.cli.options import ServiceArgument, parse_day, service_or_default
from daedalus.cli.render import Format, FormatOption, cell_text, counted, cut, print_json, print_table, say

if TYPE_CHECKING:
    from daedalus.trust.feature_runs import FeatureTestResult

_WIDTH = 120


def prove(
    service: ServiceArgument = None,
    *,
    target_date: Annotated[str, typer.Option("--target-date", metavar="YYYY-MM-DD", help="The day.")],
    rows: Annotated[
        int, typer.Option("--rows", min=1, help="How many rows to recompute by brute force.")
    ] = 200,
    output: FormatOption = Format.TABLE,
) -> None:
    """Prove that a day's values see no future.

    Recomputes sampled rows by brute force, runs the day again with other futures, and lists every value that can
    see the future by its definition. Works on copies below the temporary folder. Exit code 1 when refuted.
    """
    day = parse_day(target_date)
    from daedalus.platform import PlatformRegistry
    from daedalus.platform import trust as platform

    verdict = platform.prove(PlatformRegistry.open(), service_or_default(service), day, rows=rows)
    if output is Format.JSON:
        print_json(verdict)
    else:
        _print_verdict(verdict)
    if verdict["verdict"] != "proved":
        raise typer.Exit(1)


def _print_verdict(verdict: dict[str, Any]) -> None:
    lines = [
        (check["check"], check["state"], check["rows"], check.get("columns"), check.get("values"))
        for check in verdict["checks"]
    ]
    print_table(("check", "state", "rows", "columns", "values"), lines)
    wrong = [
        (check["check"], one["column"], one["rows"], _short(one["examples"][:1]))
        for check in verdict["checks"]
        for one in (*check.get("leaks", ()), *check.get("mismatches", ()))
    ]
    if wrong:
        print_table(("check", "column", "rows", "example"), wrong)
    sees = [(one["column"], one["views"], one["rows"], one["why"]) for one in verdict["may_see_future"]]
    if sees:
        print_table(("may see the future", "of", "rows", "why"), sees)
    for text in verdict["not_covered"]:
        say(f"not covered: {text}")
    say(f"{verdict['service']} {verdict['day']}: {verdict['verdict']} (run {verdict['run_id']})")


def explain_row(
    service: ServiceArgument = None,
    *,
    date: Annotated[
        str, typer.Option("--date", "--target-date", metavar="YYYY-MM-DD", help="The row's day.")
    ],
    where: Annotated[
        str, typer.Option("--where", metavar="SQL", help="Picks the row, by the spine view's columns.")
    ],
    column: Annotated[
        list[str] | None, typer.Option("--column", help="Only this output column; may be repeated.")
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show what each value of one row is made of.

    The source events or the view version behind it, their times, and what does not count and why: same instant,
    outside the window, the row's own value, over max_items, not known yet. The first row that matches is explained.
    """
    day = parse_day(date, "--date")
    from daedalus.errors import DefinitionError, did_you_mean
    from daedalus.platform import PlatformRegistry
    from daedalus.platform import trust as platform

    found = platform.explain_row(PlatformRegistry.open(), service_or_default(service), day, where)
    known = [one["column"] for one in found["values"]]
    for name in column or ():
        if name not in known:
            if name in found["not_explained"]:
                what, hint = f"{name!r} is not explained: {found['not_explained'][name]}", ""
            else:
                what, hint = f"unknown column {name!r}", did_you_mean(name, known)
            raise DefinitionError(what, where="--column", hint=hint)
    if column:
        found["values"] = [one for one in found["values"] if one["column"] in column]
    if output is Format.JSON:
        print_json(found)
        return
    _print_row(found, whole=bool(column))


def lint(
    service: ServiceArgument = None,
    *,
    target_date: Annotated[
        str | None,
        typer.Option("--target-date", metavar="YYYY-MM-DD", help="The day; by default the newest."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when there is a finding.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Look for leaks that recommenders are prone to.

    A candidate in its own history, label events inside a window, latest joins that see the future, items not yet
    published, same-session echo, duplicate rows, NULL keys, one key with most rows, windows without history.
    """
    day = None if target_date is None else parse_day(target_date)
    from daedalus.platform import PlatformRegistry
    from daedalus.platform import trust as platform

    found = platform.lint(PlatformRegistry.open(), service_or_default(service), day)
    if output is Format.JSON:
        print_json(found)
    else:
        _print_findings(found)
    if strict and found["findings"]:
        raise typer.Exit(1)


def _print_findings(found: dict[str, Any]) -> None:
    lines = [
        (
            one["check"],
            one["subject"],
            f"{one['rows']} of {one['of']}",
            one["what"],
            cut(cell_text(one["examples"][0]), _WIDTH) if one["examples"] else "",
        )
        for one in found["findings"]
    ]
    if lines:
        print_table(("check", "subject", "rows", "what", "example"), lines)
        hints = dict.fromkeys((one["check"], one["hint"]) for one in found["findings"])
        print_table(("check", "what to do"), hints)
    for text in found["not_checked"]:
        say(f"not checked: {text}")
    say(f"{found['service']} {found['day']}: {counted(len(lines), 'finding')} in {found['rows']} rows")


def run_tests(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH", help="Files or folders; by default feature_tests.")
    ] = None,
    *,
    service: Annotated[str | None, typer.Option("--service", help="Only tests of this service.")] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Run feature tests: events in, expected values out.

    Reads feature_tests/*.yaml, runs each test's rows through the service's pipeline, and shows what differs. Exit
    code 1 when a test fails.
    """
    from daedalus.platform import PlatformRegistry
    from daedalus.platform import trust as platform

    results = platform.run_feature_tests(PlatformRegistry.open(), paths or (), service=service)
    failed = sum(not one.passed for one in results)
    if output is Format.JSON:
        print_json({"passed": not failed, "tests": [one.to_dict() for one in results]})
    else:
        _print_tests(results)
        say(f"{len(results) - failed} passed, {failed} failed")
    if failed:
        raise typer.Exit(1)


def _print_tests(results: list[FeatureTestResult]) -> None:
    lines = [(one.file, one.name, "passed" if one.passed else "FAILED", one.checked) for one in results]
    print_table(("file", "test", "state", "values"), lines)
    for one in results:
        if one.passed:
            continue
        rows = [
            (_short(dict(wrong.where)), wrong.column, _short(wrong.expected), _short(wrong.found))
            for wrong in one.differences
        ]
        print_table(
            ("row", "column", "expected", "found"), rows, title=f"{one.name} ({one.differences[0].place})"
        )


def _print_row(found: dict[str, Any], *, whole: bool) -> None:
    row = _timed(found["row"], found["time_column"])
    print_table(("row", "value"), row.items(), title=f"{found['service']} {found['day']}")
    lines = []
    for one in found["values"]:
        left_out = [f"{reason['rows']} {reason['reason']}" for reason in one["excluded"]]
        of = f"{len(one['used'])} of {one['view']}" if one["view"] else ""
        newest = one["used"][-1]["at"] if one["used"] else None
        lines.append((one["column"], _short(one["value"]), one["rule"], of, newest, "; ".join(left_out)))
    print_table(("column", "value", "rule", "made of", "newest", "left out"), lines)
    if whole:
        for one in found["values"]:
            _print_evidence(one)
    else:
        for name, why in found["not_explained"].items():
            say(f"not explained: {name}: {why}")
    for name in found["dropped_by"]:
        say(f"dropped by: {name}")
    if found["matches"] > 1:
        say(f"the first of {found['matches']} rows that match")


def _print_evidence(one: dict[str, Any]) -> None:
    time = one["time_column"]
    rows = [("used", _timed(row, time)) for row in one["used"]]
    rows += [(reason["reason"], _timed(row, time)) for reason in one["excluded"] for row in reason["newest"]]
    if rows:
        keys = list(rows[0][1])
        print_table(
            ("counts", *keys),
            [(reason, *(row.get(key) for key in keys)) for reason, row in rows],
            title=one["column"],
        )


def _timed(row: dict[str, Any], time_column: str) -> dict[str, Any]:
    """The row with its time first, under its own name, and once.

    >>> _timed({"at": "2026-05-01 00:00:00", "id": 1, "ts": "2026-05-01 00:00:00"}, "ts")
    {'ts': '2026-05-01 00:00:00', 'id': 1}
    """
    if not time_column:
        return {name: value for name, value in row.items() if name != "at"}
    return {time_column: row["at"]} | {
        name: value for name, value in row.items() if name not in ("at", time_column)
    }


def _short(value: object) -> str:
    return cut(json.dumps(value, ensure_ascii=False, default=str), _WIDTH)
