"""`daeda config`: the operator's own defaults."""

from __future__ import annotations

from typing import Annotated

import typer

from daedalus import operator_config
from daedalus.cli.render import Format, FormatOption, print_json, print_mapping, say

app = typer.Typer(
    help="The operator's defaults.\n\nKept in ~/.daedalus/config.toml, or where $DAEDALUS_CONFIG says.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("init")
def init(
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Write the file with the default of every key."""
    path = operator_config.write_defaults(force=force)
    if output is Format.JSON:
        print_json({"path": str(path)})
    else:
        say(f"wrote {path}")


@app.command("show")
def show(output: FormatOption = Format.TABLE) -> None:
    """Print what is in effect: the file over the defaults."""
    values = operator_config.effective_config()
    if output is Format.JSON:
        print_json(values)
    else:
        print_mapping(values)


@app.command("set")
def set_value(
    key: Annotated[str, typer.Argument(metavar="KEY", help="One of the keys that `config show` lists.")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="The new value; never a secret.")],
    output: FormatOption = Format.TABLE,
) -> None:
    """Set one key and keep the others."""
    path = operator_config.set_key(key, value)
    if output is Format.JSON:
        print_json({"path": str(path), key: value})
    else:
        say(f"{key} = {value}  ({path})")


@app.command("path")
def show_path(output: FormatOption = Format.TABLE) -> None:
    """Print where the file is, or would be."""
    path = operator_config.config_path()
    if output is Format.JSON:
        print_json({"path": str(path), "exists": path.exists()})
    else:
        say(str(path))
