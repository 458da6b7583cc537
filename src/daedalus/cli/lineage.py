"""`daeda lineage`: where a column comes from, and what depends on it. Also `daeda platform lineage`."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from daedalus.cli.render import cut, print_json, print_table, say

_MADE_WIDTH = 48

app = typer.Typer(help="The project as a whole.", no_args_is_help=True, rich_markup_mode=None)


class LineageFormat(StrEnum):
    """What `daeda lineage` writes."""

    TABLE = "table"
    JSON = "json"
    MERMAID = "mermaid"
    OPENLINEAGE = "openlineage"


@app.command("lineage")
def lineage(
    service: Annotated[str | None, typer.Option("--service", help="Only this service.")] = None,
    column: Annotated[
        str | None,
        typer.Option("--column", metavar="COLUMN", help="Upstream of this output column; * for the rows."),
    ] = None,
    downstream: Annotated[
        str | None,
        typer.Option(
            "--downstream", metavar="VIEW:FIELD", help="What depends on this field, view or source."
        ),
    ] = None,
    output: Annotated[
        LineageFormat, typer.Option("--format", help="table, json, mermaid or openlineage.")
    ] = LineageFormat.TABLE,
) -> None:
    """Show where columns come from, or what depends on one.

    Read from the pipelines that would run. value: it is in the column's value; key, filter and time: it decides
    which rows, and which of them, the value is made of.
    """
    if column is not None and downstream is not None:
        raise typer.BadParameter("choose one of the two", param_hint="--column / --downstream")
    from daedalus.platform import PlatformRegistry
    from daedalus.platform.lineage import lineage_report, selected_graph

    platform = PlatformRegistry.open()
    selection: dict[str, Any] = {"service": service, "column": column, "downstream": downstream}
    if output is LineageFormat.MERMAID:
        from daedalus.catalog.lineage_views import to_mermaid

        sys.stdout.write(to_mermaid(selected_graph(platform, **selection)))
        return
    if output is LineageFormat.OPENLINEAGE:
        from daedalus.platform.openlineage import job_events

        print_json(job_events(platform, service=service))
        return
    report = lineage_report(platform, **selection)
    if output is LineageFormat.JSON:
        print_json(report)
    elif "columns" in report:
        _print_columns(report["columns"], many=service is None)
    else:
        _print_influences(report["influences"], upstream=column is not None)


def _print_columns(lines: list[dict[str, Any]], *, many: bool) -> None:
    keys = (("service",) if many else ()) + ("column", "value", "key", "filter", "time", "made")
    print_table(
        keys,
        [[cut(line[key], _MADE_WIDTH) if key == "made" else line[key] for key in keys] for line in lines],
    )


def _print_influences(lines: list[dict[str, Any]], *, upstream: bool) -> None:
    if upstream:
        keys = ("role", "origin", "sources", "through")
        by_column: dict[str, list[dict[str, Any]]] = {}
        for line in lines:
            by_column.setdefault(f"{line['service']}:{line['column']}", []).append(line)
        for name, found in by_column.items():
            print_table(keys, [[line[key] for key in keys] for line in found], title=name)
        return
    rows = [
        (
            line["service"],
            "(which rows there are)" if line["column"] == "*" else line["column"],
            line["role"],
            line["origin"],
            " > ".join(line["through"]),
        )
        for line in lines
    ]
    if not rows:
        say("nothing depends on it")
        return
    print_table(("service", "column", "role", "of", "through"), rows)
