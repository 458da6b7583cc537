"""YAML as definitions are read: 1.2's scalars, lines, bounds."""

# ruff: noqa: E501, SIM905 - messages stand as they are printed, and words as they are written

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from daedalus.catalog.yaml_reader import MAX_BYTES, parse_yaml, path_text, read_yaml

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a: [1, -2, +3, 0.5, .5, 1e3, -1.5e-2]", {"a": [1, -2, 3, 0.5, 0.5, 1000.0, -0.015]}),
        ("a: [true, False, null, ~, ]", {"a": [True, False, None, None]}),
        ("a: [.inf, -.Inf]", {"a": [float("inf"), float("-inf")]}),
        (
            "a: [no, on, y, 012, 1:30, 0x1F, 1_000, 2026-01-01]",
            {"a": "no on y 012 1:30 0x1F 1_000 2026-01-01".split()},
        ),
        ("on: 1\nno: 2\n3: x\nnull: y", {"on": 1, "no": 2, "3": "x", "null": "y"}),
        ("a: '1'\nb: \"true\"\nc: |\n  1\n", {"a": "1", "b": "true", "c": "1\n"}),
        ("a: &x {k: 1}\nb: *x\nc: {<<: *x, l: 2}", {"a": {"k": 1}, "b": {"k": 1}, "c": {"l": 2, "k": 1}}),
        ("- {<<: [{a: 1}, {a: 2, b: 3}], c: 4}", [{"c": 4, "a": 1, "b": 3}]),
        ("\ufeffa: 1", {"a": 1}),
        ("# only\n--- \na: b\n...\n", {"a": "b"}),
    ],
)
def test_values(tmp_path: Path, text: str, tree: Any) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    document = read_yaml(path)
    assert document.problems == ()
    assert document.tree == tree
    assert [type(value) for value in _flat(document.tree)] == [type(value) for value in _flat(tree)]


def _flat(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return [leaf for value in tree.values() for leaf in _flat(value)]
    return [leaf for value in tree for leaf in _flat(value)] if isinstance(tree, list) else [tree]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f: the file is empty"),
        ("# nothing", "f: the file is empty"),
        ("~", "f: the file is empty"),
        ("a: {b: 1,\n c: 2,\n b: 3}", "f:3: the key 'b' stands twice. The first is in line 1: remove one."),
        ("[a]: 1", "f:1: a key must be text, not a list or mapping"),
        ("&x [1]\n", ""),
        ("a: *x", "f:1: the alias *x has no anchor before it, or stands inside it"),
        ("a: &x [*x]", "f:1: the alias *x has no anchor before it, or stands inside it"),
        ("a:\n- 1\n- !!set {}", "f:3: a YAML tag (tag:yaml.org,2002:set) is not allowed. Remove it; quote what must stay text."),
        ("a: {<<: 3}", "f:1: << merges mappings only. Write <<: *anchor of a mapping."),
        ("a:\n\t- 1", "f:2: not valid YAML: while scanning for the next token found character that cannot start any token. "
         "Indent with blanks, not tabs."),
        ("a: @b", "f:1: not valid YAML: while scanning for the next token found character that cannot start any token. "
         "Quote the text, with single quotes."),
        ("x: 1\na: 'b", "f:2: not valid YAML: while scanning a quoted scalar found unexpected end of stream"),
        ("[" * 100_000, "f:1: nested more than 40 deep"),
        ("- " * 50, "f:1: nested more than 40 deep"),
        ("{a: " * 50, "f:1: nested more than 40 deep"),
        ("a: 1\n--- \nb: 2", "f:2: a second document in the file. One file, one definition."),
    ],
)  # fmt: skip
def test_problems(text: str, message: str) -> None:
    assert [str(problem) for problem in parse_yaml(text, file="f").problems] == ([message] if message else [])


def test_a_bomb_is_bounded() -> None:
    lines = ["a0: &a0 [1,2,3,4,5,6,7,8,9]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    problems = parse_yaml("\n".join(lines), file="f").problems
    assert [problem.what for problem in problems] == ["more than 50000 values, aliases written out"]
    merges = ["a0: &a0 {k: [1,2,3,4,5,6,7,8,9]}"]
    merges += [f"a{n}: &a{n} {{x: {{<<: *a{n - 1}}}, y: {{<<: *a{n - 1}}}}}" for n in range(1, 40)]
    assert [problem.what for problem in parse_yaml("\n".join(merges), file="f").problems] == [
        "more than 50000 values, aliases written out"
    ]


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("#" * (MAX_BYTES + 1))
    assert [problem.what for problem in read_yaml(path).problems] == [
        f"the file has more than {MAX_BYTES} bytes"
    ]


def test_places() -> None:
    document = parse_yaml("a: 1\nb:\n - {c: 2,\n    d: 3}\n - *x\n".replace("*x", "e"), file="f.yaml")
    assert document.locate(("b", 0, "d")) == "f.yaml:4, $.b[0].d"
    assert document.locate(("b", 1)) == "f.yaml:5, $.b[1]"
    assert document.locate(("b", 9, "x")) == "f.yaml:2, $.b[9].x"
    document.forget(("b",))
    assert document.locate(("b", 1)) == "f.yaml:2, $.b[1]"
    assert path_text(("a b", 0)) == "$['a b'][0]"
