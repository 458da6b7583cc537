"""Runs that are killed, meet a full disk, or meet each other: complete or absent, and the same in the end.

`benchmarks/faults.py` does this at random moments of all stages on the demo world; this is a little of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("faults")]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script saw: it forks, so it has a process of its own."""
    folder = tmp_path_factory.mktemp("faults")
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("few_faults.py")), str(folder)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", ROOT / "tests")))},
    )
    assert ran.returncode == 0, ran.stderr
    return dict(json.loads(ran.stdout))


@pytest.mark.parametrize("stage", ["history", "rename", "record", "publish"])
def test_a_run_killed_in_a_stage_goes_on_to_the_same_bytes(found: dict[str, Any], stage: str) -> None:
    [kill] = [one for one in found["kills"] if one["stage"] == stage]
    assert kill["faults"] == []
    if stage == "publish":
        assert kill["kept"] >= 3  # the days that wait for the table


def test_a_full_disk_is_an_error_of_ours_and_leaves_nothing_in_part(found: dict[str, Any]) -> None:
    assert [one["torn"] for one in found["full"]] == [[]] * len(found["full"])
    for one in found["full"]:
        assert one["met"]["error"] == "ExecutionError", one["met"]
        assert "the run cannot be recorded" in one["met"]["text"]
        assert "Free space" in one["met"]["text"]
        assert one["again"] == ""
        assert one["same"]


def test_two_runs_of_one_root_share_it_or_one_is_told_who_is_at_it(found: dict[str, Any]) -> None:
    met = found["together"]["met"]
    assert any(one["error"] == "" for one in met)
    for one in met:
        assert one["error"] in ("", "BusyError"), one
        if one["error"]:
            assert "is being written by process" in one["text"]
    assert found["together"]["last"] == ""
    assert found["together"]["same"]
    assert found["together"]["whole"]
