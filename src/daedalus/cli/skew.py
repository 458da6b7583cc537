"""`daeda skew`: what is served beside what the sources give."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daedalus.cli.options import ServedRootOption, ServiceArgument, run_options, service_or_default
from daedalus.cli.render import Format, FormatOption, notices, print_json, print_table, say

if TYPE_CHECKING:
    from daedalus.trust.skew import SkewReport


class ServedBy(StrEnum):
    """A way of serving."""

    QUACK = "quack"
    ONLINE = "online"


class FailOn(StrEnum):
    """A cause that fails the command."""

    ANY = "any"
    LATE = "late"
    LAG = "lag"
    TTL = "ttl"
    VERSION = "version"
    DEFECT = "defect"


def skew(
    *,
    service: ServiceArgument = None,
    rows: Annotated[int, typer.Option("--rows", min=1, max=100_000, help="Entities to sample.")] = 100,
    seed: Annotated[int, typer.Option("--seed", help="Chooses other entities.")] = 0,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="TIME", help="ISO time, UTC. Default: the newest materialization's."),
    ] = None,
    path: Annotated[
        list[ServedBy] | None,
        typer.Option(
            "--path", help="Only this way of serving; may be repeated. Default: all that there are."
        ),
    ] = None,
    quack_uri: Annotated[
        str,
        typer.Option("--quack-uri", help="A running daemon; default: one that is started for this."),
    ] = "",
    fail_on: Annotated[
        list[FailOn] | None,
        typer.Option(
            "--fail-on", help="A cause that makes the exit code 1; may be repeated. Default: defect."
        ),
    ] = None,
    output_root: ServedRootOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Compare served values with what the sources give now.

    Samples entities, computes their values at one instant from the sources, reads them from Quack and from the online
    store, and says of each difference why: late arrival, lag, ttl, version, or defect. Exit code 1 for a defect.
    """
    from daedalus.platform import PlatformRegistry
    from daedalus.platform.skew import skew as run
    from daedalus.trust.skew import Cause

    report = run(
        PlatformRegistry.open(),
        service_or_default(service),
        rows=rows,
        seed=seed,
        as_of=as_of,
        paths=[one.value for one in path or ()],
        quack_uri=quack_uri,
        options=run_options(output_root=output_root),
    )
    if output is Format.JSON:
        print_json(_plain(report))
    else:
        _print_report(report)
    asked = fail_on or [FailOn.DEFECT]
    causes = list(Cause) if FailOn.ANY in asked else [Cause[one.name] for one in asked]
    if report.has(causes):
        raise typer.Exit(1)


def _plain(report: SkewReport) -> dict[str, Any]:
    return {
        "service": report.service,
        "version": report.version,
        "as_of": report.as_of.isoformat(),
        "entities": report.entities,
        "made_at": report.made_at,
        "compared": report.compared,
        "differences": report.counts(),
        "notices": list(report.notices),
    }


def _print_report(report: SkewReport) -> None:
    lines = [
        (one["path"], one["column"] or "(the entity)", one["cause"], one["values"], _example(one))
        for one in report.counts()
    ]
    if lines:
        print_table(("path", "column", "cause", "values", "example"), lines)
    compared = ", ".join(f"{count} values from {name}" for name, count in report.compared.items())
    say(
        f"{report.entities} entities as of {report.as_of.isoformat()}: {compared}, {len(report.differences)} differ"
    )
    notices(report.notices)


def _example(count: dict[str, Any]) -> str:
    one = count["examples"][0]
    return f"{one['key']}: {one['offline']!r:.40} offline, {one['served']!r:.40} served"
