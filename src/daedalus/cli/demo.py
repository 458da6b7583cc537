"""`daeda demo`: seed the PixAI-like example, train on it, show what came out."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daedalus.cli.render import Format, FormatOption, notices, print_json, print_table, program, say
from daedalus.errors import DefinitionError, ExecutionError

if TYPE_CHECKING:
    from collections.abc import Sequence

_DEFINITIONS = ("feature_views", "feature_services", "feature_tests", "config")


def demo(
    *,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where the project goes; made when it is not there.")
    ] = Path("demo"),
    events: Annotated[str, typer.Option("--events", help="Feed events to seed: 10k to 100M.")] = "50k",
    days: Annotated[int, typer.Option("--days", min=1, help="Days of feed, from 2026-04-24 on.")] = 10,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another number, another world.")] = 7,
    service: Annotated[
        list[str] | None,
        typer.Option("--service", help="Train only this one; may be repeated. Default: all."),
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Seed a small world and train on it.

    Copies the example project, seeds its events, trains every service and shows what came out. Definitions
    that are in the folder already are kept, and a seed of the same arguments is not repeated.
    """
    from daedalus.cli.stores import build_store
    from daedalus.cli.training import run_training, sample_rows
    from daedalus.platform import PlatformRegistry, RunOptions

    quiet = output is Format.JSON
    copy_project(example_folder(), folder)
    seed_project(folder, ["--events", events, "--days", str(days), "--seed", str(seed)], quiet=quiet)
    reports = []
    # A project is run from its own folder: relative paths of its configuration start there.
    with contextlib.chdir(folder):
        for store in PlatformRegistry.open().list_stores():
            build_store(store["name"], quiet=quiet)
        names = service or [line["name"] for line in PlatformRegistry.open().list_services()]
        for name in names:
            if not quiet:
                say(f"\ntraining {name}")
            # A world this small is enriched before Ray has started.
            report = run_training(name, options=RunOptions(overrides={"enrich_runtime": "in_process"}))
            reports.append(report)
            if not quiet:
                _show(report, sample_rows(report), folder)
    if quiet:
        print_json({"folder": str(folder), "services": reports})
        return
    say(f"\nNext:\n  cd {folder}")
    for command in ("pipeline explain", "service show", "pipeline train"):
        say(f"  {program()} {command} {names[0]}")


def example_folder() -> Path:
    """The example project: inside the wheel, or in a checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "_examples" / "pixai", package.parents[1] / "examples" / "pixai"):
        if (folder / "seed.py").is_file():
            return folder
    raise DefinitionError("the example project is not installed", where=str(package / "_examples"))


def copy_project(example: Path, folder: Path) -> None:
    """Copy the definitions that are not there yet; edited ones stay as they are."""
    try:
        for part in _DEFINITIONS:
            for source in sorted(path for path in (example / part).rglob("*.yaml") if path.is_file()):
                target = folder / source.relative_to(example)
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, target)
    except OSError as exc:
        raise DefinitionError(f"the project cannot be written: {exc}", where=str(folder)) from exc


def seed_project(folder: Path, arguments: Sequence[str], *, quiet: bool) -> None:
    """Run the example's seeder, a script beside the package, into `<folder>/data`."""
    command = [sys.executable, str(example_folder() / "seed.py"), "--out", str(folder / "data"), *arguments]
    done = subprocess.run(  # noqa: S603 - our own interpreter and script; the arguments are no shell text
        command, stdout=subprocess.DEVNULL if quiet else None, stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise ExecutionError("seeding the demo failed", where=str(folder), hint=lines[-1] if lines else "")


def _show(report: dict[str, Any], rows: tuple[list[str], list[list[Any]]], folder: Path) -> None:
    columns = ("day", "stage", "state", "rows")
    print_table(columns, [[day.get(column) for column in columns] for day in report["days"]])
    names, values = rows
    if values:
        turned = [[name, *cells] for name, *cells in zip(names, *values, strict=True)]
        print_table(("column", *(f"row {number + 1}" for number in range(len(values)))), turned)
    written = Path(report["output_path"])
    shown = folder / written.relative_to(Path.cwd()) if written.is_relative_to(Path.cwd()) else written
    say(f"{len(names)} columns, files in {shown}")
    notices(report["notices"])
