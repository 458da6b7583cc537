"""`daeda service`: the feature services of the project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from daedalus.cli.render import Format, FormatOption, print_json, print_mapping, print_table

if TYPE_CHECKING:
    from daedalus.platform import PlatformRegistry

app = typer.Typer(help="The feature services of the project.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_services(output: FormatOption = Format.TABLE) -> None:
    """List every service."""
    from daedalus.platform import PlatformRegistry

    services = PlatformRegistry.open().list_services()
    if output is Format.JSON:
        print_json({"services": services})
        return
    columns = ("name", "version", "spine", "views", "columns", "serving_allowed", "owner")
    print_table(columns, [[service[column] for column in columns] for service in services])


@app.command("show")
def show_service(
    name: Annotated[str, typer.Argument(metavar="SERVICE", help="The service's name.")],
    output: FormatOption = Format.TABLE,
) -> None:
    """Show one service and its columns."""
    from daedalus.platform import PlatformRegistry

    registry = PlatformRegistry.open()
    service = registry.show_service(name)
    if output is Format.JSON:
        print_json(service)
        return
    plain = {
        key: service[key]
        for key in (
            *("name", "version", "owner", "description", "tags", "serving_allowed"),
            *("spine", "grain", "session_column", "file"),
        )
    }
    print_mapping({key: value for key, value in plain.items() if value not in (None, "", [])})
    joins = [(view["alias"], view["view"], view["join"]) for view in service["views"]]
    if joins:
        print_table(("alias", "view", "join"), joins, title="views")
    keys = ("name", "ref", "dtype", "default", "nullable")
    columns = _resolved(registry, name) or service["columns"]
    print_table(keys, [[column.get(key) for key in keys] for column in columns], title="columns")


def _resolved(registry: PlatformRegistry, name: str) -> list[dict[str, Any]]:
    """The output columns with the dtypes that they get; empty where something of the service cannot be resolved."""
    from daedalus.errors import DaedalusError

    try:
        columns = registry.facade().schema(name)["columns"]
    except DaedalusError:
        return []
    return [{"nullable": True, **column} for column in columns]
