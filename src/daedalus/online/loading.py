"""Loading a whole table into the store: batch by batch, going on where an interrupted load of the same rows stopped."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from daedalus.online.instants import instant_us
from daedalus.online.model import WriteCounts

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable

    from daedalus.online.model import OnlineTable
    from daedalus.online.redis_store import RedisOnlineStore

#: Rows between two notes of how far a load is.
_NOTE_ROWS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLoad:
    """One load of one table.

    Attributes:
        rows: rows of the source.
        older: rows that were older than what was stored.
        resumed_at: rows that an interrupted load had stored already.
        pruned: entities that are no longer among the rows, and were marked as deleted.
    """

    table: str
    as_of: str
    rows: int
    written: int
    older: int
    skipped: int
    resumed_at: int
    pruned: int
    seconds: float

    @property
    def rows_per_second(self) -> int:
        """Of the rows that this load sent."""
        return round((self.rows - self.resumed_at) / max(self.seconds, 1e-9))

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"rows_per_second": self.rows_per_second}


def load_table(
    store: RedisOnlineStore,
    table: OnlineTable,
    batches: Iterable[pa.RecordBatch],
    *,
    as_of: dt.datetime,
    sources: Any,
    prune: bool = False,
) -> TableLoad:
    """Write every row.

    Args:
        store: where to.
        table: which.
        batches: the rows, always in the same order, with `__event_time`.
        as_of: the instant at which they are the newest.
        sources: plain data that is equal only where the rows are: what an interrupted load must have read, too.
        prune: mark entities as deleted that the store has and the rows have not.
    """
    started = time.perf_counter()
    same = {"as_of": as_of.isoformat(), "schema": table.layout.schema_id.hex(), "sources": _digest(sources)}
    before = store.state(table)
    unfinished = before.get("loading") or {}
    resumed = 0 if store.is_cluster or unfinished.get("same") != same else int(unfinished["rows"])
    began_us = int(unfinished["began_us"]) if resumed else instant_us(None)
    counts, done, noted = WriteCounts(), 0, resumed
    for batch in batches:
        rows = pa.Table.from_batches([batch])
        done += rows.num_rows
        if done <= resumed:
            continue
        counts += store.write(
            table, rows.slice(max(0, resumed - (done - rows.num_rows))), as_of=as_of, confirm=True
        )
        if done - noted >= _NOTE_ROWS and not store.is_cluster:
            # Sent after the rows on the same server: where the note is, the rows are.
            store.set_state(table, before | {"loading": {"same": same, "rows": done, "began_us": began_us}})
            noted = done
    pruned = store.prune(table, before_us=began_us, at=as_of) if prune else 0
    seconds = time.perf_counter() - started
    finished = {
        "as_of": same["as_of"],
        "schema": same["schema"],
        "definition": table.layout.definition,
        "rows": done,
        "written_us": instant_us(None),
    }
    store.set_state(table, finished)
    return TableLoad(
        table=table.subject,
        as_of=same["as_of"],
        rows=done,
        written=counts.written,
        older=counts.older,
        skipped=counts.skipped,
        resumed_at=resumed,
        pruned=pruned,
        seconds=round(seconds, 3),
    )


def _digest(sources: Any) -> str:
    text = json.dumps(sources, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
