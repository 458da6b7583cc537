"""What a day's columns hold, in few numbers: the form in which manifests and run records keep it.

Statistics are taken from the rows while they are written (`column_sketches`), and they depend on the rows alone.
`ColumnStats.to_mapping()` is what stands in a day's manifest under `columns`, by column name, and in the run
record of the day. Keys that say nothing are left out:

    rows        rows of the column, NULLs included. For `lengths` the lists that are there, for `items` the items.
    nulls       how many are NULL; `null_rate` is their part.
    hash        digest of the column's values in row order: equal digests, equal columns. Absent for `qid`.
    nans        how many are NaN.
    min, max    smallest and largest value, NULL and NaN aside. Times are ISO text in UTC, texts are cut to 64
                characters, booleans and binary have none.
    mean        of the numbers that are finite.
    distinct    how many different values: exact where `values` is there, else an estimate (3 % standard error).
    values      [[value, count], ...], most frequent first, NaN aside: all of them, where there are at most 64 and
                none is a longer text. A value is a number, a boolean or a text.
    bins        [[bin, count], ...] of numbers that are too many for `values`. Bins have the same edges on every
                day (`bin_edges`): an eighth of a power of two each, so 12.5 % wide at most; NaN aside.
    buckets     64 counts of values that are too many for `values`, by a hash that is the same on every day: for
                the drift of ids and texts. NaN aside.
    hours       24 counts of times, by UTC hour of the day.
    months      [["2026-05", count], ...] of times and dates, ascending.
    lengths     for a list column: the statistics of the lists' lengths, NULL lists aside.
    items       for a list column that is no vector: the statistics of the lists' items. Everything but `rows`,
                `nulls`, `min` and `max` is of every 64th row where the day is longer than a shard.
    sampled     64 where only every 64th row was looked at.

`aligned(columns)` puts several days' values of a column side by side, as PSI and Jensen-Shannon need them.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_VALUES = 64
BUCKETS = 64
#: Of a day with more than a shard of rows, the list items of every so many rows are looked at.
SAMPLED = 64
TEXT_LENGTH = 64
#: Bits of a double that are dropped to get its bin: three bits of the mantissa stay.
BIN_SHIFT = np.uint64(49)
BIN_COUNT = 1 << 15
_SIGN = 1 << 14

Value = int | float | str | bool
Counts = tuple[tuple[Value, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnStats:
    """The statistics of one column of one day; None and empty where they say nothing. The module has the keys."""

    rows: int
    nulls: int
    hash: str = ""
    nans: int = 0
    min: Value | None = None
    max: Value | None = None
    mean: float | None = None
    distinct: int | None = None
    values: Counts = ()
    bins: tuple[tuple[int, int], ...] = ()
    buckets: tuple[int, ...] = ()
    hours: tuple[int, ...] = ()
    months: tuple[tuple[str, int], ...] = ()
    lengths: ColumnStats | None = None
    items: ColumnStats | None = None
    sampled: int = 1

    @property
    def null_rate(self) -> float:
        """The part of the rows that is NULL; 0 without rows."""
        return self.nulls / self.rows if self.rows else 0.0

    def to_mapping(self) -> dict[str, Any]:
        """Plain data for JSON, what says nothing left out."""
        plain: dict[str, Any] = {"rows": self.rows, "nulls": self.nulls}
        for item in fields(self)[2:]:
            value = getattr(self, item.name)
            if value != item.default:
                plain[item.name] = value.to_mapping() if isinstance(value, ColumnStats) else _plain(value)
        return plain

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> ColumnStats:
        """What `to_mapping` wrote; keys of a later version are passed over."""
        known = {item.name for item in fields(cls)}
        kept = {key: _frozen(value) for key, value in data.items() if key in known}
        for name in ("lengths", "items"):
            if data.get(name) is not None:
                kept[name] = cls.from_mapping(data[name])
        return cls(**kept)

    def quantile(self, part: float) -> float | None:
        """The number below which `part` of the numbers lie, as exact as `values` or `bins` are.

        >>> ColumnStats(rows=4, nulls=0, values=((1, 3), (9, 1))).quantile(0.5)
        1.0
        """
        numbers = sorted(
            (float(value), count) for value, count in self.values if isinstance(value, int | float)
        ) or sorted((_middle(key), count) for key, count in self.bins)
        wanted = part * sum(count for _, count in numbers)
        for value, count in numbers:
            wanted -= count
            if wanted <= 0:
                return value
        return None


@dataclass(frozen=True, slots=True)
class Aligned:
    """Columns side by side over one set of bins, NULL and NaN among them.

    Attributes:
        form: `value`, `bin`, `month`, `hour` or `bucket`; empty when the columns have no common form.
        labels: for people: a value, a range, a month, `bucket 7`.
        edges: the numbers that each bin holds, (low, high); None for what has no order.
        counts: per column the count of each bin.
    """

    form: str
    labels: tuple[str, ...]
    edges: tuple[tuple[float, float] | None, ...]
    counts: tuple[tuple[int, ...], ...]


def aligned(columns: Sequence[ColumnStats]) -> Aligned:
    """Columns brought to the finest form that all of them have.

    Values, else numeric bins, else times by month or hour, else hash buckets; list columns by their lengths.

    >>> one, other = ColumnStats(rows=3, nulls=1, values=((7, 2),)), ColumnStats(rows=1, nulls=0, values=((5, 1),))
    >>> found = aligned([one, other])
    >>> found.form, found.labels, found.counts
    ('value', ('NULL', '5', '7'), ((1, 0, 2), (0, 1, 0)))
    """
    inner = [one.lengths or one for one in columns]
    common = _common(inner)
    if common is None:
        return Aligned("", (), (), ())
    keys = sorted({key for counts in common for key in counts}, key=_order)
    aside = [
        (label, counts)
        for label, counts in (
            ("NULL", [one.nulls for one in columns]),
            ("NaN", [one.nans for one in inner]),
        )
        if any(counts)
    ]
    return Aligned(
        form=keys[0][0] if keys else "value",
        labels=(*(label for label, _ in aside), *(_label(key) for key in keys)),
        edges=(*(None for _ in aside), *(_edges(key) for key in keys)),
        counts=tuple(
            (*(counts[number] for _, counts in aside), *(found.get(key, 0) for key in keys))
            for number, found in enumerate(common)
        ),
    )


def _common(columns: Sequence[ColumnStats]) -> list[dict[Any, int]] | None:
    for form in (_by_value, _by_bin, _by_month, _by_hour, _by_bucket):
        found = [form(one) for one in columns]
        whole = [one for one in found if one is not None]
        if len(whole) == len(found) and any(whole):
            return whole
    return None


def _edges(key: tuple[str, Any]) -> tuple[float, float] | None:
    kind, value = key
    if kind == "bin":
        return bin_edges(value)
    return (float(value), float(value)) if kind == "value" and _is_number(value) else None


def _empty(stats: ColumnStats) -> bool:
    return stats.rows == stats.nulls + stats.nans or not stats.rows


def _by_value(stats: ColumnStats) -> dict[Any, int] | None:
    known = {("value", value): count for value, count in stats.values}
    return known if known or _empty(stats) else None


def _by_bin(stats: ColumnStats) -> dict[Any, int] | None:
    if stats.bins or _empty(stats):
        return {("bin", key): count for key, count in stats.bins}
    numbers = [(value, count) for value, count in stats.values if _is_number(value)]
    if not numbers:
        return None
    found: dict[Any, int] = {}
    for value, count in numbers:
        key = ("bin", int(bin_keys(np.asarray([value], dtype=np.float64))[0]))
        found[key] = found.get(key, 0) + count
    return found


def _by_month(stats: ColumnStats) -> dict[Any, int] | None:
    # Times of one day differ by the hour, times of years by the month.
    if stats.hours and len(stats.months) < 2:
        return None
    return {("month", key): count for key, count in stats.months} if stats.months or _empty(stats) else None


def _by_hour(stats: ColumnStats) -> dict[Any, int] | None:
    if not stats.hours and not _empty(stats):
        return None
    return {("hour", hour): count for hour, count in enumerate(stats.hours) if count}


def _by_bucket(stats: ColumnStats) -> dict[Any, int] | None:
    if stats.buckets:
        return {("bucket", index): count for index, count in enumerate(stats.buckets) if count}
    if not stats.values:
        return {} if _empty(stats) else None
    found: dict[Any, int] = {}
    for value, count in stats.values:
        key = ("bucket", bucket_of(value))
        found[key] = found.get(key, 0) + count
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _order(key: tuple[str, Any]) -> tuple[int, float, str]:
    kind, value = key
    if kind == "bin":
        return 0, _middle(value), ""
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))


def _label(key: tuple[str, Any]) -> str:
    kind, value = key
    if kind == "bin":
        low, high = bin_edges(value)
        return f"{low:g} to {high:g}" if low != high else f"{low:g}"
    if kind == "hour":
        return f"{value:02d}:00"
    return f"bucket {value}" if kind == "bucket" else str(value)


# ------------------------------------------------------------------ the fixed bins and buckets


def bin_keys(values: np.ndarray) -> np.ndarray:
    """The bin of each double; NaN has none, leave it out before."""
    clean = values + 0.0  # -0.0 is 0.0
    keys: np.ndarray = (clean.view(np.uint64) >> BIN_SHIFT).astype(np.int64)
    return keys


def bin_edges(key: int) -> tuple[float, float]:
    """The smallest number of a bin and the next bin's, by size towards infinity.

    >>> bin_edges(int(bin_keys(np.asarray([10.0]))[0]))
    (10.0, 11.0)
    """
    sign = -1.0 if key & _SIGN else 1.0
    bits = np.asarray([key & (_SIGN - 1), (key & (_SIGN - 1)) + 1], dtype=np.uint64) << BIN_SHIFT
    near, far = (float(edge) for edge in bits.view(np.float64))
    if key & (_SIGN - 1) == 0:
        return 0.0, 0.0  # zero and the few numbers that are all but zero
    if not np.isfinite(near) or not np.isfinite(far):
        far = near
    return (near, far) if sign > 0 else (-far, -near)


def _middle(key: int) -> float:
    low, high = bin_edges(key)
    return (low + high) / 2


def mixed(words: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each 64-bit word, the same on every machine and in every version."""
    hashed: np.ndarray = words * np.uint64(0x9E3779B97F4A7C15)
    hashed ^= hashed >> np.uint64(32)
    hashed *= np.uint64(0xD6E8FEB86659FD93)
    hashed ^= hashed >> np.uint64(29)
    hashed *= np.uint64(0xD6E8FEB86659FD93)
    return hashed


def hash_of(value: Value) -> int:
    """The hash that `column_sketches` gives a value."""
    if isinstance(value, str):
        return int(xxhash.xxh3_64_intdigest(value.encode()))
    if isinstance(value, float):
        return int(mixed((np.asarray([value], dtype=np.float64) + 0.0).view(np.uint64))[0])
    return int(mixed(np.asarray([int(value) & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64))[0])


def bucket_of(value: Value) -> int:
    """The bucket that a value is counted in."""
    return hash_of(value) >> 58


# ------------------------------------------------------------------ plain data


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    return value


def shown(value: Any) -> Value | None:
    """A value as statistics show it: JSON can hold it, and it is short."""
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, str):
        return value[:TEXT_LENGTH]
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else ("NaN" if np.isnan(value) else str(value))
    return None if value is None or isinstance(value, bytes) else str(value)[:TEXT_LENGTH]
