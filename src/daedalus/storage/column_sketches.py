"""Statistics of a day's columns from the tables that are being written: one sketch per column, made shard by shard.

    sketches = table_sketches(shard)             # in the thread that encodes the shard
    total = merge_sketches([sketches, ...])      # in row order
    total["user_id"].stats()                     # a ColumnStats

A sketch holds counts, extremes, fixed histograms and the smallest hashes of the distinct values, so that two of
them merge into exactly what both rows together give. Nothing is looked at twice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from daedalus.catalog.aggregation import TICKS_PER_SECOND
from daedalus.storage.arrow_kinds import is_list, is_text
from daedalus.storage.column_stats import (
    BIN_COUNT,
    BUCKETS,
    MAX_VALUES,
    TEXT_LENGTH,
    ColumnStats,
    bin_keys,
    hash_of,
    mixed,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from daedalus.storage.column_stats import Value

_SMALLEST = 1_024  # hashes kept: a standard error of 3 %
_PROBE = 1_024


@dataclass(slots=True)
class Sketch:
    """What is known of some rows of one column; see `ColumnStats` for the meanings.

    Attributes:
        values: counts of all values, while there are few; None when there were too many, or they are not counted.
        smallest: the smallest hashes, ascending; only when `values` is None.
        numeric: whether bins are kept.
        total: the sum of the `finite` numbers.
    """

    rows: int = 0
    nulls: int = 0
    nans: int = 0
    low: Any = None
    high: Any = None
    total: float = 0.0
    finite: int = 0
    numeric: bool = False
    values: Counter[Any] | None = field(default_factory=Counter)
    smallest: np.ndarray | None = None
    bins: np.ndarray | None = None
    buckets: np.ndarray | None = None
    hours: np.ndarray | None = None
    months: Counter[str] | None = None
    lengths: Sketch | None = None
    items: Sketch | None = None
    sampled: int = 1

    def merge(self, other: Sketch) -> None:
        """Take in the rows of `other`."""
        self.rows += other.rows
        self.nulls += other.nulls
        self.nans += other.nans
        self.total += other.total
        self.finite += other.finite
        self.numeric = self.numeric or other.numeric
        self.sampled = max(self.sampled, other.sampled)
        self.low = _extreme(min, self.low, other.low)
        self.high = _extreme(max, self.high, other.high)
        self._merge_values(other)
        self.hours = _summed(self.hours, other.hours)
        self.months = _either(self.months, other.months)
        self.lengths = _merged(self.lengths, other.lengths)
        self.items = _merged(self.items, other.items)

    def _merge_values(self, other: Sketch) -> None:
        if self.values is not None and other.values is not None:
            both = Counter(self.values)
            both.update(other.values)
            if len(both) <= MAX_VALUES:
                self.values = both
                return
        mine, theirs = self._spread(), other._spread()
        self.values = None
        self.bins = _summed(mine.bins, theirs.bins)
        self.buckets = _summed(mine.buckets, theirs.buckets)
        if mine.smallest is not None and theirs.smallest is not None:
            self.smallest = _unique(np.concatenate([mine.smallest, theirs.smallest]))[:_SMALLEST]
        else:
            self.smallest = mine.smallest if theirs.smallest is None else theirs.smallest

    def _spread(self) -> Sketch:
        """The same with hashes, bins and buckets in place of counted values."""
        if self.values is None:
            return self
        if not self.values:
            return replace(self, values=None)
        hashes = np.asarray([hash_of(value) for value in self.values], dtype=np.uint64)
        counts = np.asarray(list(self.values.values()), dtype=np.int64)
        spread = replace(self, values=None, smallest=np.sort(hashes))
        spread.buckets = _weighted(hashes >> np.uint64(58), counts, BUCKETS)
        if self.numeric:
            keys = bin_keys(np.asarray(list(self.values), dtype=np.float64))
            spread.bins = _weighted(keys, counts, BIN_COUNT)
        return spread

    def stats(self, digest: str = "") -> ColumnStats:
        """The finished statistics."""
        return ColumnStats(
            rows=self.rows,
            nulls=self.nulls,
            hash=digest,
            nans=self.nans,
            min=shown(self.low),
            max=shown(self.high),
            mean=self.total / self.finite if self.finite else None,
            distinct=self._distinct(),
            values=_most_first(self.values or {}),
            bins=_sparse(self.bins) if self.values is None else (),
            buckets=() if self.buckets is None or self.values is not None else _ints(self.buckets),
            hours=() if self.hours is None else _ints(self.hours),
            months=tuple(sorted((self.months or {}).items())),
            lengths=None if self.lengths is None else self.lengths.stats(),
            items=None if self.items is None else self.items.stats(),
            sampled=self.sampled,
        )

    def _distinct(self) -> int | None:
        if self.values is not None:
            return len(self.values) if self.values or self.rows == self.nulls + self.nans else None
        if self.smallest is None:
            return None
        if len(self.smallest) < _SMALLEST:
            return len(self.smallest)
        return round((_SMALLEST - 1) / (float(self.smallest[-1]) / 2.0**64))


Sketches = dict[str, Sketch]


def table_sketches(
    table: pa.Table, *, only: Collection[str] = (), vectors: Collection[str] = (), sample: int = 1
) -> Sketches:
    """The sketches of a table's columns.

    Args:
        table: some rows, at most a shard.
        only: just these columns; empty is all.
        vectors: list columns whose items are not looked at; so are fixed-size lists and lists of half floats.
        sample: look at the list items of every so many rows; the same for all tables of a day.
    """
    names = [name for name in table.column_names if not only or name in only]
    return {name: _sketch(_one_array(table.column(name)), 0 if name in vectors else sample) for name in names}


def merge_sketches(parts: Iterable[Mapping[str, Sketch]]) -> Sketches:
    """The sketches of all parts' rows together; the parts stay as they are."""
    total: Sketches = {}
    for part in parts:
        for name, sketch in part.items():
            if name not in total:
                total[name] = Sketch()
            total[name].merge(sketch)
    return total


