"""The last step of a day is taken beside the next day's first, and nothing is lost when either fails."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from daedalus.errors import ExecutionError
from daedalus.metadata.days import DayStore
from daedalus.pipelines.days.scheduling import InThisProcess
from daedalus.pipelines.days.work import Done, SharedWork
from pipelines.tiny import DAYS, tiny

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from daedalus.metadata.days import DayManifest

FIRST, SECOND, LATE = DAYS


@dataclass
class Piece:
    """Work that notes what is done of it, and when.

    Attributes:
        notes: shared by all pieces.
        fails: the step that raises; 0 is none.
        waits_for: what its last step waits for.
        prepared: set after its first step.
    """

    day: dt.date
    notes: list[str]
    fails: int = 0
    waits_for: threading.Event | None = None
    prepared: threading.Event = field(default_factory=threading.Event)

    def run(self, shared: SharedWork, report: Any = None) -> Done:
        raise AssertionError("here it is taken in steps")

    def in_steps(self, shared: SharedWork, report: Any = None) -> Generator[None, None, Done]:
        try:
            self.note(1)
            self.prepared.set()
            yield
            self.note(2)
            yield
            if self.waits_for is not None and not self.waits_for.wait(30):
                raise AssertionError("the next piece does not begin")
            self.note(3)
        except GeneratorExit:
            self.notes.append(f"{self.day.day} let go")
            raise
        return Done(seconds=self.day.day)

    def note(self, step: int) -> None:
        if step == self.fails:
            raise ExecutionError(f"step {step} of {self.day.day}")
        self.notes.append(f"{self.day.day}.{step}")

    def finished(self, shared: SharedWork) -> Done | None:
        return None

    def clear(self, shared: SharedWork) -> None:
        pass


def pieces(*fails: int) -> list[Piece]:
    notes: list[str] = []
    return [Piece(dt.date(2026, 5, day), notes, fail) for day, fail in enumerate(fails, 1)]


def shared(tmp_path: Path, *, profiled: bool = False) -> SharedWork:
    return SharedWork(context=None, root=tmp_path, profiled=profiled)  # type: ignore[arg-type]


def silent(_index: int, _message: str) -> None:
    """Nobody listens."""


def test_a_piece_begins_before_the_last_step_of_the_one_before_it(tmp_path: Path) -> None:
    first, second = pieces(0, 0)
    first.waits_for = second.prepared
    outcomes = list(InThisProcess().each(shared(tmp_path), [first, second], silent))
    assert [(index, done.seconds) for index, done in outcomes] == [(0, 1), (1, 2)]
    # Rows of the second are made once the first is done: no more than one day's are on their way at a time.
    assert first.notes == ["1.1", "1.2", "2.1", "1.3", "2.2", "2.3"]


def test_what_is_measured_is_done_alone(tmp_path: Path) -> None:
    both = pieces(0, 0)
    list(InThisProcess().each(shared(tmp_path, profiled=True), both, silent))
    assert both[0].notes == ["1.1", "1.2", "1.3", "2.1", "2.2", "2.3"]


@pytest.mark.parametrize(
    ("fails", "notes"),
    [
        ((0, 1), ["1.1", "1.2", "1.3"]),
        ((3, 0), ["1.1", "1.2", "2.1", "2 let go"]),
        ((0, 3), ["1.1", "1.2", "2.1", "1.3", "2.2"]),
    ],
)
def test_a_step_that_fails_ends_the_run_and_what_is_begun_is_let_go(
    tmp_path: Path, fails: tuple[int, ...], notes: list[str]
) -> None:
    both = pieces(*fails)
    with pytest.raises(ExecutionError, match=f"step {max(fails)}"):
        list(InThisProcess().each(shared(tmp_path), both, silent))
    assert sorted(both[0].notes) == sorted(notes)


def test_a_run_that_is_stopped_finishes_the_last_step_and_lets_go_of_the_next_piece(tmp_path: Path) -> None:
    both = pieces(0, 0)
    with contextlib.closing(InThisProcess().each(shared(tmp_path), both, silent)) as outcomes:
        next(outcomes)
    assert both[0].notes == ["1.1", "1.2", "2.1", "1.3", "2 let go"] or both[0].notes == [
        "1.1",
        "1.2",
        "1.3",
        "2.1",
        "2 let go",
    ]


def test_a_day_that_cannot_be_finished_is_named_and_the_next_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tiny(tmp_path)
    commit = DayStore.commit

    def refused(self: DayStore, day: dt.date, folder: Path, manifest: DayManifest) -> None:
        if day.isoformat() == FIRST:
            raise OSError(28, "No space left on device")
        commit(self, day, folder, manifest)

    monkeypatch.setattr(DayStore, "commit", refused)
    with pytest.raises(ExecutionError, match="No space left") as caught:
        project.run("s")
    assert caught.value.day == FIRST
    folder = tmp_path / "out" / "s" / "skeleton"
    assert [path.name for path in folder.iterdir() if path.name != ".locks"] == []
    assert list(folder.glob(".locks/*.owner")) == []
    monkeypatch.undo()
    assert set(project.run("s").states.values()) == {"written"}


def test_a_day_that_cannot_begin_loses_no_day_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tiny(tmp_path)
    begin = DayStore.begin

    def refused(self: DayStore, day: dt.date) -> Path:
        if day.isoformat() == SECOND:
            raise OSError(28, "No space left on device")
        return begin(self, day)

    monkeypatch.setattr(DayStore, "begin", refused)
    with pytest.raises(ExecutionError, match="No space left") as caught:
        project.run("s")
    assert caught.value.day == SECOND
    monkeypatch.undo()
    assert project.run("s").states == {FIRST: "up to date", SECOND: "written", LATE: "written"}
