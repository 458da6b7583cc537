"""`daeda prove`, `daeda explain-row`, `daeda test`, `daeda lint`: whether a service's values can be trusted."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from daedalus.cli.pipeline import ServiceArgument, parse_day, service_or_default
from daedalus.cli.render import Format, FormatOption, print_json, print_table, say

_WIDTH = 60


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


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 2 * _WIDTH else text[: 2 * _WIDTH - 1] + "…"
