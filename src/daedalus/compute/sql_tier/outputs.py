"""What each spec selects, in steps: raw columns over the joined stages, then values over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daedalus.catalog.aggregation import Operation
from daedalus.compute.sql_tier.exclusion import exclusion_of, exclusions, remaining_list, remaining_lists
from daedalus.compute.sql_tier.frames import frames_name, history_name, keys, same_keys, seen
from daedalus.compute.sql_tier.items import Method
from daedalus.compute.sql_tier.lists import plain_list, slicing, wanted
from daedalus.compute.sql_tier.relations import ROW
from daedalus.compute.sql_tier.values import checked_sum, distinct_in_list
from daedalus.compute.sql_tier.windows import window_alias, window_name

if TYPE_CHECKING:
    from daedalus.compute.sql_tier.items import Item, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A spec's value.

    Attributes:
        raw: (name, expression) columns over the joined stages.
        cut: (name, expression) columns over the raw ones, for what would be computed twice in `value`.
        value: the result over raw and cut columns.
    """

    raw: tuple[tuple[str, str], ...]
    value: str
    cut: tuple[tuple[str, str], ...] = ()


def joins(source: Source) -> list[str]:
    """The joins that bring everything the source's specs need to the spine row `s`, in order."""
    found = [f"LEFT JOIN {frames_name(source)} AS f ON f.r = s.{ROW}"]
    for exclusion in exclusions(source):
        found += exclusion.joins()
    for item in source.items:
        if item.method == Method.SLICE:
            found.append(slicing(source, item).join(source, item))
        elif item.method == Method.POINT:
            found.append(_point_join(source, item))
        elif item.method == Method.WINDOW:
            alias = window_alias(item)
            found.append(f"LEFT JOIN {window_name(source, item)} AS {alias} ON {alias}.r = f.r")
    return list(dict.fromkeys(found))


def shared_columns(source: Source) -> list[tuple[str, str]]:
    """(name, expression) raw columns that several of the source's specs read."""
    return list(remaining_lists(source).items())


def output(source: Source, item: Item, ticks_per_second: int) -> Output:
    """The item's raw columns and its value over them."""
    name = f"q{item.index}"
    if item.method == Method.COUNT:
        return Output(raw=((name, _kept(source, item)),), value=f"coalesce({name}, 0)")
    if item.method == Method.SLICE:
        return _sliced(source, item)
    count = (f"m{item.index}", _kept(source, item))
    if item.method == Method.TIME:
        times = f"f.t - f.{item.high.name}u{item.counter}"
        value = f"CAST({name} AS DOUBLE) / CAST({ticks_per_second} AS DOUBLE)"
        return Output(raw=(count, (name, times)), value=f"CASE WHEN {count[0]} > 0 THEN {value} END")
    if item.method == Method.POINT:
        return _point(source, item, count, ticks_per_second)
    if item.method == Method.PREFIX:
        return _prefix(source, item, count)
    return _window(source, item, count)


def _kept(source: Source, item: Item) -> str:
    """How many rows the spec keeps; NULL where the key has no history."""
    if not item.excludes:
        return wanted(item)
    alias = exclusion_of(source, item).alias
    return f"CASE WHEN {alias}.g{item.index} > 0 THEN {alias}.m{item.index} ELSE {wanted(item)} END"


def _sliced(source: Source, item: Item) -> Output:
    name = f"q{item.index}"
    if not item.excludes:
        return Output(raw=((name, plain_list(source, item)),), value=_folded(name, item))
    plain, kept = f"p{item.index}", f"m{item.index}"
    alias = exclusion_of(source, item).alias
    raw = (
        (plain, f"CASE WHEN {alias}.r IS NULL THEN {plain_list(source, item)} END"),
        (kept, f"{alias}.{kept}"),
    )
    cut = (name, remaining_list(source, item, plain, kept))
    return Output(raw=raw, cut=(cut,), value=_folded(name, item))


def _folded(name: str, item: Item) -> str:
    operation = item.spec.operation
    if operation == Operation.LIST:
        return f"coalesce({name}, [])"
    if operation == Operation.COUNT_DISTINCT:
        return f"CAST(coalesce({distinct_in_list(name, item.dtype)}, 0) AS BIGINT)"
    if operation == Operation.SUM and not item.is_float:
        return checked_sum(f"list_sum({name})", item.spec)
    if operation in {Operation.SUM, Operation.MEAN}:
        total = f"list_sum(CAST({name} AS DOUBLE[]))" if item.is_float else f"list_sum({name})"
        total = f"CASE WHEN len({name}) > 0 THEN {total} END"
        return total if operation == Operation.SUM else f"CAST({total} AS DOUBLE) / len({name})"
    return f"list_{operation}({name})"


