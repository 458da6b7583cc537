"""A row explained: each value's source rows, and each that does not count with its reason."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from daedalus.cli.main import main
from unit.trust.conftest import DAY

if TYPE_CHECKING:
    import pytest

    from support.project import Project

#: User 3 at 04:20, at the instant of the row before it; seq 180 is the day's first.
WHERE = "seq = 194"


def explained(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    args = ["explain-row", "s", "--date", DAY, "--where", WHERE, "--format", "json", *more]
    assert main(args) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_each_value_names_what_it_is_made_of(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    day = project.run("s", [DAY]).rows(DAY)
    found = explained(capsys)
    row = next(one for one in day if str(one["ts"]) == found["row"]["at"] and one["user_id"] == 3)
    values = {one["column"]: one for one in found["values"]}
    for name in ("liked", "seen", "authors", "ever", "same", "published", "account_age", "tier", "lang"):
        assert values[name]["value"] == row[name], name
    liked = values["liked"]
    assert [event["artwork_id"] for event in liked["used"]] == liked["value"]
    assert all(event["at"] < found["row"]["at"] for event in liked["used"])
    reasons = {one["reason"] for one in liked["excluded"]}
    assert {
        "same instant",
        "in the future",
        "before the window (2 d)",
        "condition is not true",
        "over max_items (4)",
    } <= reasons
    (version,) = values["tier"]["used"]
    assert version["known_at"] < found["row"]["at"]
    assert "in the future" in {one["reason"] for one in values["tier"]["excluded"]}
    assert values["country"]["value"] == 7  # the source lacks it
    assert values["title"]["rule"] == "latest version of works; may be from the row's future"
    assert values["busy"]["rule"] == "seen > 3"
    assert found["matches"] == 1
    assert found["dropped_by"] == []


def test_the_own_value_and_what_is_not_known_yet_are_named(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    reasons: dict[str, set[str]] = {"liked": set(), "tier": set(), "seen": set()}
    for minute in ("03:20:00", "09:20:00"):
        where = f"ts = TIMESTAMP '{DAY} {minute}'"
        args = ["explain-row", "s", "--date", DAY, "--where", where, "--format", "json"]
        assert main([*args, "--column", "liked", "--column", "tier", "--column", "seen"]) == 0
        for one in json.loads(capsys.readouterr().out)["values"]:
            reasons[one["column"]] |= {reason["reason"] for reason in one["excluded"]}
    assert "the row's own value (exclude_self)" in reasons["liked"]
    assert "not known yet (created_field)" in reasons["tier"]
    assert "had not arrived (delay_seconds)" in reasons["seen"]


def test_tables_and_refusals(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain-row", "s", "--date", DAY, "--where", WHERE, "--column", "liked"]) == 0
    out = capsys.readouterr().out
    assert "condition is not true" in out
    # A row's time stands there once, under the view's own name for it.
    assert not re.search(r"\bat\b", out)
    assert re.search(r"^ counts +ts +user_id", out, re.MULTILINE)
    assert main(["explain-row", "s", "--target-date", DAY, "--where", WHERE]) == 0
    assert "not explained: qid: it numbers the session" in capsys.readouterr().out
    assert main(["explain-row", "s", "--date", DAY, "--where", WHERE, "--column", "qid"]) == 2
    assert "it numbers the session" in capsys.readouterr().err
    for where, code in {
        "user_id = 99": 1,
        "usr_id = 1": 2,
        "user_id": 2,
        "user_id = 1; DROP TABLE x": 2,
        "user_id = (SELECT 1)": 2,
    }.items():
        assert main(["explain-row", "s", "--date", DAY, "--where", where]) == code, where
    assert main(["explain-row", "s", "--date", DAY, "--where", WHERE, "--column", "likd"]) == 2
    err = capsys.readouterr().err
    assert "no row of the day" in err
    assert "Did you mean 'liked'" in err
