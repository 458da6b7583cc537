"""YAML files as plain data that remembers its lines, with every problem of a file reported at once.

Stricter than YAML 1.1, and closer to 1.2, because definitions are read by people: only `true` and `false`
are booleans (so `on:` is a key and `no` is text), dates stay text, `012` and `1:30` are not numbers. Keys are
text and stand once; tags are refused; aliases and `<<` merges work, up to a bounded size. Built on PyYAML's
event stream, so that a hostile file can neither construct objects nor recurse.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from daedalus.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_BYTES = 2_000_000
MAX_NODES = 50_000
MAX_DEPTH = 40

Steps = tuple[str | int, ...]

_PLAIN = (
    (re.compile(r"~|null|Null|NULL|"), lambda _: None),
    (re.compile(r"true|True|TRUE"), lambda _: True),
    (re.compile(r"false|False|FALSE"), lambda _: False),
    (re.compile(r"[-+]?(0|[1-9][0-9]{0,39})"), int),
    (
        re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]{1,3})?|[-+]?[0-9]+[eE][-+]?[0-9]{1,3}"),
        float,
    ),
    (re.compile(r"[-+]?\.(inf|Inf|INF)"), lambda text: float(text.replace(".", ""))),
    (re.compile(r"\.(nan|NaN|NAN)"), lambda _: float("nan")),
)
_IDENTIFIER = re.compile(r"[A-Za-z_][\w-]*")


@dataclass(slots=True)
class Mark:
    """Where a value stands, and its parts: their marks by key or index."""

    line: int
    parts: dict[str | int, Mark] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One YAML file.

    Attributes:
        file: the path as it was given, for messages.
        tree: the content as dicts, lists and scalars; None when it cannot be read.
        problems: what is wrong with the file as YAML.
    """

    file: str
    tree: Any
    root: Mark
    problems: tuple[DefinitionError, ...] = ()

    def line(self, steps: Steps) -> int:
        """The line of the value, or of the nearest value above it that has one."""
        mark = self.root
        for step in steps:
            if step not in mark.parts:
                break
            mark = mark.parts[step]
        return mark.line

    def locate(self, steps: Steps) -> str:
        """File, line and path of a value: `views/a.yaml:3, $.fields[0].dtype`."""
        return f"{self.file}:{self.line(steps)}, {path_text(steps)}"

    def forget(self, steps: Steps) -> None:
        """Drop the lines below a value, when its parts no longer stand where they were written."""
        mark = self.root
        for step in steps:
            mark = mark.parts.get(step, Mark(mark.line))
        mark.parts.clear()


def path_text(steps: Steps) -> str:
    """A path into a file, JSON-path style.

    >>> path_text(("fields", 3, "dtype")), path_text(("odd key",))
    ('$.fields[3].dtype', "$['odd key']")
    """
    parts = ["$"]
    for step in steps:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        else:
            parts.append(f".{step}" if _IDENTIFIER.fullmatch(step) else f"[{step!r}]")
    return "".join(parts)


def read_yaml(path: Path, *, file: str = "") -> Document:
    """Read one file; what is wrong with it is in `problems`, never raised."""
    name = file or str(path)
    try:
        found = path.stat()
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            # A pipe or a device may never answer, or never end.
            return _failed(name, "the file cannot be read: it is a pipe or a device", "Name a YAML file.")
        if found.st_size > MAX_BYTES:
            return _failed(name, f"the file has more than {MAX_BYTES} bytes", "Split it.")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        return _failed(name, f"the file is not UTF-8 (byte {exc.start})", "Save it as UTF-8.")
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        return _failed(name, f"the file cannot be read: {getattr(exc, 'strerror', None) or exc}")
    return parse_yaml(text, file=name)


def parse_yaml(text: str, *, file: str) -> Document:
    """Parse the text of one file.

    >>> parse_yaml("a: [1, no]", file="x.yaml").tree
    {'a': [1, 'no']}
    """
    builder = _Builder(file)
    try:
        builder.build(text)
    except yaml.MarkedYAMLError as exc:
        at_end = "end of stream" in (exc.problem or "")
        mark = (exc.context_mark if at_end else None) or exc.problem_mark
        line = mark.line + 1 if mark else 1
        what = " ".join(part for part in (exc.context, exc.problem) if part)
        return _failed(file, f"not valid YAML: {what}", line=line, hint=_syntax_hint(what, text, line))
    except (yaml.YAMLError, UnicodeEncodeError) as exc:
        return _failed(file, f"not valid YAML: {' '.join(str(exc).split())}")
    except DefinitionError as exc:
        return Document(file=file, tree=None, root=Mark(1), problems=(*builder.problems, exc))
    if not builder.started or builder.tree is None:
        return _failed(file, "the file is empty")
    return Document(file=file, tree=builder.tree, root=builder.root, problems=tuple(builder.problems))


def _failed(file: str, what: str, hint: str = "", line: int = 0) -> Document:
    where = f"{file}:{line}" if line else file
    return Document(
        file=file, tree=None, root=Mark(1), problems=(DefinitionError(what, where=where, hint=hint),)
    )


def _syntax_hint(what: str, text: str, line: int) -> str:
    written = text.split("\n")[line - 1 : line]
    if written and "\t" in written[0][: len(written[0]) - len(written[0].lstrip())]:
        return "Indent with blanks, not tabs."
    if "mapping values are not allowed" in what:
        return "Quote a text that holds a colon and a blank."
    if "cannot start any token" in what or "found unknown escape" in what:
        return "Quote the text, with single quotes."
    return ""


