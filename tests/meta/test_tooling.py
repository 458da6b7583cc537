"""The project's own tooling: pins without addresses, targets with help, a CI script that runs."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PINS = {path.name: path.read_text() for path in sorted((ROOT / "requirements").glob("*.txt"))}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def names(requirements: list) -> set[str]:
    return {
        re.split(r"[\[<>=~! ;]", text)[0].lower().replace("_", "-")
        for text in requirements
        if isinstance(text, str)
    }


def pinned(text: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9.-]+)==", text, re.MULTILINE))


@pytest.mark.parametrize("name", PINS)
def test_pins_hold_no_address_and_no_path(name):
    assert not re.search(r"://|index|find-links|^/|\s/[a-z]+/", PINS[name], re.MULTILINE)


@pytest.mark.parametrize("name", PINS)
def test_every_pin_has_a_hash(name):
    entries = re.split(r"^(?=[a-z0-9])", PINS[name], flags=re.MULTILINE)[1:]
    assert len(entries) > 40
    assert all("--hash=sha256:" in entry for entry in entries)


def test_every_declared_dependency_is_pinned():
    core = names(PROJECT["project"]["dependencies"])
    groups = PROJECT["dependency-groups"]
    assert core <= pinned(PINS["core.txt"])
    of_others = names(groups.pop("bench"))
    assert of_others <= pinned(PINS["bench.txt"])
    assert core | set().union(*(names(group) for group in groups.values())) <= pinned(PINS["dev.txt"])


def make(*arguments: str) -> str:
    """What make prints, also when this test runs under a make of its own."""
    outer = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES"}
    env = {name: value for name, value in os.environ.items() if name not in outer}
    command = ["make", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout


def test_make_lists_every_target_with_its_help():
    listed = make("-s")
    targets = {line.split()[0] for line in listed.splitlines()}
    assert targets >= {"setup", "demo", "test", "test-fast", "lint", "check", "bench", "pins", "clean"}
    assert all(len(line.split()) > 2 for line in listed.splitlines())


@pytest.mark.parametrize("target", ["demo", "test", "test-fast", "lint", "check", "bench", "pins"])
def test_each_target_sets_up_what_it_needs(target):
    plan = make("-n", target)
    assert plan.splitlines()[0] == "scripts/setup.sh"


def test_ci_runs_the_check():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make check" in script.read_text()
    plan = subprocess.run(
        ["make", "-n", "check"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for step in ("ruff format --check", "ruff check", "mypy", "lint-imports", "pytest"):
        assert step in plan
    assert "|| true" not in plan


def test_contributing_is_short():
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) < 60


def test_documents_link_to_what_exists():
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"
