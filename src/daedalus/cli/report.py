"""`daeda report`: a page about a service's data."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from daedalus.cli.options import ServiceArgument, service_or_default
from daedalus.cli.render import Format, FormatOption, counted, notices, print_json, print_table, say


def report(
    *,
    service: ServiceArgument = None,
    output_file: Annotated[
        Path | None, typer.Option("--output", help="Where to write; by default SERVICE-report.html here.")
    ] = None,
    last_days: Annotated[
        int | None, typer.Option("--last-days", min=1, help="Only the newest so many days.")
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Write an HTML page about a service's data.

    Schema, lineage, NULL rates, distributions, drift between days and what filters dropped; one file that needs no
    network. Made from the definitions and the days' manifests; no data is read.
    """
    from daedalus.platform import PlatformRegistry, describe
    from daedalus.platform.report import write_report

    written = write_report(
        PlatformRegistry.open(), service_or_default(service), output=output_file, last_days=last_days
    )
    if output is Format.JSON:
        print_json(describe(written))
        return
    if written.remarks:
        print_table(("column", "stands out"), written.remarks)
    say(
        f"wrote {written.path} ({counted(len(written.days), 'day')}, {written.rows} rows, {written.columns} columns)"
    )
    notices(written.notices)
