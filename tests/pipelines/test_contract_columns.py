"""How the output's columns come to be: contract columns without a reference, and what an edit makes differently."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from daedalus.errors import DefinitionError
from daedalus.pipelines.operators import Join, JoinKind
from daedalus.pipelines.planning.column_recipes import recipe_change
from pipelines.tiny import SERVICE, USERS, tiny

if TYPE_CHECKING:
    from pathlib import Path


def test_a_column_of_nothing_but_its_default_may_say_unset(tmp_path: Path) -> None:
    columns = ["events:user_id", {"name": "state", "default": "unset", "dtype": "TEXT"}]
    pipeline = tiny(tmp_path, service={**SERVICE, "columns": columns}).pipeline("s")
    made = {column.name: column for column in pipeline.producer("output").columns}
    assert made["state"].default == "unset"


def test_a_view_that_takes_the_name_of_computed_columns_is_refused(tmp_path: Path) -> None:
    views = [{"view": "users", "join": "asof", "alias": "rolling"}]
    columns = ["events:user_id", "rolling:liked", "rolling:tier"]
    with pytest.raises(DefinitionError, match="the alias 'rolling' is reserved for computed columns"):
        tiny(tmp_path, service={**SERVICE, "views": views, "columns": columns}).pipeline("s")
    project = tiny(tmp_path / "other")
    project.define("feature_views", {**USERS, "name": "rolling"})
    project.define("feature_services", {**SERVICE, "views": ["rolling"], "columns": columns})
    with pytest.raises(DefinitionError, match="the name 'rolling' is reserved for computed columns"):
        project.pipeline("s")


def test_an_inner_join_makes_other_rows_and_so_every_column(tmp_path: Path) -> None:
    pipeline = tiny(tmp_path).pipeline("s")
    edited = dataclasses.replace(
        pipeline,
        operators=tuple(
            dataclasses.replace(one, how=JoinKind.INNER) if isinstance(one, Join) else one for one in pipeline
        ),
    )
    change = recipe_change(pipeline, edited)
    assert change.rows
    assert change.columns == tuple(column.name for column in pipeline.producer("output").columns)


def test_a_default_that_is_taken_away_makes_the_column_differently(tmp_path: Path) -> None:
    def of(default: dict[str, str]) -> list[object]:
        return ["events:user_id", {"ref": "events:event", "dtype": "TEXT", **default}]

    with_one, without = (
        tiny(tmp_path / name, service={**SERVICE, "columns": of(default)}).pipeline("s")
        for name, default in (("a", {"default": "unset"}), ("b", {}))
    )
    assert recipe_change(with_one, without).columns == ("event",)
