"""What the package exports, and what importing it must not load."""

from __future__ import annotations

import ast
import functools
import graphlib
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import daedalus

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(daedalus.__file__).parent
ENGINES = ("duckdb", "polars", "pyarrow", "numpy", "numba", "pandas", "ray", "lance", "redis", "sqlglot")
SLOW_STARTERS = (*ENGINES, "pydantic_settings", "yaml", "rich.console")


def modules_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after running `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys\nprint('\\n' + json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_all_is_sorted_and_every_name_loads():
    constants = [name for name in daedalus.__all__ if name.isupper()]
    types = [name for name in daedalus.__all__ if not name.isupper() and name[0].isupper()]
    functions = [name for name in daedalus.__all__ if name[0].islower()]
    assert daedalus.__all__ == sorted(constants) + sorted(types) + sorted(functions)
    for name in daedalus.__all__:
        assert getattr(daedalus, name) is not None


def test_all_is_what_is_public():
    homes = daedalus._HOMES
    assert sorted(homes) == sorted(daedalus.__all__)
    assert set(daedalus.__all__) <= set(dir(daedalus))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = daedalus.nothing


def test_importing_the_package_loads_no_third_party_module():
    loaded = {name.partition(".")[0] for name in modules_after("import daedalus")}
    assert not loaded & set(SLOW_STARTERS)
    assert not {name for name in modules_after("import daedalus") if name.startswith("daedalus.")}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["pipeline", "--help"], ["pipeline", "train", "--help"], ["config", "path"]],
)
def test_the_command_line_starts_without_engines(arguments):
    loaded = modules_after(f"from daedalus.cli.main import main\nassert main({arguments!r}) == 0")
    assert not loaded & set(SLOW_STARTERS)


@pytest.mark.parametrize(
    "module", ["daedalus.errors", "daedalus.catalog.model", "daedalus.pipelines.settings"]
)
def test_descriptions_load_no_engine(module):
    assert not modules_after(f"import {module}") & set(ENGINES)


@pytest.mark.parametrize("module", ["daedalus.pipelines.operators", "daedalus.pipelines.compiler"])
def test_the_compiler_loads_no_engine(module):
    assert not modules_after(f"import {module}") & {"duckdb", "polars", "numba", "ray", "lance", "pandas"}


def imported_by(tree: ast.AST) -> Iterator[str]:
    """What a module imports when it is itself imported, by full name; `from x import y` may be `x.y` or `x`."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                pass
            case ast.If() if "TYPE_CHECKING" in ast.dump(node.test):
                yield from imported_by(ast.Module(node.orelse, []))
            case _:
                yield from imported_by(node)


def test_no_module_waits_for_one_that_waits_for_it() -> None:
    """Without a cycle, each module imports alone: nothing relies on another having been imported first."""
    waits: dict[str, set[str]] = {}
    modules = {name for name, _ in trees()}
    for name, tree in trees():
        waits[name] = set()
        for wanted in imported_by(tree):
            found = wanted if wanted in modules else wanted.rpartition(".")[0]
            while found in modules:
                waits[name].add(found)
                found = found.rpartition(".")[0]
                if f"{name}.".startswith(f"{found}."):  # that one is there in part, and asked for nothing
                    break
    assert sum(map(len, waits.values())) > 500
    assert list(graphlib.TopologicalSorter(waits).static_order())


@pytest.mark.slow
def test_every_module_imports_without_optional_stacks():
    names = [name for name, _ in trees() if name != "daedalus.__main__"]
    code = f"import importlib\nfor name in {names!r}:\n    importlib.import_module(name)"
    loaded = {name.partition(".")[0] for name in modules_after(code)}
    assert not loaded & {"fastapi", "mcp", "dagster", "mlflow", "snowflake", "uvicorn"}


@functools.cache
def trees() -> list[tuple[str, ast.Module]]:
    """Every module by its full name."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = ("daedalus", *path.relative_to(SOURCE).with_suffix("").parts)
        name = ".".join(part for part in parts if part != "__init__")
        found.append((name, ast.parse(path.read_text(encoding="utf-8"))))
    return found


@functools.cache
def callers() -> dict[str, set[str]]:
    """By name of a function or method: the modules that call one of this name."""
    found = defaultdict(set)
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = node.func
                title = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
                found[title].add(name.partition(".")[2].replace(".", "/") + ".py")
    return found


def calls_of(name: str) -> set[str]:
    return callers().get(name, set())


def test_pipeline_train_is_the_sole_training_entry_point():
    # A probe makes a day of altered copies, looks at it and throws it away.
    assert calls_of("run_pipeline") == {"platform/registry.py", "trust/probe.py"}
    # One partition is made by the same road.
    assert calls_of("train") == {
        "cli/training.py",
        "platform/materialization.py",
        "platform/run_worker.py",
        "defs/steps.py",
    }
    # The demo seeds first and then takes the same road.
    assert calls_of("run_training") == {"cli/pipeline.py", "cli/demo.py"}
    for stage in ("run_skeleton_stage", "run_enrich_stage"):
        assert all(path.startswith("pipelines/") for path in calls_of(stage))


def test_few_modules_can_be_run_as_programs():
    mains = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
    }
    # The last is the process of a queued run.
    assert mains == {"__main__.py", "cli/main.py", "platform/run_worker.py"}
