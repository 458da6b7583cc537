"""`daeda init`: a small project that runs, to be edited into one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daedalus.cli.render import Format, FormatOption, print_json, program, say
from daedalus.errors import DefinitionError

TEMPLATE = Path(__file__).parent / "_template"
#: Stored without the dot: a `.gitignore` inside the package would hide files from its own build.
_RENAMED = {"gitignore": ".gitignore"}


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The new project's folder; made when it is not there.")
    ],
    no_data: Annotated[
        bool, typer.Option("--no-data", help="Only the definitions, no sample events.")
    ] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Start a project that runs.

    It holds two entities, three views, one service and some days of sample events, to be edited.
    """
    written = write_template(folder)
    rows = 0
    if not no_data:
        from daedalus.cli.sample_data import write_sample

        try:
            # Absolute: Arrow takes a relative path that begins like `file:` for a URL.
            rows = write_sample(folder.absolute() / "data")
        except OSError as exc:
            raise DefinitionError(f"the sample events cannot be written: {exc}", where=str(folder)) from exc
    service = "product_ranking"
    if output is Format.JSON:
        print_json(
            {
                "folder": str(folder),
                "files": [str(path) for path in written],
                "events": rows,
                "service": service,
            }
        )
        return
    for path in written:
        say(f"  {folder / path}")
    if rows:
        say(f"  {folder / 'data'}: {rows} sample events")
    say(f"\nNext:\n  cd {folder}\n  {program()} pipeline train {service}")


def write_template(folder: Path) -> list[Path]:
    """Write the template's files, or none when one is there; returns them relative to `folder`."""
    sources = sorted(path for path in TEMPLATE.rglob("*") if path.is_file())
    targets = [path.relative_to(TEMPLATE) for path in sources]
    targets = [target.with_name(_RENAMED.get(target.name, target.name)) for target in targets]
    taken = [target for target in [*targets, Path("data")] if (folder / target).exists()]
    if taken:
        raise DefinitionError(
            "the folder holds a project already",
            where=str(folder / taken[0]),
            hint="Choose a new folder: daeda init my_project",
        )
    try:
        for source, target in zip(sources, targets, strict=True):
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            (folder / target).write_bytes(source.read_bytes())
    except OSError as exc:
        raise DefinitionError(f"the project cannot be written: {exc}", where=str(folder)) from exc
    return targets
