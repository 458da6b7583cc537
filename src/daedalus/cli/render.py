"""How results and errors look: tables for people, JSON for programs."""

from __future__ import annotations

import contextlib
import json
import math
import re
import sys
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rich.console import Console

    from daedalus.errors import DaedalusError

#: Tables that go to a file or a pipe are not cut to a screen nobody looks at.
_PIPE_WIDTH = 240
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Format(StrEnum):
    """What a command writes to standard output."""

    TABLE = "table"
    JSON = "json"


FormatOption = Annotated[
    Format, typer.Option("--format", help="table for people, json for programs.", show_default=True)
]


def wants_json(args: Sequence[str]) -> bool:
    """Whether the arguments ask for JSON; needed before (and when) they do not parse."""
    return "--format=json" in args or ("--format", "json") in pairwise(args)


def console(*, stderr: bool = False) -> Console:
    """A rich console; wide when its stream is not a terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(file=stream, width=width, soft_wrap=False, highlight=False, markup=False, emoji=False)


def print_json(data: Any) -> None:
    """One JSON document on standard output; JSON has no NaN and no infinity, so they are texts."""
    try:
        text = json.dumps(data, indent=2, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:
        data = _without_nan(data)
        text = json.dumps(data, indent=2, ensure_ascii=False, default=str)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(data, indent=2, default=str)
    sys.stdout.write(text + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    return [_without_nan(one) for one in value] if isinstance(value, list | tuple) else value


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
    """Rows under headings; an empty cell for None."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title) if title else None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for column in columns:
        table.add_column(Text(cell_text(column)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell_text(value)) for value in row))
    console().print(table)


def print_mapping(data: Mapping[str, object]) -> None:
    """Keys and values, one per line."""
    print_table(("key", "value"), data.items())


def cell_text(value: object) -> str:
    r"""A value as a table shows it; control characters are spelled out, since a terminal would obey them.

    >>> cell_text(None), cell_text(True), cell_text(["a", "b"]), cell_text({"id": "user_id"}), cell_text("\x1b[2J")
    ('', 'yes', 'a, b', 'id: user_id', '\\x1b[2J')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{cell_text(key)}: {cell_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(cell_text(item) for item in value)
    return spelled_out(str(value))


def spelled_out(text: str) -> str:
    r"""The text with its control characters written as text; line breaks and tabs stay.

    >>> spelled_out("a\x1b[2J\rb")
    'a\\x1b[2J\\x0db'
    """
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


@contextlib.contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int, str], None] | None]:
    """Bars on standard error, updated by (bar, done, total, text); None when that is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.fields[bar]}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        tasks: dict[str, Any] = {}

        def update(bar: str, done: int, total: int, text: str) -> None:
            if bar not in tasks:
                tasks[bar] = progress.add_task("", total=None, bar=bar)
            progress.update(tasks[bar], completed=done, total=total, description=text)

        yield update


def cut(text: str, width: int) -> str:
    """The text, at most so many characters of it.

    >>> cut("abcdef", 4), cut("abcd", 4)
    ('abc…', 'abcd')
    """
    return text if len(text) <= width else text[: width - 1] + "…"


def say(text: str) -> None:
    """A plain line on standard output."""
    sys.stdout.write(spelled_out(text) + "\n")


def counted(count: int, noun: str) -> str:
    """A number and what it counts.

    >>> counted(1, "day"), counted(0, "day")
    ('1 day', '0 days')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def program() -> str:
    """How a person calls `daeda` here: by name when the shell finds it, else by its path."""
    import shutil
    from pathlib import Path

    beside = Path(sys.executable).with_name("daeda")
    return "daeda" if shutil.which("daeda") or not beside.exists() else str(beside)


def notices(texts: Iterable[str]) -> None:
    """Things to know, on standard error."""
    for text in texts:
        sys.stderr.write(f"note: {spelled_out(text)}\n")


def print_error(error: DaedalusError, *, as_json: bool) -> None:
    """The error: a short panel (plain text when not a terminal), or `{"error": ...}` on standard output."""
    if as_json:
        print_json({"error": error.to_dict()})
        return
    if not sys.stderr.isatty():
        sys.stderr.write(f"{type(error).__name__}: {spelled_out(str(error))}\n")
        return
    from rich.panel import Panel
    from rich.text import Text

    body = Text()
    for index, one in enumerate(getattr(error, "problems", ()) or (error,)):
        body.append("\n" if index else "")
        _append_problem(body, one)
    console(stderr=True).print(
        Panel(body, title=type(error).__name__, title_align="left", border_style="red", expand=False)
    )


def _append_problem(body: Any, error: DaedalusError) -> None:
    day, operator = getattr(error, "day", ""), getattr(error, "operator", "")
    place = ", ".join(
        part for part in (day and f"day {day}", operator and f"operator {operator}", error.where) if part
    )
    if place:
        body.append(spelled_out(place) + "\n", style="bold")
    body.append(spelled_out(error.what))
    if error.hint:
        body.append("\n" + spelled_out(error.hint), style="green")


def print_plain_error(kind: str, message: str, *, as_json: bool, hint: str = "") -> None:
    """An error that is not of the family: wrong usage, or one that nobody expected."""
    if as_json:
        where = {"error": kind, "what": message, "where": "", "hint": hint, "message": message}
        print_json({"error": where})
    else:
        sys.stderr.write(spelled_out(f"{kind}: {message}" + (f"\n{hint}" if hint else "")) + "\n")
