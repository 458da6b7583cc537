"""`daeda materialize` and `daeda materialize-day`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daedalus.cli.online import load_lines, print_loads
from daedalus.cli.options import (
    AggregationOption,
    AsOfOption,
    OutputRootOption,
    RuntimeOption,
    ServiceArgument,
    parse_day,
    run_options,
    service_or_default,
)
from daedalus.cli.render import Format, FormatOption, notices, print_json, print_mapping, print_table, say

if TYPE_CHECKING:
    from daedalus.pipelines.instants.materialize_run import MaterializationResult
    from daedalus.platform.online_loading import OnlineLoad


class Form(StrEnum):
    """What is written, and what is printed."""

    PARQUET = "parquet"
    DUCKDB = "duckdb"
    DUCKLAKE = "ducklake"
    TABLE = "table"
    JSON = "json"


EntitiesOption = Annotated[
    Path | None, typer.Option("--entities", help="A Parquet file of entity keys: rows for these alone.")
]
_PRINTED = (Form.TABLE, Form.JSON)


def _one(forms: list[Form], default: Form) -> Form:
    if len(forms) > 1:
        raise typer.BadParameter(f"choose one of {', '.join(forms)}", param_hint="--format")
    return forms[0] if forms else default


def materialize(
    *,
    service: ServiceArgument = None,
    form: Annotated[
        list[Form] | None,
        typer.Option(
            "--format",
            help="parquet (default), duckdb or ducklake: what is written. table or json: what is printed. "
            "May be given twice.",
        ),
    ] = None,
    as_of: AsOfOption = None,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            help="A folder, a DuckDB file or a lake's catalog, relative to the project. "
            "Default: under the output root.",
        ),
    ] = "",
    entities: EntitiesOption = None,
    online: Annotated[
        bool,
        typer.Option(
            "--online", help="Load the rows, and the service's online views, into the online store, too."
        ),
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="With --online: mark entities as deleted that the sources no longer have."
        ),
    ] = False,
    output_root: OutputRootOption = None,
    runtime_config_path: RuntimeOption = None,
    aggregation_config_path: AggregationOption = None,
) -> None:
    """Write a service's features as of a time.

    One row per entity, with the values that the skeleton would write for an event of that instant.
    """
    from daedalus.cli.training import progress_bar
    from daedalus.platform import PlatformRegistry

    forms = form or []
    written = _one([one for one in forms if one not in _PRINTED], Form.PARQUET)
    printed = _one([one for one in forms if one in _PRINTED], Form.TABLE)
    _check_online(online, prune, written, output)
    wanted: dict[str, Any] = {
        "as_of": as_of,
        "entities": None if entities is None else entities.absolute(),
        "options": run_options(runtime_config_path, aggregation_config_path, output_root=output_root),
    }
    registry, name, loaded = PlatformRegistry.open(), service_or_default(service), None
    with progress_bar() as progress:
        if online:
            from daedalus.platform.online_loading import materialize_online

            result, loaded = materialize_online(registry, name, prune=prune, progress=progress, **wanted)
        else:
            from daedalus.platform.materialization import materialize as run

            result = run(registry, name, format=written.value, output=output, progress=progress, **wanted)
    _show(result, loaded, as_json=printed is Form.JSON)


def _show(result: MaterializationResult, loaded: OnlineLoad | None, *, as_json: bool) -> None:
    from daedalus.platform import describe

    report: dict[str, Any] = {
        key: value for key, value in describe(result).items() if key not in {"manifest", "schema"}
    }
    if as_json:
        also = (
            {}
            if loaded is None
            else {
                "online": {
                    "run_id": loaded.run_id,
                    "tables": load_lines(loaded.tables),
                    "events": loaded.events,
                }
            }
        )
        print_json(report | also | {"schema": [list(pair) for pair in result.schema]})
        return
    shown = {key: report[key] for key in ("service", "as_of", "row_count", "content_hash", "path", "run_id")}
    print_mapping(shown | ({"table": result.table} if result.table else {}))
    if loaded is not None:
        print_loads(loaded.tables, Format.TABLE)
    notices(result.notices)


def _check_online(online: bool, prune: bool, written: Form, output: str) -> None:
    if prune and not online:
        raise typer.BadParameter("it goes with --online", param_hint="--prune")
    if online and (written is not Form.PARQUET or output):
        raise typer.BadParameter("it loads the Parquet rows under the output root", param_hint="--online")


def materialize_day(
    *,
    service: ServiceArgument = None,
    date: Annotated[str, typer.Option("--date", "--target-date", metavar="YYYY-MM-DD", help="The day.")],
    output_root: OutputRootOption = None,
    runtime_config_path: RuntimeOption = None,
    aggregation_config_path: AggregationOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Make one training partition, as pipeline train does."""
    from daedalus.cli.training import progress_bar
    from daedalus.platform import PlatformRegistry, describe
    from daedalus.platform.materialization import materialize_day as run

    day = parse_day(date, "--date")
    options = run_options(runtime_config_path, aggregation_config_path, output_root=output_root)
    with progress_bar() as progress:
        result = run(
            PlatformRegistry.open(), service_or_default(service), day, options=options, progress=progress
        )
    report = describe(result)
    if output is Format.JSON:
        print_json(report | {"output_path": str(result.output_path)})
        return
    columns = ("day", "stage", "state", "rows", "reason")
    print_table(columns, [[one.get(column) for column in columns] for one in report["days"]])
    say(f"output: {result.output_path}")
    notices(result.notices)
