"""The lock file: small diffs, one writer at a time, and nothing lost when it is not what it should be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from daedalus.catalog.lock_file import FORMAT, RegistryLock, lock_text, read_lock, update_lock
from daedalus.errors import DefinitionError, ExecutionError

SCHEMA = {
    "version": "2026-06-27",
    "serving_allowed": False,
    "spine": "events",
    "views": {"events": {"join": "spine", "keys": {"user_id": "BIGINT"}}},
    "columns": [{"name": "a", "dtype": "BIGINT", "ref": "events:a"}, {"name": "b", "dtype": "VARCHAR"}],
}


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "registry.lock.json"


def test_one_line_per_column_and_names_in_order(path):
    update_lock(path, lambda _: {"z": SCHEMA, "a": SCHEMA})
    lines = path.read_text().splitlines()
    assert '        {"name": "a", "dtype": "BIGINT", "ref": "events:a"},' in lines
    assert lines.index('    "a": {') < lines.index('    "z": {')
    assert path.read_text().endswith("}\n")
    assert read_lock(path) == RegistryLock(services={"z": SCHEMA, "a": SCHEMA}, file=str(path))


def test_there_may_be_none(path):
    assert read_lock(path) is None


def test_what_is_up_to_date_is_not_written(path):
    assert update_lock(path, lambda _: {"a": SCHEMA})
    before = path.stat().st_mtime_ns
    assert not update_lock(path, lambda lock: lock.services)
    assert path.stat().st_mtime_ns == before


TEXT = lock_text({"a": SCHEMA})
BROKEN = {
    "cut off": (TEXT[:200], "it is not JSON"),
    "empty": ("", "it is not JSON"),
    "not text": ("\udcff", "cannot be read"),
    "merge marks": ("<<<<<<< HEAD\n" + TEXT, "unresolved merge"),
    "a key twice": (TEXT.replace('"spine"', '"version"'), "'version' stands twice"),
    "a list": ("[]", "it has no format"),
    "other format": (TEXT.replace(f'"format": {FORMAT}', '"format": "x"'), "its format is 'x'"),
    "an unknown key": (TEXT.replace('"spine"', '"spin"'), "unknown key 'spin'. Did you mean 'spine'?"),
    "no columns": (TEXT.replace('"columns"', '"curation"'), "no columns|has no name and sql"),
    "wrong kind": (TEXT.replace('"serving_allowed": false', '"serving_allowed": "no"'), "is str, not bool"),
    "wrong version": (TEXT.replace("2026-06-27", "latest"), "is 'latest', not YYYY-MM-DD"),
    "a column without a name": (TEXT.replace('"name": "b", ', ""), r"columns\[1\] has no name"),
    "a column twice": (TEXT.replace('"name": "b"', '"name": "a"'), "names a column twice"),
    "a view that is none": (
        TEXT.replace('{"join": "spine", "keys": {"user_id": "BIGINT"}}', "1"),
        "is no mapping",
    ),
    "more beside": (TEXT.replace('"services"', '"extra": 1, "services"'), "and nothing else"),
    "nested deep": ('{"format": 1, "services": ' + "[" * 100_000, "it is not JSON"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_lock_is_refused_and_kept(path, case):
    text, message = BROKEN[case]
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DefinitionError, match=message) as caught:
        read_lock(path)
    assert str(path) in str(caught.value)
    with pytest.raises(DefinitionError, match=message):
        update_lock(path, lambda _: {"a": SCHEMA})
    assert path.read_bytes() == text.encode("utf-8", "surrogateescape")


def test_a_newer_file_is_left_alone(path):
    path.write_text(TEXT.replace(f'"format": {FORMAT}', f'"format": {FORMAT + 1}, "new": true'))
    before = path.read_bytes()
    with pytest.raises(DefinitionError, match=r"newer Daedalus \(format 2; this one reads 1\).*Upgrade"):
        update_lock(path, lambda _: {"a": SCHEMA})
    assert path.read_bytes() == before


def test_a_refusal_leaves_the_file(path):
    update_lock(path, lambda _: {"a": SCHEMA})
    before = path.read_bytes()

    def refuse(_lock):
        raise DefinitionError("no")

    with pytest.raises(DefinitionError):
        update_lock(path, refuse)
    assert not update_lock(path, lambda _: None)
    assert path.read_bytes() == before


def test_a_read_only_folder():
    # Nobody may make files there, not even root.
    with pytest.raises(ExecutionError, match=r"cannot be written.*Nothing was changed"):
        update_lock(Path("/proc/registry.lock.json"), lambda _: {"a": SCHEMA})
    with pytest.raises(ExecutionError, match="cannot be written"):
        update_lock(Path("/nowhere/registry.lock.json"), lambda _: {"a": SCHEMA})


_WRITER = """
import json, sys
from pathlib import Path
from daedalus.catalog.lock_file import update_lock
path, team, schema = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
for number in range(40):
    update_lock(path, lambda lock: {**(lock.services if lock else {}), f"{team}{number}": schema})
"""


def test_writers_that_race_lose_nothing(path):
    arguments = [sys.executable, "-c", _WRITER, str(path)]
    writers = [subprocess.Popen([*arguments, team, json.dumps(SCHEMA)]) for team in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    names = {f"{team}{number}" for team in "ab" for number in range(40)}
    assert set(json.loads(path.read_text())["services"]) == names
    assert [one.name for one in path.parent.iterdir()] == [path.name]
