"""What a person or a program sees when something is wrong: never a traceback."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from daedalus.cli import crash
from daedalus.cli import main as cli_main
from daedalus.errors import CompileError, DefinitionError, ExecutionError, MissingExtraError


def raising(error: BaseException):
    """A command tree of one command, which fails."""
    app = typer.Typer(rich_markup_mode=None)

    @app.callback()
    def root() -> None:
        pass

    @app.command("fail")
    def fail(output: str = typer.Option("table", "--format")) -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DefinitionError("wrong", where="a.yaml:3, $.x", hint="Do this."), 2),
        (CompileError("cycle"), 2),
        (ExecutionError("failed", day="2026-05-01", operator="join"), 1),
        (MissingExtraError("no stack"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(daeda, monkeypatch, error, code):
    monkeypatch.setattr(cli_main, "build_app", lambda: raising(error))
    ran = daeda("fail")
    assert ran.code == code
    assert ran.out == ""
    assert "Traceback" not in ran.err


def test_an_error_says_what_where_and_the_mend(daeda, monkeypatch):
    error = DefinitionError("unknown key 'x'", where="a.yaml:3, $.x", hint="Did you mean 'y'?")
    monkeypatch.setattr(cli_main, "build_app", lambda: raising(error))
    assert daeda("fail").err == "DefinitionError: a.yaml:3, $.x: unknown key 'x'. Did you mean 'y'?\n"
    ran = daeda("fail", "--format", "json")
    assert ran.err == ""
    assert ran.json == {"error": error.to_dict()}


def test_several_problems_are_listed(daeda, monkeypatch):
    error = DefinitionError.gather([DefinitionError("one", where="a"), DefinitionError("two", where="b")])
    monkeypatch.setattr(cli_main, "build_app", lambda: raising(error))
    assert daeda("fail").err.splitlines()[1:] == ["  - a: one", "  - b: two"]
    assert [problem["what"] for problem in daeda("fail", "--format=json").json["error"]["problems"]] == [
        "one",
        "two",
    ]


def test_an_unexpected_error_is_one_line_and_a_file(daeda, monkeypatch, tmp_path):
    monkeypatch.setattr(crash, "_folder", tmp_path)
    secret = "postgresql://me:hunter2@host/db"
    monkeypatch.setattr(cli_main, "build_app", lambda: raising(RuntimeError(f"odd\nsecond line {secret}")))
    ran = daeda("fail")
    assert ran.code == 1
    assert "Traceback" not in ran.err
    first, second = ran.err.splitlines()
    assert first == "unexpected error: RuntimeError: odd"
    path = Path(second.removeprefix("The traceback is in "))
    assert path.parent == tmp_path
    text = path.read_text()
    assert "Traceback" in text
    assert "hunter2" not in text


def test_the_log_goes_elsewhere_when_the_folder_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(crash, "_folder", tmp_path / "missing")
    path = Path(crash.write_log(ValueError("x")))
    assert path.is_file()
    path.unlink()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["pipline"], "Did you mean 'pipeline'"),
        (["train", "rank"], "Did you mean 'daeda pipeline train'?"),
        (["pipeline", "plan"], "No such command 'plan'.\nDid you mean 'daeda plan'?"),
        (["pipeline", "train", "--day-worker", "2"], "--day-workers"),
        (["pipeline", "train", "--day-workers", "0"], "--day-workers"),
        (["pipeline", "train", "--target-date", "yesterday"], "expected YYYY-MM-DD, got 'yesterday'"),
        (["pipeline", "train", "--skeleton-only", "--enrich-only"], "choose one of the two"),
        (["config", "set", "api_url"], "value"),
        (["config", "show", "--format", "xml"], "xml"),
    ],
)
def test_wrong_usage_is_exit_code_2(daeda, arguments, expected):
    ran = daeda(*arguments)
    assert ran.code == 2
    assert expected.lower() in ran.err.lower()
    assert "Traceback" not in ran.err


def test_wrong_usage_as_json(daeda):
    ran = daeda("config", "show", "--format", "json", "--bad")
    assert ran.code == 2
    assert ran.json["error"]["error"] == "UsageError"
    assert "--bad" in ran.json["error"]["what"]


def test_no_command_shows_help(daeda):
    ran = daeda()
    assert ran.code == 2
    assert "pipeline" in ran.err + ran.out
    assert daeda("--help").code == 0
    assert re.fullmatch(r"daeda \d+\.\d+\.\d+\n", daeda("--version").out)


def test_outside_a_project_the_hint_is_init(daeda):
    ran = daeda("view", "list")
    assert ran.code == 2
    assert "daeda init" in ran.err


def test_a_reader_that_goes_away_is_no_traceback():
    done = subprocess.run(
        f"{sys.executable} -m daedalus config show --format json | true",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
