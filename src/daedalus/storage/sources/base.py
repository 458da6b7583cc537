"""What a source of rows offers, and what a run remembers of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
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


class Snapshot(Protocol):
    """What a source held when the run began."""

    @property
    def columns(self) -> frozenset[str]:
        """The names of the columns that it has, in lower case."""

    def identity(self, time_range: TickRange | None = None) -> list[Any]:
        """Plain data that changes when the rows of `time_range` may have changed."""


class Source(Protocol):
    """One relation at a backend."""

    def setup(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Prepare the connection (attach, secrets); may be called more than once."""

    def relation_sql(self, time_range: TickRange | None = None) -> str:
        """A FROM item with the source's own columns; may leave out files without rows in `time_range`."""

    def schema(self, connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """The source's columns and their DuckDB types, in order."""

    def snapshot(self) -> Snapshot:
        """What the source holds now; taken once per run."""

    def verify_unchanged(self) -> None:
        """Raise SourceError when the source is no longer what `snapshot` saw."""
