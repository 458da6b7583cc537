"""exclude_self: the rows whose own value occurs in their window, and where their other values are.

Only spine rows whose value the key's history holds at all are looked at. With `i` occurrences of the value up
to position `q`, `q - i` other rows lie there: the `j`-th other row is at `j + max(i where q - i < j)`, one
ASOF join however often the value repeats. A list is the filtered slice of the row's chunk pair when that
holds enough other rows, and is put together from such positions when it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daedalus.catalog.aggregation import Operation
from daedalus.compute.sql_tier.frames import (
    frames_name,
    history_name,
    keys,
    missed,
    number_in_window,
    same_keys,
    seen,
)
from daedalus.compute.sql_tier.items import Method
from daedalus.compute.sql_tier.lists import slicing
from daedalus.compute.sql_tier.relations import Stage
from daedalus.compute.sql_tier.values import canonical

if TYPE_CHECKING:
    from daedalus.compute.sql_tier.items import Cut, Item, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """The specs of a source that leave out the same value and see equally far.

    Columns of its stage (`alias` in the select): `r`; per spec `m<index>` how many rows it keeps, `g<index>`
    how many of its window it leaves out, and `full<index>` (lists) or `p<index>` (single rows).
    """

    source: Source
    counter: int
    high: Cut
    items: tuple[Item, ...]

    @property
    def name(self) -> str:
        """The stage of the rows in which something is left out."""
        return f"{self.source.name}_v{self.counter}_{self.high.name}_self"

    @property
    def alias(self) -> str:
        """The alias of that stage in the final select."""
        return f"e{self.counter}_{self.high.name}"

    @property
    def sliced(self) -> tuple[Item, ...]:
        """The specs that read a list."""
        return tuple(item for item in self.items if item.method == Method.SLICE)

    def joins(self) -> list[str]:
        """The joins that bring the stage's rows to the frames."""
        found = [f"LEFT JOIN {self.name} AS {self.alias} ON {self.alias}.r = f.r"]
        if self.sliced:
            found.append(f"LEFT JOIN {self.name}_long AS x{self.alias} ON x{self.alias}.r = f.r")
        return found


def exclusions(source: Source) -> list[Exclusion]:
    """The source's exclusions, one per (value column, end of the window)."""
    groups: dict[tuple[int, Cut], list[Item]] = {}
    for item in source.items:
        if item.excludes:
            groups.setdefault((item.counter, item.high), []).append(item)
    return [
        Exclusion(source=source, counter=counter, high=high, items=tuple(items))
        for (counter, high), items in groups.items()
    ]


def exclusion_of(source: Source, item: Item) -> Exclusion:
    """The exclusion that the item belongs to."""
    return next(found for found in exclusions(source) if item in found.items)


def exclusion_stages(source: Source) -> list[Stage]:
    """All stages of the source's exclusions."""
    stages: dict[str, Stage] = {}
    for found in exclusions(source):
        for stage in (
            _values(found),
            _runs(found),
            _rows(found),
            *([_long(found)] if found.sliced else []),
        ):
            stages[stage.name] = stage
    return list(stages.values())


def _values(found: Exclusion) -> Stage:
    """Every occurrence of every value: position `q` in the key, number `i` in the key and value."""
    source, number = found.source, found.counter
    value = canonical(f"v{number}", found.items[0].dtype)
    return Stage(
        name=f"{source.name}_v{number}_values",
        sql=f"SELECT *, row_number() OVER (PARTITION BY {keys(source)}, x ORDER BY q) AS i\n"
        f"FROM (SELECT {keys(source)}, {value} AS x, n{number} AS q FROM {history_name(source)} "
        f"WHERE v{number} IS NOT NULL) AS h",
    )


def _runs(found: Exclusion) -> Stage:
    """Per run of a value the number of other rows before it, and of the value's own up to its end."""
    source, number = found.source, found.counter
    return Stage(
        name=f"{source.name}_v{number}_runs",
        sql=f"SELECT {keys(source)}, x, q - i AS others, max(i) AS i\n"
        f"FROM {source.name}_v{number}_values GROUP BY {keys(source)}, x, q - i",
    )


def _rows(found: Exclusion) -> Stage:
    """The rows in which something is left out."""
    source = found.source
    starts = list(dict.fromkeys(_starts(found)))
    values = f"{source.name}_v{found.counter}_values"
    own = canonical(f"f.x{found.counter}", found.items[0].dtype)
    probe = (
        f"SELECT f.* EXCLUDE (x{found.counter}), {own} AS x FROM {frames_name(source)} AS f "
        f"WHERE f.x{found.counter} IS NOT NULL"
    )
    positions = [f"{start} AS q{number}" for number, start in enumerate(starts)]
    located = (
        f"SELECT f.*, {', '.join([f'{seen(found.items[0])} AS q', *positions])}\n"
        f"FROM ({probe}) AS f SEMI JOIN {values} AS v ON {same_keys(source, 'f', 'v')} AND f.x = v.x"
    )
    columns, joins = ["f.*", "z.i AS i"], []
    joins.append(f"ASOF JOIN {values} AS z ON {same_keys(source, 'f', 'z')} AND f.x = z.x AND f.q >= z.q")
    for number in range(len(starts)):
        columns.append(f"coalesce(z{number}.i, 0) AS i{number}")
        joins.append(
            f"ASOF LEFT JOIN {values} AS z{number} ON {same_keys(source, 'f', f'z{number}')} "
            f"AND f.x = z{number}.x AND f.q{number} >= z{number}.q"
        )
    counted = "\n".join([f"SELECT {', '.join(columns)}", f"FROM (\n{located}\n) AS f", *joins])
    kept = [f"f.r, {keys(source, 'f')}, f.x, f.q - f.i AS others"]
    kept += [part for item in found.items for part in _kept(found, item, starts)]
    some = " OR ".join(f"g{item.index} > 0" for item in found.items)
    full = " AND ".join(["TRUE", *(f"o{item.index} >= m{item.index}" for item in found.sliced)])
    sql = f"SELECT {', '.join(kept)}\nFROM (\n{counted}\n) AS f"
    sql = f"SELECT *, {full} AS complete\nFROM (\n{sql}\n) AS f\nWHERE {some}"
    return Stage(name=found.name, sql=_with_points(found, sql))


