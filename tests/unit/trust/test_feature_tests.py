"""Feature tests: what they say is checked, and what is wrong with them is said."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from daedalus.cli.main import main
from daedalus.errors import DefinitionError
from daedalus.platform import PlatformRegistry
from daedalus.platform.trust import run_feature_tests
from support.pixai import DEFINITIONS, PIXAI

if TYPE_CHECKING:
    from pathlib import Path

    from support.project import Project

GOOD = """\
service: s
target_date: 2026-08-02
defaults:
  events: {user_id: 1, artwork_id: 5}
tests:
  - name: right
    rows:
      events:
        - {ts: "2026-08-02 10:00:00", event: like}
        - {ts: "2026-08-02T11:00:00+00:00", event: view, score: 3, artwork_id: 6}
        - {ts: "2026-08-02 12:00:00", event: view}
      profiles:
        - {user_id: 1, updated_at: "2026-08-02 11:00:00", lang: de}
    row_count: 3
    expect:
      - where: {artwork_id: 6}
        values: {liked: [5], seen: 0, lang: null, mean_score: null, ts: "2026-08-02 11:00", country: 7, busy: false}
      - {where: {ts: "2026-08-02 12:00:00"}, values: {liked: [], lang: de, mean_score: 3}}
      - {where: {user_id: 2}, absent: true}
"""
WRONG = """\
  - name: wrong
    rows:
      events:
        - {ts: "2026-08-02 10:00:00", event: like}
        - {ts: "2026-08-02 11:00:00", event: view}
    row_count: 3
    expect:
      - {where: {event: view}, values: {ever: 2, same: true}}
      - {where: {event: nothing}, values: {ever: 0}}
      - {where: {event: like}, absent: true}
"""


def write(project: Project, text: str, name: str = "a.yaml") -> Path:
    path = project.root / "feature_tests" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_what_holds_passes_and_what_does_not_is_shown(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    write(project, GOOD + WRONG)
    assert main(["test", "--format", "json"]) == 1
    report = json.loads(capsys.readouterr().out)
    right, wrong = report["tests"]
    assert right["passed"], right["differences"]
    assert right["checked"] == 12
    differences = {one["column"] for one in wrong["differences"]}
    assert differences == {"(rows)", "ever", "same"}
    ever = next(one for one in wrong["differences"] if one["column"] == "ever")
    assert (ever["expected"], ever["found"], ever["where"]) == (2, 1, {"event": "view"})
    line = next(n for n, text in enumerate((GOOD + WRONG).splitlines(), 1) if "ever: 2" in text)
    assert ever["place"] == f"feature_tests/a.yaml:{line}, $.tests[1].expect[0]"
    assert sum(one["column"] == "(rows)" for one in wrong["differences"]) == 3


def test_a_file_that_passes_exits_with_zero(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(project, GOOD)
    assert main(["test", str(path), "--service", "s"]) == 0
    assert "1 passed, 0 failed" in capsys.readouterr().out


MISTAKES = {
    "unknown key 'expct'": GOOD.replace("expect:", "expct:"),
    "target_date is 'soon'": GOOD.replace("target_date: 2026-08-02", "target_date: soon"),
    "a second test is called 'right'": GOOD + WRONG.replace("name: wrong", "name: right"),
    "either values or absent": GOOD.replace(", absent: true", ""),
    "row_count is -1": GOOD.replace("row_count: 3", "row_count: -1"),
    "expected a list": "service: s\ntarget_date: 2026-08-02\ntests: 3\n",
    "expected a mapping": "- 1\n",
    "service is missing": "tests: []\n",
}


@pytest.mark.parametrize("what", MISTAKES)
def test_mistakes_in_a_file_are_located(project: Project, what: str) -> None:
    write(project, MISTAKES[what])
    with pytest.raises(DefinitionError) as caught:
        run_feature_tests(PlatformRegistry.open(project.root))
    message = str(caught.value)
    assert what in message
    assert "feature_tests/a.yaml" in message


UNKNOWN: dict[str, tuple[str, str]] = {
    "unknown view 'evnts'": ("      events:\n        - {ts", "      evnts:\n        - {ts"),
    "no field 'scor'": ("score: 3", "scor: 3"),
    "'noon' is not a time": ('"2026-08-02 10:00:00"', "noon"),
    "field score": ("score: 3", "score: high"),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_rows_that_no_view_has_are_refused(project: Project, what: str) -> None:
    write(project, GOOD.replace(*UNKNOWN[what]))
    with pytest.raises(DefinitionError) as caught:
        run_feature_tests(PlatformRegistry.open(project.root))
    assert what in str(caught.value)
    assert "$.tests[0]" in str(caught.value)


def test_unknown_columns_services_and_folders_are_refused(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*args: str) -> str:
        assert main(["test", *args]) == 2
        return capsys.readouterr().err

    assert "there are no feature tests" in refused()
    assert "no such file" in refused("nowhere.yaml")
    write(project, GOOD.replace("liked: [5]", "likd: [5]"))
    assert "Did you mean 'liked'" in refused()
    assert "unknown service" in refused("--service", "zzz")


def test_a_day_without_rows_names_the_test(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, GOOD.replace("target_date: 2026-08-02", "target_date: 2026-08-09"))
    assert main(["test"]) == 1
    message = capsys.readouterr().err
    assert re.search(r"feature_tests/a\.yaml:\d+, \$\.tests\[0\], view events: there are no events", message)
    assert "Its rows are of 2026-08-02" in message


def _copy(example: Path, root: Path) -> dict[str, Any]:
    for folder in (*DEFINITIONS, "feature_tests"):
        shutil.copytree(example / folder, root / folder)
    results = run_feature_tests(PlatformRegistry.open(root))
    return {one.name: one.differences for one in results if not one.passed} | {"count": len(results)}


@pytest.mark.parametrize(("example", "count"), [("pixai", 6), ("flights", 3)])
@pytest.mark.slow
def test_the_examples_pass_their_own(tmp_path: Path, example: str, count: int) -> None:
    assert _copy(PIXAI.parent / example, tmp_path) == {"count": count}
