"""What an online store holds and answers: tables, requests, responses, and the protocol."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from daedalus.online.instants import US
from daedalus.online.layout import BIAS, RecordLayout

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from daedalus.catalog.model import FeatureViewDef

#: The column of rows to write that holds their event time: a timestamp in UTC, NULL for a view without time.
EVENT_TIME = "__event_time"


class Status(IntEnum):
    """What became of one entity of a request."""

    FOUND = 0
    MISSING = 1
    EXPIRED = 2  # its ttl has passed
    DELETED = 3
    NOT_YET = 4  # what is stored is newer than the instant that was asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineTable:
    """The newest row per entity of a view, or of a service's materialization.

    Attributes:
        kind: `view` or `service`.
        layout: its schema.
        ttl_seconds: how long after its event time a row is valid.
        delay_seconds: how long after its event time a row is visible.
        created_field: a row is visible from this time on, too; empty when there is none.
        created_unit: of one that is a whole number: `s`, `ms`, `us`, `ns`.
        sequence_field: tells rows of one event time apart; empty when there is none.
    """

    kind: str
    name: str
    layout: RecordLayout
    ttl_seconds: float | None = None
    delay_seconds: float = 0.0
    created_field: str = ""
    created_unit: str = "us"
    sequence_field: str = ""

    @property
    def subject(self) -> str:
        """How messages name it."""
        return f"{self.kind} {self.name}"

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of its keys."""
        return tuple(name for name, _ in self.layout.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventIndex:
    """A view's recent events, by some of its columns.

    Attributes:
        layout: `keys` are the columns events are found by; `fields` are the view's other fields.
        entity_keys: the view's own keys, by which events of one instant are ordered.
        keep_seconds: events older than the newest one by more than this are dropped; None keeps all.
    """

    view: str
    layout: RecordLayout
    entity_keys: tuple[str, ...]
    time_field: str
    created_field: str = ""
    sequence_field: str = ""
    keep_seconds: float | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that events are found by."""
        return tuple(name for name, _ in self.layout.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRequest:
    """Some entities of one table; `keys` has a column per key, in the table's order and types."""

    table: OnlineTable
    keys: Sequence[pa.Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRequest:
    """The events of some keys with an event time in `[since, until]`, microseconds since 1970."""

    index: EventIndex
    keys: Sequence[pa.Array]
    since_us: int | None
    until_us: int


@dataclass(frozen=True, kw_only=True)
class TableValues:
    """What one request found, one row per entity asked for, in their order.

    Attributes:
        batch: the fields, in the order of the layout; NULL in every row that is not `FOUND`.
        head: what the records say of themselves, as `HEADER_DTYPE` has it.
        status: a `Status` per row.
        all_found: whether every row is.
        as_of_us: the instant that was asked for.
        definition: which version of the definitions made the values, row by row; empty where nothing is stored.
    """

    table: OnlineTable
    keys: Sequence[pa.Array]
    batch: pa.RecordBatch
    head: NDArray[Any]
    status: NDArray[np.uint8]
    all_found: bool
    as_of_us: int
    definition: Sequence[str]

    @cached_property
    def event_us(self) -> NDArray[np.int64]:
        """Event times in microseconds since 1970; 0 where there is none."""
        return unbiased(self.head["event"])

    @cached_property
    def has_event(self) -> NDArray[np.bool_]:
        """Which rows have an event time."""
        known: NDArray[np.bool_] = self.head["event"] != 0
        return known

    @cached_property
    def written_us(self) -> NDArray[np.int64]:
        """When the rows were written; 0 where nothing is stored."""
        return self.head["written"].astype(np.int64)

    @cached_property
    def values(self) -> pa.Table:
        """The fields, in the order of the layout."""
        return pa.Table.from_batches([self.batch])

    @cached_property
    def event_times(self) -> pa.Array:
        """Event times in UTC; NULL where there is none."""
        return _times(self.event_us, self.has_event)

    @cached_property
    def write_times(self) -> pa.Array:
        """When each row was written, or confirmed by a load that had an older one; UTC."""
        return _times(self.written_us, self.written_us != 0)

    @cached_property
    def staleness_seconds(self) -> pa.Array:
        """Seconds from the event time to the instant asked for; NULL where there is none."""
        seconds = (self.as_of_us - self.event_us) / US
        return pa.array(seconds, mask=~self.has_event)

    @property
    def statuses(self) -> list[str]:
        """`found`, `missing`, `expired`, `deleted` or `not_yet`, row by row."""
        names = [one.name.lower() for one in Status]
        return [names[one] for one in self.status.tolist()]

    @property
    def found(self) -> int:
        """Rows with values."""
        return int((self.status == Status.FOUND).sum())

    def to_table(self) -> pa.Table:
        """Keys, then fields."""
        keys = pa.Table.from_arrays(list(self.keys), names=list(self.table.keys))
        return pa.Table.from_arrays(
            [*keys.columns, *self.values.columns], schema=pa.schema([*keys.schema, *self.values.schema])
        )


def _times(us: NDArray[np.int64], known: NDArray[np.bool_]) -> pa.Array:
    return pa.array(us, mask=~known).cast(pa.timestamp("us", "UTC"))


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineResponse:
    """The answer to a mix of requests, in their order; it took one round trip.

    Attributes:
        events: per event request, the events in the view's total order, keys among the columns.
    """

    tables: tuple[TableValues, ...]
    events: tuple[pa.Table, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteCounts:
    """What a write did.

    Attributes:
        written: rows that are now the newest.
        older: rows that were older than what is stored, and changed nothing.
        skipped: rows without a key, or not visible yet.
    """

    written: int = 0
    older: int = 0
    skipped: int = 0

    def __add__(self, other: WriteCounts) -> WriteCounts:
        return WriteCounts(
            written=self.written + other.written,
            older=self.older + other.older,
            skipped=self.skipped + other.skipped,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EventCounts:
    """What an append did: events that are new, known already, skipped, and dropped as too old."""

    added: int = 0
    known: int = 0
    skipped: int = 0
    dropped: int = 0

    def __add__(self, other: EventCounts) -> EventCounts:
        return EventCounts(
            added=self.added + other.added,
            known=self.known + other.known,
            skipped=self.skipped + other.skipped,
            dropped=self.dropped + other.dropped,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreHealth:
    """How the store is: whether it answers, what server it is, and the last complete load of each table."""

    ok: bool
    seconds: float
    server: str = ""
    url: str = ""
    problem: str = ""
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class OnlineStore(Protocol):
    """The newest row per entity of many tables, and recent events; safe for many writers."""

    def write(self, table: OnlineTable, rows: pa.Table, *, as_of: dt.datetime | None = None) -> WriteCounts:
        """Store rows; one that is older than what is there changes nothing, also with other writers at work."""

    def delete(
        self, table: OnlineTable, keys: Sequence[pa.Array], *, at: dt.datetime | None = None
    ) -> WriteCounts:
        """Mark entities as no more since an instant; rows of an earlier event time do not bring them back."""

    def read(
        self,
        requests: Sequence[ReadRequest],
        *,
        events: Sequence[EventRequest] = (),
        as_of: dt.datetime | None = None,
    ) -> OnlineResponse:
        """Read any mix of tables and events in one round trip, as of an instant (None is now)."""

    def append_events(
        self, index: EventIndex, rows: pa.Table, *, as_of: dt.datetime | None = None
    ) -> EventCounts:
        """Add events, in any order; one that is there already is not added again."""

    def state(self, table: OnlineTable) -> dict[str, Any]:
        """What is known of the last load of a table; empty when there was none."""

    def set_state(self, table: OnlineTable, state: Mapping[str, Any]) -> None:
        """Keep something about the load of a table."""

    def health(self) -> StoreHealth:
        """Whether the store answers; never raises."""

    def close(self) -> None:
        """Let go of connections."""


def table_of_view(view: FeatureViewDef) -> OnlineTable:
    """The online table of a view."""
    dtypes = {one.name: one.dtype for one in view.fields}
    keys = [(name, dtypes[name]) for name in view.join_keys]
    fields = [(one.name, one.dtype) for one in view.fields if one.name not in view.join_keys]
    return OnlineTable(
        kind="view",
        name=view.name,
        layout=RecordLayout(f"view {view.name}", keys=keys, fields=fields),
        ttl_seconds=view.ttl_seconds,
        delay_seconds=view.delay_seconds,
        created_field=view.source.created_field,
        created_unit=view.source.timestamp_unit,
        sequence_field=view.source.sequence_field,
    )


def unbiased(values: NDArray[Any]) -> NDArray[np.int64]:
    """Signed numbers of a header's; 0 where there was none."""
    plain = values.astype(np.uint64)
    signed: NDArray[np.int64] = (plain ^ np.uint64(BIAS)).view(np.int64)
    return np.where(plain == 0, 0, signed)