def _sketch(array: pa.Array, sample: int = 0) -> Sketch:
    """One array; `sample` 0 looks at no list items."""
    kind = array.type
    if isinstance(array, pa.DictionaryArray):
        return _sketch(array.dictionary_decode())
    sketch = Sketch(rows=len(array), nulls=array.null_count)
    if pa.types.is_null(kind) or array.null_count == len(array):
        return sketch
    if is_list(kind):
        _look_at_lists(sketch, array, sample)
        return sketch
    _look_at_values(sketch, array)
    return sketch


# ------------------------------------------------------------------ single values


def _look_at_values(sketch: Sketch, array: pa.Array) -> None:
    kind = array.type
    array = array.drop_null()
    if pa.types.is_floating(kind):
        numbers = array.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
        missing = np.isnan(numbers)
        sketch.nans = int(np.count_nonzero(missing))
        _look_at_numbers(sketch, numbers[~missing] if sketch.nans else numbers)
    elif pa.types.is_integer(kind):
        _look_at_numbers(sketch, array.to_numpy(zero_copy_only=False))
    elif pa.types.is_boolean(kind):
        true = array.true_count
        sketch.values = Counter({value: n for value, n in ((True, true), (False, len(array) - true)) if n})
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        _look_at_times(sketch, array)
    elif pa.types.is_decimal(kind):
        _look_at_numbers(sketch, array.cast(pa.float64()).to_numpy(zero_copy_only=False))
    elif is_text(kind):
        _look_at_texts(sketch, array)
    else:
        sketch.values = None


