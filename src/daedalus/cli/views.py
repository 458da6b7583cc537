"""`daeda view`: the feature views of the project."""

from __future__ import annotations

from typing import Annotated

import typer

from daedalus.cli.render import Format, FormatOption, print_json, print_mapping, print_table

app = typer.Typer(help="The feature views of the project.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_views(output: FormatOption = Format.TABLE) -> None:
    """List every view."""
    from daedalus.platform import PlatformRegistry

    views = PlatformRegistry.open().list_views()
    if output is Format.JSON:
        print_json({"views": views})
        return
    columns = ("name", "entities", "keys", "fields", "source", "owner", "description")
    print_table(columns, [[view[column] for column in columns] for view in views])


@app.command("show")
def show_view(
    name: Annotated[str, typer.Argument(metavar="VIEW", help="The view's name.")],
    output: FormatOption = Format.TABLE,
) -> None:
    """Show one view and its fields."""
    from daedalus.platform import PlatformRegistry

    view = PlatformRegistry.open().show_view(name)
    if output is Format.JSON:
        print_json(view)
        return
    fields = view.pop("fields")
    source = {f"source.{key}": value for key, value in view.pop("source").items() if value}
    print_mapping({key: value for key, value in (view | source).items() if value not in (None, "", [], {})})
    columns = ("name", "dtype", "nullable", "optional", "description")
    print_table(columns, [[field[column] for column in columns] for field in fields], title="fields")
