"""A scanner that knows where strings, quoted names and comments begin and end; it knows no grammar."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<comment>--[^\n]*|/\*.*)
    | (?P<string>(?:[eE]'(?:\\.|''|[^'\\])*')|'(?:''|[^'])*')
    | (?P<dollar>\$(?P<tag>[^\W\d]\w*)?\$.*?\$(?(tag)(?P=tag))\$)
    | (?P<quoted>"(?:""|[^"])*")
    | (?P<word>[^\W\d][\w$]*)
    | (?P<number>\d[\w.]*)
    | (?P<open>[(\[{])
    | (?P<close>[)\]}])
    | (?P<semicolon>;)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text: what it is (a group name of the scanner) and the characters."""

    kind: str
    text: str


def scan(text: str) -> list[Token]:
    """The tokens of the text, white space included; joined they are the text."""
    return [Token(match.lastgroup or "other", match.group()) for match in _TOKEN.finditer(text)]


def squeeze(text: str) -> str:
    """The text with every run of white space outside quotes as one blank.

    A line break between two strings stays, because there it means that they are one string.
    """
    tokens = scan(text.strip())
    out: list[str] = []
    for index, token in enumerate(tokens):
        if token.kind != "space":
            out.append(token.text)
            continue
        strings = all(0 <= at < len(tokens) and tokens[at].kind == "string" for at in (index - 1, index + 1))
        out.append("\n" if strings and "\n" in token.text else " ")
    return "".join(out)


def is_enclosed(text: str) -> bool:
    """Whether one pair of parentheses encloses the whole text."""
    tokens = scan(text)
    return bool(tokens) and tokens[0].text == "(" and _closes_at_end(tokens)


def is_call(text: str) -> bool:
    """Whether the text is `word(...)` and nothing else, so that nothing around it can bind tighter."""
    tokens = scan(text)
    if len(tokens) < 3 or tokens[0].kind != "word" or tokens[0].text.lower() == "not":
        return False
    return tokens[1].text == "(" and _closes_at_end(tokens[1:])


def _closes_at_end(tokens: list[Token]) -> bool:
    depth = 0
    for index, token in enumerate(tokens):
        if token.kind == "open":
            depth += 1
        elif token.kind == "close":
            depth -= 1
            if depth == 0:
                return index == len(tokens) - 1
    return False
