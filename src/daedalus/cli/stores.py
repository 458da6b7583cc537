"""`daeda store`: the embedding stores of the project."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from daedalus.cli.render import (
    Format,
    FormatOption,
    print_json,
    print_mapping,
    print_table,
    progress_bars,
    say,
)

app = typer.Typer(help="The embedding stores of the project.", no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[str, typer.Argument(metavar="STORE", help="A name under embedding_stores.")]


@app.command("list")
def list_stores(output: FormatOption = Format.TABLE) -> None:
    """List every configured store."""
    from daedalus.platform import PlatformRegistry

    stores = PlatformRegistry.open().list_stores()
    if output is Format.JSON:
        print_json({"stores": stores})
        return
    columns = ("name", "type", "path", "embedding_dim", "embedding_dtype", "source_parquet")
    print_table(columns, [[store[column] for column in columns] for store in stores])


@app.command("build")
def build(name: NameArgument, output: FormatOption = Format.TABLE) -> None:
    """Build a store from its source_parquet.

    In batches; goes on where an interrupted build stopped, and does nothing when the files are the same.
    """
    report = build_store(name, quiet=output is Format.JSON)
    if output is Format.JSON:
        print_json(report)


@app.command("show")
def show(name: NameArgument, output: FormatOption = Format.TABLE) -> None:
    """Show what a store holds."""
    from daedalus.platform import PlatformRegistry

    info = PlatformRegistry.open().show_store(name)
    if output is Format.JSON:
        print_json(info)
    else:
        print_mapping(info)


def build_store(name: str, *, quiet: bool) -> dict[str, Any]:
    """Build a store of the project in the working directory, with a bar and a line at the end."""
    from daedalus.platform import PlatformRegistry

    with progress_bars() as update:
        report = PlatformRegistry.open().build_store(
            name, progress=None if update is None else lambda done, total: update(name, done, total, "")
        )
    if not quiet:
        state = "up to date" if report["unchanged"] else "built"
        say(f"store {name}: {report['rows']} vectors, {state}")
    return report
