"""Parquet files as their footers describe them: rows, types, and the range of each time column."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xxhash

if TYPE_CHECKING:
    from collections.abc import Callable

    from daedalus.storage.sources.base import TickRange

_US = {"milliseconds": (1_000, 1), "microseconds": (1, 1), "nanoseconds": (1, 1_000)}
_MAGIC = b"PAR1"
Bounds = tuple[int | None, int | None]
#: The footer's length and the magic bytes end every file.
TAIL_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetFile:
    """One file as its footer describes it.

    Attributes:
        etag: the object store's name of this content; empty for a local file.
        footer_hash: changes with the content, for footers hold every column chunk's offsets and statistics.
        types: (name, Arrow type) of the top-level columns.
        times: (column, smallest, largest) of timestamp columns, in microseconds since 1970.
        integers: (column, smallest, largest) of integer columns.
        changed_ns: when a local file's content or name last changed, by the file system's own account.
    """

    path: str
    size: int
    modified_ns: int
    footer_hash: str
    rows: int
    types: tuple[tuple[str, str], ...]
    times: tuple[tuple[str, int, int], ...]
    integers: tuple[tuple[str, int, int], ...]
    etag: str = ""
    changed_ns: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """Top-level column names."""
        return tuple(name for name, _ in self.types)

    def range_us(self, column: str, unit_us: float) -> tuple[int | None, int | None]:
        """Smallest and largest instant of a time column, finer units rounded down; None when unknown."""
        for name, low, high in self.times:
            if name == column:
                return low, high
        for name, low, high in self.integers:
            if name == column:
                return _ticks_us(low, unit_us), _ticks_us(high, unit_us)
        return None, None


def _ticks_us(ticks: int, unit_us: float) -> int:
    return ticks * round(unit_us) if unit_us >= 1 else ticks // round(1 / unit_us)


def footer_length(tail: bytes, size: int) -> int:
    """How many bytes the footer has, tail included; ValueError when the file does not end as Parquet does."""
    length = int.from_bytes(tail[-TAIL_BYTES:-4], "little")
    if tail[-4:] != _MAGIC or length + TAIL_BYTES > size:
        raise ValueError("it does not end with a Parquet footer")
    return length + TAIL_BYTES


def parse_footer(path: str, size: int, modified_ns: int, footer: bytes, etag: str = "") -> ParquetFile:
    """The file that this footer (tail included) describes; ValueError when it makes no sense."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(pa.BufferReader(_MAGIC + footer))
        types = tuple((field.name, str(field.type)) for field in metadata.schema.to_arrow_schema())
    except (pa.ArrowException, OSError) as error:
        raise ValueError(str(error)) from error
    return ParquetFile(
        path=path,
        size=size,
        modified_ns=modified_ns,
        footer_hash=xxhash.xxh3_128(footer).hexdigest(),
        rows=metadata.num_rows,
        types=types,
        times=_bounds(metadata, _as_us),
        integers=_bounds(metadata, _as_int),
        etag=etag,
    )


def is_readable(path: str) -> bool:
    """Whether every page of the file can be decoded."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for _ in file.iter_batches():
                pass
    except (OSError, pa.ArrowException):
        return False
    return True


def rows_touched(path: str, column: str, unit_us: float, time_range: TickRange | None) -> int:
    """Rows of the row groups of a local file that may hold some of the range: what a reader decodes."""
    import pyarrow.parquet as pq

    metadata, rows = pq.read_metadata(path), 0
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        low, high = None, None
        for index in range(row_group.num_columns):
            found = row_group.column(index)
            statistics = found.statistics if found.path_in_schema == column else None
            if statistics is not None and statistics.has_min_max:
                low, high = _as_us(statistics)
                if low is None or high is None:
                    low, high = (
                        None if ticks is None else _ticks_us(ticks, unit_us) for ticks in _as_int(statistics)
                    )
        rows += row_group.num_rows if time_range is None or time_range.touches(low, high) else 0
    return rows


def _bounds(metadata: Any, read: Callable[[Any], Bounds]) -> tuple[tuple[str, int, int], ...]:
    """Smallest and largest of each column that `read` understands; only where every row group knows them."""
    found: dict[str, tuple[int, int] | None] = {}
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for index in range(row_group.num_columns):
            column = row_group.column(index)
            statistics = column.statistics
            if (
                statistics is not None
                and not statistics.has_min_max
                and statistics.null_count == column.num_values
            ):
                continue  # only NULLs, which are in no range
            known = statistics is not None and statistics.has_min_max
            low, high = read(statistics) if known else (None, None)
            name = column.path_in_schema
            before = found.get(name, (low, high))
            if low is None or high is None or before is None or before[0] is None or before[1] is None:
                found[name] = None
            else:
                found[name] = (min(before[0], low), max(before[1], high))
    return tuple((name, known[0], known[1]) for name, known in found.items() if known is not None)


def _as_int(statistics: Any) -> Bounds:
    """The bounds of whole numbers."""
    if statistics.logical_type.type not in ("INT", "NONE") or not statistics.physical_type.startswith("INT"):
        return None, None
    low, high = statistics.min, statistics.max
    return (low, high) if isinstance(low, int) and isinstance(high, int) else (None, None)


def _as_us(statistics: Any) -> Bounds:
    """The bounds of timestamps, from what the file holds: Arrow would make nanoseconds an object of pandas."""
    if statistics.logical_type.type != "TIMESTAMP" or statistics.physical_type != "INT64":
        return None, None
    times, over = _US[json.loads(statistics.logical_type.to_json())["timeUnit"]]
    return statistics.min_raw * times // over, statistics.max_raw * times // over
