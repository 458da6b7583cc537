"""Whatever stands behind `daeda`, it ends with an exit code and one error: no traceback, nothing unexpected."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.main import get_command

from daedalus.cli import crash
from daedalus.cli.main import build_app, main
from pipelines.tiny import SERVICE, tiny

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: They listen, seed gigabytes or look at the whole machine; a hostile value is tried on them by name below.
LEFT_OUT = {"serve", "serve-api", "mcp", "demo", "doctor"}
#: What a run would wait for, or start many of.
UNTRIED = {"--ray-address", "--ray-num-cpus", "--day-workers", "--help"}
SECRET = "canary-4711"


def commands(group: Any = None, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, command) of every leaf of the command tree."""
    group = group or get_command(build_app())
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from commands(command, (*prefix, name))
        elif name not in LEFT_OUT:
            yield (*prefix, name), command


COMMANDS = dict(commands())
WORDS = st.sampled_from(
    [
        *[
            "s",
            "nobody",
            "..",
            "../x",
            "../../../etc/passwd",
            "./",
            "-",
            "--",
            "--help",
            "-x",
            "--format=json",
            "é",
            "名前",
            "'",
            "*",
            "?",
            "[x",
            "{a}",
            "%s",
            "~",
            "$HOME",
        ],
        *[
            "1",
            "-1",
            "0",
            "99999999999999999999999999",
            "1e9",
            "nan",
            "inf",
            "1.5",
            "\uff11\uff12",
            "٣",
            "null",
            "true",
            "latest",
            "=",
            "=1",
            "user_id=",
            "user_id=1",
        ],
        *[
            "2026-05-01",
            "2026-02-30",
            "2026-5-1",
            "0000-00-00",
            "9999-12-31",
            "0001-01-01T00:00:00+12:00",
            "20260501",
        ],
        *[
            "feature_views",
            "feature_views/events.yaml",
            "file:///x/y",
            "json",
            "xml",
            "events",
            "users",
            "read_text('canary.txt')",
        ],
        *(
            "",
            " ",
            "x" * 5000,
            "a\0b",
            "\udce9",
            "\x1b[2J",
            "a\r\nb",
            '"',
            "'; DROP TABLE x; --",
            "1=1; select 1",
        ),
    ]
) | st.text(max_size=6)


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """A command with hostile words for some of its arguments and options."""
    path = draw(st.sampled_from(sorted(COMMANDS)))
    found = list(path)
    for parameter in COMMANDS[path].params:
        option = parameter.opts[0]
        if not option.startswith("-"):
            found += draw(st.lists(WORDS.filter(lambda word: not word.startswith("/")), max_size=1))
        elif option not in UNTRIED and draw(st.integers(0, 2)) == 0:
            found += [option] if getattr(parameter, "is_flag", False) else [option, draw(WORDS)]
    return found


def run(arguments: list[str]) -> tuple[int, str, str]:
    """Run a command on streams as a process has them: strict output, forgiving errors."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "stdin", io.StringIO(""))
        code = main(arguments)
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
    return code, texts[0], texts[1]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("hostile") / "a" / "b" / "c" / "project"
    tiny(root)
    (root / "canary.txt").write_text(SECRET)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("DAEDALUS_CONFIG", str(root.parent / "operator" / "config.toml"))
        patch.setattr(crash, "write_log", lambda error: f"LOG {error!r}")
        yield root


def check(arguments: list[str]) -> tuple[int, str, str]:
    """Run, and take nothing but an exit code and a readable error."""
    code, out, err = run(arguments)
    assert code in (0, 1, 2), err
    assert "Traceback" not in out + err
    assert "unexpected error" not in out + err
    assert not set("\x00\x07\x1b\r") & set(out + err)
    assert SECRET not in out + err
    if code == 2:
        assert out or err
    return code, out, err


@given(arguments=lines())
@settings(max_examples=max(settings().max_examples, 60))
def test_any_words_behind_any_command(project: Path, arguments: list[str]) -> None:
    check(arguments)


LONG = "x" * 5000


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["pipeline", "explain", "s", "--aggregation-config-path", LONG], 1, "File name too long"),
        (["pipeline", "explain", "s", "--runtime-config-path", "/dev/zero"], 2, "pipe or a device"),
        (["registry", "check", "--lock-file", "/dev/zero"], 2, "pipe or a device"),
        (["pipeline", "train", "s", "--output-root", "a\0b"], 2, "control character"),
        (["pipeline", "train", "s", "--target-date", "20260501"], 2, "expected YYYY-MM-DD"),
        (["materialize-day", "s", "--date", "2026-W18-5"], 2, "--date"),
        (["materialize", "s", "--as-of", "0001-01-01T00:00:00+12:00"], 2, "is no time"),
        (["runs", "logs", "latest", "--output-root", "a\r\x1b[2J"], 2, "a\\x0d\\x1b[2J"),
        (["service", "show", "\udce9"], 2, "not UTF-8"),
        (["service", "show", "\udce9", "--format", "json"], 2, "not UTF-8"),
        (["explain-row", "s", "--date", "2026-05-01", "--where", "read_text('canary.txt') = ''"], 2, "table function"),
        (["serve-api", "--host", "a\0b"], 2, "token"),
        (["serve", "--port", "99999999999999999999"], 2, "--port"),
        (["mcp", "--transport", "x"], 2, "--transport"),
        (["demo", LONG], 2, "File name too long"),
        (["demo", "d", "--events", "9" * 30], 1, "at most 1000M"),
        (["init", LONG], 1, "File name too long"),
    ],
)  # fmt: skip
def test_hostile_words(project: Path, arguments: list[str], code: int, said: str) -> None:
    found, out, err = check(arguments)
    assert said in out + err
    assert found == code
    if "json" in arguments:
        assert set(json.loads(out)["error"]) >= {"what", "where", "hint"}


def test_a_folder_that_reads_like_a_url_is_a_folder(project: Path) -> None:
    assert check(["init", "file:///shop"])[0] == 0
    assert os.listdir(project / "file:" / "shop" / "data")


def test_json_for_an_output_that_is_no_utf8(project: Path) -> None:
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    with contextlib.redirect_stdout(out):
        assert main(["service", "show", "名前", "--format", "json"]) == 2
    out.flush()
    assert "名前" in json.loads(out.buffer.getvalue())["error"]["what"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("window", [1e300, 1e308])
def test_a_window_of_any_length_compiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: float
) -> None:
    specs = [one | {"window_days": window} for one in SERVICE["aggregation_specs"]]
    tiny(tmp_path, service={"aggregation_specs": specs})
    monkeypatch.chdir(tmp_path)
    assert check(["pipeline", "compile", "s", "--no-write"])[0] == 0


def test_a_delay_that_would_run_over_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny(tmp_path, users_view={"delay_seconds": 10**10})
    monkeypatch.chdir(tmp_path)
    code, _, err = check(["view", "list"])
    assert code == 2
    assert "more than a hundred years" in err