def _starts(found: Exclusion) -> list[str]:
    """The positions from which occurrences are counted: starts of windows and of chunk pairs."""
    starts = {missed(item): None for item in found.items}
    bases = {
        slicing(found.source, item).base(item): None for item in found.items if item.method == Method.SLICE
    }
    return list(starts | bases)


def _kept(found: Exclusion, item: Item, starts: list[str]) -> list[str]:
    """How many rows of its window an item keeps and leaves out, and how many others the chunk pair holds."""
    index, limit = item.index, item.spec.max_items
    at = starts.index(missed(item))
    gone = f"(f.i - f.i{at})"
    kept = f"({number_in_window(item)} - {gone})"
    kept = kept if limit is None else f"least({kept}, {limit})"
    columns = [f"{gone} AS g{index}", f"{kept} AS m{index}"]
    if item.method == Method.SLICE:
        base = starts.index(slicing(found.source, item).base(item))
        others = f"f.q - greatest(f.q{at}, f.q{base}) - f.i + greatest(f.i{at}, f.i{base})"
        columns.append(f"{others} AS o{index}")
    return columns


def _with_points(found: Exclusion, sql: str) -> str:
    """The rows, with the position of each single row that a spec asks for."""
    points = [item for item in found.items if item.method == Method.POINT]
    if not points:
        return sql
    source = found.source
    columns, joins = ["e.*"], []
    for item in points:
        alias = f"r{item.index}"
        newest = item.spec.operation != Operation.FIRST
        rank = "e.others" if newest else f"e.others - e.m{item.index} + 1"
        columns.append(
            f"CASE WHEN e.m{item.index} > 0 THEN {rank} + coalesce({alias}.i, 0) END AS p{item.index}"
        )
        joins.append(
            f"ASOF LEFT JOIN {source.name}_v{found.counter}_runs AS {alias} "
            f"ON {same_keys(source, 'e', alias)} AND e.x = {alias}.x AND {rank} > {alias}.others"
        )
    return "\n".join([f"SELECT {', '.join(columns)}", f"FROM (\n{sql}\n) AS e", *joins])


def _long(found: Exclusion) -> Stage:
    """The lists whose chunk pair is too full of the value, put together from positions."""
    source, number = found.source, found.counter
    most = ", ".join(f"m{item.index}" for item in found.sliced)
    need = f"greatest({most})" if len(found.sliced) > 1 else most
    ranks = (
        f"SELECT r, {keys(source)}, x, unnest(range(others - need + 1, others + 1)) AS j\n"
        f"FROM (SELECT *, {need} AS need FROM {found.name} WHERE NOT complete) AS e"
    )
    positions = (
        f"SELECT e.r, {keys(source, 'e')}, e.j, e.j + coalesce(v.i, 0) AS q\nFROM (\n{ranks}\n) AS e\n"
        f"ASOF LEFT JOIN {source.name}_v{number}_runs AS v ON {same_keys(source, 'e', 'v')} "
        "AND e.x = v.x AND e.j > v.others"
    )
    sql = (
        f"SELECT e.r, list_transform(list_sort(list({{'j': e.j, 'v': h.v{number}}})), lambda item: item.v) "
        f"AS l\n"
        f"FROM (\n{positions}\n) AS e JOIN {history_name(source)} AS h ON {same_keys(source, 'e', 'h')} "
        f"AND h.n{number} = e.q AND h.v{number} IS NOT NULL\nGROUP BY e.r"
    )
    return Stage(name=f"{found.name}_long", sql=sql, shared=False)


def remaining_lists(source: Source) -> dict[str, str]:
    """Named lists of the values that are left where something is left out, NULL elsewhere; newest last.

    They end with what the window keeps; what lies before it stays, and is cut by `remaining_list`.
    """
    found: dict[str, str] = {}
    for exclusion in exclusions(source):
        for item in exclusion.sliced:
            alias = exclusion.alias
            pair = slicing(source, item).values(item, slicing(source, item).base(item))
            filtered = f"list_filter({pair}, lambda item: item IS DISTINCT FROM f.x{item.counter})"
            found[_remaining_name(source, item)] = (
                f"CASE WHEN {alias}.complete THEN {filtered} WHEN {alias}.r IS NOT NULL THEN x{alias}.l END"
            )
    return found


def remaining_list(source: Source, item: Item, plain: str, kept: str) -> str:
    """The item's values without the row's own, from the columns `plain` and `kept` (NULL: none left out)."""
    # -0 would count from the start, so an empty tail has a branch of its own.
    return (
        f"CASE WHEN {kept} IS NULL THEN {plain} WHEN {kept} = 0 THEN [] "
        f"ELSE list_slice({_remaining_name(source, item)}, -{kept}, -1) END"
    )


def _remaining_name(source: Source, item: Item) -> str:
    return f"{source.name}_{slicing(source, item).alias}"
