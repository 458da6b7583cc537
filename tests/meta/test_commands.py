"""Every command has help, JSON and a place in the documentation; so has every setting."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.main import get_command

from daedalus.cli.main import build_app
from daedalus.operator_config import DEFAULTS
from daedalus.pipelines.settings.model import CoverageSection, StoreSection, TrainingSettings

DOCS = Path(__file__).parents[2] / "docs"


def commands(group=None, prefix=()):
    """(path, command) of every leaf of the command tree."""
    group = group or get_command(build_app())
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from commands(command, (*prefix, name))
        else:
            yield " ".join((*prefix, name)), command


COMMANDS = dict(commands())


def test_the_promised_commands_exist():
    assert set(COMMANDS) >= {
        "init",
        "demo",
        "pipeline compile",
        "pipeline explain",
        "pipeline train",
        "view list",
        "view show",
        "service list",
        "service show",
        "config init",
        "config show",
        "config set",
        "config path",
    }


@pytest.mark.parametrize("path", COMMANDS)
def test_each_command_and_each_option_has_help(path):
    command = COMMANDS[path]
    assert command.help
    first = command.help.splitlines()[0]
    assert first.endswith(".")
    assert len(first) <= 60, "the list of commands would cut it"
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{path} {parameter.name}"


@pytest.mark.parametrize("path", COMMANDS)
def test_each_command_is_documented_with_its_options(path):
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert f"daeda {path}" in text
    for parameter in COMMANDS[path].params:
        for option in parameter.opts:
            if option.startswith("--") and option not in {"--help"}:
                assert f"`{option}" in text, option


@pytest.mark.parametrize("path", COMMANDS)
def test_each_command_speaks_json(path):
    assert any("--format" in parameter.opts for parameter in COMMANDS[path].params)


def test_train_has_the_promised_flags():
    flags = {option for parameter in COMMANDS["pipeline train"].params for option in parameter.opts}
    assert flags >= {
        "--target-date",
        "--skeleton-only",
        "--enrich-only",
        "--runtime-config-path",
        "--aggregation-config-path",
        "--output-root",
        "--day-workers",
        "--ray-num-cpus",
        "--ray-address",
        "--format",
    }


def settings_keys():
    yield from TrainingSettings.model_fields
    yield from (f"{key}" for model in (CoverageSection, StoreSection) for key in model.model_fields)
    yield from DEFAULTS


@pytest.mark.parametrize("key", sorted(set(settings_keys())))
def test_each_setting_is_documented(key):
    assert f"`{key}`" in (DOCS / "configuration.md").read_text(encoding="utf-8")
