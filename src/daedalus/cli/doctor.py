"""`daeda doctor`: what would stand in a run's way here."""

from __future__ import annotations

from typing import Annotated

import typer

from daedalus.cli.render import Format, FormatOption, print_json, print_table, say


def doctor(
    *,
    show_all: Annotated[bool, typer.Option("--all", help="List what is fine, too.")] = False,
    output: FormatOption = Format.TABLE,
) -> int:
    """Look for what would stand in a run's way.

    Packages, DuckDB's extensions, extras, disk, memory, sources, stores, locks; changes nothing. Exit code 1 when
    something stands in the way, with the mend beside it.
    """
    from daedalus.platform import describe
    from daedalus.platform.health import State, diagnose

    diagnosis = diagnose()
    if output is Format.JSON:
        print_json({"healthy": diagnosis.is_healthy, **describe(diagnosis)})
        return 0 if diagnosis.is_healthy else 1
    shown = [one for one in diagnosis.findings if show_all or one.state is not State.OK]
    if shown:
        print_table(
            ("area", "what", "state", "found", "mend"),
            [(one.area, one.subject, one.state.value, one.detail, one.mend) for one in shown],
        )
    counts = {state: sum(one.state is state for one in diagnosis.findings) for state in State}
    say(f"{counts[State.OK]} fine, {counts[State.NOTE]} to know, {counts[State.PROBLEM]} in the way of a run")
    return 0 if diagnosis.is_healthy else 1
