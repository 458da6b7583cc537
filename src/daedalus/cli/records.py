"""`daeda plan`, `daeda reproduce`, `daeda diff-runs`: what would run, whether a run can be made again, what differs."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daedalus.cli.options import (
    AggregationOption,
    RuntimeOption,
    ServiceArgument,
    chosen_stages,
    parse_day,
    run_options,
    service_or_default,
)
from daedalus.cli.render import Format, FormatOption, counted, notices, print_json, print_table, say
from daedalus.cli.runs import RootOption, RunArgument  # noqa: TC001 - likewise

if TYPE_CHECKING:
    from daedalus.platform.plans import RunPlan
    from daedalus.platform.reproduction import Reproduction
    from daedalus.platform.run_diff import RunDiff

_COLUMNS_SHOWN = 6


def plan(
    service: ServiceArgument = None,
    *,
    target_date: Annotated[
        list[str] | None,
        typer.Option("--target-date", metavar="YYYY-MM-DD", help="Only this day; may be repeated."),
    ] = None,
    skeleton_only: Annotated[bool, typer.Option("--skeleton-only", help="Only the SQL stage.")] = False,
    enrich_only: Annotated[bool, typer.Option("--enrich-only", help="Only the embeddings.")] = False,
    runtime_config_path: RuntimeOption = None,
    aggregation_config_path: AggregationOption = None,
    output_root: Annotated[str | None, typer.Option("--output-root", help="Where the days lie.")] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show what `pipeline train` would do, and why.

    Which days are stale and because of which columns, what changed against registry.lock.json and the last run,
    and how long it would take, judged by past runs. Computes nothing.
    """
    stages = chosen_stages(skeleton_only=skeleton_only, enrich_only=enrich_only)
    days = [parse_day(text) for text in target_date or []]
    from daedalus.platform import PlatformRegistry
    from daedalus.platform.plans import plan_run

    found = plan_run(
        PlatformRegistry.open(),
        service_or_default(service),
        target_dates=days,
        stages=stages,
        options=run_options(runtime_config_path, aggregation_config_path, output_root=output_root),
    )
    if output is Format.JSON:
        print_json(found.to_dict())
    else:
        _print_plan(found)


def _print_plan(found: RunPlan) -> None:
    rows = [
        (day.day, day.stage, "runs" if day.reason else "up to date", _some(day.columns), day.rows, day.reason)
        for day in found.days
    ]
    print_table(("day", "stage", "state", "columns", "rows now", "why"), rows)
    if found.changes:
        changes = [(one.path, one.kind.value, one.reason) for one in found.changes]
        print_table(("against the lock", "kind", "reason"), changes)
    if found.since:
        causes = [(cause.kind.value, cause.what) for cause in found.since]
        print_table((f"since run {found.last_run}", ""), causes)
    days = len({day.day for day in found.writes})
    if not days:
        say("nothing to do: every day is up to date")
    elif found.seconds is None:
        say(f"{counted(days, 'day')} to write; no past run says how long that takes")
    else:
        past = counted(found.estimated_from, "day")
        say(f"{counted(days, 'day')} to write, about {found.seconds:g} s, judged by {past} that were written")
    notices(found.notices)


def reproduce(
    run_id: RunArgument,
    *,
    output_root: RootOption = None,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="FOLDER", help="Keep the new days in this folder.")
    ] = None,
    verify_only: Annotated[
        bool, typer.Option("--verify-only", help="Compare what the run was made from; run nothing.")
    ] = False,
    output: FormatOption = Format.TABLE,
) -> int:
    """Make a recorded run again and compare its days.

    Verifies commit, definitions, configuration, sources, stores and engines against the record, runs in a folder
    of its own, and compares content hashes. Checks nothing out. Exit code 1 when anything comes out differently.
    """
    from daedalus.cli.training import progress_bar
    from daedalus.platform import PlatformRegistry
    from daedalus.platform.reproduction import reproduce_run

    with progress_bar() as progress:
        found = reproduce_run(
            PlatformRegistry.open(),
            run_id,
            output_root=output_root,
            scratch=keep,
            verify_only=verify_only,
            progress=progress,
        )
    if output is Format.JSON:
        print_json(found.to_dict())
    else:
        _print_reproduction(found)
    return 0 if found.same or (verify_only and found.verified) else 1


def _print_reproduction(found: Reproduction) -> None:
    if found.ran:
        rows = [(day.day, day.stage, day.result, day.recorded, day.found) for day in found.days]
        print_table(("day", "stage", "result", "recorded", "now"), rows)
    if found.causes:
        heading = "different, without effect" if found.same else "what is different now"
        print_table((heading, ""), [(cause.kind.value, cause.what) for cause in found.causes])
    if found.difference is not None:
        _print_days(found.difference)
    if found.same:
        say(f"run {found.run_id} reproduced: {counted(len(found.days), 'day')} with equal content")
    elif found.error:
        say(f"run {found.run_id} cannot be made again: {found.error}")
    elif not found.ran:
        say("the inputs are those of the run" if found.verified else "the inputs are not those of the run")
    elif not found.causes:
        say("nothing that is recorded is different: a function of the project may not be deterministic")
    if found.kept:
        say(f"the new days are in {found.kept}")


def diff_runs(
    first: RunArgument,
    second: RunArgument,
    *,
    output_root: RootOption = None,
    second_root: Annotated[
        str | None,
        typer.Option("--second-root", help="The run root of the second run, where it is another one."),
    ] = None,
    examples: Annotated[int, typer.Option("--examples", min=0, help="Rows to show per column.")] = 3,
    output: FormatOption = Format.TABLE,
) -> int:
    """Show the days, columns and rows that differ.

    Of what two runs made. Exit code 1 when they do.
    """
    from daedalus.platform import PlatformRegistry
    from daedalus.platform.run_diff import diff_runs as compare

    found = compare(
        PlatformRegistry.open(),
        first,
        second,
        output_root=output_root,
        second_root=second_root,
        examples=examples,
    )
    if output is Format.JSON:
        print_json(found.to_dict())
    else:
        _print_days(found)
        say(f"{counted(found.same, 'day')} equal, {counted(len(found.days), 'day')} differ")
    return 1 if found.days else 0


def _print_days(found: RunDiff) -> None:
    rows: list[tuple[Any, ...]] = []
    for day in found.days:
        place = (day.day, day.stage)
        rows.append(
            (*place, "", "", f"{day.state}; {day.rows[0]} and {day.rows[1]} rows; {day.note}".strip("; "))
        )
        sides = (
            (day.only_first, day.examples_first, "first"),
            (day.only_second, day.examples_second, "second"),
        )
        for count, keys, side in sides:
            if count:
                rows.append((*place, "", count, f"rows only in the {side}: {_keys(keys)}"))
        for column in day.columns:
            shown = "; ".join(
                f"{_keys((key,))}: {_value(one)} and {_value(two)}" for key, one, two in column.examples
            )
            rows.append((*place, column.column, column.rows, column.note or shown))
    if rows:
        print_table(("day", "stage", "column", "rows", "difference"), rows)


def _some(names: tuple[str, ...]) -> str:
    more = f", ... {len(names)} columns" if len(names) > _COLUMNS_SHOWN else ""
    return ", ".join(names[:_COLUMNS_SHOWN]) + more


def _keys(keys: tuple[dict[str, Any], ...]) -> str:
    return ", ".join("/".join(_value(value) for value in key.values()) for key in keys)


def _value(value: object) -> str:
    from daedalus.cli.training import short

    return short(value)
