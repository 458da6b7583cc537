"""Typed reading of a YAML mapping: each getter returns a usable value and notes what was wrong."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from daedalus.errors import DefinitionError, did_you_mean
from daedalus.secrets import is_secret_name, looks_like_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from daedalus.catalog.yaml_reader import Document, Steps

#: Time and position of rows while they are computed.
_OWN_NAMES = ("__t", "__row")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")
_UNSAFE_NAME = re.compile(r"[/\\:*?\"<>|]|\.\.|^[.~-]|^\s|[\s.]$")

#: Words that YAML 1.1 reads as booleans and this reader does not.
_WOULD_BE_BOOLEANS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


@dataclass(slots=True)
class Section:
    """One mapping of a document, or a value that should have been one.

    Attributes:
        subject: what the section describes, for messages: `view user_profile`; may be empty.
        problems: shared by all sections of a document.
    """

    document: Document
    value: Any
    steps: Steps
    problems: list[DefinitionError]
    subject: str = ""
    _keys: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.value, dict):
            self._keys = self.value
        else:
            found = "a text" if self._may_be_secret() else shown(self.value)
            self.problem(f"expected a mapping of keys, got {found}")

    def _may_be_secret(self) -> bool:
        """Whether the text stands where connections are described."""
        last = str(self.steps[-1]) if self.steps else ""
        if not isinstance(self.value, str):
            return False
        return is_secret_name(last) or (last == "source" and any(mark in self.value for mark in "@=:"))

    # ------------------------------------------------------------------ problems

    def where(self, *steps: str | int) -> str:
        """File, line, path and subject of a part of the section."""
        place = self.document.locate((*self.steps, *steps))
        return f"{place}: {self.subject}" if self.subject else place

    def problem(self, what: str, *steps: str | int, hint: str = "") -> None:
        """Note a problem at a part of the section."""
        self.problems.append(DefinitionError(what, where=self.where(*steps), hint=hint))

    def relay(self, error: DefinitionError, *steps: str | int) -> None:
        """Note the problems of an error that does not know its place."""
        for problem in error.problems or (error,):
            place = self.where(*steps) if not problem.where else problem.where
            self.problems.append(DefinitionError(problem.what, where=place, hint=problem.hint))

    def allow(self, keys: Collection[str]) -> None:
        """Note every key that is not one of these."""
        for key in self._keys:
            if key not in keys:
                self.problem(f"unknown key {key!r}", key, hint=did_you_mean(key, keys))

    # ------------------------------------------------------------------ values

    def has(self, key: str) -> bool:
        """Whether the key is there with a value."""
        return self._keys.get(key) is not None

    def given(self, key: str) -> bool:
        """Whether the key is there, with or without a value."""
        return key in self._keys

    def raw(self, key: str) -> Any:
        """The value as YAML gave it."""
        return self._keys.get(key)

    def names(self) -> list[str]:
        """The keys, in file order."""
        return list(self._keys)

    def text(self, key: str, *, required: bool = False) -> str:
        """A text without control characters; empty when absent."""
        value = self._keys.get(key)
        if value is None:
            if required:
                self.problem(f"{key} is missing")
            return ""
        return self._as_text(value, key, (key,), required)

    def _as_text(self, value: Any, label: str, steps: Steps, required: bool) -> str:
        if not isinstance(value, str):
            self.problem(f"{label} is {shown(value)}, not text", *steps, hint=_quote_hint(value))
            return ""
        stripped = value.strip()
        if required and not stripped:
            self.problem(f"{label} is empty", *steps)
        return stripped

    def name(self, key: str, *, required: bool = True) -> str:
        """A name that can be a folder: no slash, no leading dot, nothing that a shell or a path reads."""
        return self._checked_name(self.text(key, required=required), key, (key,))

    def _checked_name(self, name: str, label: str, steps: Steps) -> str:
        if not name:
            return ""
        if _CONTROL.search(name) or _UNSAFE_NAME.search(name) or len(name) > 200:
            hint = "Use letters, digits, _, - and single dots; it becomes a folder's name."
            self.problem(f"{label} {name!r} is not usable as a name", *steps, hint=hint)
            return ""
        return name

    def column_name(self, key: str, *, required: bool = True) -> str:
        """A column's name: any text without control characters."""
        name = self.text(key, required=required)
        return name if self.check_column(name, key) else ""

    def check_column(self, name: str, *steps: str | int) -> bool:
        """Whether the text can be a column's name; notes it when not."""
        if _CONTROL.search(name):
            self.problem(f"the column name {name!r} has control characters", *steps)
            return False
        if name.lower() in _OWN_NAMES:
            hint = "Rename the column; a source's own is renamed by field_mapping."
            self.problem(f"the column name {name!r} is reserved", *steps, hint=hint)
            return False
        return True

    def boolean(self, key: str, *, default: bool = False) -> bool:
        """`true` or `false`, nothing else."""
        value = self._keys.get(key)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        hint = "Write true or false."
        if isinstance(value, str) and value.lower() in _WOULD_BE_BOOLEANS:
            hint = f"Write {_WOULD_BE_BOOLEANS[value.lower()]}."
        self.problem(f"{key} is {shown(value)}, not true or false", key, hint=hint)
        return default

    def number(self, key: str, *, above: float | None = None, least: float | None = None) -> float | None:
        """A finite number; None when absent."""
        value = self._keys.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self.problem(f"{key} is {shown(value)}, not a number", key, hint=_unquote_hint(value))
        elif above is not None and value <= above:
            self.problem(f"{key} is {value}, but must be more than {above:g}", key)
        elif least is not None and value < least:
            self.problem(f"{key} is {value}, but must be at least {least:g}", key)
        else:
            return value
        return None

    def whole(self, key: str, *, least: int) -> int | None:
        """A whole number; None when absent."""
        value = self._keys.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self.problem(f"{key} is {shown(value)}, not a whole number", key, hint=_unquote_hint(value))
        elif value < least:
            self.problem(f"{key} is {value}, but must be at least {least}", key)
        else:
            return value
        return None

    def choice(self, key: str, known: Collection[str], default: str) -> str:
        """One of the known texts."""
        if not self.has(key):
            return default
        value = self.text(key)
        if value and value not in known:
            self.problem(f"unknown {key} {value!r}", key, hint=did_you_mean(value, known))
            return default
        return value or default

    # ------------------------------------------------------------------ parts

    def texts(self, key: str, *, required: bool = False, single: bool = False) -> tuple[str, ...]:
        """A list of texts, each once; `single` also takes one bare text."""
        value = self._keys.get(key)
        if single and isinstance(value, str):
            value = [value]
        found: list[str] = []
        for index, item in self.items(key, required=required, value=value):
            text = self._as_text(item, "the item", (key, index), required=True)
            if text in found:
                self.problem(f"{text!r} stands twice in {key}", key, index)
            elif text:
                found.append(text)
        return tuple(found)

    def items(self, key: str, *, required: bool = False, value: Any = None) -> Iterator[tuple[int, Any]]:
        """The items of a list with their positions; none when absent."""
        value = self._keys.get(key) if value is None else value
        if value is None:
            if required:
                self.problem(f"{key} is missing")
            return
        if not isinstance(value, list):
            self.problem(f"{key} is {shown(value)}, not a list", key, hint="Begin each item with a dash.")
            return
        if required and not value:
            self.problem(f"{key} is empty", key)
        yield from enumerate(value)

    def section(self, key: str) -> Section | None:
        """The mapping below a key; None when absent."""
        value = self._keys.get(key)
        return None if value is None else self.child(value, key)

    def child(self, value: Any, *steps: str | int) -> Section:
        """A section for a part of this one."""
        return Section(self.document, value, (*self.steps, *steps), self.problems, self.subject)

    def sections(self, key: str, short: Callable[[str], dict[str, Any]] | None = None) -> Iterator[Section]:
        """The mappings of a list; `short` says what a bare text item stands for."""
        for index, item in self.items(key):
            value = short(item) if short is not None and isinstance(item, str) else item
            child = self.child(value, key, index)
            if isinstance(value, dict):
                yield child

    def pairs(self, key: str, *, required: bool = False) -> tuple[tuple[str, str], ...]:
        """A mapping of text to text, in file order."""
        section = self.section(key)
        if section is None:
            if required:
                self.problem(f"{key} is missing")
            return ()
        found = [(name, section.text(name, required=True)) for name in section.names()]
        if required and not found and isinstance(section.value, dict):
            self.problem(f"{key} is empty", key)
        return tuple((name, text) for name, text in found if text)


def shown(value: Any) -> str:
    """A YAML value in a message, in short."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and looks_like_secret(value):
        return "a text that looks like a credential"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _quote_hint(value: Any) -> str:
    if isinstance(value, bool):
        return f'YAML reads it as a boolean: quote it ("{shown(value)}").'
    if isinstance(value, int | float):
        return f'YAML reads it as a number: quote it ("{value}").'
    return ""


def _unquote_hint(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[-+]?[\d.,_]+", value):
        return "It is text: remove the quotes, leading zeros and separators."
    return ""
