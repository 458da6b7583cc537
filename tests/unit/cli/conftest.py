"""Run `daeda` in this process: what it wrote and its exit code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from daedalus.cli.main import main


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def daeda(tmp_path, monkeypatch, capsys):
    """Run a command in an empty working directory with an operator configuration of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAEDALUS_CONFIG", str(tmp_path / "operator" / "config.toml"))

    def run(*arguments: str) -> Ran:
        code = main(arguments)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run