def _look_at_numbers(sketch: Sketch, numbers: np.ndarray) -> None:
    """Integers or doubles without NaN."""
    sketch.numeric = True
    if not len(numbers):
        return
    doubles = numbers.astype(np.float64, copy=False)
    sketch.low, sketch.high = numbers.min().item(), numbers.max().item()
    finite = np.isfinite(sketch.low) and np.isfinite(sketch.high)
    kept = doubles if finite else doubles[np.isfinite(doubles)]
    sketch.total, sketch.finite = float(kept.sum()), len(kept)
    if numbers.dtype.kind == "f":
        numbers = numbers + 0.0  # -0.0 is 0.0
    if _few(numbers):
        sketch.values = _counted(numbers, sketch.low, sketch.high)
        if sketch.values is not None:
            return
    sketch.values = None
    words = numbers.astype(np.int64) if numbers.dtype.kind == "i" else numbers
    _take_hashes(
        sketch,
        mixed(words.astype(np.uint64, copy=False) if words.dtype.kind == "u" else words.view(np.uint64)),
    )
    sketch.bins = np.bincount(bin_keys(doubles), minlength=BIN_COUNT)


def _look_at_times(sketch: Sketch, array: pa.Array) -> None:
    kind = array.type
    bounds = pc.min_max(array)
    sketch.low, sketch.high = _instant(bounds["min"]), _instant(bounds["max"])
    sketch.values = None
    if pa.types.is_timestamp(kind):
        ticks = array.view(pa.int64()).to_numpy(zero_copy_only=False)
        hours = ticks // (3_600 * TICKS_PER_SECOND[kind.unit])
        sketch.hours = np.bincount(hours % 24, minlength=24)
        days = hours // 24
    else:
        days = array.cast(pa.date32()).view(pa.int32()).to_numpy(zero_copy_only=False).astype(np.int64)
        ticks = days
    first = int(days.min())
    by_day = np.bincount(days - first) if int(days.max()) - first < 1_000_000 else None
    sketch.months = Counter() if by_day is None else _by_month(by_day, first)
    _take_hashes(sketch, mixed(ticks.view(np.uint64)))
    sketch.buckets = None


def _by_month(by_day: np.ndarray, first: int) -> Counter[str]:
    found: Counter[str] = Counter()
    for offset in np.flatnonzero(by_day):
        month = str(np.datetime64(int(first + offset), "D").astype("datetime64[M]"))
        found[month] += int(by_day[offset])
    return found


def _instant(value: pa.Scalar) -> str | None:
    """ISO text that sorts like the instants do."""
    if not value.is_valid:
        return None
    if pa.types.is_date(value.type):
        return str(value.as_py().isoformat())
    return str(np.datetime64(value.value, value.type.unit))


def _look_at_texts(sketch: Sketch, array: pa.Array) -> None:
    bounds = pc.min_max(array)
    sketch.low, sketch.high = bounds["min"].as_py()[:TEXT_LENGTH], bounds["max"].as_py()[:TEXT_LENGTH]
    counted = array.value_counts()
    texts, counts = counted.field("values"), counted.field("counts")
    if len(texts) <= MAX_VALUES and pc.max(pc.utf8_length(texts)).as_py() <= TEXT_LENGTH:
        sketch.values = Counter(dict(zip(texts.to_pylist(), counts.to_pylist(), strict=True)))
        return
    sketch.values = None
    digest = xxhash.xxh3_64_intdigest
    raw = texts.cast(pa.large_binary()).to_pylist()
    hashes = np.fromiter(map(digest, raw), dtype=np.uint64, count=len(raw))
    sketch.smallest = _smallest(hashes)
    sketch.buckets = _weighted(hashes >> np.uint64(58), counts.to_numpy(), BUCKETS)


def _take_hashes(sketch: Sketch, hashes: np.ndarray) -> None:
    sketch.smallest = _smallest(hashes)
    sketch.buckets = np.bincount((hashes >> np.uint64(58)).view(np.int64), minlength=BUCKETS)


def _smallest(hashes: np.ndarray) -> np.ndarray:
    """The smallest distinct hashes, ascending; sorting the low ones alone is usually enough."""
    share = 8 * _SMALLEST / max(len(hashes), 1)
    if share < 1:
        low = _unique(hashes[hashes < np.uint64(int(share * 2.0**64))])
        if len(low) >= _SMALLEST:
            return low[:_SMALLEST]
    return _unique(hashes)[:_SMALLEST]