@dataclass(slots=True)
class _Frame:
    """A collection being filled: a mapping, or a list."""

    mark: Mark
    anchor: str | None
    mapping: dict[str, Any] | None = None
    items: list[Any] = field(default_factory=list)
    size: int = 1
    key: str | None = None
    key_line: int = 0
    merges: list[tuple[Any, Mark, int]] = field(default_factory=list)

    @property
    def awaits_key(self) -> bool:
        """Whether the next value is a key."""
        return self.mapping is not None and self.key is None


@dataclass(slots=True)
class _Builder:
    """Builds a tree out of PyYAML's events, with a stack of its own instead of recursion."""

    file: str
    problems: list[DefinitionError] = field(default_factory=list)
    stack: list[_Frame] = field(default_factory=list)
    anchors: dict[str, tuple[Any, Mark, int]] = field(default_factory=dict)
    tree: Any = None
    root: Mark = field(default_factory=lambda: Mark(1))
    nodes: int = 0
    started: bool = False

    def build(self, text: str) -> None:
        for event in _events(text):
            line = event.start_mark.line + 1 if event.start_mark else 1
            if isinstance(event, yaml.DocumentStartEvent):
                if self.started:
                    raise self.error(line, "a second document in the file", "One file, one definition.")
                self.started = True
            elif isinstance(event, yaml.ScalarEvent):
                self.scalar(event, line)
            elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
                self.open(event, line)
            elif isinstance(event, yaml.CollectionEndEvent):
                self.close()
            elif isinstance(event, yaml.AliasEvent):
                self.alias(event, line)

    def error(self, line: int, what: str, hint: str = "") -> DefinitionError:
        return DefinitionError(what, where=f"{self.file}:{line}", hint=hint)

    def note(self, line: int, what: str, hint: str = "") -> None:
        self.problems.append(self.error(line, what, hint))

    def check_tag(self, tag: str | None, line: int) -> None:
        if tag not in {None, "!"}:
            self.note(line, f"a YAML tag ({tag}) is not allowed", "Remove it; quote what must stay text.")

    def scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        self.check_tag(event.tag, line)
        value: Any = event.value
        is_key = bool(self.stack) and self.stack[-1].awaits_key
        if event.implicit[0] and not is_key:
            value = _resolve(value)
        self.add(value, Mark(line), 1, event.anchor)

    def open(self, event: yaml.CollectionStartEvent, line: int) -> None:
        self.check_tag(event.tag, line)
        if len(self.stack) >= MAX_DEPTH:
            raise self.error(line, f"nested more than {MAX_DEPTH} deep")
        if self.stack and self.stack[-1].awaits_key:
            raise self.error(line, "a key must be text, not a list or mapping")
        mapping: dict[str, Any] | None = {} if isinstance(event, yaml.MappingStartEvent) else None
        self.stack.append(_Frame(Mark(line), event.anchor, mapping))

    def close(self) -> None:
        frame = self.stack.pop()
        if frame.mapping is None:
            self.add(frame.items, frame.mark, frame.size, frame.anchor)
            return
        for value, mark, line in frame.merges:
            self.merge(frame.mapping, frame.mark, value, mark, line)
        self.add(frame.mapping, frame.mark, frame.size, frame.anchor)

    def alias(self, event: yaml.AliasEvent, line: int) -> None:
        if event.anchor not in self.anchors:
            raise self.error(line, f"the alias *{event.anchor} has no anchor before it, or stands inside it")
        value, mark, size = self.anchors[event.anchor]
        self.nodes += size - 1
        self.add(value, mark, size, None)

    def add(self, value: Any, mark: Mark, size: int, anchor: str | None) -> None:
        """Put a finished value into the collection that is being filled."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.error(
                mark.line, f"more than {MAX_NODES} values, aliases written out", "Split the file."
            )
        if anchor is not None:
            self.anchors[anchor] = (value, mark, size)
        if not self.stack:
            self.tree, self.root = value, mark
            return
        frame = self.stack[-1]
        frame.size += size
        if frame.mapping is None:
            frame.mark.parts[len(frame.items)] = mark
            frame.items.append(value)
        elif frame.key is None:
            if not isinstance(value, str):
                raise self.error(mark.line, "a key must be text")
            frame.key, frame.key_line = value, mark.line
        else:
            self.set_key(frame, frame.mapping, frame.key, value, mark)
            frame.key = None

    def set_key(self, frame: _Frame, mapping: dict[str, Any], key: str, value: Any, mark: Mark) -> None:
        if key == "<<":
            frame.merges.append((value, mark, frame.key_line))
        elif key in mapping:
            first = frame.mark.parts[key].line
            hint = f"The first is in line {first}: remove one."
            self.note(frame.key_line, f"the key {key!r} stands twice", hint)
        else:
            mapping[key] = value
            # A key's own line is the better place to point at: a folded text begins one line below.
            frame.mark.parts[key] = Mark(frame.key_line, mark.parts)

    def merge(self, mapping: dict[str, Any], into: Mark, value: Any, mark: Mark, line: int) -> None:
        sources = [(value, mark)]
        if isinstance(value, list):
            sources = [(item, mark.parts[at]) for at, item in enumerate(value)]
        for source, source_mark in sources:
            if not isinstance(source, dict):
                self.note(line, "<< merges mappings only", "Write <<: *anchor of a mapping.")
                continue
            for key, item in source.items():
                if key not in mapping:
                    mapping[key] = item
                    into.parts[key] = source_mark.parts[key]


def _events(text: str) -> Iterator[yaml.Event]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return iter(yaml.parse(text, Loader=loader))


def _resolve(text: str) -> Any:
    for pattern, make in _PLAIN:
        if pattern.fullmatch(text):
            return make(text)
    return text
