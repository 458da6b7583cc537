"""Positions: how far each spine row sees into the key's history, counted per value column.

Three steps. The source's rows are filtered once and numbered per key (`history`); of each (key, instant) the
last row stands for all, because an ASOF join picks any of equal times; each cut of the window is one ASOF
join of integers (`frames`). Everything else of the tier works on the positions found here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daedalus.compute.sql_tier.items import Method
from daedalus.compute.sql_tier.relations import ROW, TIME, Relation, Stage
from daedalus.sql.fragments import parse_fragment
from daedalus.sql.identifiers import qualified, quote_ident

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daedalus.compute.sql_tier.items import Cut, Item, Source

_SMALLEST = -(2**63)
_PLAIN_OFFSET = 2**62


def keys(source: Source, alias: str = "") -> str:
    """The key columns of a stage, as a select list."""
    dot = f"{alias}." if alias else ""
    return ", ".join(f"{dot}k{number}" for number in range(len(source.own_keys)))


def same_keys(source: Source, left: str, right: str) -> str:
    """The join condition on the keys of two stages."""
    return " AND ".join(f"{left}.k{number} = {right}.k{number}" for number in range(len(source.own_keys)))


def seen(item: Item, alias: str = "f") -> str:
    """How many of the key's rows lie before the end of the row's window."""
    return f"{alias}.{item.high.name}n{item.counter}"


def missed(item: Item, alias: str = "f") -> str:
    """How many of the key's rows lie before the start of the row's window."""
    return "0" if item.low is None else f"{alias}.{item.low.name}n{item.counter}"


def number_in_window(item: Item, alias: str = "f") -> str:
    """How many of the key's rows lie in the row's window; NULL where the key has no history."""
    return f"({seen(item, alias)} - {missed(item, alias)})"


def history_name(source: Source) -> str:
    """The stage of `history_stage`."""
    return f"{source.name}_history"


def frames_name(source: Source) -> str:
    """The stage of `frames_stage`."""
    return f"{source.name}_frames"


def history_stage(source: Source) -> Stage:
    """One row per history row that counts for any spec.

    Columns: keys, `t`, `v0..` values, `n0..` how many rows of the key have that value up to here, `s0..`
    exact running sums, `u0..` newest time with that value, `final` where the row is the last of its instant.
    """
    over = f"(PARTITION BY {keys(source)} ORDER BY t, r"
    running = f"{over} ROWS UNBOUNDED PRECEDING)"
    single = len(source.values) == 1
    columns = [keys(source), "t"]
    for number, value in enumerate(source.values):
        if value is not None:
            columns.append(f"v{number}")
        everything = single or value is None
        position = f"row_number() OVER {over})" if everything else f"count(v{number}) OVER {running}"
        columns.append(f"{position} AS n{number}")
        if _uses(source, number, Method.PREFIX):
            columns.append(f"coalesce(CAST(sum(v{number}) OVER {running} AS HUGEINT), 0) AS s{number}")
        if _uses(source, number, Method.TIME):
            latest = f"max(CASE WHEN v{number} IS NOT NULL THEN t END) OVER {running}"
            columns.append(f"{'t' if everything else latest} AS u{number}")
    columns.append(f"lead(t) OVER {over}) IS DISTINCT FROM t AS final")
    return Stage(
        name=history_name(source), sql=f"SELECT {', '.join(columns)}\nFROM (\n{_filtered(source)}\n) AS h"
    )


def _filtered(source: Source) -> str:
    hist = source.history
    columns = [f"{qualified('hist', key)} AS k{number}" for number, key in enumerate(source.their_keys)]
    columns += [f"hist.{TIME} AS t", f"hist.{ROW} AS r"]
    named = [(number, value) for number, value in enumerate(source.values) if value is not None]
    columns += [f"{qualified('hist', value)} AS v{number}" for number, value in named]
    tests = [f"{qualified('hist', key)} IS NOT NULL" for key in source.their_keys]
    tests.append(f"hist.{TIME} IS NOT NULL")
    if len(named) == len(source.values):
        tests.append("(" + " OR ".join(f"{qualified('hist', value)} IS NOT NULL" for _, value in named) + ")")
    if source.condition is not None:
        fragment = parse_fragment(
            source.condition, columns=hist.columns, where=source.items[0].spec.where, qualifier="hist"
        )
        tests.append(fragment.render("hist"))
    return f"SELECT {', '.join(columns)} FROM {hist.name} AS hist WHERE {' AND '.join(tests)}"


def frames_stage(source: Source, spine: Relation) -> Stage:
    """One row per spine row that any history can reach.

    Columns: `r` the spine row, keys, `t`, `x0..` own values to exclude, and per cut the history's `n`, `s`
    and `u` of the last row behind it, 0 where there is none (NULL for `u`).
    """
    nearest, *others = source.cuts
    own = [f"s.{ROW} AS r", *(f"s.{quote_ident(key)} AS k{i}" for i, key in enumerate(source.own_keys))]
    own.append(f"s.{TIME} AS t")
    excluded = sorted({(item.counter, item.spec.value_column) for item in source.items if item.excludes})
    own += [f"s.{quote_ident(value)} AS x{number}" for number, value in excluded if value is not None]
    own += [f"h.{kind} AS {nearest.name}{kind}" for kind in _carried(source, nearest)]
    on = " AND ".join(f"s.{quote_ident(key)} = h.k{number}" for number, key in enumerate(source.own_keys))
    used = dict.fromkeys(kind for cut in source.cuts for kind in _carried(source, cut))
    instants = f"(SELECT {keys(source)}, t, {', '.join(used)} FROM {history_name(source)} WHERE final)"
    sql = (
        f"SELECT {', '.join(own)}\nFROM {spine.name} AS s\n"
        f"ASOF JOIN {instants} AS h ON {on} AND {_border(nearest, f's.{TIME}')} h.t"
    )
    if not others:
        return Stage(name=frames_name(source), sql=sql)
    columns, joins = ["b.*"], []
    for number, cut in enumerate(others):
        alias = f"h{number}"
        columns += [
            f"coalesce({alias}.{kind}, 0) AS {cut.name}{kind}"
            if kind[0] != "u"
            else f"{alias}.{kind} AS {cut.name}{kind}"
            for kind in _carried(source, cut)
        ]
        joins.append(
            f"ASOF LEFT JOIN {instants} AS {alias} "
            f"ON {same_keys(source, 'b', alias)} AND {_border(cut, 'b.t')} {alias}.t"
        )
    return Stage(
        name=frames_name(source),
        sql="\n".join([f"SELECT {', '.join(columns)}\nFROM (\n{sql}\n) AS b", *joins]),
    )


def _border(cut: Cut, time: str) -> str:
    comparison = ">" if cut.strict else ">="
    if cut.offset == 0:
        return f"{time} {comparison}"
    if cut.offset < _PLAIN_OFFSET:
        # Saturating: a time near the end of 64 bits must not overflow.
        return f"greatest({time}, {_SMALLEST + cut.offset}) - {cut.offset} {comparison}"
    return f"CAST({time} AS HUGEINT) - {cut.offset} {comparison}"


def _uses(source: Source, counter: int, method: Method) -> bool:
    return any(item.counter == counter and item.method == method for item in source.items)


def _carried(source: Source, cut: Cut) -> Iterable[str]:
    found: dict[str, None] = {}
    for item in source.items:
        if cut not in {item.high, item.low}:
            continue
        found[f"n{item.counter}"] = None
        if item.method == Method.PREFIX:
            found[f"s{item.counter}"] = None
        if item.method == Method.TIME and cut == item.high:
            found[f"u{item.counter}"] = None
    return found