def _unique(values: np.ndarray) -> np.ndarray:
    """Like `numpy.unique`, whose hash table is several times slower than sorting."""
    ordered = np.sort(values)
    kept = np.empty(len(ordered), dtype=bool)
    kept[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=kept[1:])
    unique: np.ndarray = ordered[kept]
    return unique


def _few(numbers: np.ndarray) -> bool:
    """Whether the first rows suggest that there are few different values."""
    step = max(1, len(numbers) // _PROBE)
    return len(_unique(numbers[::step])) <= MAX_VALUES


def _counted(numbers: np.ndarray, low: float, high: float) -> Counter[Any] | None:
    """How often each number occurs; None where there are too many different ones."""
    if numbers.dtype.kind in "iu" and high - low < len(numbers):
        by_value = np.bincount((numbers - numbers.dtype.type(low)).astype(np.int64, copy=False))
        found = np.flatnonzero(by_value)
        values, counts = [int(low) + place for place in found.tolist()], by_value[found].tolist()
    else:
        counted = pa.array(numbers).value_counts()
        values, counts = counted.field("values"), counted.field("counts").to_pylist()
        values = values.to_pylist() if len(values) <= MAX_VALUES else counts
    return Counter(dict(zip(values, counts, strict=True))) if len(values) <= MAX_VALUES else None


# ------------------------------------------------------------------ lists


def _look_at_lists(sketch: Sketch, array: pa.Array, sample: int) -> None:
    kind = array.type
    sketch.values = None
    there = array.drop_null()
    if pa.types.is_fixed_size_list(kind):
        sketch.lengths = Sketch(
            rows=len(there),
            low=kind.list_size,
            high=kind.list_size,
            total=float(kind.list_size * len(there)),
            finite=len(there),
            numeric=True,
            values=Counter({kind.list_size: len(there)}),
        )
        return
    sketch.lengths = _sketch(pc.list_value_length(there))
    items = there.flatten()
    if not sample or pa.types.is_float16(items.type) or is_list(items.type) or not len(items):
        return
    some = items
    if sample > 1:
        some = there.take(pa.array(np.arange(0, len(there), sample))).flatten()
    seen = _sketch(some)
    sketch.items = replace(seen, rows=len(items), nulls=items.null_count, sampled=sample)
    if seen.low is not None and (pa.types.is_integer(items.type) or pa.types.is_floating(items.type)):
        bounds = pc.min_max(items).as_py()
        sketch.items.low, sketch.items.high = bounds["min"], bounds["max"]


# ------------------------------------------------------------------ merging


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _extreme(choose: Any, one: Any, other: Any) -> Any:
    if one is None or other is None:
        return one if other is None else other
    return choose(one, other)


def _summed(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    if one is None or other is None:
        return one if other is None else other
    summed: np.ndarray = one + other
    return summed


def _either(one: Counter[str] | None, other: Counter[str] | None) -> Counter[str] | None:
    return one if other is None else (one or Counter()) + other


def _merged(one: Sketch | None, other: Sketch | None) -> Sketch | None:
    if one is None or other is None:
        return one if other is None else other
    both = replace(one)
    both.merge(other)
    return both


def _weighted(keys: np.ndarray, counts: np.ndarray, size: int) -> np.ndarray:
    summed = np.zeros(size, dtype=np.int64)
    np.add.at(summed, keys.astype(np.int64), counts)
    return summed


def _sparse(counts: np.ndarray | None) -> tuple[tuple[int, int], ...]:
    if counts is None:
        return ()
    return tuple((int(key), int(counts[key])) for key in np.flatnonzero(counts))


def _ints(counts: np.ndarray) -> tuple[int, ...]:
    return tuple(int(count) for count in counts)


def _most_first(values: Mapping[Any, int]) -> tuple[tuple[Value, int], ...]:
    pairs = sorted(values.items(), key=lambda pair: (-pair[1], str(pair[0])))
    named = ((shown(value), count) for value, count in pairs)  # JSON has no infinity
    return tuple((value, count) for value, count in named if value is not None)
