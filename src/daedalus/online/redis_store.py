"""`RedisOnlineStore`: records as strings, events as sorted sets, on Redis, Valkey, or a cluster of either."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from daedalus.errors import DaedalusError, DefinitionError
from daedalus.online import metrics
from daedalus.online._scripts import APPEND, PRUNE, WRITE
from daedalus.online.connection import connect, shown_url, store_errors
from daedalus.online.encoding import encode, order_of, tombstone
from daedalus.online.event_rows import ordered_events
from daedalus.online.instants import US, instant_us
from daedalus.online.keys import add_keys, key_texts, picked, slices
from daedalus.online.layout import RecordLayout, unreadable
from daedalus.online.model import (
    EVENT_TIME,
    EventCounts,
    EventIndex,
    EventRequest,
    OnlineResponse,
    OnlineTable,
    ReadRequest,
    StoreHealth,
    WriteCounts,
    unbiased,
)
from daedalus.online.reading import table_values

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from daedalus.pipelines.settings import OnlineStoreConfig

#: Rows per script: Lua unpacks that many arguments, and the server serves nobody else meanwhile.
WRITE_ROWS = 500
_EVENT_ROWS = 1_000
#: Expired records stay so long for reads that say so; deleted ones, so that late rows do not bring them back.
_GRACE_SECONDS = 86_400.0
_DELETED_SECONDS = 30 * 86_400.0


class RedisOnlineStore:
    """An online store on one server or a cluster.

    Args:
        config: where it is.

    Raises:
        DefinitionError: the URL is missing or wrong.
        ExecutionError: the server cannot be reached; the client has then tried `retries` times.
    """

    def __init__(self, config: OnlineStoreConfig) -> None:
        self.config = config
        self._client, self._cluster = connect(config)
        self._schemas: dict[bytes, RecordLayout] = {}
        self._registered: set[bytes] = set()
        self._space = config.namespace.encode()
        self._write_script = None if self._cluster else self._client.register_script(WRITE)
        self._append_script = None if self._cluster else self._client.register_script(APPEND)
        self._prune_script = None if self._cluster else self._client.register_script(PRUNE)

    @property
    def is_cluster(self) -> bool:
        """Whether it is a cluster, where a load that was interrupted begins anew."""
        return self._cluster

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    # ------------------------------------------------------------------ names

    def table_prefix(self, table: OnlineTable) -> bytes:
        """What the keys of a table's records begin with."""
        return b"%s:%s:%s:" % (self._space, table.kind[:1].encode(), table.name.encode())

    def event_prefix(self, index: EventIndex) -> bytes:
        """What the keys of a view's events begin with."""
        columns = json.dumps(index.keys, ensure_ascii=False, separators=(",", ":"))
        return b"%s:e:%s:%s:" % (self._space, index.view.encode(), columns.encode())

    @property
    def _catalogue(self) -> bytes:
        return self._space + b":schemas"

    @property
    def _states(self) -> bytes:
        return self._space + b":state"

    # ------------------------------------------------------------------ writing

    def write(
        self, table: OnlineTable, rows: pa.Table, *, as_of: dt.datetime | None = None, confirm: bool = False
    ) -> WriteCounts:
        """Store rows; one that is older than what is there changes nothing, also with other writers at work.

        Of rows of equal event time, `created_field` and `sequence_field`, the one that is written last stays.

        Args:
            table: whose.
            rows: the keys, the fields in their types, and `__event_time`.
            as_of: the instant at which the rows were the newest; None is now. A row's life in the store is what its
                ttl had left then.
            confirm: a row that is older says that its entity is still there, and `prune` leaves it alone.
        """
        keys, kept = self._keys(table.layout, self.table_prefix(table), rows)
        if len(keys) < rows.num_rows:
            rows = rows.filter(pa.array(kept))
        order = order_of(
            rows.column(EVENT_TIME),
            rows.column(table.created_field) if table.created_field else None,
            rows.column(table.sequence_field) if table.sequence_field else None,
            rows.num_rows,
        )
        records = encode(table.layout, rows, order=order, written_us=instant_us(None))
        lives = _lives(table, order, instant_us(as_of))
        counts = self._store(table, keys, records, lives, confirm=confirm)
        return counts + WriteCounts(skipped=len(kept) - len(keys))

    def delete(
        self, table: OnlineTable, keys: Sequence[pa.Array], *, at: dt.datetime | None = None
    ) -> WriteCounts:
        """Mark entities as no more since an instant; rows of an earlier event time do not bring them back.

        The mark stays for 30 days.
        """
        prefix = self.table_prefix(table)
        names = [key for key in key_texts(keys, prefix) if key is not None]
        record = tombstone(table.layout, event_us=instant_us(at), written_us=instant_us(None))
        lives = np.full(len(names), int(_DELETED_SECONDS * 1000))
        return self._store(table, names, [record] * len(names), lives)

    def prune(self, table: OnlineTable, *, before_us: int, at: dt.datetime) -> int:
        """Mark as deleted what was last written or confirmed before a time and is no newer than `at`; how many."""
        pattern = re.sub(rb"([*?\[\]\\])", rb"\\\1", self.table_prefix(table)) + b"*"
        record = tombstone(table.layout, event_us=instant_us(at), written_us=instant_us(None))
        life, count = int(_DELETED_SECONDS * 1000), 0
        with store_errors(self.config), metrics.timed("prune"):
            found: list[bytes] = []
            for key in self._client.scan_iter(match=pattern, count=_EVENT_ROWS):
                found.append(key)
                if len(found) == WRITE_ROWS:
                    count += self._prune(found, before_us, record, life)
                    found = []
            return count + self._prune(found, before_us, record, life)

    def _prune(self, keys: list[bytes], before_us: int, record: bytes, life: int) -> int:
        limit = before_us.to_bytes(8, "big")
        count = 0
        for places in self._groups(keys, WRITE_ROWS):
            names = [keys[at] for at in places]
            count += self._run(self._prune_script, PRUNE, names, [limit, record, life])
        return count

    def _keys(self, layout: RecordLayout, prefix: bytes, rows: pa.Table) -> tuple[list[bytes], list[bool]]:
        """The keys of rows that have one, and which those are."""
        texts = key_texts([rows.column(name) for name, _ in layout.keys], prefix)
        return [key for key in texts if key is not None], [key is not None for key in texts]

    def _store(
        self,
        table: OnlineTable,
        keys: list[bytes],
        records: list[bytes],
        lives: NDArray[Any] | None,
        *,
        confirm: bool = False,
    ) -> WriteCounts:
        if not keys:
            return WriteCounts()
        self._register(table.layout)
        written = older = 0
        with store_errors(self.config), metrics.timed("write"):
            for places in self._groups(keys, WRITE_ROWS):
                flags = ["0" if lives is None else "1", "1" if confirm else "0"]
                arguments: list[Any] = [*flags, *(records[at] for at in places)]
                if lives is not None:
                    arguments += lives[places].tolist()
                done = self._run(self._write_script, WRITE, [keys[at] for at in places], arguments)
                written, older = written + done[0], older + done[1]
        metrics.ROWS.labels(table.name, "written").inc(written)
        metrics.ROWS.labels(table.name, "older").inc(older)
        return WriteCounts(written=written, older=older)

    def _groups(self, keys: list[bytes], size: int) -> list[list[int]]:
        """Places of keys that one script may touch: of one slot, in a cluster."""
        if not self._cluster:
            return [list(range(start, end)) for start, end in slices(len(keys), size)]
        slots: dict[int, list[int]] = {}
        for at, key in enumerate(keys):
            slots.setdefault(self._client.keyslot(key), []).append(at)
        return [places[a:b] for places in slots.values() for a, b in slices(len(places), size)]

    def _run(self, script: Any, text: str, keys: list[bytes], arguments: list[Any]) -> Any:
        if script is None:
            return self._client.eval(text, len(keys), *keys, *arguments)
        return script(keys=keys, args=arguments)

    def _register(self, layout: RecordLayout) -> None:
        """Say what the schema of the records is, before the first of them is written."""
        if layout.schema_id in self._registered:
            return
        with store_errors(self.config):
            self._client.hsetnx(self._catalogue, layout.schema_id, layout.text)
            stored = self._client.hget(self._catalogue, layout.schema_id)
        if stored != layout.text.encode():
            raise DefinitionError(
                "another schema in the store has the same id",
                where=layout.subject,
                hint="Use another online_store.namespace",
            )
        self._registered.add(layout.schema_id)

    def schema(self, schema_id: bytes, subject: str) -> RecordLayout:
        """The layout that records of this id have; asked for once."""
        if schema_id not in self._schemas:
            with store_errors(self.config):
                text = self._client.hget(self._catalogue, schema_id)
            if text is None:
                raise unreadable(subject, f"nothing says what schema {schema_id.hex()} is")
            self._schemas[schema_id] = RecordLayout.from_mapping(json.loads(text))
        return self._schemas[schema_id]

    # ------------------------------------------------------------------ reading

    def read(
        self,
        requests: Sequence[ReadRequest],
        *,
        events: Sequence[EventRequest] = (),
        as_of: dt.datetime | None = None,
    ) -> OnlineResponse:
        """Read any mix of tables and events in one round trip, as of an instant (None is now).

        Raises:
            ExecutionError: the store does not answer, or holds what nobody can read.
        """
        names: list[bytes] = []
        places: list[slice | list[int]] = [
            add_keys(names, self.table_prefix(one.table), one.keys) for one in requests
        ]
        with store_errors(self.config), metrics.timed("read"):
            records, found = self._fetch(names, events)
        now, tables = instant_us(as_of), []
        for request, at in zip(requests, places, strict=True):
            own = picked(records, at)
            values = table_values(request, own, now, self.schema)
            metrics.count_statuses(values)
            tables.append(values)
        rows = [
            ordered_events(request, members, self.schema)
            for request, members in zip(events, found, strict=True)
        ]
        return OnlineResponse(tables=tuple(tables), events=tuple(rows))

    def _fetch(
        self, names: list[bytes], events: Sequence[EventRequest]
    ) -> tuple[list[bytes | None], list[list[list[bytes] | None]]]:
        """Records by name, and members by event request and key."""
        if not events:
            return self._get(names), []
        if self._cluster:
            records = self._get(names)
            pipeline = self._client.pipeline()
        else:
            records = []
            pipeline = self._client.pipeline(transaction=False)
            if names:
                pipeline.mget(names)
        sizes = []
        for request in events:
            low = "-inf" if request.since_us is None else str(request.since_us)
            texts = key_texts(request.keys, self.event_prefix(request.index))
            for key in texts:
                if key is not None:
                    pipeline.zrangebyscore(key, low, str(request.until_us))
            sizes.append([key is not None for key in texts])
        answers = iter(pipeline.execute())
        if names and not self._cluster:
            records = next(answers)
        return records, [[next(answers) if known else None for known in keys] for keys in sizes]

    def _get(self, names: list[bytes]) -> list[bytes | None]:
        if not names:
            return []
        found: list[bytes | None] = (
            self._client.mget_nonatomic(names) if self._cluster else self._client.mget(names)
        )
        return found

    # ------------------------------------------------------------------ events

    def append_events(
        self, index: EventIndex, rows: pa.Table, *, as_of: dt.datetime | None = None
    ) -> EventCounts:
        """Add events, in any order; one that is there already is not added again.

        Args:
            index: by what they are found.
            rows: the view's fields, in their types, and `__event_time`. Rows without a key or a time are skipped.
            as_of: now, so that an event dated later does not push the others out.
        """
        texts = key_texts([rows.column(name) for name in index.keys])
        times = rows.column(EVENT_TIME)
        kept = [
            key is not None and known for key, known in zip(texts, times.is_valid().to_pylist(), strict=True)
        ]
        skipped = kept.count(False)
        if skipped:
            rows = rows.filter(pa.array(kept))
            texts = [key for key, keep in zip(texts, kept, strict=True) if keep]
        if not rows.num_rows:
            return EventCounts(skipped=skipped)
        order = order_of(
            times.filter(pa.array(kept)) if skipped else times,
            rows.column(index.created_field) if index.created_field else None,
            rows.column(index.sequence_field) if index.sequence_field else None,
            rows.num_rows,
        )
        members = encode(index.layout, rows, order=order, written_us=0)
        scores = unbiased(order["event"]).tolist()
        counts = self._append(index, [key for key in texts if key is not None], scores, members, as_of)
        metrics.EVENTS.labels(index.view, "added").inc(counts.added)
        return counts + EventCounts(skipped=skipped)

    def _append(
        self,
        index: EventIndex,
        texts: list[bytes],
        scores: list[int],
        members: list[bytes],
        as_of: dt.datetime | None,
    ) -> EventCounts:
        self._register(index.layout)
        prefix, keep = self.event_prefix(index), index.keep_seconds
        head = [
            instant_us(as_of),
            "" if keep is None else round(keep * US),
            0 if keep is None else round((keep + _GRACE_SECONDS) * 1000),
        ]
        added = dropped = 0
        with store_errors(self.config), metrics.timed("append"):
            for start, end in slices(len(texts), _EVENT_ROWS):
                by_key: dict[bytes, list[Any]] = {}
                for at in range(start, end):
                    by_key.setdefault(prefix + texts[at], []).extend((scores[at], members[at]))
                names = list(by_key)
                for places in self._groups(names, _EVENT_ROWS):
                    arguments = list(head)
                    for at in places:
                        pairs = by_key[names[at]]
                        arguments += [len(pairs) // 2, *pairs]
                    done = self._run(self._append_script, APPEND, [names[at] for at in places], arguments)
                    added, dropped = added + done[0], dropped + done[1]
        return EventCounts(added=added, known=len(texts) - added, dropped=dropped)

    # ------------------------------------------------------------------ state and health

    def state(self, table: OnlineTable) -> dict[str, Any]:
        """What is known of the last load of a table; empty when there was none."""
        with store_errors(self.config):
            text = self._client.hget(self._states, f"{table.kind}:{table.name}")
        return {} if text is None else dict(json.loads(text))

    def set_state(self, table: OnlineTable, state: Mapping[str, Any]) -> None:
        """Keep something about the load of a table."""
        with store_errors(self.config):
            self._client.hset(self._states, f"{table.kind}:{table.name}", json.dumps(state))

    def require(self) -> None:
        """Raise ExecutionError when the store does not answer."""
        with store_errors(self.config):
            self._client.ping()

    def health(self) -> StoreHealth:
        """Whether the store answers; never raises."""
        started = time.perf_counter()
        url = shown_url(self.config)
        try:
            with store_errors(self.config):
                states = self._client.hgetall(self._states)
                info = {} if self._cluster else self._client.info("server")
        except DaedalusError as error:
            seconds = time.perf_counter() - started
            return StoreHealth(ok=False, seconds=seconds, url=url, problem=str(error))
        server = "cluster" if self._cluster else f"redis {info.get('redis_version', '')}".strip()
        return StoreHealth(
            ok=True,
            seconds=time.perf_counter() - started,
            server=server,
            url=url,
            tables={name.decode(): json.loads(text) for name, text in sorted(states.items())},
        )


def _lives(table: OnlineTable, order: NDArray[Any], now_us: int) -> NDArray[Any] | None:
    """Milliseconds for which the server keeps each row; None for ever."""
    if table.ttl_seconds is None:
        return None
    age = np.where(order["event"] == 0, 0, now_us - unbiased(order["event"])) / US
    left = np.maximum(table.ttl_seconds - age, 0) + _GRACE_SECONDS
    lives: NDArray[Any] = np.ceil(np.minimum(left, 1e12) * 1000).astype(np.int64)
    return lives
