"""`daeda registry`: lock the services' schemas, and see what changed since."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daedalus.cli.render import Format, FormatOption, counted, cut, notices, print_json, print_table, say

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daedalus.catalog.versioning import SchemaChange
    from daedalus.platform.versions import RegistryDiff

app = typer.Typer(
    help="The services' versions: lock their schemas and see what changed.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

LockFileOption = Annotated[
    Path | None,
    typer.Option(
        "--lock-file", help="Compare with this file instead, such as the main branch's registry.lock.json."
    ),
]
_WIDTH = 60


@app.command("lock")
def lock(
    services: Annotated[
        list[str] | None, typer.Argument(metavar="SERVICE", help="Only these; by default every service.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also lock breaking changes without a new version.")
    ] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Write registry.lock.json from the definitions.

    Commit the file: it is what later changes are compared with. A breaking change without a new version of its
    service is refused.
    """
    from daedalus.platform import PlatformRegistry
    from daedalus.platform.versions import lock_registry

    report = lock_registry(PlatformRegistry.open(), services=services or (), force=force)
    if output is Format.JSON:
        changes = [change.to_dict() for change in report.changes]
        print_json({"file": report.file, "written": report.written, "changes": changes})
        return
    _print_changes(report.changes)
    state = "wrote" if report.written else "up to date:"
    say(f"{state} {report.file} ({counted(len(report.services), 'service')})")


@app.command("diff")
def diff(lock_file: LockFileOption = None, output: FormatOption = Format.TABLE) -> None:
    """Show what changed against the lock.

    Every change, breaking ones first, with the reason.
    """
    found = _diff(lock_file)
    if output is Format.JSON:
        print_json(found.to_dict())
        return
    _print_changes(found.changes)
    if found.locked and not found.changes:
        say(f"no change against {found.file}")
    notices(found.mends())


@app.command("check")
def check(lock_file: LockFileOption = None, output: FormatOption = Format.TABLE) -> None:
    """Fail on a breaking change without a new version.

    For CI: exit code 1 when a service breaks what is locked and its version is not newer, or nothing is locked.
    """
    found = _diff(lock_file)
    if output is Format.JSON:
        print_json(found.to_dict())
    else:
        _print_changes(found.refused)
        if found.ok:
            say(f"ok: {counted(len(found.services), 'service')} against {found.file}")
            notices(found.mends())
        else:
            for mend in found.mends():
                sys.stderr.write(f"failed: {mend}\n")
    if not found.ok:
        raise typer.Exit(1)


def _diff(lock_file: Path | None) -> RegistryDiff:
    from daedalus.platform import PlatformRegistry
    from daedalus.platform.versions import diff_registry

    return diff_registry(PlatformRegistry.open(), lock_file=lock_file)


def _print_changes(changes: Iterable[SchemaChange]) -> None:
    rows = [
        (
            change.kind.value,
            change.service,
            change.path,
            _cell(change.before),
            _cell(change.after),
            change.reason,
        )
        for change in changes
    ]
    if rows:
        print_table(("change", "service", "where", "locked", "now", "reason"), rows)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return cut(text, _WIDTH)
