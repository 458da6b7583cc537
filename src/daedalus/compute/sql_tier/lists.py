"""Short lists cut out of chunks, so that nothing holds a list per history row.

A key's values are cut into chunks of `C` by position. A row that wants the newest `m <= C` values up to
position `p` finds them in two neighbouring chunks, stored as one pair: a hash join and a slice. `C` is fixed
for short lists; for long and uncapped ones there are levels of chunks, `C` a power of two, and a row takes
the level that fits its own `m`, so it never reads more than about four times what it returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daedalus.compute.sql_tier.frames import (
    history_name,
    keys,
    number_in_window,
    same_keys,
    seen,
)
from daedalus.compute.sql_tier.items import Method
from daedalus.compute.sql_tier.relations import Stage

if TYPE_CHECKING:
    from daedalus.compute.sql_tier.items import Item, Source

_SMALLEST_CHUNK = 8
_LARGEST_FIXED_CHUNK = 64
_FIRST_LEVEL = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Slicing:
    """Where a spec's list is found.

    Attributes:
        alias: of the joined chunk pairs.
        table: the stage they are in.
        size: `C` for a spine row, an expression over its frames.
        level: the level for a spine row; None for chunks of one size.
    """

    alias: str
    table: str
    size: str
    level: str | None

    def number(self, item: Item) -> str:
        """The chunk that holds the row's newest position."""
        return f"(({seen(item)} - 1) // {self.size})"

    def base(self, item: Item) -> str:
        """How many of the key's values lie before the pair."""
        return f"(greatest({self.number(item)} - 1, 0) * {self.size})"

    def values(self, item: Item, start: str) -> str:
        """The values after position `start` up to the row's newest; `start` must not be before the base."""
        base = self.base(item)
        return f"list_slice({self.alias}.l, {start} - {base} + 1, {seen(item)} - {base})"

    def join(self, source: Source, item: Item) -> str:
        """The join that finds the pair."""
        on = f"{same_keys(source, self.alias, 'f')} AND {self.alias}.c = {self.number(item)}"
        if self.level is not None:
            on += f" AND {self.alias}.level = {self.level}"
        return f"LEFT JOIN {self.table} AS {self.alias} ON {on}"


def wanted(item: Item) -> str:
    """How many rows the spec keeps of its window, nothing excluded."""
    number, limit = number_in_window(item), item.spec.max_items
    # Not least(): it would take the limit where there is no history.
    return number if limit is None else f"CASE WHEN {number} > {limit} THEN {limit} ELSE {number} END"


def slicing(source: Source, item: Item) -> Slicing:
    """Where the item's list is found."""
    stem = f"{source.name}_v{item.counter}"
    limit = item.spec.max_items
    if limit is not None and limit <= _LARGEST_FIXED_CHUNK:
        size = max(_SMALLEST_CHUNK, 1 << (limit - 1).bit_length())
        return Slicing(
            alias=f"l{item.counter}_{size}_{item.high.name}",
            table=f"{stem}_by{size}",
            size=str(size),
            level=None,
        )
    level = _level(f"({wanted(item)})")
    window = "all" if item.low is None else item.low.name
    return Slicing(
        alias=f"l{item.counter}_{limit or 'all'}_{item.high.name}_{window}",
        table=f"{stem}_levels",
        size=f"(1 << {level})",
        level=level,
    )


def _level(number: str) -> str:
    """The level whose chunks hold `number` values."""
    return f"CAST(ceil(log2(greatest({number}, {1 << _FIRST_LEVEL}))) AS BIGINT)"


def list_stages(source: Source) -> list[Stage]:
    """The chunk pairs that the source's specs need."""
    stages: dict[str, list[Stage]] = {}
    for item in source.items:
        if item.method == Method.SLICE:
            found = slicing(source, item)
            stages[found.table] = _pairs(source, item.counter, found)
    return [stage for members in stages.values() for stage in members]


def _pairs(source: Source, counter: int, found: Slicing) -> list[Stage]:
    rows = f"(SELECT {keys(source)}, n{counter} AS n, v{counter} AS v FROM {history_name(source)} "
    rows += f"WHERE v{counter} IS NOT NULL)"
    level = ""
    if found.level is None:
        numbered = f"SELECT {keys(source)}, n, v, (n - 1) // {found.size} AS c FROM {rows} AS h"
    else:
        level = "level, "
        top = _level(f"count(*) OVER (PARTITION BY {keys(source)})")
        topped = f"SELECT *, {top} AS top FROM {rows} AS h"
        numbered = (
            "SELECT *, (n - 1) >> level AS c FROM "
            f"(SELECT *, unnest(range({_FIRST_LEVEL}, top + 1)) AS level FROM ({topped}) AS h) AS h"
        )
    # Sorting structs costs half of what an ordered aggregate does; n is unique, so v is never compared.
    chunks = (
        f"SELECT {keys(source)}, {level}c, list_transform(list_sort(list({{'n': n, 'v': v}})), "
        f"lambda item: item.v) AS l\nFROM ({numbered}) AS numbered\nGROUP BY {keys(source)}, {level}c"
    )
    name = f"{found.table}_chunks"
    same_level = " AND a.level = b.level" if level else ""
    pairs = (
        f"SELECT {keys(source, 'a')}, {'a.level, ' if level else ''}a.c, list_concat(b.l, a.l) AS l\n"
        f"FROM {name} AS a LEFT JOIN {name} AS b "
        f"ON {same_keys(source, 'a', 'b')}{same_level} AND b.c = a.c - 1"
    )
    return [Stage(name=name, sql=chunks), Stage(name=found.table, sql=pairs, shared=False)]


def plain_list(source: Source, item: Item) -> str:
    """The item's values, nothing excluded; NULL where the key has no history."""
    return slicing(source, item).values(item, f"({seen(item)} - ({wanted(item)}))")
