"""`daeda online`: read a service from the online store, push rows to it, load views, ask how it is."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from daedalus.cli.options import AsOfOption, RuntimeOption, run_options
from daedalus.cli.render import Format, FormatOption, print_json, print_mapping, print_table

app = typer.Typer(help="The online store of the project.", no_args_is_help=True, rich_markup_mode=None)


@app.command("get")
def get(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="A service with serving_allowed: true.")],
    key: Annotated[
        list[str],
        typer.Option(
            "--key",
            help="COLUMN=VALUE, or COLUMN=VALUE,COLUMN=VALUE for a key of several columns; once per entity. "
            "Other spine columns that the request knows may stand among them.",
        ),
    ],
    as_of: AsOfOption = None,
    runtime_config_path: RuntimeOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Read a service from the online store.

    Its columns for some entities, as of now, in one round trip.
    """
    from daedalus.platform import PlatformRegistry
    from daedalus.platform.online import get_online

    rows = [_entity(one) for one in key]
    options = run_options(runtime_config_path)
    found = get_online(PlatformRegistry.open(), service, rows, as_of=as_of, options=options)
    values = found.values.to_pylist()
    tables = {
        name: [
            {"status": status, "event_time": event, "written_at": written, "staleness_seconds": staleness}
            for status, event, written, staleness in zip(
                one.statuses,
                _texts(one.event_times),
                _texts(one.write_times),
                one.staleness_seconds.to_pylist(),
                strict=True,
            )
        ]
        for name, one in found.tables.items()
    }
    if output is Format.JSON:
        print_json(
            {
                "service": found.service,
                "version": found.version,
                "origins": dict(found.origins),
                "rows": [
                    {"values": row, "tables": {name: states[at] for name, states in tables.items()}}
                    for at, row in enumerate(values)
                ],
            }
        )
        return
    headings = ("column", "from", *key)
    print_table(
        headings, [[name, found.origins[name], *(row[name] for row in values)] for name in found.origins]
    )
    headings = ("table", "key", "status", "event_time", "staleness_seconds")
    print_table(
        headings,
        [
            [name, one, state["status"], state["event_time"], state["staleness_seconds"]]
            for name, states in tables.items()
            for one, state in zip(key, states, strict=True)
        ],
    )


@app.command("push")
def push(
    view: Annotated[str, typer.Argument(metavar="VIEW", help="A view that is online, or whose events are.")],
    as_of: AsOfOption = None,
    runtime_config_path: RuntimeOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Push rows of a view from standard input.

    JSON lines, or an Arrow stream or file.
    Pushed twice they count once; rows may come in any order, and an older one never replaces a newer one.
    """
    from daedalus.online.pushing import read_rows
    from daedalus.platform import PlatformRegistry
    from daedalus.platform.online import online_store, push_online

    registry, options = PlatformRegistry.open(), run_options(runtime_config_path)
    definition = registry.facade(registry.config(options)).catalog.view(view)
    totals: dict[str, int] = {"rows": 0}
    with online_store(registry, options) as store:
        for rows in read_rows(definition, sys.stdin.buffer):
            done = push_online(registry, view, rows, as_of=as_of, options=options, store=store)
            totals["rows"] += done.rows
            for part, names in ((done.newest, _NEWEST), (done.events, _EVENTS)):
                for name in names if part is not None else ():
                    label = name if part is done.newest else f"events_{name}"
                    totals[label] = totals.get(label, 0) + getattr(part, name)
    if output is Format.JSON:
        print_json({"view": view, **totals})
    else:
        print_mapping({"view": view, **totals})


_NEWEST = ("written", "older", "skipped")
_EVENTS = ("added", "known", "skipped", "dropped")


@app.command("load")
def load(
    as_of: AsOfOption = None, runtime_config_path: RuntimeOption = None, output: FormatOption = Format.TABLE
) -> None:
    """Load every view with online: true.

    materialize SERVICE --online loads a service and its views.
    """
    from daedalus.platform import PlatformRegistry
    from daedalus.platform.online_loading import load_views

    options = run_options(runtime_config_path)
    print_loads(load_views(PlatformRegistry.open(), as_of=as_of, options=options), output)


@app.command("health")
def health(runtime_config_path: RuntimeOption = None, output: FormatOption = Format.TABLE) -> int:
    """Say how the online store is.

    Whether it answers, and when each table was loaded last; exit code 1 when it does not answer.
    """
    from daedalus.platform import PlatformRegistry
    from daedalus.platform.online import online_health

    found = online_health(PlatformRegistry.open(), run_options(runtime_config_path))
    tables = {
        name: {key: state.get(key) for key in ("as_of", "rows", "definition")}
        for name, state in found.tables.items()
    }
    plain = {
        "ok": found.ok,
        "url": found.url,
        "server": found.server,
        "seconds": round(found.seconds, 4),
        "problem": found.problem,
    }
    if output is Format.JSON:
        print_json(plain | {"tables": tables})
    else:
        print_mapping(plain)
        lines = [[name, one["as_of"], one["rows"]] for name, one in tables.items()]
        if lines:
            print_table(("table", "as_of", "rows"), lines)
    return 0 if found.ok else 1


def print_loads(loads: Any, output: Format) -> None:
    """What was loaded, a line per table."""
    if output is Format.JSON:
        print_json({"tables": load_lines(loads)})
        return
    columns = ("table", "rows", "written", "older", "pruned", "seconds", "rows_per_second")
    print_table(columns, [[line[column] for column in columns] for line in load_lines(loads)])


def load_lines(loads: Any) -> list[dict[str, Any]]:
    """Loads of tables as plain data."""
    return [one.to_dict() for one in loads]


def _texts(times: Any) -> list[str | None]:
    return [None if one is None else one.isoformat() for one in times.to_pylist()]


def _entity(text: str) -> dict[str, Any]:
    """The columns of one `--key`."""
    found = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"expected COLUMN=VALUE, got {part!r}", param_hint="--key")
        found[name.strip()] = value
    return found
