"""Whatever stands in settings, pipelines, feature tests, serving settings and locks: a value, or a clear error."""

from __future__ import annotations

import copy
import functools
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from daedalus.catalog.lock_file import read_lock
from daedalus.catalog.yaml_reader import parse_yaml, read_yaml
from daedalus.errors import CompileError, DefinitionError
from daedalus.pipelines.pipeline_files import load_hand_edited, pipeline_from_yaml
from daedalus.pipelines.settings import load_training_config
from daedalus.serving.settings import load_settings
from daedalus.trust.feature_tests import load_feature_tests
from support.yaml_mutations import VALUES, mutate, paths

if TYPE_CHECKING:
    from collections.abc import Callable

TESTS = Path(__file__).parents[1]
PIXAI = TESTS.parent / "examples" / "pixai"
TOKENS = {"SERVE_A": "x" * 20, "SERVE_B": "y" * 20}
SERVING = """\
identities:
  - {name: a, token: "${SERVE_A}", services: [s], expires: "2027-01-01T00:00:00+09:00"}
  - {name: b, token: "${SERVE_B}"}
limits: {rows: 5, seconds: 1.5, memory: 1GB, threads: 1, statement_bytes: 100}
"""
RUNTIME, AGGREGATIONS = "config/training/runtime.yaml", "config/training/aggregations.yaml"


def _read(name: str) -> str:
    return (PIXAI / name).read_text(encoding="utf-8")


def _feature_test() -> str:
    return next(path for path in sorted((PIXAI / "feature_tests").glob("*.yaml"))).read_text(encoding="utf-8")


LOADERS: dict[str, tuple[dict[str, str], Callable[[Path], Any]]] = {
    "config": (
        {name: _read(name) for name in ("config/base.yaml", RUNTIME, AGGREGATIONS)},
        load_training_config,
    ),
    "serving": ({"config/serving.yaml": SERVING}, lambda root: load_settings(root, ["s"], environ=TOKENS)),
    "feature tests": ({"t/a.yaml": _feature_test()}, lambda root: load_feature_tests([root / "t" / "a.yaml"])),
    "lock": ({"registry.lock.json": _read("registry.lock.json")}, lambda root: read_lock(root / "registry.lock.json")),
    "pipeline": (
        {"flight_delay.yaml": (TESTS / "golden" / "pipelines" / "flight_delay.yaml").read_text(encoding="utf-8")},
        lambda root: load_hand_edited("flight_delay", root),
    ),
}  # fmt: skip
ODD = st.sampled_from(
    ["${SERVE_A}", "0001-01-01T00:00:00+12:00", "9999-12-31", "1GB", "../../x", "a\0b", "\x85", "/dev/zero"]
) | st.sampled_from([10**39, -1, 0, 1e308, float("inf"), "9" * 400, "postgresql://u:p@h/x"])
PIECES = st.binary(max_size=4) | st.sampled_from(
    [b"&a ", b"*a", b": ", b"- ", b"\n", b"{", b"!!python/name:os ", b"\0", b"9" * 500, b"[" * 3000, b'{"a":' * 2000]
)  # fmt: skip


@functools.cache
def trees(kind: str) -> dict[str, Any]:
    return {name: parse_yaml(text, file=name).tree for name, text in LOADERS[kind][0].items()}


def load(kind: str, files: dict[str, bytes]) -> Any:
    with tempfile.TemporaryDirectory(prefix="daedalus-") as folder:
        for name, data in files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return LOADERS[kind][1](Path(folder))


def check(kind: str, files: dict[str, bytes]) -> None:
    """Load, and take nothing but a value or errors that say what and where."""
    try:
        load(kind, files)
    except (DefinitionError, CompileError) as error:
        for problem in getattr(error, "problems", ()) or (error,):
            assert problem.what
            assert problem.where


def encoded(kind: str, found: dict[str, Any]) -> dict[str, bytes]:
    if kind == "lock":
        return {name: json.dumps(tree).encode() for name, tree in found.items()}
    return {name: yaml.safe_dump(tree, allow_unicode=True).encode() for name, tree in found.items()}


@pytest.mark.parametrize("kind", LOADERS)
def test_the_files_that_are_mutated_are_valid(kind: str) -> None:
    assert load(kind, encoded(kind, trees(kind))) is not None


@pytest.mark.parametrize("kind", LOADERS)
@given(data=st.data())
@settings(max_examples=settings().max_examples // 3)
def test_valid_files_with_mistakes(kind: str, data: st.DataObject) -> None:
    found = copy.deepcopy(trees(kind))
    places = [(name, path) for name, tree in found.items() for path in paths(tree)]
    for _ in range(data.draw(st.integers(1, 3))):
        how = data.draw(st.sampled_from(["set", "delete", "rename", "twice"]))
        mutate(found, data.draw(st.sampled_from(places)), how, data.draw(ODD | VALUES))
    check(kind, encoded(kind, found))


@pytest.mark.parametrize("kind", LOADERS)
@given(data=st.data())
@settings(max_examples=settings().max_examples // 5)
def test_damaged_text(kind: str, data: st.DataObject) -> None:
    files = {name: text.encode() for name, text in LOADERS[kind][0].items()}
    name = data.draw(st.sampled_from(sorted(files)))
    start = data.draw(st.integers(0, len(files[name])))
    end = min(len(files[name]), start + data.draw(st.integers(0, 6)))
    files[name] = files[name][:start] + data.draw(PIECES) + files[name][end:]
    check(kind, files)


BOMB = "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 9))
HEAD = "service: s\nversion: v\noperators: "


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (f"x0: &x0 [a]\n{BOMB}{HEAD}*x8", "more than 50000 values"),
        ("[" * 3000, "nested more than"),
        (f"{HEAD}[]\nservice: t", "stands twice"),
        (f"{HEAD}[{{op_kind: [scan], name: x}}]", "unknown op_kind"),
        (f"{HEAD}[{{op_kind: scan, name: x, source_ref: y, engine: [sql]}}]", "unknown value"),
        (f"{HEAD}!!python/object/apply:os.getcwd []", "tag"),
        (f"{HEAD}[{{op_kind: scan, name: 2026-02-30}}]", "not valid YAML"),
    ],
)
def test_a_hostile_pipeline(text: str, what: str) -> None:
    with pytest.raises(CompileError, match=what) as caught:
        pipeline_from_yaml(text, "s.yaml")
    assert "s.yaml" in caught.value.where


def test_a_pipeline_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_bytes(b"service: \xff")
    with pytest.raises(CompileError, match="cannot be read"):
        load_hand_edited("s", tmp_path)


@pytest.mark.parametrize("kind", ["device", "pipe"])
def test_a_file_that_never_ends_is_not_read(tmp_path: Path, kind: str) -> None:
    path = Path("/dev/zero") if kind == "device" else tmp_path / "pipe"
    if kind == "pipe":
        os.mkfifo(path)
    assert "pipe or a device" in read_yaml(path).problems[0].what
    with pytest.raises(DefinitionError, match="pipe or a device"):
        read_lock(path)
