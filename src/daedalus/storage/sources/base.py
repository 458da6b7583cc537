"""What a source of rows offers, and what a run remembers of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb


@dataclass(frozen=True, slots=True, kw_only=True)
class TickRange:
    """A half-open range of a raw time column, in that column's own microseconds since 1970; None is open."""

    low_us: int | None = None
    high_us: int | None = None

    def touches(self, smallest_us: int | None, largest_us: int | None) -> bool:
        """Whether a value between the two may lie in the range; unknown bounds may."""
        if smallest_us is not None and self.high_us is not None and smallest_us >= self.high_us:
            return False
        return largest_us is None or self.low_us is None or largest_us >= self.low_us


def ticks_of(us: int, unit_us: float, *, up: bool) -> int:
    """An instant in ticks of `unit_us` microseconds, rounded up or down where it lies between two.

    >>> ticks_of(1_500, 1_000.0, up=True), ticks_of(1_500, 1_000.0, up=False), ticks_of(1_500, 0.001, up=True)
    (2, 1, 1500000)
    """
    if unit_us < 1:
        return us * round(1 / unit_us)
    unit = round(unit_us)
    return -(-us // unit) if up else us // unit


class Snapshot(Protocol):
    """What a source held when the run began."""

    @property
    def columns(self) -> frozenset[str]:
        """The names of the columns that it has, in lower case."""

    def identity(self, time_range: TickRange | None = None) -> list[Any]:
        """Plain data for resuming: a day whose identity is the same as before is not computed again.

        Files: changes when the rows of `time_range` may have changed. Databases: names the place only, for they
        are read again only with `--refresh`.
        """

    def exact(self, time_range: TickRange | None = None) -> list[Any] | None:
        """Plain data, equal only where the rows of `time_range` surely are the same; None when that is unknown."""

    def record(self) -> dict[str, Any]:
        """What the run read, as plain data without secrets: `backend`, the place, and the backend's own snapshot."""


@runtime_checkable
class Counted(Protocol):
    """A snapshot that knows how many rows it has, without reading them."""

    def rows(self, time_range: TickRange | None = None) -> int:
        """At most so many rows are in the range; 0 where there are none for sure."""


class Source(Protocol):
    """One relation at a backend.

    A source pickles: a day worker gets a copy, which reads the state that `snapshot` saw in the parent.
    """

    def setup(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Prepare the connection (extensions, secrets, attach); may be called more than once."""

    def relation_sql(self, time_range: TickRange | None = None, columns: Sequence[str] | None = None) -> str:
        """A FROM item with the source's own columns; never holds a secret.

        It may leave out rows outside `time_range`, and columns other than `columns` (the source's own names).
        """

    def schema(self, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """The source's columns and their DuckDB types, in order."""

    def snapshot(self) -> Snapshot:
        """What the source holds now; taken once per run."""

    def verify_unchanged(self) -> None:
        """Raise SourceError when the source is no longer what `snapshot` saw."""

    def close(self) -> None:
        """Let go of what keeps the snapshot alive; called once, at the end of the run."""


@runtime_checkable
class Fetching(Protocol):
    """A source whose `relation_sql` fetches rows; it can also say what the relation looks like without any."""

    def shape_sql(self, time_range: TickRange | None = None, columns: Sequence[str] | None = None) -> str:
        """A FROM item with the relation's columns and no rows; fetches nothing."""


@runtime_checkable
class Doubting(Protocol):
    """A source whose values DuckDB may misread; it can tell them."""

    def sound_sql(self, value: str, dtype: str) -> str:
        """A condition on a value of this type that is false where it is not what the source holds; may be empty."""


def sound_sql(source: Source, value: str, dtype: str) -> str:
    """The condition of a source that doubts its values; else empty."""
    return source.sound_sql(value, dtype) if isinstance(source, Doubting) else ""


def shape_sql(source: Source, time_range: TickRange | None, columns: Sequence[str] | None) -> str:
    """A FROM item for statements that are bound or shown, but not run."""
    shape = source.shape_sql if isinstance(source, Fetching) else source.relation_sql
    return shape(time_range, columns)
