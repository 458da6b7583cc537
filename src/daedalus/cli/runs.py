"""`daeda runs`: what was run, one run, and its log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from daedalus.cli.render import Format, FormatOption, print_json, print_mapping, print_table, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daedalus.metadata.store import MetadataStore, StoredRun
    from daedalus.platform import PlatformRegistry
    from daedalus.platform.dagster_client import DagsterRun

app = typer.Typer(help="Look at recorded runs.", no_args_is_help=True, rich_markup_mode=None)

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN_ID", help="A run's id, a unique beginning of it, or `latest`.")
]
RootOption = Annotated[
    str | None,
    typer.Option("--output-root", help="The run root that holds the records; by default the configured one."),
]


@app.command("list")
def list_command(
    *,
    service: Annotated[str, typer.Option("--service", help="Only runs of this service.")] = "",
    kind: Annotated[str, typer.Option("--kind", help="Only runs of this kind: train, materialize, ...")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="The newest so many.")] = 20,
    output_root: RootOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """List recorded runs, newest first."""
    from daedalus.platform import PlatformRegistry
    from daedalus.platform.records import list_runs

    runs = list_runs(
        PlatformRegistry.open(), service=service, kind=kind, limit=limit, output_root=output_root
    )
    if output is Format.JSON:
        print_json(runs)
        return
    if not runs:
        say("no such run is recorded" if service or kind else "no run is recorded")
        return
    columns = (
        "run_id",
        "kind",
        "service",
        "status",
        "attempt",
        "started_at",
        "seconds",
        "days",
        "rows",
        "git",
    )
    print_table(columns, [[run[column] for column in columns] for run in runs])


@app.command("show")
def show_command(
    run_id: RunArgument, *, output_root: RootOption = None, output: FormatOption = Format.TABLE
) -> None:
    """Show one run: what ran, from what, what came out.

    The table leaves out the columns' statistics; --format json has them.
    """
    from daedalus.platform import PlatformRegistry
    from daedalus.platform.runs import show

    store, found = _found(PlatformRegistry.open(), run_id, output_root)
    run = show(store, found)
    if output is Format.JSON:
        print_json(run)
        return
    print_mapping(_summary(run))
    days = [
        (
            day["day"],
            day["stage"],
            day["state"],
            day["rows"],
            day["seconds"],
            day["content_hash"],
            day["reason"],
        )
        for day in run["days"]
    ]
    if days:
        print_table(("day", "stage", "state", "rows", "seconds", "content_hash", "reason"), days)
    if run["error"] is not None:
        say(f"ended by {run['error'].get('message', '')}")


@app.command("cancel")
def cancel_command(
    run_id: RunArgument, *, output_root: RootOption = None, output: FormatOption = Format.TABLE
) -> None:
    """Stop a run that waits or runs on this machine.

    Its process is interrupted, and killed when that is not enough. Finished days stay; no day is there in part.
    """
    from daedalus.platform import PlatformRegistry
    from daedalus.platform.runs import cancel

    run = cancel(*_found(PlatformRegistry.open(), run_id, output_root))
    if output is Format.JSON:
        print_json(run)
        return
    say(f"run {run['run_id']} is {run['status']}")


@app.command("logs")
def logs(
    run_id: RunArgument,
    *,
    tail: Annotated[int | None, typer.Option("--tail", min=0, help="Only the last so many lines.")] = None,
    output_root: RootOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Print a run's log: progress, notices, errors."""
    from daedalus.platform import PlatformRegistry
    from daedalus.platform.runs import log_lines

    lines = log_lines(*_found(PlatformRegistry.open(), run_id, output_root), tail)
    if output is Format.JSON:
        print_json(lines)
        return
    for line in lines:
        said = {key: value for key, value in line.items() if key not in ("at", "level", "event")}
        text = " ".join(f"{key}={value}" for key, value in said.items() if value not in ("", None))
        say(f"{line.get('at', '')} {line.get('level', ''):<7} {line.get('event', '')} {text}".rstrip())


def _found(
    registry: PlatformRegistry, run_id: str, output_root: str | None
) -> tuple[MetadataStore, StoredRun | DagsterRun]:
    """The run, and the records; a run root that is named holds records alone."""
    from daedalus.platform.records import metadata_store
    from daedalus.platform.runs import find

    store = metadata_store(registry, output_root)
    return store, store.find(run_id) if output_root is not None else find(registry, store, run_id)


def _summary(run: Mapping[str, Any]) -> dict[str, object]:
    most = sorted(run["null_rates"].items(), key=lambda item: -item[1])[:5]
    files = (*run["definition_files"], *run["config_files"])
    return {
        "run_id": run["run_id"],
        "kind": run["kind"],
        "service": f"{run['service']} {run['version']}".strip(),
        "status": f"{run['status']}, attempt {run['attempt']}",
        "started": run["started_at"],
        "ended": run["ended_at"],
        "git": run["git_sha"] + (" with changes" if run["git_dirty"] else ""),
        "engines": [f"{name} {version}" for name, version in run["versions"].items()],
        "files": [name for name, _ in files],
        "sources": [f"{name} ({len(items)})" for name, items in run["sources"].items()],
        "stores": [f"{name} {snapshot}" for name, snapshot in run["stores"]],
        "rows": run["row_count"],
        "events": f"{run['ts_min']} to {run['ts_max']}" if run["ts_min"] else "",
        "most NULLs": [f"{name} {rate:.1%}" for name, rate in most if rate],
        "NULL keys": [f"{name} {rate:.1%}" for name, rate in run["key_null_rates"].items()],
        "output": run["output_path"],
        "log": run["log"],
        "notes": [note["kind"] for note in run["notes"]],
    }
