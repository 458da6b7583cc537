"""What is done beside the thread that prepares it: in order, errors told, and memory that DuckDB leaves meanwhile."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from daedalus.pipelines.days.one_behind import OneBehind
from daedalus.pipelines.days.resources import DUCKDB_SHARE, SLICES_SHARE, bytes_of, less_for_duckdb
from daedalus.pipelines.duckdb_session import duckdb_session

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_things_are_done_in_order_one_at_a_time() -> None:
    done: list[int] = []
    inside = threading.Semaphore(1)

    def note(number: int) -> None:
        assert inside.acquire(blocking=False)
        done.append(number)
        inside.release()

    with OneBehind() as behind:
        for number in range(50):
            behind.do(lambda number=number: note(number))
    assert done == list(range(50))


def _fail() -> None:
    raise OSError("disk")


def _do(what: Callable[[], None], *, waits: bool = False, then: Exception | None = None) -> None:
    with OneBehind() as behind:
        behind.do(what)
        if waits:
            behind.wait()
        if then is not None:
            raise then


@pytest.mark.parametrize("waits", [True, False])
def test_what_fails_is_told_at_the_next_call_or_at_the_end(waits: bool) -> None:
    with pytest.raises(OSError, match="disk"):
        _do(_fail, waits=waits)


def test_an_error_of_the_caller_is_not_hidden_by_one_behind_it() -> None:
    with pytest.raises(ValueError, match="mine"):
        _do(_fail, then=ValueError("mine"))


@pytest.mark.parametrize(("spills", "limit"), [(True, "1600MB"), (False, "1600MB"), (True, "400MB")])
def test_duckdb_gets_less_for_a_while_where_it_may_spill(spills: bool, limit: str, tmp_path: Path) -> None:
    settings = {"memory_limit": limit, "temp_directory": str(tmp_path) if spills else ""}
    with duckdb_session(settings) as connection:
        own = bytes_of(connection, "memory_limit")
        with less_for_duckdb(connection):
            meanwhile = bytes_of(connection, "memory_limit")
        assert bytes_of(connection, "memory_limit") == pytest.approx(own, rel=0.1)  # told in tenths of GiB
    assert meanwhile == pytest.approx(
        own * SLICES_SHARE / DUCKDB_SHARE if spills and limit == "1600MB" else own, rel=0.1
    )
