"""Pages of the site that are made from code: commands, operations, the notebook."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from typer.main import get_command

from daedalus.cli.main import build_app
from daedalus.platform.operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def _cell(text: object) -> str:
    """Text that does not break a table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every command that runs, with its full name."""
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from _commands(child, f"{path} {name}")
    else:
        yield path, command


def _flags(param: Any) -> str:
    names = ", ".join(f"`{name}`" for name in [*param.opts, *param.secondary_opts])
    return names if param.is_flag else f"{names} `{param.metavar or _type(param)}`"


def _type(param: Any) -> str:
    name = getattr(param.type_descriptor.annotation, "__name__", "")
    return {"int": "INTEGER", "float": "NUMBER", "Path": "PATH"}.get(name, "TEXT")


def _default(param: Any) -> str:
    if param.required:
        return "required"
    if param.default in (None, "", (), []) or getattr(param, "is_flag", False) or not param.show_default:
        return ""
    return f"`{getattr(param.default, 'value', param.default)}`"


def _command(path: str, command: Any) -> str:
    arguments = [param for param in command.params if not param.opts[0].startswith("-")]
    options = [param for param in command.params if param.opts[0].startswith("-") and not param.hidden]
    usage = [f"[{p.metavar or p.name.upper()}]{'...' * (p.nargs < 0)}" for p in arguments if not p.required]
    usage = [f"{p.metavar or p.name.upper()}" for p in arguments if p.required] + usage
    lines = [f"## `{path}`", "", "```text", " ".join([path, *usage, "[OPTIONS]" * bool(options)]), "```", ""]
    lines += [command.help.strip().replace("\f", ""), ""]
    if arguments or options:
        lines += ["| | | default |", "|---|---|---|"]
    for param in arguments:
        lines.append(
            f"| `{param.metavar or param.name.upper()}` | {_cell(param.help or '')} | {_default(param)} |"
        )
    for param in options:
        if param.name != "help":
            lines.append(f"| {_flags(param)} | {_cell(param.help or '')} | {_default(param)} |")
    return "\n".join([*lines, ""])


def command_pages() -> dict[str, str]:
    """The reference of the command line, from the commands themselves."""
    text = [
        "# Every command",
        "",
        "Made from the commands themselves: what `--help` says, on one page. "
        "[Commands by task](../cli.md) says when to take which.",
        "",
    ]
    text += [_command(path, command) for path, command in _commands(get_command(build_app()), "daeda")]
    return {"reference/commands.md": "\n".join(text)}


def operations_page() -> str:
    """The operations that all surfaces share, with their parameters."""
    text = [
        "# Every operation",
        "",
        "Made from the table that [JSON-RPC](../api.md), [MCP](../mcp.md) and programs call. "
        "Errors and results: [JSON-RPC](../api.md#errors).",
        "",
    ]
    for operation in OPERATIONS.values():
        where = ", ".join(sorted(str(surface) for surface in operation.surfaces))
        effect = "reads" if operation.read_only else "changes something"
        text += [
            f"## `{operation.name}`",
            "",
            operation.description,
            "",
            f"Offered by {where}; {effect}.",
            "",
        ]
        fields = operation.params_model.model_json_schema().get("properties", {})
        if fields:
            text += ["| parameter | type | default | |", "|---|---|---|---|"]
        required = operation.params_model.model_json_schema().get("required", [])
        for name, schema in fields.items():
            types = [one.get("type", "") for one in schema.get("anyOf", [schema])]
            default = "required" if name in required else f"`{json.dumps(schema.get('default'))}`"
            says = _cell(schema.get("description", ""))
            text.append(f"| `{name}` | {' or '.join(types)} | {default} | {says} |")
        text.append("")
    return "\n".join(text)


def notebook_page(path: Path) -> str:
    """A notebook as Markdown: its text, its code, and what the code printed."""
    text = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            text.append(source)
            continue
        text.append(f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            shown = output.get("text") or output.get("data", {}).get("text/plain", "")
            text.append(f"```text\n{''.join(shown).rstrip()}\n```")
    return "\n\n".join(text) + "\n"