def _position(source: Source, item: Item) -> str:
    """The position of the one row that `first`, `last` or `seconds_since_last` reads."""
    first = item.spec.operation == Operation.FIRST
    plain = f"{seen(item)} - ({wanted(item)}) + 1" if first else seen(item)
    if not item.excludes:
        return plain
    alias = exclusion_of(source, item).alias
    return f"CASE WHEN {alias}.g{item.index} > 0 THEN {alias}.p{item.index} ELSE {plain} END"


def _point_alias(source: Source, item: Item) -> str:
    """Specs that read the same position share one join, under the first one's index."""
    same = _position(source, item)
    twins = (
        other.index
        for other in source.items
        if other.method == Method.POINT and other.counter == item.counter and _position(source, other) == same
    )
    return f"p{next(twins)}"


def _point_join(source: Source, item: Item) -> str:
    alias, number = _point_alias(source, item), item.counter
    rows = f"(SELECT {keys(source)}, n{number} AS n, t, v{number} AS v FROM {history_name(source)} "
    rows += f"WHERE v{number} IS NOT NULL)"
    return (
        f"LEFT JOIN {rows} AS {alias} ON {same_keys(source, alias, 'f')} "
        f"AND {alias}.n = {_position(source, item)}"
    )


def _point(source: Source, item: Item, count: tuple[str, str], ticks_per_second: int) -> Output:
    name, alias = f"q{item.index}", _point_alias(source, item)
    if item.spec.operation == Operation.SECONDS_SINCE_LAST:
        value = f"CAST({name} AS DOUBLE) / CAST({ticks_per_second} AS DOUBLE)"
        raw = (name, f"f.t - {alias}.t")
    else:
        value, raw = name, (name, f"{alias}.v")
    return Output(raw=(count, raw), value=f"CASE WHEN {count[0]} > 0 THEN {value} END")


def _prefix(source: Source, item: Item, count: tuple[str, str]) -> Output:
    name = f"q{item.index}"
    total = f"f.{item.high.name}s{item.counter}"
    if item.low is not None:
        total += f" - f.{item.low.name}s{item.counter}"
    if item.excludes:
        gone = f"CAST(coalesce({exclusion_of(source, item).alias}.g{item.index}, 0) AS HUGEINT)"
        total += f" - {gone} * coalesce(f.x{item.counter}, 0)"
    mean = item.spec.operation == Operation.MEAN
    value = f"CAST({name} AS DOUBLE) / {count[0]}" if mean else checked_sum(name, item.spec)
    return Output(raw=(count, (name, total)), value=f"CASE WHEN {count[0]} > 0 THEN {value} END")


def _window(source: Source, item: Item, count: tuple[str, str]) -> Output:
    name, alias, operation = f"q{item.index}", window_alias(item), item.spec.operation
    raw = (name, f"{alias}.a{item.index}")
    if operation == Operation.COUNT_DISTINCT:
        if not item.excludes:
            return Output(raw=(raw,), value=f"coalesce({name}, 0)")
        own = f"CAST(coalesce({exclusion_of(source, item).alias}.g{item.index}, 0) > 0 AS BIGINT)"
        return Output(raw=((name, f"{raw[1]} - {own}"),), value=f"coalesce({name}, 0)")
    if operation == Operation.SUM:
        return Output(raw=(raw,), value=name if item.is_float else checked_sum(name, item.spec))
    if operation == Operation.MEAN:
        return Output(raw=(count, raw), value=f"CAST({name} AS DOUBLE) / {count[0]}")
    if not item.is_float:
        return Output(raw=(raw,), value=name)
    zero = f"z{item.index}"
    sign = f"CASE WHEN {zero} % 2 = 1 THEN CAST('-0.0' AS {item.dtype}) ELSE CAST('0.0' AS {item.dtype}) END"
    value = f"CASE WHEN {name} = 0 THEN {sign} ELSE {name} END"
    return Output(raw=(raw, (zero, f"{alias}.z{item.index}")), value=value)
